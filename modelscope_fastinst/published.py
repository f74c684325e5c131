"""What the authors published of the models of ``zoo``: their figures, sizes and weight files. Nothing here was measured
by this project.

FastInst: the table in the README of junjiehe96/FastInst. Mask2Former: ``MODEL_ZOO.md`` of facebookresearch/Mask2Former,
and for the numbers of parameters the tables of the paper (arXiv 2112.01527).
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# The weight files of Mask2Former. Whoever fetches one takes on the licence of the authors' model zoo.
MASK2FORMER_FILES = 'https://dl.fbaipublicfiles.com/maskformer/mask2former'
MASK2FORMER_WEIGHTS_LICENCE = 'CC BY-NC 4.0'


@dataclass(frozen=True)
class Published:
    """What is said of one model where it was published.

    Attributes:
        measures: per cent, on the validation set unless the name says otherwise: ``AP`` of masks, ``PQ``, ``mIoU`` (one
            scale), ``boundary AP``.
        parameters: in millions, rounded as published; None where the authors do not say.
        weights: where the file of weights is; None for a model whose file has no lasting address.
    """
    measures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    parameters: int | None = None
    weights: str | None = None

    @property
    def file_name(self) -> str | None:
        """Of the file of weights."""
        return self.weights and self.weights.rpartition('/')[2]


# AP on val2017 and on test-dev.
FASTINST: Mapping[str, Published] = {
    name: Published({'AP': val, 'AP test-dev': test}, millions) for name, val, test, millions in (
        ('fastinst_d1_r50', 34.9, 35.6, 30),
        ('fastinst_d3_r50', 37.9, 38.6, 34),
        ('fastinst_d3_r101', 38.9, 39.9, 53),
        ('fastinst_d1_r50d_dcn', 37.4, 38.0, 30),
        ('fastinst_d3_r50d_dcn', 40.1, 40.5, 35),
    )}

_PARAMETERS = {'r50': 44, 'r101': 63, 'swin_t': 47, 'swin_s': 69, 'swin_b': 107, 'swin_b_in21k': 107, 'swin_l': 216}
# Folders of the weight files: how the authors call backbone and training.
_COCO = {'r50': 'maskformer2_R50_bs16_50ep', 'r101': 'maskformer2_R101_bs16_50ep',
         'swin_t': 'maskformer2_swin_tiny_bs16_50ep', 'swin_s': 'maskformer2_swin_small_bs16_50ep',
         'swin_b': 'maskformer2_swin_base_384_bs16_50ep', 'swin_b_in21k': 'maskformer2_swin_base_IN21k_384_bs16_50ep',
         'swin_l': 'maskformer2_swin_large_IN21k_384_bs16_100ep'}
_ADE20K = {'r50': 'maskformer2_R50_bs16_160k', 'r101': 'maskformer2_R101_bs16_90k',
           'swin_t': 'maskformer2_swin_tiny_bs16_160k', 'swin_s': 'maskformer2_swin_small_bs16_160k',
           'swin_b': 'maskformer2_swin_base_384_bs16_160k_res640',
           'swin_b_in21k': 'maskformer2_swin_base_IN21k_384_bs16_160k_res640',
           'swin_l': 'maskformer2_swin_large_IN21k_384_bs16_160k_res640'}
_ADE20K_OTHER = {'r50': 'maskformer2_R50_bs16_160k', 'swin_l': 'maskformer2_swin_large_IN21k_384_bs16_160k'}
_CITYSCAPES = {'r50': 'maskformer2_R50_bs16_90k', 'swin_l': 'maskformer2_swin_large_IN21k_384_bs16_90k'}

# By data set and task: the names of the measures, and by backbone their values and the end of the file's name.
_TABLES = {
    ('coco', 'instance'): (_COCO, ('AP', 'boundary AP'), {
        'r50': (43.7, 30.6, '3c8ec9'), 'r101': (44.2, 31.1, 'eba159'), 'swin_t': (45.0, 31.8, '86143f'),
        'swin_s': (46.3, 32.9, '1e7f22'), 'swin_b': (46.7, 33.2, 'f6e0f6'), 'swin_b_in21k': (48.1, 34.4, '83d103'),
        'swin_l': (50.1, 36.2, 'e5f453')}),
    ('coco', 'panoptic'): (_COCO, ('PQ', 'AP', 'mIoU'), {
        'r50': (51.9, 41.7, 61.7, '94dc52'), 'r101': (52.6, 42.6, 62.4, 'b807bd'),
        'swin_t': (53.2, 43.3, 63.2, '9fd0ae'), 'swin_s': (54.6, 44.7, 64.2, 'a407fd'),
        'swin_b': (55.1, 45.2, 65.1, '9d7f02'), 'swin_b_in21k': (56.4, 46.3, 67.1, '54b88a'),
        'swin_l': (57.8, 48.6, 67.4, 'f07440')}),
    ('ade20k', 'semantic'): (_ADE20K, ('mIoU', 'mIoU (several scales, flipped)'), {
        'r50': (47.2, 49.2, '500878'), 'r101': (47.8, 50.1, '0d68be'), 'swin_t': (47.7, 49.6, '5274a6'),
        'swin_s': (51.3, 52.4, '011c6d'), 'swin_b': (52.4, 53.7, '503e96'), 'swin_b_in21k': (53.9, 55.1, '7e47bf'),
        'swin_l': (56.1, 57.3, '6b4a3a')}),
    ('ade20k', 'panoptic'): (_ADE20K_OTHER, ('PQ', 'AP', 'mIoU'), {
        'r50': (39.7, 26.5, 46.1, '5c90d4'), 'swin_l': (48.1, 34.2, 54.5, 'e0c58e')}),
    ('ade20k', 'instance'): (_ADE20K_OTHER, ('AP',), {'r50': (26.4, '67e945'), 'swin_l': (34.9, '92dae9')}),
    ('cityscapes', 'panoptic'): (_CITYSCAPES, ('PQ', 'AP', 'mIoU'), {
        'r50': (62.1, 37.3, 77.5, '4ab90c'), 'swin_l': (66.6, 43.6, 82.9, '064788')}),
    ('cityscapes', 'instance'): (_CITYSCAPES, ('AP', 'AP50'), {
        'r50': (37.4, 61.9, '01a8ed'), 'swin_l': (43.7, 71.4, 'dfa862')}),
    ('cityscapes', 'semantic'): (_CITYSCAPES, ('mIoU', 'mIoU (several scales, flipped)'), {
        'r50': (79.4, 82.2, 'cc1b1f'), 'swin_l': (83.3, 84.3, '17c1ee')}),
}


def _mask2former() -> Iterator[tuple[str, Published]]:
    for (data, task), (folders, names, rows) in _TABLES.items():
        for backbone, (*values, checksum) in rows.items():
            file = f'{MASK2FORMER_FILES}/{data}/{task}/{folders[backbone]}/model_final_{checksum}.pkl'
            yield (f'mask2former_{data}_{task}_{backbone}',
                   Published(dict(zip(names, values, strict=True)), _parameters(data, task, backbone), file))


def _parameters(data: str, task: str, backbone: str) -> int | None:
    """The paper has them for COCO and for semantic segmentation of ADE20K, whose Swin-L has half the queries."""
    if (data, task) == ('ade20k', 'semantic'):
        return 215 if backbone == 'swin_l' else _PARAMETERS[backbone]
    return _PARAMETERS[backbone] if data == 'coco' else None


MASK2FORMER: Mapping[str, Published] = dict(_mask2former())
