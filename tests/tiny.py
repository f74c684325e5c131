"""The smallest networks that the tests build."""
from __future__ import annotations

import copy
from typing import Any

CONFIG = {
    'type': 'fastinst',
    'classes': ['ant', 'bee', 'cat'],
    'backbone': {'depth': 18, 'norm': 'FrozenBN', 'stem_out_channels': 8, 'res2_out_channels': 8},
    'encoder': {'in_features': ['res3', 'res4', 'res5'], 'convs_dim': 32, 'mask_dim': 16, 'norm': 'GN'},
    'decoder': {'num_classes': 3, 'hidden_dim': 32, 'num_queries': 9, 'num_aux_queries': 2, 'nheads': 2,
                'dim_feedforward': 32, 'dec_layers': 2, 'mask_dim': 16},
    'criterion': {'num_points': 64},
}


def model_config(**changes: Any) -> dict[str, Any]:
    """``CONFIG`` with changed keys, e.g. ``model_config(decoder={'num_queries': 4})`` changes only that one."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    return config
