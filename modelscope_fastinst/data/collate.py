"""Samples -> the batch that a model's ``forward(**batch)`` takes."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from modelscope_fastinst.structures import Sample, Target


def collate(samples: Sequence[Sample]) -> dict:
    """Gathers samples without padding them: the network owns the canvas, so only the network pads.

    Args:
        samples: the drawn samples, of any sizes; all with ground truth or all without.

    Returns:
        ``images``: list of uint8 ``[3, H, W]`` RGB tensors; ``targets``: list of ``Target`` at the same sizes, or None
        where the samples carry none; ``samples``: the samples themselves, for the ids, names, original sizes and
        ground truth that evaluation needs.

    Raises:
        ValueError: for an empty batch, or one in which some samples have ground truth and some have not.
    """
    samples = list(samples)
    if not samples:
        raise ValueError('cannot collate an empty batch')
    targets = [sample.target for sample in samples]
    without = [sample.file_name or sample.image_id for sample in samples if sample.target is None]
    if without and len(without) < len(samples):
        raise ValueError(f'a batch mixes samples with and without ground truth; without: {without}')
    return {'images': [sample.image for sample in samples], 'targets': None if without else targets,
            'samples': samples}


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors and targets on a device; from pinned memory the copy does not make the host wait.

    Args:
        batch: what ``collate``, or a function of the user's, made: tensors, ``Target``s, and lists, tuples and mappings
            of them. Everything else, samples as well, stays where it is.
    """
    if isinstance(batch, (torch.Tensor, Target)):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
