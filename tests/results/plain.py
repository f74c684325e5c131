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


def upsampled_masks(output, original):
    """Mask logits of the first image at its original size, ``[Q, H, W]``."""
    height, width = output.sizes[0]
    masks = F.interpolate(output.final.masks[:1].float(), size=output.canvas, mode='bilinear', align_corners=False)
    return F.interpolate(masks[..., :height, :width], size=original, mode='bilinear', align_corners=False)[0]


def plain_semantic(output, original, before_resize):
    """The scores ``[K, H, W]`` of the first image's classes."""
    classes = output.final.logits[0].float().softmax(-1)[:, :-1]
    if not before_resize:
        return torch.einsum('qc,qhw->chw', classes, upsampled_masks(output, original).sigmoid())
    masks = F.interpolate(output.final.masks[:1].float(), size=output.canvas, mode='bilinear', align_corners=False)[0]
    scores = torch.einsum('qc,qhw->chw', classes, masks.sigmoid())
    height, width = output.sizes[0]
    return F.interpolate(scores[None, :, :height, :width], size=original, mode='bilinear', align_corners=False)[0]


def plain_panoptic(output, original, things, object_mask_threshold=0.8, overlap_threshold=0.8):
    """The first image's ids ``[H, W]``, its segments as (id, label, isthing), and by how little a pixel was decided."""
    scores, labels = output.final.logits[0].float().softmax(-1).max(-1)
    keep = (labels != output.final.logits.shape[-1] - 1) & (scores > object_mask_threshold)
    scores, labels = scores[keep], labels[keep]
    masks = upsampled_masks(output, original)[keep]
    ids, segments = torch.zeros(original, dtype=torch.int32), []
    if not len(scores):
        return ids, segments, 1.0
    won = scores[:, None, None] * masks.sigmoid()
    winner = won.argmax(0)
    margin = float(masks.abs().min())
    if len(won) > 1:
        best = won.topk(2, dim=0).values
        margin = min(margin, float((best[0] - best[1]).min()))
    stuff = {}
    for query, label in enumerate(labels.tolist()):
        own = masks[query].sigmoid() >= 0.5
        mask = (winner == query) & own
        area, whole = int((winner == query).sum()), int(own.sum())
        if not (area and whole and mask.any()) or area / whole < overlap_threshold:
            continue
        if label not in things and label in stuff:
            ids[mask] = stuff[label]
            continue
        segments.append((len(segments) + 1, label, label in things))
        stuff[label] = len(segments)
        ids[mask] = len(segments)
    return ids, segments, margin


def scene_output(seed, queries=12, classes=5, logits_size=(24, 32), canvas=(192, 256), size=(190, 250), regions=6,
                 contrast=2.0):
    """An output like a trained network's: regions that share out the image, and for each a query that is sure."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.arange(length) / length for length in logits_size), indexing='ij')
    centers = torch.rand(regions, 2, generator=generator)
    distance = ((y - centers[:, :1, None]) ** 2 + (x - centers[:, 1:, None]) ** 2).sqrt() * max(logits_size)
    others = torch.stack([torch.cat([distance[:k], distance[k + 1:]]).min(0).values if regions > 1
                          else torch.full_like(distance[0], 99) for k in range(regions)])
    found = (contrast * (others - distance)).clamp(-9, 9)
    weak = found[torch.randint(regions, (queries - regions,), generator=generator)] * 0.5 - 1
    masks = torch.cat([found, weak]) + torch.randn(queries, *logits_size, generator=generator) * 0.05
    logits = torch.randn(queries, classes + 1, generator=generator)
    logits[torch.arange(regions), torch.randint(classes, (regions,), generator=generator)] += 9
    logits[regions:, -1] += 9
    return output_of(logits[None], masks[None], canvas, [size])
