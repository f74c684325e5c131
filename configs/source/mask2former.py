"""Writes the configurations of the published Mask2Former models: ``python configs/source/mask2former.py``.

They differ in data set, task and backbone only, so they are made from one description of each. The values are those of
facebookresearch/Mask2Former's ``configs``; ``configs/README.md`` says where our trainer does otherwise.
"""
from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(FOLDER.parent))

from modelscope_fastinst import zoo  # noqa: E402
from modelscope_fastinst.data.label_sets import (  # noqa: E402
    ADE20K,
    ADE20K_INSTANCE,
    CITYSCAPES,
    CITYSCAPES_INSTANCE,
    COCO_INSTANCE,
    COCO_PANOPTIC,
    LabelSet,
)

WIDTH = 120
STAGES = ['res2', 'res3', 'res4', 'res5']
# The task's own first. A panoptic model is measured at all three tasks, as the authors do.
METRICS = {'instance': ['fastinst-coco-metric'], 'semantic': ['fastinst-semantic-metric'],
           'panoptic': ['fastinst-panoptic-metric', 'fastinst-coco-metric', 'fastinst-semantic-metric']}
LABELS: dict[tuple[str, str], LabelSet] = {
    ('coco', 'instance'): COCO_INSTANCE, ('coco', 'panoptic'): COCO_PANOPTIC,
    ('ade20k', 'instance'): ADE20K_INSTANCE, ('ade20k', 'panoptic'): ADE20K, ('ade20k', 'semantic'): ADE20K,
    ('cityscapes', 'instance'): CITYSCAPES_INSTANCE, ('cityscapes', 'panoptic'): CITYSCAPES,
    ('cityscapes', 'semantic'): CITYSCAPES}


def resnet(depth: int, norm: str = 'FrozenBN') -> dict[str, Any]:
    return {'type': 'resnet', 'depth': depth, 'norm': norm, 'out_features': STAGES, 'stem_out_channels': 64,
            'res2_out_channels': 256}


def swin(embed_dim: int, depths: list[int], num_heads: list[int], window_size: int) -> dict[str, Any]:
    return {'type': 'swin', 'embed_dim': embed_dim, 'depths': depths, 'num_heads': num_heads,
            'window_size': window_size, 'drop_path_rate': 0.3, 'out_features': STAGES}


# The section and the ImageNet weights: torchvision's where it has them, else a file of Microsoft's, which has no
# checksum in its name and is to be fetched by hand.
BACKBONES: dict[str, tuple[dict[str, Any], str]] = {
    'r50': (resnet(50), 'ResNet50_Weights.IMAGENET1K_V1'),
    'r101': (resnet(101), 'ResNet101_Weights.IMAGENET1K_V1'),
    'swin_t': (swin(96, [2, 2, 6, 2], [3, 6, 12, 24], 7), 'Swin_T_Weights.IMAGENET1K_V1'),
    'swin_s': (swin(96, [2, 2, 18, 2], [3, 6, 12, 24], 7), 'Swin_S_Weights.IMAGENET1K_V1'),
    'swin_b': (swin(128, [2, 2, 18, 2], [4, 8, 16, 32], 12), 'swin_base_patch4_window12_384.pth'),
    'swin_b_in21k': (swin(128, [2, 2, 18, 2], [4, 8, 16, 32], 12), 'swin_base_patch4_window12_384_22k.pth'),
    'swin_l': (swin(192, [2, 2, 18, 2], [6, 12, 24, 48], 12), 'swin_large_patch4_window12_384_22k.pth'),
}


def model(data: str, task: str, backbone: str) -> dict[str, Any]:
    labels = LABELS[data, task]
    section = dict(BACKBONES[backbone][0])
    # The authors train these norms, over all GPUs: on Cityscapes, and on ADE20K the R101 for semantic segmentation.
    trained_norms = section['type'] == 'resnet' and (data == 'cityscapes' or (data, backbone) == ('ade20k', 'r101'))
    if trained_norms:
        section['norm'] = 'BN'
    queries = 200 if backbone == 'swin_l' and task != 'semantic' else 100
    content = {
        'type': 'mask2former',
        'task': task,
        'backbone': section,
        'encoder': {'type': 'msdeformattn', 'in_features': STAGES, 'convs_dim': 256, 'mask_dim': 256, 'nheads': 8,
                    'enc_layers': 6, 'dim_feedforward': 1024, 'num_points': 4, 'norm': 'GN'},
        'decoder': {'type': 'masked-attention', 'num_classes': len(labels), 'hidden_dim': 256, 'num_queries': queries,
                    'nheads': 8, 'dim_feedforward': 2048, 'dec_layers': 9, 'pre_norm': False, 'mask_dim': 256},
        'criterion': {'num_points': 12544},
        'classes': list(labels.names)}
    if task == 'panoptic':
        content['things'] = list(labels.things)
    return content


def preprocessor(data: str, task: str, backbone: str) -> dict[str, Any]:
    """Sizes at test, and the augmentation: large-scale jitter on COCO, a crop of a resized image elsewhere."""
    own = {'type': 'fastinst-preprocessor'}
    # An image's objects that a crop lost stay as empty masks, except where the authors filter them or where only
    # classes that are seen are listed.
    drop_empty = task == 'semantic' or (data, task) == ('coco', 'instance')
    if data == 'coco':
        return {**own, 'min_size': 800, 'max_size': 1333,
                'train': {**own, 'large_scale_jitter': {'range': [0.1, 2.0], 'size': 1024}, 'flip': 0.5,
                          'drop_empty': drop_empty}}
    small = data == 'ade20k' and task == 'semantic' and not backbone.startswith(('swin_b', 'swin_l'))
    short = {'ade20k': 512 if small else 640, 'cityscapes': 1024}[data]
    return {**own, 'min_size': short, 'max_size': 2048 if data == 'cityscapes' else 4 * short,
            'train': {**own, 'min_sizes': [short * tenths // 10 for tenths in range(5, 21)], 'max_size': 4 * short,
                      'crop': None, 'window': [512, 1024] if data == 'cityscapes' else [short, short], 'color': 'ssd',
                      'flip': 0.5, 'drop_empty': drop_empty}}


def postprocessor(task: str) -> dict[str, Any]:
    content: dict[str, Any] = {'type': 'fastinst-postprocessor'}
    if task != 'semantic':
        content |= {'score_thr': 0.5, 'max_instances': 100}
    if task == 'panoptic':
        content |= {'object_mask_threshold': 0.8, 'overlap_threshold': 0.8}
    return content


def train(data: str, task: str, backbone: str) -> dict[str, Any]:
    twice = 2 if data == 'coco' and backbone == 'swin_l' else 1   # 100 epochs
    iterations = {'coco': 368750 * twice, 'ade20k': 160000, 'cityscapes': 90000}[data]
    by_iteration = {'options': {'by_epoch': False}}
    schedule = ({'type': 'MultiStepLR', 'milestones': [327778 * twice, 355092 * twice], 'gamma': 0.1, **by_iteration}
                if data == 'coco' else {'type': 'PolynomialLR', 'power': 0.9, **by_iteration})
    content = {
        'max_iters': iterations,
        'seed': 42,
        'amp': 'fp16',
        'backbone_weights': BACKBONES[backbone][1],
        'dataloader': {'batch_size_per_gpu': 16, 'workers_per_gpu': 8, 'persistent_workers': True,
                       'aspect_ratio_grouping': True},
        'batch_scaling': {'base_batch_size': 16},
        'optimizer': {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05, 'backbone_multiplier': 0.1,
                      'options': {'grad_clip': {'max_norm': 0.01, 'norm_type': 2.0}}},
        'lr_scheduler': schedule,
        'checkpoint': {'period': {'interval': 5000, 'by_epoch': False, 'max_checkpoint_num': 2}},
        'logging': {'interval': 20}}
    if model(data, task, backbone)['backbone'].get('norm') == 'BN':
        content['sync_batchnorm'] = True
    return content


def configuration(name: str) -> dict[str, Any]:
    """The configuration of one of ``zoo.MASK2FORMER_NAMES``."""
    _, data, task, backbone = name.split('_', 3)
    return {
        'framework': 'pytorch',
        'task': 'image-segmentation',
        'pipeline': {'type': 'mask2former-image-segmentation'},
        'model': model(data, task, backbone),
        'preprocessor': preprocessor(data, task, backbone),
        'postprocessor': postprocessor(task),
        'train': train(data, task, backbone),
        'evaluation': {'dataloader': {'batch_size_per_gpu': 1, 'workers_per_gpu': 4}, 'metrics': METRICS[task],
                       'period': {'interval': 5000, 'by_epoch': False}}}


def text(value: Any, indent: int = 0, used: int = 0) -> str:
    """JSON for people: on one line what fits, lists of names filled, the rest one entry a line.

    Args:
        indent: of the line on which the value begins.
        used: characters on that line before the value.
    """
    flat = json.dumps(value, ensure_ascii=False)
    deep = isinstance(value, dict) and indent == 0
    if not isinstance(value, (dict, list)) or not deep and used + len(flat) < WIDTH:
        return flat
    inner = ' ' * (indent + 2)
    if isinstance(value, list):
        # spaces inside a name must not be where a line ends
        items = json.dumps([str(item).replace(' ', '\0') if isinstance(item, str) else item for item in value])[1:-1]
        filled = textwrap.fill(items.replace('\\u0000', '\0'), WIDTH, initial_indent=inner, subsequent_indent=inner,
                               break_long_words=False, break_on_hyphens=False)
        return '[\n' + filled.replace('\0', ' ') + '\n' + ' ' * indent + ']'
    rows = [f'{inner}{json.dumps(key)}: {text(item, indent + 2, len(inner) + len(json.dumps(key)) + 2)}'
            for key, item in value.items()]
    return '{\n' + ',\n'.join(rows) + '\n' + ' ' * indent + '}'


def content(name: str) -> str:
    """The text of the file of that model."""
    return text(configuration(name)) + '\n'


if __name__ == '__main__':
    for name in zoo.MASK2FORMER_NAMES:
        (FOLDER / f'{name}.json').write_text(content(name), 'utf-8')
