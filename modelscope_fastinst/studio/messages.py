"""What a visitor is told when something cannot be done: a stable code and a few values, in no language.

The pages turn codes into sentences (``texts``). Nothing else of an error reaches a visitor: what was not foreseen is
logged on the server with an id, and the visitor sees the id.
"""
from __future__ import annotations

import errno
import functools
import logging
import secrets
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

logger = logging.getLogger(__name__)

# Every code and the names of its values.
CODES: dict[str, tuple[str, ...]] = {
    # uploads
    'nothing_uploaded': (),
    'file_too_large': ('bytes', 'limit'),
    'file_empty': (),
    'not_a_picture': (),
    'picture_damaged': (),
    'too_many_pixels': ('width', 'height', 'limit'),
    'side_too_long': ('width', 'height', 'limit'),
    'not_a_video': (),
    'video_damaged': (),
    'video_too_long': ('seconds', 'limit'),
    'video_too_many_frames': ('frames', 'limit'),
    'video_frame_too_large': ('width', 'height', 'limit'),
    'video_unavailable': (),            # the packages of the extra `video` are not installed
    'video_took_too_long': ('minutes',),
    # models
    'model_not_allowed': ('name',),     # this studio offers certain models only
    'model_unknown': ('name',),         # neither a model folder nor a hub id
    'model_failed': ('name', 'reason'),
    # options
    'option_invalid': ('option', 'value', 'least', 'most'),
    'class_unknown': ('name',),
    'task_unknown': ('task',),
    'tile_unavailable': (),             # this task or this model's results cannot be put together from tiles
    'too_many_tiles': ('tiles', 'limit'),
    # the server
    'busy': ('waiting',),
    'timeout': ('seconds',),
    'expired': (),                      # the result was removed; the picture has to be uploaded again
    'stopped': (),                      # the visitor stopped it, or the studio is closing
    'out_of_memory': (),
    'disk_full': (),
    'internal': ('id',),
}

P = ParamSpec('P')
R = TypeVar('R')


class Refused(Exception):
    """Something that the studio does not do, for a reason that the visitor may know.

    Attributes:
        code: one of ``CODES``.
        values: numbers and texts for the sentence. A text may come from the visitor: plain text, to be escaped where it
            is shown.
    """

    def __init__(self, code: str, **values: Any) -> None:
        if set(values) != set(CODES[code]):
            raise TypeError(f'{code} has the values {CODES[code]}; got {tuple(values)}')
        self.code, self.values = code, values
        super().__init__(f'{code}: ' + ', '.join(f'{name}={value!r}' for name, value in values.items()))


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """The function, raising nothing but `Refused`: what was not foreseen becomes 'internal', and is logged."""
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise as_refusal(error, function.__name__) from None
    return call


def as_refusal(error: Exception, doing: str = '') -> Refused:
    """What a visitor is told of an error; one that was not foreseen is logged with its trace, under the same id."""
    if isinstance(error, Refused):
        return error
    if _is_out_of_memory(error):
        logger.error('%s: out of memory', doing, exc_info=error)
        return Refused('out_of_memory')
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, 'EDQUOT', errno.ENOSPC)):
        logger.error('%s: %s', doing, error)
        return Refused('disk_full')
    number = secrets.token_hex(4)
    logger.error('%s: error %s', doing, number, exc_info=error)
    return Refused('internal', id=number)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    # PyTorch's CPU allocator has no exception of its own.
    return isinstance(error, RuntimeError) and ('out of memory' in str(error) or "can't allocate memory" in str(error))
