"""``predict``: pictures in, outlined pictures (and JSON) out."""
from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelscope_fastinst.cli.run import CommandError

PICTURES = frozenset({'.bmp', '.gif', '.jpeg', '.jpg', '.jp2', '.png', '.ppm', '.pgm', '.tif', '.tiff', '.webp'})


def predict(args: argparse.Namespace) -> int:
    """Segments every picture; one that cannot be read is reported and the others are done.

    Returns:
        0, or 1 if a picture failed.

    Raises:
        CommandError: an input that does not exist, a folder without pictures, an output that would mix with the inputs.
    """
    pictures = find_pictures(args.images)
    check_font(args.font)
    output = _output_folder(args.output, args.images)
    targets = output_names(pictures, output)
    from modelscope_fastinst.data.image import ImageError, read_image
    from modelscope_fastinst.plugin.build import build_segmenter
    from modelscope_fastinst.visualize import draw_instances
    segment = build_segmenter(args.model, args.device, verbose=args.debug, revision=args.revision)
    options = {name: getattr(args, name) for name in ('score_thr', 'max_instances', 'classes', 'min_size', 'max_size')
               if getattr(args, name) is not None}
    failed = []
    for picture, target in zip(pictures, targets, strict=True):
        start = time.perf_counter()
        try:
            image = read_image(picture)
        except (ImageError, OSError) as error:
            failed.append(picture)
            text = ' '.join(str(error).split())
            print(f'error: {text if str(picture) in text else f"{picture}: {text}"}', file=sys.stderr)
            continue
        found = segment(image[:, :, ::-1], mask_format='rle', **options)
        seconds = time.perf_counter() - start
        write_picture(target, draw_instances(image, found['scores'], found['labels'], found['masks'], found['boxes'],
                                             color_by=args.color_by, classes=segment.model.classes, scale=args.scale,
                                             font=args.font))
        if args.json:
            write_json(target.with_suffix('.json'), as_record(picture, image.shape[:2], found))
        print(f'{picture}: {count_by_class(found["labels"])} in {seconds:.2f} s -> {target}')
    if failed:
        print(f'error: {len(failed)} of {len(pictures)} pictures could not be read: {", ".join(map(str, failed))}',
              file=sys.stderr)
    return 1 if failed else 0


def check_font(file: str | None) -> None:
    """Raises CommandError where a font file is named that is not there; sooner than when the first tag is drawn."""
    if file is not None and not Path(file).is_file():
        raise CommandError(f'--font {file}: no such file')


def find_pictures(inputs: Iterable[str]) -> list[Path]:
    """The files to work on: named ones as they are, of folders the pictures in them, each once, in order.

    Raises:
        CommandError: an input that does not exist, or a folder without pictures.
    """
    found: dict[Path, Path] = {}
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.is_file())
            if not inside:
                raise CommandError(f'{path}: no pictures in this folder (of the kinds {", ".join(sorted(PICTURES))})')
        elif path.exists():
            inside = [path]
        else:
            raise CommandError(f'{path}: no such file or folder')
        for file in inside:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def output_names(pictures: list[Path], output: Path) -> list[Path]:
    """A PNG in ``output`` for every picture: its own name, numbered where that is taken by another or is an input."""
    taken = {str(picture.resolve()).casefold() for picture in pictures}   # some file systems ignore case
    names = []
    for picture in pictures:
        number, target = 1, output / f'{picture.stem}.png'
        while any(str(target.with_suffix(suffix).resolve()).casefold() in taken for suffix in ('.png', '.json')):
            number += 1
            target = output / f'{picture.stem}-{number}.png'
        taken.add(str(target.resolve()).casefold())
        names.append(target)
    return names


def as_record(picture: Path, size: tuple[int, int], found: dict[str, list]) -> dict[str, Any]:
    """What the JSON file says of a picture: its size in pixels and its instances, best first, boxes as xyxy."""
    columns = zip(found['scores'], found['labels'], found['boxes'], found['masks'], strict=True)
    return {'image': str(picture), 'height': int(size[0]), 'width': int(size[1]),
            'instances': [{'score': score, 'label': label, 'box': box, 'mask': _plain_rle(mask)}
                          for score, label, box, mask in columns]}


def count_by_class(labels: list[str]) -> str:
    """'3 date, 1 fig'; the most frequent first."""
    return ', '.join(f'{number} {label}' for label, number in Counter(labels).most_common()) or 'nothing'


def write_picture(path: Path, image: Any) -> None:
    """Writes uint8 ``[H, W, 3]`` RGB as a PNG, whole or not at all."""
    from PIL import Image

    from modelscope_fastinst.checkpoints.writing import write_whole
    content = io.BytesIO()
    Image.fromarray(image).save(content, format='PNG')
    write_whole(path, content.getvalue())


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    from modelscope_fastinst.checkpoints.writing import write_whole
    write_whole(path, (json.dumps(content, ensure_ascii=False, indent=1) + '\n').encode())


def _plain_rle(mask: dict[str, Any]) -> dict[str, Any]:
    counts = mask['counts']
    return {'size': [int(side) for side in mask['size']],
            'counts': counts.decode('ascii') if isinstance(counts, bytes) else counts}


def _output_folder(name: str, inputs: Iterable[str]) -> Path:
    output = Path(name)
    if output.exists() and not output.is_dir():
        raise CommandError(f'--output {output}: is a file; give a folder')
    for folder in map(Path, inputs):
        if folder.is_dir() and folder.resolve() == output.resolve():
            raise CommandError(f'--output {output}: is the folder of the inputs; give another one, so that results are '
                               'not taken for pictures the next time')
    output.mkdir(parents=True, exist_ok=True)
    return output
