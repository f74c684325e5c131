"""What the ``preprocessor_config.json`` of a Mask2Former of Hugging Face's does to images, as our preprocessor says it.

Both of its forms are read: ``size`` as a number beside ``max_size``, as versions before 4.25 of ``transformers`` wrote,
and as a mapping. Images are scaled to [0, 1] and normalised there; here the network normalises grey levels of 0 to 255,
with the same result for ImageNet's mean and deviation.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelscope_fastinst.models.network import PIXEL_MEAN, PIXEL_STD

from .huggingface_network import HuggingFaceError

MIN_SIZE, MAX_SIZE, DIVISOR = 800, 1333, 32
_BILINEAR = 2
# What the published files have for 0.485 is what is next to it in 32 bits.
_TOLERANCE = 1e-4


def preprocessor_section(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The section ``preprocessor`` of a configuration.

    Args:
        content: of ``preprocessor_config.json``; what it lacks is as in ``transformers``.
        where: the file, for errors.

    Raises:
        HuggingFaceError: images are to be changed in a way that is not known here; names the setting.
    """
    for name in ('do_resize', 'do_rescale', 'do_normalize'):
        if content.get(name, True) is not True:
            raise HuggingFaceError(f'{where}: {name} is {content[name]!r}; images are resized, scaled and normalised '
                                   'here, so it must be true')
    if content.get('resample', _BILINEAR) != _BILINEAR:
        raise HuggingFaceError(f'{where}: resample is {content["resample"]!r}; images are resized bilinearly here (2)')
    factor = content.get('rescale_factor', 1 / 255)
    if not _close(factor, 1 / 255, 1e-6):
        raise HuggingFaceError(f'{where}: rescale_factor is {factor!r}; the network is for 1/255')
    for name, own in (('image_mean', PIXEL_MEAN), ('image_std', PIXEL_STD)):
        own = [value / 255 for value in own]
        found = content.get(name) or own
        if not isinstance(found, Sequence) or len(found) != 3 or not all(map(_close, found, own)):
            shown = ', '.join(f'{value:.3f}' for value in own)
            raise HuggingFaceError(f'{where}: {name} is {found!r}; the network is for ImageNet\'s, [{shown}]')
    return {'type': 'fastinst-preprocessor', **_size(content, where)}


def _size(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    divisor = content.get('size_divisor', content.get('size_divisibility', DIVISOR)) or 1
    limit = content.get('max_size', content.get('_max_size'))
    size = content.get('size')
    if size is None:
        size = {'shortest_edge': MIN_SIZE, 'longest_edge': limit or MAX_SIZE}
    elif not isinstance(size, Mapping):
        size = {'shortest_edge': size, 'longest_edge': limit or MAX_SIZE}
    if size.get('height') and size.get('width'):
        return {'size': [size['height'], size['width']], 'multiple_of': divisor}
    if not isinstance(size.get('shortest_edge'), int):
        raise HuggingFaceError(f'{where}: size is {dict(size)}; known are a number, shortest_edge with longest_edge, '
                               'and height with width')
    return {'min_size': size['shortest_edge'], 'max_size': size.get('longest_edge') or limit or MAX_SIZE,
            'multiple_of': divisor}


def _close(found: Any, own: float, tolerance: float = _TOLERANCE) -> bool:
    return isinstance(found, (int, float)) and abs(found - own) < tolerance
