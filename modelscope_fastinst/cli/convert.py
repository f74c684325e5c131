"""``convert``: weights of any origin into a model folder, and back to ModelScope's own layout."""
from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelscope_fastinst.cli.run import CommandError

if TYPE_CHECKING:
    from modelscope_fastinst.checkpoints import Conversion


def convert(args: argparse.Namespace) -> int:
    """Converts, and says what became of the entries.

    Raises:
        CommandError: a file of class names that cannot be used.
        CheckpointError, OSError, ValueError: see ``plugin.conversion.convert``.
    """
    classes = args.classes if args.classes_file is None else read_classes(Path(args.classes_file))
    from modelscope_fastinst.plugin import conversion
    done = conversion.convert(args.source, args.target, config=args.config, classes=classes, to=args.to,
                              overwrite=args.overwrite, revision=args.revision, device=args.device,
                              verbose=args.debug, task=args.task, things=args.things)
    if args.verbose:
        print('\n'.join(table(done)), end='\n\n')
    print('\n'.join(summary(done)))
    print(f'the model: {args.target}')
    return 0


def summary(conversion: Conversion) -> Iterator[str]:
    """What the file was, and how many of its entries went where."""
    yield f'{conversion.source}: {conversion.description}'
    yield f'{conversion.entries} entries, {len(conversion.mapping)} of them taken over'
    for reason, count in Counter(conversion.unused.values()).items():
        yield f'{count} left out: {reason}'
    for part, count in Counter(map(_part, conversion.new)).items():
        yield f'{count} new, freshly initialised: {part}'
    for remark in conversion.remarks:
        yield f'note: {remark}'


def table(conversion: Conversion) -> Iterator[str]:
    """A line for every entry of the file and of the network: what mapped to what, and what did not."""
    width = max(map(len, (*conversion.mapping, *conversion.unused)))
    for key, name in conversion.mapping.items():
        yield f'{key:<{width}} -> {name}'
    for key, reason in conversion.unused.items():
        yield f'{key:<{width}} -- left out: {reason}'
    for name in conversion.new:
        yield f'{"(new)":<{width}} -> {name}'


def read_classes(file: Path) -> list[str]:
    """Class names, one a line.

    Raises:
        CommandError: no such file, or no names in it.
    """
    try:
        names = [line.strip() for line in file.read_text('utf-8').splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f'--classes-file {file}: cannot be read as text ({error})') from error
    names = [name for name in names if name]
    if not names:
        raise CommandError(f'--classes-file {file}: holds no class names; give one a line')
    return names


def _part(name: str) -> str:
    """Where a key belongs: 'backbone (conv2_offset)', 'sem_seg_head.predictor', ..."""
    parts = name.split('.')
    if parts[0] == 'backbone':
        return f'backbone ({parts[-2] if "conv2_offset" in parts else parts[-1]})'
    return '.'.join(parts[:2])
