"""Samples -> the batch that a model's ``forward(**batch)`` takes."""
from __future__ import annotations

from collections.abc import Sequence

from modelscope_fastinst.structures import Sample


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
