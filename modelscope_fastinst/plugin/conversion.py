"""From weights of any origin to a model folder that ``pipeline()`` runs, and back to ModelScope's own layout."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from modelscope_fastinst.checkpoints.conversion import Conversion, convert_weights
from modelscope_fastinst.checkpoints.formats import CheckpointError
from modelscope_fastinst.checkpoints.reading import read_weights
from modelscope_fastinst.checkpoints.sources import Source, recognise
from modelscope_fastinst.checkpoints.stock import WEIGHTS_FILE as STOCK_WEIGHTS_FILE
from modelscope_fastinst.checkpoints.stock import stock_model, stock_state
from modelscope_fastinst.checkpoints.writing import save_weights
from modelscope_fastinst.models.build import build_network

from .configuration import write_configuration
from .new_folder import check_target, new_folder
from .weight_configuration import choose_configuration

LAYOUTS = ('fastinst', 'stock')
# What ModelScope's own pipeline does unless the caller says otherwise.
STOCK_SETTINGS = {'preprocessor': {'min_size': 640, 'max_size': 1333},
                  'postprocessor': {'score_thr': 0.5, 'max_instances': 100}}


def convert(source: str | os.PathLike, target: str | os.PathLike, *, config: str | None = None,
            classes: Sequence[str] | None = None, to: str = 'fastinst', overwrite: bool = False,
            revision: str | None = None, device: str | None = None, seed: int = 42, verbose: bool = False,
            task: str | None = None, things: Sequence[str] | None = None) -> Conversion:
    """Converts weights into a model folder: configuration, weights, card. The folder is run once before it is there.

    Args:
        source: a weight file (see ``checkpoints.sources.KINDS``), a model folder, or a model id of the hub.
        target: the folder to make. It appears when it is complete, or not at all.
        config: a configuration file or the name of a published model; by default the folder's own or, of the
            published ones, the one that fits the weights.
        classes: names of the classes.
        to: ``'fastinst'``, or ``'stock'`` for the layout that ModelScope's own FastInst reads.
        overwrite: replace a model folder at ``target``.
        revision: of a model id: branch, tag or commit.
        device: where it is run, as ``pipeline()`` takes it.
        seed: of the decoder, where the weights are an ImageNet backbone's.
        verbose: let ModelScope's log through.
        task: what the weights were trained for: 'instance', 'semantic' or 'panoptic'. Files of others do not say it;
            see ``guessed_task.guess_task`` for what is made of them.
        things: names of the classes that are things, for a panoptic model.

    Returns:
        What became of each entry, with remarks on what was chosen.

    Raises:
        CheckpointError: the file is broken, cut off, hostile, or of another network; stock cannot represent the model.
        FileExistsError: there is something at ``target`` already.
        ValueError, OSError: a configuration or folder that cannot be read or written, or an id that cannot be had.
    """
    if to not in LAYOUTS:
        raise ValueError(f'to {to!r}: choose one of {", ".join(LAYOUTS)}')
    target = Path(target)
    check_target(target, overwrite)
    path = _found(source, revision)
    check_target(target, overwrite, path)
    recognised = recognise(read_weights(path))
    configuration, remarks = choose_configuration(recognised, config, path if path.is_dir() else None, classes, task,
                                                  things)
    model = configuration['model']
    if to == 'stock':
        if recognised.backbone_only:
            raise CheckpointError(f'{recognised.file.path}: {recognised.description}; --to stock takes a whole model')
        written = stock_model(model, str(recognised.file.path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(model)
    conversion = convert_weights(recognised, network)
    conversion.remarks += remarks
    if recognised.backbone_only:
        conversion.remarks.append(f'only the backbone is trained: everything behind it starts from random weights '
                                  f'(seed {seed}), so the model finds nothing before it is trained')
    with new_folder(target) as folder:
        if to == 'stock':
            torch.save({'model': stock_state(conversion.state, written)}, folder / STOCK_WEIGHTS_FILE)
            conversion.remarks += _lost(configuration)
            write_configuration(folder, {}, written)
        else:
            configuration.get('train', {}).pop('backbone_weights', None)   # they are in the model's weights
            save_weights(conversion.state, folder / 'model.safetensors')
            write_configuration(folder, configuration, model)
        _write_card(folder, source, recognised)
        run_once(folder, device, verbose)
    return conversion


def run_once(folder: Path, device: str | None = None, verbose: bool = False, image: Any = None) -> dict[str, Any]:
    """What ``pipeline()`` finds with a model folder in an image (default a drawn one); raises what it raises."""
    from modelscope_fastinst.data.microscope import draw_nuclei

    from .build import build_segmenter, quieted
    with nullcontext() if verbose else quieted():
        segment = build_segmenter(str(folder), device, verbose=True)
        if image is None:
            image = draw_nuclei(120, 160, count=6).image[:, :, ::-1]
        return segment(image, mask_format='rle')


def _found(source: str | os.PathLike, revision: str | None) -> Path:
    """The file or folder behind the source; a model of the hub is downloaded unless it is there."""
    from .hub import is_model_id, model_directory
    text = os.fspath(source)
    if is_model_id(text):
        return Path(model_directory(text, revision))
    if revision is not None:
        raise ValueError(f'revision {revision!r}: goes with a model id of the form owner/name; {text} is none')
    if not os.path.exists(text):
        raise FileNotFoundError(f'{text}: no such file or folder, and no model id of the form owner/name')
    return Path(text)


def _lost(configuration: Mapping[str, Any]) -> list[str]:
    """A remark on the settings of a model that ModelScope's own pipeline takes from nowhere but its code.

    Its ``Pipeline`` would build what a section ``preprocessor`` names, and knows no such type.
    """
    lost = []
    for section, own in STOCK_SETTINGS.items():
        ours = configuration.get(section) or {}
        lost += [f'{section}.{name} {json.dumps(ours[name])} (its own: {value})' for name, value in own.items()
                 if name in ours and ours[name] != value]
    if not lost:
        return []
    return [f'ModelScope\'s own FastInst has no such setting, so the folder is without: {", ".join(lost)}']


def _write_card(folder: Path, source: str | os.PathLike, recognised: Source) -> None:
    from modelscope_fastinst import zoo
    from modelscope_fastinst.model_card import CARD_FILE, read_card, says_trained, write_model_card

    from .hub import is_model_id
    text = os.fspath(source)
    identified = is_model_id(text)
    # of a file only its name: where it lay is nobody's business
    name = text if identified else recognised.file.path.name
    trained = not recognised.backbone_only
    if identified or os.path.isdir(text):   # a model folder, whose card may know better
        trained = trained and says_trained(read_card(recognised.file.path.parent / CARD_FILE))
    write_model_card(folder, source=f'Converted by modelscope-fastinst from {name} ({recognised.description}).',
                     base_model=text if identified else None, licence=zoo.licence_of_weights(recognised.file.path.name),
                     trained=trained)
