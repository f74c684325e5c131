"""``train``: ModelScope's trainer from the command line."""
from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from typing import Any

from modelscope_fastinst.cli.run import CommandError

VAL_FRACTION = 0.2    # of the images, where the data has no validation split and nobody said otherwise


def train(args: argparse.Namespace) -> int:
    """Trains, and says where the finished model is.

    Raises:
        CommandError: no recipe, or options that contradict each other.
    """
    if args.config is None and args.model is None:
        raise CommandError('give --config (a recipe), --model (a model to fine-tune, as in --model embedded), or both')
    config = _config_file(args.config) if args.config is not None else None
    settings = parse_settings(args.settings)
    if args.backbone is not None:
        settings['train.backbone_weights'] = args.backbone
    if args.task is not None:
        settings['model.task'] = args.task
    training, validation = _with_skipping(_data(args, config, settings), args.skip_bad)
    _check_used(settings, training, validation)
    from modelscope_fastinst import zoo
    if args.config in zoo.ALL_NAMES and training is not None:   # a published recipe is for any data
        settings = {'model.classes': None, 'model.decoder.num_classes': None, **settings}
        if 'things' in zoo.configuration(args.config)['model']:
            settings.setdefault('model.things', None)
    from modelscope_fastinst.plugin.build import build_fastinst_trainer
    trainer = build_fastinst_trainer(
        model=args.model, revision=args.revision, config=config, device=args.device, settings=settings,
        train_dataset=training, eval_dataset=validation, classes=args.classes, work_dir=args.work_dir,
        resume_from=args.resume)
    trainer.train()
    print(f'the trained model: {os.path.join(args.work_dir, "output")}')
    return 0


def _config_file(config: str) -> str:
    from modelscope_fastinst import zoo
    try:
        return str(zoo.find(config))
    except ValueError as error:
        raise CommandError(f'--config {error}') from error


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """``['train.max_epochs=3']`` -> ``{'train.max_epochs': 3}``; values are JSON, or else text as it stands.

    Raises:
        CommandError: a setting without ``=`` or without a key.
    """
    parsed = {}
    for setting in settings:
        key, equals, text = setting.partition('=')
        if not equals or not all(key.split('.')):
            raise CommandError(f'--set {setting}: must look like train.max_epochs=3')
        try:
            parsed[key] = json.loads(text)
        except ValueError:
            parsed[key] = text
    return parsed


def coco_pair(annotations: str | None, images: str | None, options: tuple[str, str]) -> dict[str, str] | None:
    """The trainer's form of a COCO file and its pictures' folder; None if neither is given.

    Raises:
        CommandError: only one of the two is given, or it does not exist.
    """
    if annotations is None and images is None:
        return None
    for option, value, there in zip(options, (annotations, images), (os.path.isfile, os.path.isdir), strict=True):
        if value is None:
            raise CommandError(f'{options[0]} and {options[1]} go together: {option} is missing')
        if not there(value):
            raise CommandError(f'{option} {value}: no such {"file" if there is os.path.isfile else "folder"}')
    return {'annotation_file': annotations, 'image_dir': images}


def check_folder(root: str, option: str = '') -> None:
    """Raises a CommandError where the folder of a data set is none."""
    if os.path.isfile(root):
        raise CommandError(f'{option}{root}: is a file; give the folder of the data set')
    if not os.path.isdir(root):
        raise CommandError(f'{option}{root}: no such folder')


def folder_data(root: str, split: str, format: str | None = None, val_fraction: float | None = None,
                split_seed: int = 0) -> dict[str, Any]:
    """The trainer's form of a split of ``--data``; ``val_fraction`` counts where the folder has no validation split.

    Raises:
        CommandError: no such folder.
    """
    check_folder(root, '--data ')
    section: dict[str, Any] = {'root': root, 'split': split}
    if format is not None:
        section['format'] = format
    if val_fraction:
        section |= {'val_fraction': val_fraction, 'split_seed': split_seed}
    return section


def label_numbers(args: argparse.Namespace) -> dict[str, int]:
    """What ``--label-offset`` and ``--void-label`` say of label PNGs."""
    return {key: value for key in ('label_offset', 'void_label') if (value := getattr(args, key)) is not None}


def _with_skipping(sections: tuple[dict[str, Any] | None, ...], skip_bad: bool) -> tuple[dict[str, Any] | None, ...]:
    """What is given for training and validation, with ``on_problem`` as asked for."""
    if skip_bad and sections[0] is None:
        raise CommandError('--skip-bad is for --data or --train-annotations; for the data of a configuration, '
                           '--set dataset.train.on_problem=skip')
    return tuple({**one, 'on_problem': 'skip'} if skip_bad and one is not None else one for one in sections)


def _check_used(settings: dict[str, Any], training: Any, validation: Any) -> None:
    """Raises a CommandError for ``--set dataset...`` of data that the options name, for it would not be read."""
    for section, given in (('dataset.train', training), ('dataset.val', validation)):
        for key in settings:
            if given is not None and (key == section or key.startswith(f'{section}.')):
                raise CommandError(f'--set {key}: is not read, for the options name the data: {", ".join(given)}; '
                                   f'leave it out, or give all of {section} by --set and no --data')


def _splits(args: argparse.Namespace, config: str | None, settings: dict[str, Any]) -> tuple[str, ...]:
    """The splits of ``--data`` for the task that the settings name, or the configuration that the training starts with.
    """
    from modelscope_fastinst.cli.info import read
    from modelscope_fastinst.plugin.map_data import find_splits_for
    task = settings.get('model.task')
    if task is None and config is not None:
        task = read(config)[1]['model'].get('task')
    elif task is None:
        from modelscope_fastinst.data.formats import FORMATS, find_splits
        from modelscope_fastinst.data.records import DatasetError
        try:
            if args.format in (None, *FORMATS):
                return find_splits(args.data, args.format)   # of maps beside outlines, the splits are the same
        except DatasetError:
            if args.format is not None:
                raise
        task = read(args.model, args.revision)[1]['model'].get('task')
    return find_splits_for(args.data, task, args.format)


def _data(args: argparse.Namespace, config: str | None, settings: dict[str, Any],
          ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Training and validation data as the trainer takes them; None leaves it to the configuration."""
    training = coco_pair(args.train_annotations, args.train_images, ('--train-annotations', '--train-images'))
    validation = coco_pair(args.val_annotations, args.val_images, ('--val-annotations', '--val-images'))
    if args.data is None:
        for option, given in (('--format', args.format), ('--val-fraction', args.val_fraction),
                              ('--label-offset', args.label_offset), ('--void-label', args.void_label)):
            if given is not None:
                raise CommandError(f'{option} is for --data, which is not given')
        return training, validation
    if training is not None:
        raise CommandError('give --data or --train-annotations, not both')
    labels = label_numbers(args)
    whole = folder_data(args.data, 'train', args.format) | labels
    if validation is not None:
        return whole, validation
    if 'val' in _splits(args, config, settings):
        if args.val_fraction:
            print(f'--val-fraction {args.val_fraction:g} is not used: {args.data} has a validation split of its own')
        return whole, folder_data(args.data, 'val', args.format) | labels
    fraction = VAL_FRACTION if args.val_fraction is None else args.val_fraction
    if fraction == 1:
        raise CommandError('--val-fraction 1 leaves no image to train on; give less, for instance 0.2')
    if not fraction:
        print(f'no evaluation during the training: {args.data} has no validation split, and --val-fraction is 0')
        return whole, None
    print(f'{args.data} has no validation split: {fraction:.3g} of the images are set aside for it, chosen by '
          f'--split-seed {args.split_seed}; --val-fraction changes that, --val-fraction 0 trains on all of them')
    options = args.data, args.format, fraction, args.split_seed
    return tuple(folder_data(options[0], split, *options[1:]) | labels for split in ('train', 'val'))
