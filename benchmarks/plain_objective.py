"""The training objective of FastInst as straightforward code writes it: what ``training.py`` measures ours against.

It computes the same losses as ``modelscope_fastinst.objective`` and takes no care of time or memory: every mask becomes
a float picture of the whole batch's canvas, every head samples those pictures anew, every image's costs go to the host
on their own, and every count and loss is asked for where it is needed.
"""
from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def sample(maps, points):
    """``[N, C, H, W]`` at ``[N, P, 2]`` -> ``[N, C, P]``."""
    return F.grid_sample(maps, 2 * points.unsqueeze(2) - 1, align_corners=False).squeeze(3)


def padded(targets, canvas, device):
    """Float masks of every image on the batch's canvas, and labels."""
    result = []
    for target in targets:
        masks = torch.zeros(len(target.masks), *canvas, device=device)
        masks[:, :target.masks.shape[1], :target.masks.shape[2]] = target.masks.to(device).float()
        result.append((target.labels.to(device), masks))
    return result


class PlainObjective(nn.Module):
    """Same arguments and weights as ``FastInstCriterion``'s defaults."""

    def __init__(self, num_classes, num_points=12544):
        super().__init__()
        self.num_classes, self.num_points = num_classes, num_points
        weights = torch.ones(num_classes + 1)
        weights[-1] = 0.1
        self.register_buffer('class_weights', weights, persistent=False)

    def match(self, prediction, locations, targets):
        """Pairs queries and objects image by image."""
        from scipy.optimize import linear_sum_assignment
        pairs = []
        masks = [target.masks for target in targets]
        canvas = tuple(max(mask.shape[axis] for mask in masks) for axis in (1, 2))
        canvas = tuple(-(-side // 32) * 32 for side in canvas)
        with torch.no_grad(), torch.autocast(prediction.masks.device.type, enabled=False):
            for image, (labels, full) in enumerate(padded(targets, canvas, prediction.masks.device)):
                classes = -prediction.logits[image].float().softmax(-1)[:, labels]
                inside = -(sample(full[:, None], locations[image].float()[None].repeat(len(full), 1, 1))
                           .squeeze(1) > 0).float().T
                points = torch.rand(1, self.num_points, 2, device=full.device)
                predicted = prediction.masks[image].float()[:, None]
                x = sample(predicted, points.repeat(len(predicted), 1, 1)).squeeze(1)
                t = sample(full[:, None], points.repeat(len(full), 1, 1)).squeeze(1)
                positive = F.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction='none')
                negative = F.binary_cross_entropy_with_logits(x, torch.zeros_like(x), reduction='none')
                ce = (positive @ t.T + negative @ (1 - t).T) / self.num_points
                p = x.sigmoid()
                dice = 1 - (2 * p @ t.T + 1) / (p.sum(1)[:, None] + t.sum(1)[None] + 1)
                cost = (5 * ce + 2 * classes + 5 * dice + 1000 * inside).cpu()
                rows, columns = linear_sum_assignment(cost.numpy())
                pairs.append((torch.as_tensor(rows), torch.as_tensor(columns)))
        return pairs

    def match_proposal(self, logits, targets):
        """Pairs positions and objects image by image."""
        from scipy.optimize import linear_sum_assignment
        pairs = []
        with torch.no_grad():
            for image, (labels, full) in enumerate(targets):
                classes = -logits[image].float().softmax(0).flatten(1).T[:, labels]
                if len(full):
                    inside = F.adaptive_max_pool2d(full[:, None], logits.shape[-2:]).flatten(1).gt(0).float().T
                    cost = 2 * classes - 1000 * inside
                else:
                    cost = classes
                rows, columns = linear_sum_assignment(cost.cpu().numpy())
                pairs.append((torch.as_tensor(rows), torch.as_tensor(columns)))
        return pairs

    def forward(self, output, targets):
        """The weighted losses by name."""
        device = output.final.masks.device
        with torch.autocast(device.type, enabled=False):
            targets = padded(targets, output.canvas, device)
            number = torch.as_tensor([float(sum(len(labels) for labels, _ in targets))], device=device)
            number = max(number.item(), 1.0)
            losses = {}
            heads = [('', output.final, None)]
            guided = len(output.auxiliary) // 2
            for index, prediction in enumerate(output.auxiliary):
                heads.append((f'_{index}', prediction, output.guided_matching if index < guided else None))
            for suffix, prediction, pairs in heads:
                if pairs is None:
                    pairs = self.match(prediction, output.query_locations, self._as_targets(targets))
                ce, mask, dice = self._head(prediction, pairs, targets, number)
                losses |= {f'loss_ce{suffix}': 2 * ce, f'loss_mask{suffix}': 5 * mask, f'loss_dice{suffix}': 5 * dice}
            losses['loss_proposal'] = 20 * self._proposal(output.proposal_logits.float(), targets)
        return losses

    @staticmethod
    def _as_targets(targets):
        from modelscope_fastinst.structures import Target
        return [Target(labels, masks) for labels, masks in targets]

    def _head(self, prediction, pairs, targets, number):
        logits, masks = prediction.logits.float(), prediction.masks.float()
        classes = torch.full(logits.shape[:2], self.num_classes, device=logits.device)
        for image, (queries, objects) in enumerate(pairs):
            classes[image, queries] = targets[image][0][objects]
        ce = F.cross_entropy(logits.transpose(1, 2), classes, self.class_weights)
        predicted = torch.cat([masks[image, queries] for image, (queries, _) in enumerate(pairs)])[:, None]
        truth = torch.cat([targets[image][1][objects] for image, (_, objects) in enumerate(pairs)])[:, None]
        if not len(predicted):
            return ce, masks.sum() * 0, masks.sum() * 0
        with torch.no_grad():
            count = len(predicted)
            candidates = torch.rand(count, 3 * self.num_points, 2, device=masks.device)
            uncertainty = -sample(predicted, candidates).abs()
            chosen = int(0.75 * self.num_points)
            index = uncertainty[:, 0].topk(chosen, dim=1)[1]
            points = torch.gather(candidates, 1, index[:, :, None].repeat(1, 1, 2))
            points = torch.cat([points, torch.rand(count, self.num_points - chosen, 2, device=masks.device)], 1)
            t = sample(truth, points).squeeze(1)
        x = sample(predicted, points).squeeze(1)
        mask = F.binary_cross_entropy_with_logits(x, t, reduction='none').mean(1).sum() / number
        p = x.sigmoid()
        dice = (1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).sum() / number
        return ce, mask, dice

    def _proposal(self, logits, targets):
        classes = torch.full((len(logits), logits.shape[2] * logits.shape[3]), self.num_classes, device=logits.device)
        for image, (positions, objects) in enumerate(self.match_proposal(logits, targets)):
            classes[image, positions] = targets[image][0][objects]
        return F.cross_entropy(logits.flatten(2), classes)
