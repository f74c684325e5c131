"""The smallest network of every combination that the configuration allows."""
from __future__ import annotations

import itertools
from typing import Any

from tests.tiny import model_config

PIXEL_DECODERS = ('ppm-fpn', 'msdeformattn')
DECODERS = ('dual', 'query', 'masked-attention')
QUERIES = ('activation-guided', 'static')
ALL = tuple(itertools.product(PIXEL_DECODERS, DECODERS, QUERIES, (True, False)))


def variant_config(pixel_decoder: str, decoder: str, queries: str, guidance: bool) -> dict[str, Any]:
    """The ``model`` section of a variant; the decoders 'dual' and 'query' are the paths of the dual-path decoder."""
    config = model_config()
    config['backbone']['out_features'] = ['res2', 'res3', 'res4', 'res5']
    if pixel_decoder == 'msdeformattn':
        config['encoder'] = {'type': 'msdeformattn', 'in_features': ['res2', 'res3', 'res4', 'res5'], 'convs_dim': 32,
                             'mask_dim': 16, 'nheads': 2, 'enc_layers': 1, 'dim_feedforward': 32, 'num_points': 2}
    if decoder == 'masked-attention':
        del config['decoder']['num_aux_queries']
        config['decoder'] |= {'type': 'masked-attention', 'dec_layers': 4}
    else:
        config['decoder']['path'] = decoder
    config['decoder'] |= {'queries': queries, 'guidance': guidance}
    return config
