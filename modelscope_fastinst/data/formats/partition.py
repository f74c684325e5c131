"""Training and validation where the user has not told them apart."""
from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from modelscope_fastinst.checksum import file_sha256

_FOLDER = re.compile(r'(?:.*[^a-z])?(train|training|val|valid|validation|dev|test|testing)(?:20\d\d)?'
                     r'(?:[-_ ]?(?:set|data|images|imgs))?')
_SPLIT_OF = {'training': 'train', 'valid': 'val', 'validation': 'val', 'dev': 'val', 'testing': 'test'}


def split_of_name(name: str) -> str | None:
    """``train``, ``val`` or ``test`` for such a folder's or file's name (``valid``, ``val2017``, ``stage1_train``)."""
    found = _FOLDER.fullmatch(name.lower())
    return None if found is None else _SPLIT_OF.get(found[1], found[1])


def split_of_path(relative: str) -> str | None:
    """The split that the outermost such folder of a relative path (with /) names; the last part is the file."""
    found = (split_of_name(part) for part in relative.split('/')[:-1])
    return next((split for split in found if split is not None), None)


def partition(names: Sequence[str], fraction: float, seed: int, size_of: Callable[[int], int | None],
              digest_of: Callable[[int], str]) -> set[int]:
    """Chooses images for validation: always the same for a seed, wherever the folder lies and whatever is in it first.

    Images are ordered by the SHA-256 of ``seed:name``, and the first of them taken, so that an image added later moves
    few others. Images of identical content stay together; only those of equal size are read for it.

    Args:
        names: of the N images, relative to their folder, with /.
        fraction: share of the images, 0 < fraction < 1; at least one image is on either side.
        size_of: bytes of image i's file, None if it cannot be told.
        digest_of: checksum of its content.

    Returns:
        Indices of the validation images; empty where all images are one and the same.

    Raises:
        ValueError: a fraction that is none.
    """
    check_fraction(fraction)
    keys = [hashlib.sha256(f'{seed}:{name}'.encode('utf-8', 'surrogatepass')).hexdigest() for name in names]
    groups = sorted(_identical(len(names), size_of, digest_of), key=lambda group: min(keys[one] for one in group))
    if len(groups) < 2:
        return set()
    wanted = min(max(1, round(fraction * len(names))), len(names) - 1)
    chosen: set[int] = set()
    for group in groups:
        if len(chosen) + len(group) <= wanted:
            chosen.update(group)
    return chosen or set(min(groups, key=len))


def check_fraction(fraction: float) -> None:
    """Raises a ValueError for a share that leaves one of the sides empty."""
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ValueError(f'val_fraction is {fraction!r}; it must be a number between 0 and 1, such as 0.2')


def file_size(path: str) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def file_digest(path: str) -> str:
    """SHA-256 of a file, remembered until it changes: training and validation data ask one after the other."""
    state = os.stat(path)
    return _digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _digest(path: str, size: int, changed: int) -> str:
    return file_sha256(path)


def _identical(count: int, size_of: Callable[[int], int | None], digest_of: Callable[[int], str]) -> list[list[int]]:
    """Indices of images, those of identical content together."""
    by_size: dict[int | None, list[int]] = {}
    for index in range(count):
        by_size.setdefault(size_of(index), []).append(index)
    groups: dict[tuple, list[int]] = {}
    for size, indices in by_size.items():
        for index in indices:
            key = ('alone', index) if size is None or len(indices) == 1 else ('content', digest_of(index))
            groups.setdefault(key, []).append(index)
    return list(groups.values())
