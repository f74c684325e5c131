"""A pipeline's call in its stages: what comes before the network, the network, and what is made of its output.

The output can be kept: other thresholds, classes or tasks are then answered from it, exactly as a call of the pipeline
would, in the time of its last stage.
"""
from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from modelscope.utils.constant import Frameworks
from modelscope.utils.device import device_placement

from modelscope_fastinst.plugin.pipeline import FastInstPipeline
from modelscope_fastinst.results.tiling import Grid
from modelscope_fastinst.structures import NetworkOutput


@dataclass
class NetworkRun:
    """What the network said of one image.

    Attributes:
        output: class and mask logits of its last layer, where they were computed.
        original_size: (height, width) in pixels of the image.
        input_size: (height, width) in pixels at which the network saw it.
        seconds: of 'preprocess' and 'network'.
    """
    output: NetworkOutput
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    seconds: dict[str, float]

    @property
    def nbytes(self) -> int:
        """How much memory keeping it takes."""
        final = self.output.final
        return sum(tensor.numel() * tensor.element_size() for tensor in (final.logits, final.masks))


def can_be_staged(pipeline: Any) -> bool:
    """Whether it is a pipeline of this package's, and no subclass with a way of its own."""
    return type(pipeline) is FastInstPipeline


def number_of_tiles(pipeline: FastInstPipeline, height: int, width: int, **options: Any) -> int:
    """Into how many tiles a call with these options would cut an image; 1 for one piece."""
    tiling = pipeline._sanitize_parameters(**options)[1].get('tiling')
    return 1 if tiling is None else len(Grid.build((height, width), tiling.tile, tiling.overlap))


def input_size(pipeline: FastInstPipeline, height: int, width: int, **options: Any) -> tuple[int, int] | None:
    """(height, width) in pixels at which the network would see an image; None if its preprocessor does not say."""
    sizes = pipeline._sanitize_parameters(**options)[0]
    transform = getattr(pipeline.preprocessor, 'inference_transform', None)
    if transform is None:
        return None
    return transform(**sizes).plan(height, width).size


def run_network(pipeline: FastInstPipeline, image: Any, **options: Any) -> NetworkRun:
    """The first two stages of ``pipeline(image, **options)``; the same errors.

    Args:
        image: one image, in any form that the pipeline takes.
        **options: of a call; those of the last stage are checked and do not matter. The image must be one that they
            do not cut into tiles.
    """
    if not pipeline._model_prepare:
        pipeline.prepare_model()
    sizes = pipeline._sanitize_parameters(**options)[0]
    start = time.perf_counter()
    sample = pipeline.preprocess(image, **sizes)
    middle = time.perf_counter()
    with device_placement(Frameworks.torch, pipeline.device_name), torch.inference_mode():
        output = pipeline.forward([sample])
        if output.final.masks.is_cuda:
            torch.cuda.synchronize(output.final.masks.device)
    end = time.perf_counter()
    output = replace(output, auxiliary=[], proposal_logits=None, query_locations=None, guided_matching=None)
    return NetworkRun(output, sample.original_size, tuple(sample.image.shape[-2:]),
                      {'preprocess': middle - start, 'network': end - middle})


def result_of(pipeline: FastInstPipeline, run: NetworkRun, **options: Any) -> dict[str, Any]:
    """The last stage: what ``pipeline(image, **options)`` gives for the image of this run.

    Args:
        **options: of a call; ``min_size`` and ``max_size`` must be those of the run, which made them already.
    """
    results: Mapping[str, Any] = pipeline._sanitize_parameters(**options)[2]
    with device_placement(Frameworks.torch, pipeline.device_name), torch.inference_mode():
        return pipeline.postprocess(run.output, [run.original_size], **results)[0]
