"""``pipeline('image-segmentation', model=...)``: images in, instances or maps out."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from modelscope.pipelines.base import Pipeline
from modelscope.pipelines.builder import PIPELINES
from modelscope.preprocessors.base import Preprocessor
from modelscope.utils.constant import Frameworks
from modelscope.utils.device import device_placement
from modelscope.utils.logger import get_logger

from modelscope_fastinst.plugin.configuration import read_configuration
from modelscope_fastinst.plugin.huggingface import is_huggingface_folder, load_model
from modelscope_fastinst.plugin.pipeline_results import as_result
from modelscope_fastinst.plugin.postprocessor import (
    PANOPTIC_SETTINGS,
    TASK_OPTIONS,
    FastInstPostprocessor,
    build_postprocessor,
)
from modelscope_fastinst.plugin.preprocessor import FastInstPreprocessor
from modelscope_fastinst.plugin.registry import TASK
from modelscope_fastinst.plugin.tiled import (
    PROGRESS,
    TILE_OPTIONS,
    Tiling,
    build_tiling,
    load_picture,
    segment_tiles,
)
from modelscope_fastinst.structures import TASKS, NetworkOutput, Sample

PREPROCESS_OPTIONS = ('min_size', 'max_size')
POSTPROCESS_OPTIONS = ('score_thr', 'max_instances', 'classes', 'mask_format', *PANOPTIC_SETTINGS)
OPTIONS = PREPROCESS_OPTIONS + POSTPROCESS_OPTIONS + TILE_OPTIONS
# ModelScope's pipeline() takes `task` for itself, so there it has another name.
DEFAULT_TASK = 'default_task'
_TOGETHER = '_together'   # a call's batch size, on its way to the tiles

# Arguments of ModelScope's own Pipeline, and those that its pipeline() puts in for every pipeline.
_BASE_ARGUMENTS = ('config_file', 'device_map', 'auto_collate', 'trust_remote_code', 'compile', 'compile_options')

logger = get_logger()


@PIPELINES.register_module(TASK, module_name='mask2former-image-segmentation', force=True)
@PIPELINES.register_module(TASK, module_name='fast-instance-segmentation', force=True)
class FastInstPipeline(Pipeline):
    """Instance, semantic and panoptic segmentation with FastInst and Mask2Former.

    A call takes an image (path, http(s) URL, file content as bytes, PIL image, or array: ``H x W`` gray, ``H x W x 3``
    BGR, ``H x W x 4`` BGRA) or a list of images, and these options, whose defaults are those given to ``pipeline()``,
    else those of the model's configuration:

    - ``task``: 'instance', 'semantic' or 'panoptic', of those that the model can do: a panoptic model all three, others
      what they were trained for. Default: what it was trained for, or ``default_task`` of ``pipeline()``.
    - ``batch_size``: for lists, how many images of equal canvas go through the network together. Results do not depend
      on it, but for rounding on a GPU; on a CPU, where it would gain nothing, they are equal to the last bit.
    - ``score_thr``: instances and segments below this score are left out; one number, or numbers by class name (other
      classes keep theirs). What the configuration says holds for instances.
    - ``min_size``, ``max_size``: short and longest long side of the network's input, in pixels; None for the default.
    - ``max_instances``: at most this many instances of an image, the best.
    - ``classes``: names of the classes to look for. In maps the pixels of the others become void.
    - ``mask_format``: 'array' for uint8 ``H x W`` masks of 0 and 1, 'rle' for COCO RLE dicts.
    - ``tile``: for pictures far larger than the network's input (instances and semantic maps): cut them into tiles with
      this side, in pixels of the picture, or (height, width); 'auto' for the network's own input size, at which no
      pixel is lost; None for one piece. A picture that fits into one tile gives what it gives without. Each tile is to
      the network an image of its own, in which it finds as many objects as the model's configuration allows
      (``batch_size`` of them at a time, 8 on a GPU unless given); ``max_instances`` is for the whole picture, and not
      given there is no limit. How objects on seams become one, and their scores, is told in `results.seams`. Many
      objects in large pictures are best asked for as ``mask_format='rle'``.
    - ``tile_overlap``: the least share of a tile's side that neighbours have in common, above 0 and at most 0.5,
      default 0.25. Objects that are smaller than this are seen whole by at least one tile.
    - ``tile_progress``: a function that is called with the numbers of tiles done and of all.
    - ``object_mask_threshold``, ``overlap_threshold``: of panoptic maps, see `results.panoptic.PanopticPostprocessor`.

    In a call, an option that its task has no use for is an error; given to ``pipeline()`` it waits for those that have.

    The result of an image is a dict of four lists with one entry an instance, best first: ``scores`` (float in [0, 1]),
    ``labels`` (class names), ``masks`` (at the size of the image) and ``boxes`` (``[x1, y1, x2, y2]`` in pixels, tight
    around the mask, right and bottom exclusive). Nothing found gives empty lists. A list of images gives a list of
    results. Calls from several threads do not disturb each other.

    A panoptic result has one entry a segment in these lists, and besides ``id_map``, int32 ``H x W``, the segments' ids
    with 0 for void, and ``segments``, a dict of ``id``, ``label``, ``score``, ``isthing``, ``area`` and ``bbox``
    (``[x, y, width, height]``) for each. A semantic result has one entry for each class that is present, in the order
    of the model's classes, and besides ``label_map``, int16 ``H x W``, indices into these, -1 for void. A class's score
    is a sum over queries, here its mean over the class's pixels: no probability, and it may exceed 1.

    Args:
        model: model folder, or a model that was built already. Any registered model will do that gives a
            `NetworkOutput` for ``model(images=[...])`` and has ``classes``, and for maps ``task`` and
            ``thing_classes``.
        preprocessor: makes a `Sample` of an image; default the one of the model's configuration.
        postprocessor: a callable, a registered name or settings, see `plugin.postprocessor`; default the one of the
            model's configuration.
        optimize: fold batch norms and lay out memory for speed; logits move by at most 1e-2. A model that was built
            already is copied for it, so that later changes of its weights do not show. False for the plain network.
        device: 'cpu', 'gpu', 'cuda', 'gpu:0', 'cuda:1'; without a GPU the CPU is used.
        default_task: the ``task`` of calls that name none (``task`` itself is the first argument of ModelScope's
            ``pipeline()`` and always 'image-segmentation'). A folder of Hugging Face's does not say what it was trained
            for; where what is guessed does not allow this task, it is taken to be that.
        **kwargs: defaults for the options of a call, and arguments of ModelScope's Pipeline.

    Raises:
        TypeError: an unknown argument or option; names the valid ones.
        ValueError, FileNotFoundError: a configuration that cannot work.
        CheckpointError: weights that are missing or do not fit.
    """

    def __init__(self, model: Any, preprocessor: Any = None, postprocessor: Any = None, optimize: bool = True,
                 device: str = 'gpu', default_task: str | None = None, **kwargs: Any) -> None:
        self._defaults = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        unknown = sorted(set(kwargs) - set(_BASE_ARGUMENTS))
        if unknown:
            raise TypeError(f'pipeline() got unknown arguments {unknown}; valid are model, preprocessor, '
                            f'postprocessor, optimize, device, {", ".join((DEFAULT_TASK, *OPTIONS, *_BASE_ARGUMENTS))}')
        if isinstance(model, (list, tuple)):
            raise TypeError('FastInst takes one model, not a list of models')
        kwargs.pop('auto_collate', None)
        folder = model if isinstance(model, str) else model.model_dir
        configuration = read_configuration(folder)
        if preprocessor is None:
            # Stock models have no such section; ModelScope would go on without a preprocessor.
            if configuration.get('preprocessor'):
                preprocessor = Preprocessor.from_pretrained(folder)
                if preprocessor is None:
                    raise ValueError(f'{folder}/configuration.json: preprocessor.type is missing; '
                                     'use "fastinst-preprocessor"')
            else:
                preprocessor = FastInstPreprocessor()
        if isinstance(model, str) and is_huggingface_folder(folder):
            model = load_model(folder, default_task, device)   # ModelScope would want a configuration file
        super().__init__(model=model, preprocessor=preprocessor, device=device, auto_collate=False, **kwargs)
        if getattr(self.model, 'weights_loaded', True) is False:
            logger.warning(f'{folder}: model.pretrained is false in its configuration, so its weights are random')
        if optimize and hasattr(self.model, 'optimized'):
            self.model = self.model.optimized()
            self.models = [self.model]
        self.model.eval()
        trained_for = getattr(self.model, 'task', 'instance')
        self.postprocessor = build_postprocessor(postprocessor, configuration.get('postprocessor'), self.model.classes,
                                                 trained_for, getattr(self.model, 'thing_classes', ()))
        self.default_task = trained_for if default_task is None else default_task
        self._check_task(self.default_task, DEFAULT_TASK)
        self._check_sizes(self._defaults)
        useful = {name for task in TASKS[trained_for]
                  for name in (*PREPROCESS_OPTIONS, *TASK_OPTIONS[task], *TILE_OPTIONS)}
        if not useful.issuperset(self._defaults):
            raise ValueError(f'{", ".join(sorted(set(self._defaults) - useful))}: of no use for a model that was '
                             f'trained for {trained_for} segmentation')
        self._tiling(self.default_task, {})
        for task in TASKS[trained_for]:
            if task in self._answered:
                self._check_results(task, _chosen(TASK_OPTIONS[task], self._defaults))

    @property
    def _answered(self) -> Sequence[str]:
        """The tasks that the postprocessor knows; a user's own one says so if they are more than instances."""
        return getattr(self.postprocessor, 'tasks', ('instance',))

    def _check_task(self, task: Any, option: str = 'task') -> None:
        """Raises ValueError for a task that the model was not trained for, or whose results nobody makes."""
        trained_for = getattr(self.model, 'task', 'instance')
        if task not in TASKS[trained_for]:
            raise ValueError(f'{option} is {task!r}; the weights of this model, which was trained for {trained_for} '
                             f'segmentation, allow {", ".join(TASKS[trained_for])}')
        if task not in self._answered:
            raise ValueError(f'{option} is {task!r}; the postprocessor {type(self.postprocessor).__name__} knows '
                             f'{", ".join(self._answered)} only. Ask for that ({DEFAULT_TASK}=), or say in its '
                             'attribute `tasks` what else it can do')

    def _check_sizes(self, options: Mapping[str, Any]) -> None:
        # Parts of a user's own need not have a check.
        if isinstance(self.preprocessor, FastInstPreprocessor):
            self.preprocessor.inference_transform(**_chosen(PREPROCESS_OPTIONS, options))

    def _check_results(self, task: str, options: Mapping[str, Any]) -> None:
        check = getattr(self.postprocessor, 'check', None)
        if check is not None:
            check(**_named(task), **options)

    def __call__(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """Segments an image or a list of images; see the class."""
        if args:   # which ModelScope would not look at
            raise TypeError(f'options of a call are given by name, as in task=; got {", ".join(map(repr, args))}')
        batch_size = kwargs.pop('batch_size', None)
        if batch_size is not None:
            if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
                raise ValueError(f'batch_size is {batch_size!r}; it must be a whole number, at least 1')
            kwargs[_TOGETHER] = batch_size
        if isinstance(input, list):
            kwargs['batch_size'] = batch_size or 1
        return super().__call__(input, **kwargs)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict, dict, dict]:
        """The options of a call, sorted into those of preprocessing, forward and postprocessing."""
        task = options.pop('task', None)
        task = self.default_task if task is None else task
        together = options.pop(_TOGETHER, None)
        unknown = sorted(set(options) - {*OPTIONS, PROGRESS})
        if unknown:
            raise TypeError(f'unknown options {unknown}; valid are batch_size, {", ".join(OPTIONS)}, task, {PROGRESS}')
        self._check_task(task)
        # Errors before any work is done.
        self._check_sizes(options)
        tiling = self._tiling(task, options, together)
        if set(options) - {*TILE_OPTIONS, PROGRESS}:
            self._check_results(task, _chosen(POSTPROCESS_OPTIONS, options))
        # None is no size: the default that was given holds.
        sizes = {name: value for name, value in options.items() if value is not None and name in PREPROCESS_OPTIONS}
        results = {**_chosen(TASK_OPTIONS[task], self._defaults), **_chosen(POSTPROCESS_OPTIONS, options)}
        return ({**_chosen(PREPROCESS_OPTIONS, self._defaults), **sizes}, {} if tiling is None else {'tiling': tiling},
                {**_named(task), **results})

    def _tiling(self, task: str, options: Mapping[str, Any], together: int | None = None) -> Tiling | None:
        """What a call's options and the defaults say of tiles; raises ValueError for what will not do."""
        sizes = {**_chosen(PREPROCESS_OPTIONS, self._defaults), **_chosen(PREPROCESS_OPTIONS, options)}
        given = {**_chosen(TILE_OPTIONS, self._defaults), **_chosen((*TILE_OPTIONS, PROGRESS), options)}
        return build_tiling(given, task, self.preprocessor, sizes, together)

    def _process_single(self, input: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._finish(self._prepare(input, kwargs), kwargs)

    def _process_iterator(self, input: Any, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        for index, item in enumerate(input):
            yield self._finish(self._prepare_item(index, item, kwargs), kwargs)

    def _finish(self, ready: Sample | dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
        return ready if isinstance(ready, dict) else self._segment([ready], params.get('postprocess_params', {}))[0]

    def _process_batch(self, input: list, batch_size: int, **kwargs: Any) -> list[dict[str, Any]]:
        """Results in the order of the inputs. Only images that have the same canvas when alone share a batch.

        The network keeps no padding mask, so an image padded to a larger canvas would give another result (and would
        with other neighbours give yet another).
        """
        results: list[Any] = [None] * len(input)
        waiting: dict[tuple[int, int], list[tuple[int, Sample]]] = {}

        def flush(canvas: tuple[int, int]) -> None:
            indices, samples = zip(*waiting.pop(canvas), strict=True)
            segmented = self._segment(samples, kwargs.get('postprocess_params', {}))
            for index, result in zip(indices, segmented, strict=True):
                results[index] = result

        for index, item in enumerate(input):
            sample = self._prepare_item(index, item, kwargs)
            if isinstance(sample, dict):
                results[index] = sample
                continue
            canvas = self._canvas(sample)
            waiting.setdefault(canvas, []).append((index, sample))
            if len(waiting[canvas]) == batch_size:
                flush(canvas)
        for canvas in list(waiting):
            flush(canvas)
        return results

    def _canvas(self, sample: Sample) -> tuple[int, int]:
        divisor = getattr(self.model, 'size_divisor', 32)
        height, width = sample.image.shape[-2:]
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor

    def _prepare(self, item: Any, params: Mapping[str, Any]) -> Sample | dict[str, Any]:
        """An image as the network is to see it; of one that is cut into tiles, the result."""
        sizes, tiling = params.get('preprocess_params', {}), params.get('forward_params', {}).get('tiling')
        if tiling is None:
            return self.preprocess(item, **sizes)
        picture = load_picture(item)
        if len(tiling.grid(picture)) == 1:
            # A part of a user's own may read images in another way.
            return self.preprocess(picture if isinstance(self.preprocessor, FastInstPreprocessor) else item, **sizes)
        options = dict(params.get('postprocess_params', {}))
        limit = options.pop('max_instances', None)
        mask_format = options.get('mask_format', getattr(self.postprocessor, 'mask_format', 'array'))
        if isinstance(self.postprocessor, FastInstPostprocessor):   # others may not know the option
            options['mask_format'] = 'rle'
        found = segment_tiles(picture, tiling, lambda tile: self.preprocess(tile, **sizes),
                              lambda samples: self._found(samples, options), len(self.model.classes), limit,
                              mask_format)
        return as_result(found, self.model.classes, mask_format)

    def _prepare_item(self, index: int, item: Any, params: Mapping[str, Any]) -> Sample | dict[str, Any]:
        try:
            return self._prepare(item, params)
        except (OSError, TypeError, ValueError) as error:
            try:
                named = type(error)(f'input {index}: {error}')
            except TypeError:   # an exception with a constructor of its own
                named = ValueError(f'input {index}: {error}')
            raise named from error

    def _segment(self, samples: Sequence[Sample], params: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self._over(samples, lambda output, sizes: self.postprocess(output, sizes, **params))

    def _found(self, samples: Sequence[Sample], params: Mapping[str, Any]) -> list[Any]:
        """What the postprocessor gives, not yet in ModelScope's form."""
        return self._over(samples, lambda output, sizes: self.postprocessor(output, sizes, **params))

    def _over(self, samples: Sequence[Sample], finish: Callable[[NetworkOutput, list[tuple[int, int]]], list]) -> list:
        # On a CPU a larger batch is no faster, but its sums are rounded otherwise, which now and then flips a pixel of
        # an attention mask and moves scores by 1e-2: results would depend on the batch.
        step = 1 if self.device.type == 'cpu' else len(samples)
        results = []
        with device_placement(Frameworks.torch, self.device_name), torch.inference_mode():
            for start in range(0, len(samples), step):
                together = samples[start:start + step]
                output = self.forward(together)
                results += finish(output, [sample.original_size for sample in together])
        return results

    def forward(self, inputs: Sequence[Sample], **_: Any) -> NetworkOutput:
        """The network's output for samples that share a canvas."""
        return self.model(images=[sample.image for sample in inputs])

    def postprocess(self, inputs: NetworkOutput, original_sizes: list[tuple[int, int]],
                    **options: Any) -> list[dict[str, Any]]:
        """One result an image, in ModelScope's form, at these (height, width) in pixels."""
        mask_format = options.get('mask_format', getattr(self.postprocessor, 'mask_format', 'array'))
        return [as_result(found, self.model.classes, mask_format)
                for found in self.postprocessor(inputs, original_sizes, **options)]


def _chosen(names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def _named(task: str) -> dict[str, str]:
    """The task as an option for the postprocessor; one that finds instances only need not know the word."""
    return {} if task == 'instance' else {'task': task}
