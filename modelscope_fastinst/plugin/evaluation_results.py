"""What evaluation compares with the ground truth: the results of each task, from one run of the network a batch."""
from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from modelscope_fastinst.structures import NetworkOutput

# (network output, (height, width) of each image) -> a result an image: Instances, PanopticMap or SemanticMap
Postprocess = Callable[[NetworkOutput, Sequence[tuple[int, int]]], 'list']

MAX_INSTANCES = 100


def evaluation_postprocessor(max_instances: int = MAX_INSTANCES, things: frozenset[int] | None = None) -> Postprocess:
    """Network output to instances as COCO counts them: no score threshold, masks as RLE.

    Args:
        things: the classes whose instances are wanted; None for all.
    """
    from modelscope_fastinst.results.instances import InstancePostprocessor
    return InstancePostprocessor(score_thr=0.0, max_instances=max_instances, mask_format='rle', things=things)


def evaluation_postprocessors(tasks: Collection[str], trained_for: str, things: frozenset[int],
                              settings: Mapping[str, Any] | None = None) -> dict[str, Postprocess]:
    """Network output to results, for each task that is to be measured.

    Args:
        tasks: of 'instance', 'semantic' and 'panoptic'.
        trained_for: the model's task.
        things: indices of its thing classes.
        settings: ``postprocessor`` of the configuration, whose thresholds panoptic maps depend on. Those of instances
            do not count: AP goes through all scores.

    Raises:
        ValueError: a threshold that is none.
    """
    from modelscope_fastinst.results.panoptic import PanopticPostprocessor
    from modelscope_fastinst.results.semantic import SemanticPostprocessor
    thresholds = {name: (settings or {})[name] for name in ('object_mask_threshold', 'overlap_threshold')
                  if (settings or {}).get(name) is not None}
    makers: dict[str, Callable[[], Postprocess]] = {
        'instance': lambda: evaluation_postprocessor(things=things if trained_for == 'panoptic' else None),
        'semantic': lambda: SemanticPostprocessor(before_resize=trained_for == 'semantic'),
        'panoptic': lambda: PanopticPostprocessor(things, **thresholds)}
    return {task: makers[task]() for task in tasks}


def find_results(model: Any, images: Sequence[Tensor], original_sizes: Sequence[tuple[int, int]], size_divisor: int,
                 postprocessors: Mapping[str, Postprocess]) -> dict[str, list]:
    """The results of each task for each image.

    Images go through the model together only where their canvases are equal: padding changes an image's result.

    Args:
        model: gives a ``NetworkOutput`` for ``forward(images=...)``.
        images: ``[3, H, W]`` tensors of any sizes.
        original_sizes: (height, width) in pixels at which results are wanted.
        size_divisor: the network's.
        postprocessors: by task.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(tuple(-(-side // size_divisor) for side in image.shape[-2:]), []).append(index)
    found: dict[str, dict[int, Any]] = {task: {} for task in postprocessors}
    for indices in groups.values():
        output = model.forward(images=[images[index] for index in indices])
        sizes = [original_sizes[index] for index in indices]
        for task, postprocess in postprocessors.items():
            found[task].update(zip(indices, postprocess(output, sizes), strict=True))
    return {task: [results[index] for index in range(len(images))] for task, results in found.items()}
