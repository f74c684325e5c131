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


# What of the command line goes to each call of the pipeline, where it is given.
OPTIONS = ('task', 'score_thr', 'max_instances', 'classes', 'min_size', 'max_size', 'object_mask_threshold',
           'overlap_threshold', 'tile', 'tile_overlap')


def predict(args: argparse.Namespace) -> int:
    """Segments every picture; one that cannot be read is reported and the others are done.

    Returns:
        0, or 1 if a picture failed.

    Raises:
        CommandError: an input that does not exist, a folder without pictures, an output that would mix with the inputs.
    """
    pictures = find_pictures(args.images)
    check_font(args.font)
    output = checked_output(args.output, args.images)
    if args.tile_overlap is not None and args.tile is None:
        raise CommandError('--tile-overlap: goes with --tile')
    if args.max_megapixels is not None:
        allow_pixels(args.max_megapixels)
    from modelscope_fastinst.cli.map_files import MAPS, MapFiles
    from modelscope_fastinst.data.image import ImageError, read_image
    from modelscope_fastinst.plugin.build import build_segmenter
    segment = build_segmenter(args.model, args.device, verbose=args.debug, revision=args.revision, task=args.task)
    options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    segment([], **options)   # refuses options that will not do before anything is written
    output.mkdir(parents=True, exist_ok=True)
    task = args.task or segment.default_task
    folder = MAPS.get(task)
    targets = output_names(pictures, output, folder)
    maps = MapFiles(output / folder, task, segment.model.classes,
                    getattr(segment.model, 'thing_classes', ())) if folder else None
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
        progress = {} if args.tile is None else {'tile_progress': TileProgress(picture)}
        found = segment(image[:, :, ::-1], mask_format='rle', **options, **progress)
        seconds = time.perf_counter() - start
        write_picture(target, draw(image, found, segment.model.classes, args))
        if maps is not None:
            maps.add(picture, target.name, found)
        if args.json:
            write_json(target.with_suffix('.json'), as_record(picture, image.shape[:2], found))
        print(f'{picture}: {in_short(found)} in {seconds:.2f} s -> {target}')
    if maps is not None and len(failed) < len(pictures):
        print(f'maps: {maps.folder}, described in {maps.finish()}')
    if failed:
        print(f'error: {len(failed)} of {len(pictures)} pictures could not be read: {", ".join(map(str, failed))}',
              file=sys.stderr)
    return 1 if failed else 0


def draw(image: Any, found: dict[str, Any], classes: list[str], args: argparse.Namespace) -> Any:
    """The picture of a result of any task: uint8 ``[H, W, 3]`` RGB."""
    from modelscope_fastinst.visualize import draw_result
    return draw_result(image, found, classes, color_by=args.color_by, scale=args.scale, font=args.font)


def check_font(file: str | None) -> None:
    """Raises CommandError where a font file is named that is none; sooner than when the first tag is drawn."""
    if file is None:
        return
    if not Path(file).is_file():
        raise CommandError(f'--font {file}: no such file')
    from PIL import ImageFont
    try:
        ImageFont.truetype(file, 12)
    except OSError as error:
        raise CommandError(f'--font {file}: is no font file') from error


def allow_pixels(megapixels: float) -> None:
    """Lets this process read pictures of up to so many million pixels, in the place of PIL's limit of 179."""
    import warnings

    from PIL import Image
    Image.MAX_IMAGE_PIXELS = round(megapixels * 1e6 / 2)   # PIL refuses what is more than twice this,
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)   # and warns of what is more than this


class TileProgress:
    """On a terminal, a line on stderr that says how many tiles of a picture are done; elsewhere nothing."""

    def __init__(self, picture: Path) -> None:
        self._picture, self._start = picture, time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        left = (time.perf_counter() - self._start) / done * (total - done)
        text = f'{self._picture}: tile {done} of {total}, {left:.0f} s left' if done < total else ''
        print(f'\r\x1b[K{text}', end='', file=sys.stderr, flush=True)


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


def output_names(pictures: list[Path], output: Path, maps: str | None = None) -> list[Path]:
    """A PNG in ``output`` for every picture: its own name, numbered where that is taken by another or is an input.

    Args:
        maps: a folder in ``output`` that gets a PNG of the same name for each, and beside which lies a JSON file.
    """
    taken = {str(picture.resolve()).casefold() for picture in pictures}   # some file systems ignore case
    if maps is not None:
        taken.add(str((output / f'{maps}.json').resolve()).casefold())
    names = []
    for picture in pictures:
        number, target = 1, output / f'{picture.stem}.png'
        while any(str(file.resolve()).casefold() in taken for file in _files_of(target, maps)):
            number += 1
            target = output / f'{picture.stem}-{number}.png'
        taken.add(str(target.resolve()).casefold())
        names.append(target)
    return names


def _files_of(target: Path, maps: str | None) -> list[Path]:
    """What may be written for one picture."""
    files = [target, target.with_suffix('.json')]
    return files if maps is None else [*files, target.parent / maps / target.name]


def as_record(picture: Path, size: tuple[int, int], found: dict[str, Any]) -> dict[str, Any]:
    """What the JSON file says of a picture: its size in pixels and its instances, best first, or the segments or
    classes of its map; boxes as xyxy."""
    columns = zip(found['scores'], found['labels'], found['boxes'], found['masks'], strict=True)
    entries = [{'score': score, 'label': label, 'box': box, 'mask': _plain_rle(mask)}
               for score, label, box, mask in columns]
    for entry, segment in zip(entries, found.get('segments', ())):   # none but in a panoptic result
        entry |= {'id': segment['id'], 'isthing': segment['isthing'], 'area': segment['area']}
    name = 'segments' if 'id_map' in found else 'classes' if 'label_map' in found else 'instances'
    return {'image': str(picture), 'height': int(size[0]), 'width': int(size[1]), name: entries}


def in_short(found: dict[str, Any]) -> str:
    """'3 date, 1 fig' for instances and segments; '71% sky, 29% sea' for a semantic map."""
    if 'label_map' not in found:
        return count_by_class(found['labels'])
    labels = found['label_map']
    areas = sorted(zip((int((labels == label).sum()) for label in sorted(set(labels[labels >= 0].tolist()))),
                       found['labels'], strict=True), reverse=True)
    return ', '.join(f'{area / labels.size:.0%} {label}' for area, label in areas) or 'nothing'


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


def checked_output(name: str, inputs: Iterable[str]) -> Path:
    """The folder for the results, which is not made yet; CommandError for one that would mix with the inputs."""
    output = Path(name)
    if output.exists() and not output.is_dir():
        raise CommandError(f'--output {output}: is a file; give a folder')
    for folder in map(Path, inputs):
        if folder.is_dir() and folder.resolve() == output.resolve():
            raise CommandError(f'--output {output}: is the folder of the inputs; give another one, so that results are '
                               'not taken for pictures the next time')
    return output
