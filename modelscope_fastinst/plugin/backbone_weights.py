"""From what ``train.backbone_weights`` says to a file of ImageNet weights, fetched and checked where it must be.

Downloads go into the folder in which torch.hub, torchvision and timm keep theirs, so what is there already is used.
"""
from __future__ import annotations

import os
import re
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from modelscope_fastinst.checksum import file_sha256

from .trainer_keys import ConfigurationError

_TORCHVISION_NAME = re.compile(r'\w+_Weights\.\w+')
_HASH = re.compile(r'-([0-9a-f]{8,64})\.\w+$')
_THIS_MACHINE = ('localhost', '127.0.0.1', '::1')
_FORMS = ('a file; a name of torchvision\'s, such as "ResNet50_Weights.IMAGENET1K_V1"; an https URL whose file name '
          'ends in "-" and the first digits of its SHA-256, such as "resnet50d_ra2-464e36ba.pth"; or "none"')


class BackboneError(OSError):
    """Backbone weights cannot be fetched: one line that says which file, from where, and how to name it."""


def backbone_file(source: str | os.PathLike) -> Path:
    """The file that holds the weights.

    Args:
        source: a file; a weight name of torchvision (``'ResNet50_Weights.IMAGENET1K_V1'``); or an https URL whose file
            name carries the beginning of its SHA-256 (``.../resnet50d_ra2-464e36ba.pth``).

    Raises:
        ConfigurationError: no such file, name or form of URL.
        BackboneError: the file cannot be fetched, or is not the one that its name says.
    """
    source = os.fspath(source)
    if '://' in source:
        return _fetched(source, source)
    if os.path.isfile(source):
        return Path(source)
    if _TORCHVISION_NAME.fullmatch(source):
        return _fetched(_torchvision_url(source), source)
    raise ConfigurationError(f'train.backbone_weights {source!r}: no such file; known are {_FORMS}')


def _torchvision_url(name: str) -> str:
    from torchvision.models import get_weight
    try:
        return get_weight(name).url
    except (AttributeError, KeyError, ValueError) as error:
        raise ConfigurationError(f'train.backbone_weights {name!r}: torchvision has no such weights; its names are '
                                 'like "ResNet50_Weights.IMAGENET1K_V1"') from error


def _fetched(url: str, source: str) -> Path:
    parts = urlsplit(url)
    file_name = os.path.basename(parts.path)
    match = _HASH.search(file_name)
    if parts.scheme != 'https' and not (parts.scheme == 'http' and parts.hostname in _THIS_MACHINE):
        raise ConfigurationError(f'train.backbone_weights {url!r}: must begin with https://; known are {_FORMS}')
    if match is None:
        raise ConfigurationError(f'train.backbone_weights {url!r}: the file name says nothing of its SHA-256, so what '
                                 f'arrives cannot be checked; fetch the file and name it. Known are {_FORMS}')
    import torch
    file = Path(torch.hub.get_dir(), 'checkpoints', file_name)
    mend = (f'fetch {url} where there is a network, and copy it to {file} or name it: "--backbone FILE" or '
            'train.backbone_weights; "none" starts from random weights')
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=match[1], progress=sys.stderr.isatty())
        except (OSError, HTTPException, RuntimeError) as error:   # RuntimeError: another hash
            reason = ' '.join(str(getattr(error, 'reason', error)).split())
            raise BackboneError(f'backbone weights {source}: cannot be fetched ({reason}); {mend}') from error
    elif not file_sha256(file).startswith(match[1]):
        raise BackboneError(f'backbone weights {source}: {file} is damaged, its SHA-256 does not begin with '
                            f'{match[1]}; delete it to have it fetched again')
    return file
