"""Finding files in a data set's folder."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

from modelscope_fastinst.data.image import ImageError, image_size

IMAGE_SUFFIXES = {'.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.jp2', '.ppm',
                  '.pgm'}


def is_image(name: str) -> bool:
    """Whether a file bears the name of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith('.')


def walk(root: str, depth: int = 6) -> Iterator[tuple[str, list[str], list[str]]]:
    """(folder relative to ``root`` with /, its folders, its files), sorted by name, without hidden ones."""
    for folder, folders, files in os.walk(root, followlinks=True):
        relative = os.path.relpath(folder, root).replace(os.sep, '/')
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX')))
        if relative.count('/') + 2 > depth and relative != '.':
            folders.clear()
        yield '' if relative == '.' else relative, list(folders), sorted(
            name for name in files if not name.startswith('.'))


def join(root: str, relative: str) -> str:
    """The path of something that is written with /, or with the backslashes of Windows."""
    return os.path.normpath(os.path.join(root, *PurePosixPath(relative.replace('\\', '/')).parts))


def relative_name(path: str, root: str) -> str:
    """A path relative to the data set's folder, with /: the name under which an image is sorted to a split."""
    return os.path.relpath(path, root).replace(os.sep, '/')


class ImageFinder:
    """Finds images by the name without its suffix; lists every folder once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, folder: str, stem: str) -> str | None:
        """The image ``stem.*`` in a folder, of several the first by name; None if there is none."""
        if folder not in self._folders:
            stems: dict[str, list[str]] = {}
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                if is_image(name):
                    stems.setdefault(os.path.splitext(name)[0], []).append(name)
            self._folders[folder] = stems
        names = self._folders[folder].get(stem)
        return os.path.join(folder, names[0]) if names else None


def fitting_size(path: str, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of an image, from its header, as its annotations see it.

    Without a given size that is the upright picture, EXIF orientation applied. Annotations that say a size were made on
    the picture as stored where only that has it; ``CocoInstances`` reads it accordingly.

    Raises:
        ImageError: the file cannot be read, or has another size either way.
    """
    stored, upright = image_size(path)
    if size is None or size in (upright, stored):
        return upright if size is None else size
    raise ImageError(f'{path}: is {upright[1]} x {upright[0]} pixels (width x height), its annotations are for '
                     f'{size[1]} x {size[0]}', 'size-mismatch')
