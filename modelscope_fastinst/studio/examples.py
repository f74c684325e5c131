"""Pictures to try the studio with, drawn by the project itself from a seed."""
from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from modelscope_fastinst.checkpoints.writing import write_whole

Drawing = Callable[[], np.ndarray]


def drawn_examples(classes: Sequence[str] = ()) -> dict[str, Drawing]:
    """Pictures in which a model of these classes finds something: nuclei of several densities, shapes, shapes over
    patterns. For a model of other classes nuclei and shapes, to see what it makes of what it does not know.

    Returns:
        By their names, which say what kind they are, functions that draw them: uint8 ``[H, W, 3]``, RGB.
    """
    from modelscope_fastinst.data.shapes import SHAPES
    from modelscope_fastinst.data.shapes_panoptic import PATTERNS
    names = {name.casefold() for name in classes}
    nuclei = any('nucle' in name for name in names)
    shapes, patterns = bool(names & set(SHAPES)), bool(names & set(PATTERNS))
    if not (nuclei or shapes or patterns):
        nuclei = shapes = True
    return {**(_nuclei() if nuclei else {}), **(_patterns() if patterns else _shapes() if shapes else {})}


def example_pictures(folder: Path, classes: Sequence[str] = ()) -> list[Path]:
    """``drawn_examples`` as PNG files in a folder, which is made if it is missing; what is there is not drawn again."""
    from PIL import Image
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, drawing in drawn_examples(classes).items():
        files.append(folder / f'{name}.png')
        if not files[-1].is_file():
            content = io.BytesIO()
            Image.fromarray(drawing()).save(content, format='PNG')
            write_whole(files[-1], content.getvalue())
    return files


def _nuclei() -> dict[str, Drawing]:
    from modelscope_fastinst.data.microscope import draw_nuclei
    return {name: lambda asked=asked: draw_nuclei(*asked).image
            for name, *asked in (('nuclei_few', 384, 512, 14, 3), ('nuclei_many', 480, 640, 48, 0),
                                 ('nuclei_crowded', 480, 640, 90, 7))}


def _shapes() -> dict[str, Drawing]:
    from modelscope_fastinst.data.shapes import SHAPES, ShapesDataset
    drawn = ShapesDataset(2, (320, 400), len(SHAPES), seed=11, objects=(6, 9))
    return {f'shapes_{number + 1}': lambda number=number: drawn.draw(number)[0] for number in range(2)}


def _patterns() -> dict[str, Drawing]:
    from modelscope_fastinst.data.shapes_panoptic import PanopticShapes
    drawn = PanopticShapes(2, (320, 400), seed=11)
    return {f'patterns_{number + 1}': lambda number=number: drawn.draw(number)[0] for number in range(2)}
