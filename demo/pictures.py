"""The pictures of the documentation: what the embedded model finds in what this project draws.

    python demo/pictures.py [FOLDER] [NAME ...]

Writes docs/images/NAME.jpg, all of them or those that are named, each below 300 kB. The studio's are made by
screenshots.py.
"""
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from modelscope.pipelines import pipeline
from PIL import Image

import modelscope_fastinst
from modelscope_fastinst.data.slide import draw_slide
from modelscope_fastinst.video import read, render
from modelscope_fastinst.visualize import draw_instances, side_by_side

GAP = 12           # white pixels between pictures that stand one above the other
BRIGHTER = 0.6     # the power of grey values that makes such pictures easy to see
LARGEST = 300_000  # bytes of a file


def outlined(image: np.ndarray, found: dict, **look) -> np.ndarray:
    return draw_instances(image, found['scores'], found['labels'], found['masks'], found['boxes'], **look)


def nuclei(segment: Callable) -> np.ndarray:
    """A drawn field of view, and the nuclei that are found in it."""
    image = slide(448, 640)
    return side_by_side([image, outlined(image, segment(image[:, :, ::-1], tile='auto'), tags=False)])


def drawing(segment: Callable) -> np.ndarray:
    """The same instances by instance, by class, and with one of them highlighted."""
    image = slide(288, 384)
    found = segment(image[:, :, ::-1])
    largest = int(np.argmax([mask.sum() for mask in found['masks']]))
    looks = ({}, {'color_by': 'class'}, {'highlight': largest})
    return side_by_side([outlined(image, found, scale=1.6, **look) for look in looks])


def tiles(segment: Callable) -> np.ndarray:
    """A slide as a whole above, in tiles below."""
    image = slide(704, 2112)
    whole, tiled = (outlined(image, segment(image[:, :, ::-1], mask_format='rle', **options), tags=False)
                    for options in ({}, {'tile': 'auto'}))
    return smaller(np.concatenate([whole, np.full((GAP, *whole.shape[1:]), 255, np.uint8), tiled]), 1600)


def video(segment: Callable) -> np.ndarray:
    """Four frames of a view that moves over nuclei, each object in the colour of its track."""
    image = slide(288, 624)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(28):
            Image.fromarray(image[:, 8 * number:8 * number + 384]).save(Path(folder) / f'{number:04d}.png')
        drawn = Path(folder) / 'drawn.mkv'
        render(folder, drawn, segment, codec='ffv1', look={'tags': False, 'scale': 2})
        return smaller(side_by_side([frame.image for frame in read(drawn, every=9)]), 1600)


def slide(height: int, width: int) -> np.ndarray:
    """A microscope's picture, brighter than it would be: nuclei at random places, some of which touch."""
    random = np.random.default_rng(0)
    places: list[tuple[float, float, float]] = []
    while len(places) < height * width / 6000:
        y, x, radius = random.uniform(0, height), random.uniform(0, width), random.uniform(12, 19)
        if all((y - row) ** 2 + (x - column) ** 2 > (0.9 * (radius + other)) ** 2 for row, column, other in places):
            places.append((y, x, radius))
    dim = draw_slide(height, width, places).image / 255.0
    return (255 * dim ** BRIGHTER).round().astype(np.uint8)


PICTURES = {'nuclei': nuclei, 'drawing': drawing, 'tiles': tiles, 'video': video}


def smaller(image: np.ndarray, width: int) -> np.ndarray:
    height = round(image.shape[0] * width / image.shape[1])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def write(file: Path, picture: np.ndarray) -> None:
    """Writes a JPEG at the best quality that keeps it below ``LARGEST``."""
    for quality in (92, 85, 78, 70, 60):
        # Colours at full resolution, or thin lines lose theirs.
        Image.fromarray(picture).save(file, quality=quality, subsampling=0, optimize=True)
        if file.stat().st_size < LARGEST:
            return
    raise SystemExit(f'{file}: {file.stat().st_size} bytes at the lowest quality; draw it smaller')


if __name__ == '__main__':
    words = sys.argv[1:]
    folder = Path(words.pop(0)) if words and words[0] not in PICTURES else \
        Path(__file__).resolve().parents[1] / 'docs' / 'images'
    folder.mkdir(parents=True, exist_ok=True)
    network = pipeline('image-segmentation', model=modelscope_fastinst.default_model(), device='cpu')
    for name in words or PICTURES:
        write(folder / f'{name}.jpg', PICTURES[name](network))
        print(folder / f'{name}.jpg')
