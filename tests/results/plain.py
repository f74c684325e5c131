"""Instance inference the plain way, as the authors wrote it: upsample every query's mask, then select."""
from __future__ import annotations

import torch
from torch.nn import functional as F

from modelscope_fastinst.structures import NetworkOutput, Prediction


def plain_postprocess(logits, masks, canvas, size, original, candidates=100):
    """One image's scores, labels, upsampled mask logits ``[N, H, W]`` and queries; candidates by class probability."""
    upsampled = F.interpolate(masks[None], size=canvas, mode='bilinear', align_corners=False)
    upsampled = F.interpolate(upsampled[..., :size[0], :size[1]], size=original, mode='bilinear', align_corners=False)
    probabilities = logits.softmax(-1)[:, :-1]
    top, picked = probabilities.flatten().topk(min(candidates, probabilities.numel()))
    queries, labels = picked // probabilities.shape[1], picked % probabilities.shape[1]
    upsampled = upsampled[0, queries]
    sigmoid = upsampled.sigmoid()
    inside = (sigmoid > 0.5).float()
    quality = (sigmoid * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    return top * quality, labels, upsampled, queries


def random_output(seed, images=1, queries=6, classes=3, logits_size=(5, 7), canvas=(32, 64), sizes=((30, 50),),
                  scale=4.0):
    """A network's output with random logits."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, queries, classes + 1, generator=generator) * scale
    masks = torch.randn(images, queries, *logits_size, generator=generator) * scale
    return output_of(logits, masks, canvas, sizes)


def output_of(logits, masks, canvas, sizes):
    return NetworkOutput(final=Prediction(logits, masks), auxiliary=[], canvas=canvas, sizes=list(sizes),
                         proposal_logits=torch.zeros(len(logits), logits.shape[2], 1, 1))
