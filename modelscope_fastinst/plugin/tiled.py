"""The pipeline's options ``tile`` and ``tile_overlap``: pictures far larger than the network's input, piece by piece.

The geometry is in `results.tiling`, how the pieces of an object find each other in `results.seams`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.plugin.preprocessor import FastInstPreprocessor, load_sample
from modelscope_fastinst.results.seams import SeamJoiner
from modelscope_fastinst.results.tiling import OVERLAP, SMALLEST, Grid, SemanticMosaic, checked_overlap, checked_tile
from modelscope_fastinst.structures import Instances, Sample, SemanticMap

TILE_OPTIONS = ('tile', 'tile_overlap')
PROGRESS = 'tile_progress'   # of a call only
TASKS = ('instance', 'semantic')
# Tiles that a GPU gets at once unless a call says otherwise.
TOGETHER = 8


@dataclass(frozen=True)
class Tiling:
    """How pictures are to be cut, see `FastInstPipeline`.

    Attributes:
        tile: (height, width) in pixels.
        overlap: share of a tile's side that neighbours have in common.
        task: 'instance' or 'semantic'.
        together: at most so many tiles go through the network at once.
        progress: called with the number of tiles done and of all, after each batch; None for nobody.
    """
    tile: tuple[int, int]
    overlap: float = OVERLAP
    task: str = 'instance'
    together: int = TOGETHER
    progress: Callable[[int, int], None] | None = None

    def grid(self, sample: Sample) -> Grid:
        """The tiles of an image at its own size."""
        return Grid.build(sample.image.shape[-2:], self.tile, self.overlap)


def build_tiling(options: Mapping[str, Any], task: str, preprocessor: Any, sizes: Mapping[str, Any],
                 together: int | None = None) -> Tiling | None:
    """What the options of a call say; None for no tiles.

    Args:
        options: those of ``TILE_OPTIONS`` and ``PROGRESS`` that were given.
        task: of the call.
        preprocessor, sizes: whose input size 'auto' takes, with these options.
        together: the call's ``batch_size``.

    Raises:
        ValueError: an option out of range or of no use, or a task whose results cannot be put together.
    """
    tile = checked_tile(options.get('tile'))
    overlap = checked_overlap(options.get('tile_overlap'))
    if tile is None:
        return None
    if task not in TASKS:
        raise ValueError(f'tile is {options["tile"]!r}; for task {task!r} pictures cannot be cut into tiles. Ask for '
                         f'task {" or ".join(map(repr, TASKS))}, or set tile to None')
    progress = options.get(PROGRESS)
    if progress is not None and not callable(progress):
        raise ValueError(f'{PROGRESS} is {progress!r}; it must be a function of the tiles done and of all, or None')
    if tile == 'auto':
        tile = _input_size(preprocessor, sizes)
    return Tiling(tile, overlap, task, TOGETHER if together is None else together, progress)


def _input_size(preprocessor: Any, sizes: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the tile whose pixels are the network's: neither enlarged nor made smaller."""
    if not isinstance(preprocessor, FastInstPreprocessor):
        raise ValueError(f"tile is 'auto'; the preprocessor {type(preprocessor).__name__} does not say what size the "
                         'network sees. Give the side of a tile in pixels')
    resize = preprocessor.inference_transform(**sizes)
    height, width = getattr(resize, 'size', None) or (resize.min_size, resize.min_size)
    return max(SMALLEST, height), max(SMALLEST, width)


def load_picture(source: Any) -> Sample:
    """An image of any form that the pipeline takes, at its own size.

    Raises:
        ImageError: it cannot be read.
    """
    return source if isinstance(source, Sample) else load_sample(source)


def segment_tiles(picture: Sample, tiling: Tiling, preprocess: Callable[[np.ndarray], Sample],
                  find: Callable[[Sequence[Sample]], Sequence[Instances | SemanticMap]], num_classes: int,
                  max_instances: int | None = None, mask_format: str = 'array') -> Instances | SemanticMap:
    """What is found in a picture, tile by tile.

    Args:
        picture: at its own size.
        tiling: how to cut it.
        preprocess: makes a sample of a tile, uint8 ``[H, W, 3]``, BGR.
        find: gives what is in the samples of some tiles, at the tiles' size.
        num_classes: of the model.
        max_instances: of the whole picture, the best; None for all.
        mask_format: 'array' or 'rle'.
    """
    grid = tiling.grid(picture)
    bgr = picture.image.numpy().transpose(1, 2, 0)[:, :, ::-1]   # a view
    whole = SeamJoiner(grid) if tiling.task == 'instance' else SemanticMosaic(grid, num_classes)
    tiles = grid.tiles
    for start in range(0, len(tiles), tiling.together):
        together = tiles[start:start + tiling.together]
        samples = [preprocess(np.ascontiguousarray(bgr[tile.window])) for tile in together]
        for index, found in enumerate(find(samples), start):
            whole.add(index, found)
        if tiling.progress is not None:
            tiling.progress(start + len(together), len(tiles))
    return whole.joined(max_instances, mask_format) if isinstance(whole, SeamJoiner) else whole.finished()
