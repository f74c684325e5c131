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
from modelscope.utils.logger import get_logger
from torch.utils.data import ConcatDataset

from modelscope_fastinst.data.augment import TrainTransform
from modelscope_fastinst.data.copy_paste import with_copy_paste
from modelscope_fastinst.data.formats import looking_once
from modelscope_fastinst.data.input_size import build_inference_transform
from modelscope_fastinst.data.tv_transforms import adapted, is_v2
from modelscope_fastinst.structures import Sample

from .configuration import plain
from .data_values import KEYS, check_section
from .map_data import Where, open_maps
from .registry import TASK
from .task_data import completed_truth, task_of
from .trainer_config import settle_classes, shown
from .trainer_keys import PREPROCESSOR, ConfigurationError

logger = get_logger()


@CUSTOM_DATASETS.register_module(TASK, module_name='mask2former', force=True)
@CUSTOM_DATASETS.register_module(TASK, module_name='fastinst', force=True)
class FastInstDataset(TorchCustomDataset):
    """A data set of ``Sample`` for the trainer, from annotated images on disk, a table, or around another data set.

    Args:
        datasets: data set(s) whose items are ``Sample``; or None, and one of the following.
        mode: 'train', or anything else for evaluation.
        preprocessor: called with every sample. A data set that has a ``transform`` of its own is left as it is.
        annotation_file, image_dir: COCO JSON and the folder of its images.
        root, split: folder in any of the formats, and which split of it (default by ``mode``: train or val; all of it
            where it has none).
        format: one of ``data.formats.FORMATS`` or ``data.maps.MAP_FORMATS``; None to see from the folder.
        val_fraction, split_seed: where it has no validation split, the share of its images to set aside as one, chosen
            by this seed; give the same for training and evaluation. None or 0: none.
        table: instead of ``root``, a Hugging Face ``Dataset`` or a mapping of such by split.
        split_config: what ``MsDataset.load`` gives: ``{split: folder}``.
        classes: only these, in this order.
        skip_empty: leave out images without objects; default in training only.
        on_problem: 'raise' or 'skip' broken annotations.
        task: ``model.task``, which decides what is read; None where nobody said, which is 'instance'.
        panoptic_dir: with ``annotation_file``, a panoptic one, the folder of its PNGs.
        label_dir: with ``image_dir``, the folder of one label PNG an image, of the class of each pixel.
        label_offset, void_label, label_classes: of such PNGs the number of the first class (default 0), the number of
            no class (None for none), and the names of the classes (default ``classes``).

    Attributes:
        classes, things: see ``data.maps.SegmentationMaps``; None where the data do not say.

    Raises:
        ConfigurationError: no source, or more than one; or one that does not go with the task.
        data.coco.DatasetError: broken or missing files.
    """

    def __init__(self, datasets: Any = None, mode: str = 'train', preprocessor: Callable | None = None, *,
                 annotation_file: str | None = None, image_dir: str | None = None, root: str | None = None,
                 split: str | None = None, format: str | None = None, val_fraction: float | None = None,
                 split_seed: int = 0, table: Any = None, split_config: Mapping[str, str] | None = None,
                 classes: Sequence[str] | None = None, skip_empty: bool | None = None, on_problem: str = 'raise',
                 task: str | None = None, panoptic_dir: str | None = None, label_dir: str | None = None,
                 label_offset: int | None = None, void_label: int | None = 255,
                 label_classes: Sequence[str] | None = None, **kwargs: Any):
        training = mode == 'train'
        self.whole_of: Any = None   # the folder or table of which this is all there is
        if datasets is None:
            given = split
            if split_config:
                split, root = next(iter(split_config.items())) if split is None else (split, split_config[split])
                split = split if isinstance(split, str) and 'val' not in split.lower() else 'val'
            split = split or ('train' if training else 'val')
            where = Where(
                *(None if path is None else os.fspath(path)
                  for path in (annotation_file, image_dir, panoptic_dir, label_dir, root)), table=table, split=split,
                format=format, val_fraction=val_fraction or None, split_seed=split_seed, or_all=given is None,
                label_offset=label_offset, void_label=void_label, label_classes=label_classes)
            datasets, self.whole_of = _open(
                where, task, classes=list(classes) if classes is not None else None, transform=preprocessor,
                skip_empty=training if skip_empty is None else skip_empty, on_problem=on_problem, training=training)
            preprocessor = None
        elif getattr(datasets, 'transform', None) is not None:
            preprocessor = None
        super().__init__(datasets, mode=mode, preprocessor=preprocessor)
        own = getattr(self._inner_dataset, 'classes', None)
        self.classes: list[str] | None = list(own) if own is not None else list(classes) if classes else None
        things = getattr(self._inner_dataset, 'things', None)
        self.things: list[str] | None = list(things) if things is not None else None
        self.task = task

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
        if self.mode != 'train':
            if self.task in ('semantic', 'panoptic'):
                sample = completed_truth(sample, self.task, self.classes, self.things)
            elif sample.target is not None and not sample.annotations:
                sample = _with_annotations(sample)
        return self.preprocessor(sample) if self.preprocessor is not None else sample


def _open(where: Where, task: str | None, **options: Any) -> tuple[Any, Any]:
    """The data set that is meant, and the folder or table of which it is all there is; None where it is a part."""
    if where.annotation_file is not None and where.image_dir is None:
        raise ConfigurationError(f'{where.annotation_file}: also give image_dir, the folder of the images')
    if where.annotation_file is None and where.root is None and where.table is None and where.label_dir is None:
        raise ConfigurationError('a data set needs root, or annotation_file and image_dir')
    maps = open_maps(where, task, **options)
    if maps is not None:
        return maps
    from modelscope_fastinst.data.coco import CocoInstances
    training = options.pop('training')
    options |= {'with_targets': training, 'with_annotations': not training}
    if where.annotation_file is not None:
        return CocoInstances(where.annotation_file, where.image_dir, **options), None
    from modelscope_fastinst.data.formats import read_source, table_source
    chosen = {'val_fraction': where.val_fraction, 'seed': where.split_seed, 'or_all': where.or_all}
    source = read_source(where.root, where.split, where.format, **chosen) if where.table is None else \
        table_source(where.table, 'table', where.split, **chosen)
    if not training and options['classes'] is not None and source.observed_classes:
        _add_classes(source, options['classes'])
    for note in source.notes:
        logger.info('%s', note)
    return CocoInstances.from_source(source, take_apart=True, **options), where.whole(source.split)


def _add_classes(source: Any, classes: Sequence[str]) -> None:
    """Gives data that name their classes object by object the model's, some of which may not occur in them.

    Raises:
        ConfigurationError: none of them does; every average would be of nothing.
    """
    strange = [name for name in source.classes if name not in classes]
    if strange and len(strange) == len(source.classes):
        raise ConfigurationError(f'{source.name}: its objects are of {shown(strange)}, none of the classes of the '
                                 f'model, {shown(classes)}: give the model that was trained on such data')
    if strange:
        logger.warning('%s: objects of %s do not count, for the model does not know these classes', source.name,
                       shown(strange))
    source.add_classes(classes)


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
                 classes: Sequence[str] | None, task: str | None = None) -> FastInstDataset | None:
    """The data set of a ``train_dataset=`` or ``eval_dataset=`` argument, or of the configuration.

    Args:
        source: a folder in any of ``data.formats.FORMATS`` or ``data.maps.MAP_FORMATS``; a mapping with ``root``, or
            ``annotation_file`` and ``image_dir`` (for maps also ``panoptic_dir``, or ``image_dir`` and ``label_dir``),
            or ``table``; an ``MsDataset``; a Hugging Face ``Dataset`` or ``DatasetDict``; a torch data
            set whose items are ``Sample``; a list of these; or None for ``section``.
        section: ``dataset.train`` or ``dataset.val`` of the configuration.
        mode: 'train' or 'eval'.
        preprocessor: called with every sample.
        classes: of the model; None: the data set's own.
        task: ``model.task``, which decides what is read; None where nobody said, which is 'instance'.

    Returns:
        None if there is neither a source nor a section.
    """
    name = 'train_dataset' if mode == 'train' else 'eval_dataset'
    options: dict[str, Any] = {'mode': mode, 'preprocessor': preprocessor, 'classes': classes, 'task': task}
    if source is None:
        if not section:
            return None
        name = f'dataset.{"train" if mode == "train" else "val"}'
        check_section(section, name)
        source = {key: value for key, value in section.items() if key not in ('type', 'mode')}
    if isinstance(source, FastInstDataset):
        return source
    if isinstance(source, (str, os.PathLike)):
        return FastInstDataset(root=os.fspath(source), **options)
    if isinstance(source, Mapping) and source and 'table' not in source and all(map(_is_table, source.values())):
        return FastInstDataset(table={key: _rows(one) for key, one in source.items()}, **options)
    if isinstance(source, Mapping):
        check_section(source, name)
        given = dict(source)
        given['label_classes'] = given.pop('classes', None)
        if classes is None:
            options['classes'] = given['label_classes']
        table = given.pop('table', None)
        if table is not None:
            given['table'] = {key: _rows(one) for key, one in table.items()} if isinstance(table, Mapping) else \
                _rows(table)
        return FastInstDataset(**given, **options)
    if isinstance(source, (list, tuple)):
        if not source:
            raise ConfigurationError(f'{name} is an empty list')
        return _joined([open_dataset(item, None, mode, preprocessor, classes, task) for item in source], name)
    if type(source).__name__ == 'MsDataset':
        return _from_ms_dataset(source, options)
    if _is_table(source):
        return FastInstDataset(table=source, **options)
    if hasattr(source, '__getitem__') and hasattr(source, '__len__'):
        return FastInstDataset(source, **options)
    raise ConfigurationError(f'{name}: cannot use a {type(source).__name__}; give a folder, a mapping with '
                             'root or with annotation_file and image_dir, an MsDataset, a table, or a torch data set '
                             'of Sample')


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
    for name, source in (('train', train_source), ('val', eval_source)):
        if source is None:
            check_section(plain(cfg.safe_get(f'dataset.{name}')), f'dataset.{name}')
    with looking_once():
        return _open_both(cfg, train_source, eval_source, train_transform, eval_transform, classes, replaceable, file)


def _open_both(cfg: Any, train_source: Any, eval_source: Any, train_transform: Any, eval_transform: Any,
               classes: Sequence[str] | None, replaceable: Sequence[str], file: str,
               ) -> tuple[FastInstDataset | None, FastInstDataset | None, list[str]]:
    task_of(cfg, file)   # is checked
    task = cfg.safe_get('model.task')
    if task not in (None, 'instance') and getattr(train_transform, 'copy_paste', None) is not None:
        raise ConfigurationError(f'{file}: preprocessor.train.copy_paste pastes objects, which leaves maps of '
                                 f'model.task "{task}" with holes; set it to null')
    train_set = open_dataset(train_source, cfg.safe_get('dataset.train'), 'train', train_transform, classes, task)
    if train_set is None and eval_source is None and not cfg.safe_get('dataset.val'):
        raise ConfigurationError(f'{file}: no training set: give train_dataset= or a dataset.train section with '
                                 'annotation_file and image_dir')
    settled = settle_classes(cfg.safe_get('model.classes'), cfg.safe_get('model.decoder.num_classes'),
                             train_set.classes if train_set else None, asked_for=classes, replaceable=replaceable,
                             file=file)
    eval_set = open_dataset(eval_source, cfg.safe_get('dataset.val'), 'eval', eval_transform, settled, task)
    for name, data in (('training', train_set), ('evaluation', eval_set)):
        if data is not None and len(data) == 0:
            raise ConfigurationError(f'the {name} set has no images')
        if data is not None and data.classes not in (None, settled):
            raise ConfigurationError(f'the {name} set has the classes {data.classes}, the model is to have {settled}')
    if train_set is not None and eval_set is not None and train_set.whole_of is not None and \
            train_set.whole_of == eval_set.whole_of:
        raise ConfigurationError(f'{file}: training and evaluation set are the same images, for the data has no '
                                 'splits; give both val_fraction, for instance 0.2')
    return with_copy_paste(train_set, train_transform), eval_set, settled


def build_transforms(section: Mapping[str, Any], given: Any = None) -> tuple[Callable, Callable]:
    """What is done to training and to evaluation samples.

    Args:
        section: the configuration's ``preprocessor``, in either form that the preprocessor takes.
        given: instead of it, one callable for both or ``{'train': ..., 'val': ...}``; what is missing is as configured.
            A transform of torchvision.transforms.v2 is taken as ``tv_transforms.V2Transform`` does; one alone is for
            training, since it is random and results are given at the image's own size.
    """
    given = {'train': given} if is_v2(given) else given
    if callable(given):
        return given, given
    given = {mode: adapted(transform) for mode, transform in (given or {}).items()}
    common = {key: value for key, value in section.items() if key not in ('train', 'val')}
    train = section.get('train') or {key: value for key, value in common.items() if key == 'max_size'}
    return (given.get('train') or _transform(TrainTransform, train, 'train'),
            given.get('val') or _transform(build_inference_transform, section.get('val') or common, 'val'))


def _transform(cls: Callable, section: Mapping[str, Any], mode: str) -> Callable:
    """The transform of a preprocessor section, or a preprocessor of the user's from ModelScope's registry."""
    kind = section.get('type', PREPROCESSOR)
    if kind != PREPROCESSOR:
        from modelscope.preprocessors.builder import build_preprocessor
        return build_preprocessor(ConfigDict({**section, 'mode': mode}), 'cv')
    try:
        return cls(**{key: value for key, value in section.items() if key not in ('type', 'mode')})
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f'preprocessor.{mode}: {error}') from error


def _from_ms_dataset(source: Any, options: dict[str, Any]) -> FastInstDataset:
    inner = source.ds_instance
    if isinstance(inner, FastInstDataset):
        return inner
    config = source.config_kwargs
    if config and 'split_config' in config:
        known = {key: value for key, value in config.items() if key in KEYS and key != 'classes'}
        return FastInstDataset(**known, **options)
    if _is_table(inner):
        return FastInstDataset(table=inner, **options)
    return FastInstDataset(inner, **options)


def _is_table(source: Any) -> bool:
    """Whether this is a table of Hugging Face's ``datasets``, or an MsDataset around one."""
    return type(_rows(source)).__module__.partition('.')[0] == 'datasets'


def _rows(source: Any) -> Any:
    """The table in an MsDataset, and anything else as it is."""
    return source.ds_instance if type(source).__name__ == 'MsDataset' else source


def _joined(parts: list[FastInstDataset], name: str) -> FastInstDataset:
    if any(part.classes != parts[0].classes for part in parts):
        raise ConfigurationError(f'{name}: its parts have different classes: '
                                 f'{" and ".join(str(part.classes) for part in parts)}; give classes=')
    if any(part.things is not None and set(part.things) != set(parts[0].things or ()) for part in parts):
        raise ConfigurationError(f'{name}: its parts have different things: '
                                 f'{" and ".join(str(part.things) for part in parts)}')
    return FastInstDataset(_Parts(parts), mode=parts[0].mode, classes=parts[0].classes, task=parts[0].task)


class _Parts(ConcatDataset):
    """Data sets in a row. Their image ids become (number of the part, its own id), for each may count from 1."""

    @property
    def things(self) -> list[str] | None:
        return self.datasets[0].things

    @property
    def sizes(self) -> list[tuple[int, int]] | None:
        sizes = [part.sizes for part in self.datasets]
        return None if None in sizes else [size for part in sizes for size in part]

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        sample = super().__getitem__(index)
        return replace(sample, image_id=(bisect_right(self.cumulative_sizes, index), sample.image_id))
