"""Training and evaluation data of the trainer: whatever a user has at hand becomes one data set of samples."""
from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelscope.msdatasets.dataset_cls.custom_datasets import TorchCustomDataset
from modelscope.msdatasets.dataset_cls.custom_datasets.builder import CUSTOM_DATASETS
from modelscope.utils.config import ConfigDict
from torch.utils.data import ConcatDataset

from modelscope_fastinst.data.augment import InferenceTransform, TrainTransform
from modelscope_fastinst.structures import Sample

from .configuration import plain
from .registry import TASK
from .trainer_config import settle_classes
from .trainer_keys import PREPROCESSOR, ConfigurationError, check_names

_COCO_KEYS = ('annotation_file', 'image_dir', 'root', 'split', 'classes', 'skip_empty', 'on_problem', 'split_config')


@CUSTOM_DATASETS.register_module(TASK, module_name='fastinst', force=True)
class FastInstDataset(TorchCustomDataset):
    """A data set of ``Sample`` for the trainer, from COCO files or around another data set.

    Args:
        datasets: data set(s) whose items are ``Sample``; or None, and one of the following.
        mode: 'train', or anything else for evaluation.
        preprocessor: called with every sample. A data set that has a ``transform`` of its own is left as it is.
        annotation_file, image_dir: COCO JSON and the folder of its images.
        root, split: folder in one of the COCO layouts, and which split of it (default by ``mode``: train or val).
        split_config: what ``MsDataset.load`` gives: ``{split: folder}``.
        classes: only these, in this order.
        skip_empty: leave out images without objects; default in training only.
        on_problem: 'raise' or 'skip' broken annotations.

    Raises:
        ConfigurationError: no source, or more than one.
        data.coco.DatasetError: broken or missing files.
    """

    def __init__(self, datasets: Any = None, mode: str = 'train', preprocessor: Callable | None = None, *,
                 annotation_file: str | None = None, image_dir: str | None = None, root: str | None = None,
                 split: str | None = None, split_config: Mapping[str, str] | None = None,
                 classes: Sequence[str] | None = None, skip_empty: bool | None = None, on_problem: str = 'raise',
                 **kwargs: Any):
        training = mode == 'train'
        if datasets is None:
            if split_config:
                split, root = next(iter(split_config.items())) if split is None else (split, split_config[split])
                split = split if isinstance(split, str) and 'val' not in split.lower() else 'val'
            if annotation_file is None:
                if root is None:
                    raise ConfigurationError('a data set needs annotation_file and image_dir, or root')
                from modelscope_fastinst.data.layouts import find_coco
                annotation_file, image_dir = find_coco(root, split or ('train' if training else 'val'))
            elif image_dir is None:
                raise ConfigurationError(f'{annotation_file}: also give image_dir, the folder of the images')
            from modelscope_fastinst.data.coco import CocoInstances
            datasets = CocoInstances(os.fspath(annotation_file), os.fspath(image_dir),
                                     classes=list(classes) if classes is not None else None, transform=preprocessor,
                                     skip_empty=training if skip_empty is None else skip_empty, on_problem=on_problem,
                                     with_targets=training, with_annotations=not training)
            preprocessor = None
        elif getattr(datasets, 'transform', None) is not None:
            preprocessor = None
        super().__init__(datasets, mode=mode, preprocessor=preprocessor)
        own = getattr(self._inner_dataset, 'classes', None)
        self.classes: list[str] | None = list(own) if own is not None else list(classes) if classes else None

    @property
    def sizes(self) -> list[tuple[int, int]] | None:
        """(height, width) of each image in pixels before the preprocessor; None if the data set does not say."""
        return getattr(self._inner_dataset, 'sizes', None)

    def __getitem__(self, index: int) -> Sample:
        sample = self._inner_dataset[index]
        if not isinstance(sample, Sample):
            raise TypeError(f'{type(self._inner_dataset).__name__}[{index}] is a {type(sample).__name__}; the trainer '
                            'needs modelscope_fastinst.structures.Sample')
        if sample.image_id is None:   # evaluation counts an id once
            sample = replace(sample, image_id=index)
        if self.mode != 'train' and sample.target is not None and not sample.annotations:
            sample = _with_annotations(sample)
        return self.preprocessor(sample) if self.preprocessor is not None else sample


def _with_annotations(sample: Sample) -> Sample:
    """The sample with COCO-style ground truth made from its target, for data sets that give none."""
    from modelscope_fastinst.results.rle import encode
    height, width = sample.image.shape[-2:]
    if tuple(sample.original_size) not in ((0, 0), (height, width)):
        raise ValueError(f'{sample.file_name or sample.image_id}: a resized sample needs `annotations` for evaluation')
    annotations = [{'category_id': int(label), 'segmentation': mask, 'iscrowd': 0}
                   for label, mask in zip(sample.target.labels, encode(sample.target.masks.numpy()), strict=True)]
    return replace(sample, annotations=annotations, original_size=(height, width))


def open_dataset(source: Any, section: Mapping[str, Any] | None, mode: str, preprocessor: Callable | None,
                 classes: Sequence[str] | None) -> FastInstDataset | None:
    """The data set of a ``train_dataset=`` or ``eval_dataset=`` argument, or of the configuration.

    Args:
        source: a folder in a COCO layout; a mapping with ``annotation_file`` and ``image_dir``, or ``root``; an
            ``MsDataset``; a torch data set whose items are ``Sample``; a list of these; or None for ``section``.
        section: ``dataset.train`` or ``dataset.val`` of the configuration.
        mode: 'train' or 'eval'.
        preprocessor: called with every sample.
        classes: of the model; None: the data set's own.

    Returns:
        None if there is neither a source nor a section.
    """
    name = 'train_dataset' if mode == 'train' else 'eval_dataset'
    options: dict[str, Any] = {'mode': mode, 'preprocessor': preprocessor, 'classes': classes}
    if source is None:
        if not section:
            return None
        source = {key: value for key, value in section.items() if key not in ('type', 'mode')}
        name = f'dataset.{"train" if mode == "train" else "val"}'
    if isinstance(source, FastInstDataset):
        return source
    if isinstance(source, (str, os.PathLike)):
        return FastInstDataset(root=os.fspath(source), **options)
    if isinstance(source, Mapping):
        check_names(source, _COCO_KEYS, name)
        given = dict(source)
        if classes is None:
            options['classes'] = given.get('classes')
        given.pop('classes', None)
        return FastInstDataset(**given, **options)
    if isinstance(source, (list, tuple)):
        if not source:
            raise ConfigurationError(f'{name} is an empty list')
        return _joined([open_dataset(item, None, mode, preprocessor, classes) for item in source], name)
    if type(source).__name__ == 'MsDataset':
        return _from_ms_dataset(source, name, options)
    if hasattr(source, '__getitem__') and hasattr(source, '__len__'):
        return FastInstDataset(source, **options)
    raise ConfigurationError(f'{name}: cannot use a {type(source).__name__}; give a folder, a mapping with '
                             'annotation_file and image_dir, an MsDataset, or a torch data set of Sample')


def open_data(cfg: Any, train_source: Any, eval_source: Any, preprocessor: Any, classes: Sequence[str] | None,
              replaceable: Sequence[str], file: str,
              ) -> tuple[FastInstDataset | None, FastInstDataset | None, list[str]]:
    """Both data sets of a training, and the classes that the model is to have.

    Args:
        cfg: the configuration (a ``modelscope`` Config).
        train_source, eval_source: see ``open_dataset``.
        preprocessor: the caller's, see ``build_transforms``.
        classes: the caller's.
        replaceable: see ``settle_classes``.
        file: the configuration's name, for messages.

    Raises:
        ConfigurationError: no data at all, no images, or classes that contradict each other.
    """
    train_transform, eval_transform = build_transforms(plain(cfg.preprocessor), preprocessor)
    train_set = open_dataset(train_source, cfg.safe_get('dataset.train'), 'train', train_transform, classes)
    if train_set is None and eval_source is None and not cfg.safe_get('dataset.val'):
        raise ConfigurationError(f'{file}: no training set: give train_dataset= or a dataset.train section with '
                                 'annotation_file and image_dir')
    settled = settle_classes(cfg.safe_get('model.classes'), cfg.safe_get('model.decoder.num_classes'),
                             train_set.classes if train_set else None, asked_for=classes, replaceable=replaceable,
                             file=file)
    eval_set = open_dataset(eval_source, cfg.safe_get('dataset.val'), 'eval', eval_transform, settled)
    for name, data in (('training', train_set), ('evaluation', eval_set)):
        if data is not None and len(data) == 0:
            raise ConfigurationError(f'the {name} set has no images')
        if data is not None and data.classes not in (None, settled):
            raise ConfigurationError(f'the {name} set has the classes {data.classes}, the model is to have {settled}')
    return train_set, eval_set, settled


def build_transforms(section: Mapping[str, Any], given: Any = None) -> tuple[Callable, Callable]:
    """What is done to training and to evaluation samples.

    Args:
        section: the configuration's ``preprocessor``, in either form that the preprocessor takes.
        given: instead of it, one callable for both or ``{'train': ..., 'val': ...}``; what is missing is as configured.
    """
    if callable(given):
        return given, given
    given = given or {}
    common = {key: value for key, value in section.items() if key not in ('train', 'val')}
    train = section.get('train') or {key: value for key, value in common.items() if key == 'max_size'}
    return (given.get('train') or _transform(TrainTransform, train, 'train'),
            given.get('val') or _transform(InferenceTransform, section.get('val') or common, 'val'))


def _transform(cls: type, section: Mapping[str, Any], mode: str) -> Callable:
    """The transform of a preprocessor section, or a preprocessor of the user's from ModelScope's registry."""
    kind = section.get('type', PREPROCESSOR)
    if kind != PREPROCESSOR:
        from modelscope.preprocessors.builder import build_preprocessor
        return build_preprocessor(ConfigDict({**section, 'mode': mode}), 'cv')
    try:
        return cls(**{key: value for key, value in section.items() if key not in ('type', 'mode')})
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f'preprocessor.{mode}: {error}') from error


def _from_ms_dataset(source: Any, name: str, options: dict[str, Any]) -> FastInstDataset:
    inner = source.ds_instance
    if isinstance(inner, FastInstDataset):
        return inner
    config = source.config_kwargs
    if config and 'split_config' in config:
        known = {key: value for key, value in config.items() if key in _COCO_KEYS and key != 'classes'}
        return FastInstDataset(**known, **options)
    if type(inner).__module__.partition('.')[0] == 'datasets':
        raise ConfigurationError(f'{name}: this MsDataset holds table rows, which do not say where the masks are; give '
                                 'a COCO folder, or an MsDataset around a torch data set of Sample')
    return FastInstDataset(inner, **options)


def _joined(parts: list[FastInstDataset], name: str) -> FastInstDataset:
    if any(part.classes != parts[0].classes for part in parts):
        raise ConfigurationError(f'{name}: its parts have different classes: '
                                 f'{" and ".join(str(part.classes) for part in parts)}; give classes=')
    return FastInstDataset(_Parts(parts), mode=parts[0].mode, classes=parts[0].classes)


class _Parts(ConcatDataset):
    """Data sets in a row. Their image ids become (number of the part, its own id), for each may count from 1."""

    @property
    def sizes(self) -> list[tuple[int, int]] | None:
        sizes = [part.sizes for part in self.datasets]
        return None if None in sizes else [size for part in sizes for size in part]

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        sample = super().__getitem__(index)
        return replace(sample, image_id=(bisect_right(self.cumulative_sizes, index), sample.image_id))
