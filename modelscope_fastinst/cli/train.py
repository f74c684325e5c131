"""``train``: ModelScope's trainer from the command line."""
from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from typing import Any

from modelscope_fastinst.cli.run import CommandError


def train(args: argparse.Namespace) -> int:
    """Trains, and says where the finished model is.

    Raises:
        CommandError: no recipe, or options that contradict each other.
    """
    if args.config is None and args.model is None:
        raise CommandError('give --config (a recipe), --model (a model to fine-tune), or both')
    config = _config_file(args.config) if args.config is not None else None
    settings = parse_settings(args.settings)
    if args.backbone is not None:
        settings['train.backbone_weights'] = args.backbone
    training, validation = _data(args)
    from modelscope_fastinst import zoo
    if args.config in zoo.NAMES and training is not None:   # a published recipe is for any data: the classes are its
        settings = {'model.classes': None, 'model.decoder.num_classes': None, **settings}
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


def _data(args: argparse.Namespace) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    """Training and validation data as the trainer takes them; None leaves it to the configuration."""
    training = coco_pair(args.train_annotations, args.train_images, ('--train-annotations', '--train-images'))
    validation = coco_pair(args.val_annotations, args.val_images, ('--val-annotations', '--val-images'))
    if args.data is None:
        return training, validation
    if training is not None:
        raise CommandError('give --data or --train-annotations, not both')
    if not os.path.isdir(args.data):
        raise CommandError(f'--data {args.data}: no such folder')
    training = {'root': args.data, 'split': 'train'}
    if validation is None and _has_validation(args.data):
        validation = {'root': args.data, 'split': 'val'}
    return training, validation


def _has_validation(root: str) -> bool:
    from modelscope_fastinst.data.layouts import find_coco
    try:
        find_coco(root, 'val')
    except (ValueError, OSError) as error:
        print(f'no evaluation during the training: {" ".join(str(error).split())}')
        return False
    return True
