"""What several training processes share, with two of them on this machine's CPU."""
from __future__ import annotations

import json

import numpy as np
import torch

from modelscope_fastinst.objective.criterion import FastInstCriterion
from modelscope_fastinst.plugin.hooks import largest
from modelscope_fastinst.plugin.metric import FastInstCocoMetric, gathered_values
from modelscope_fastinst.results.rle import encode
from modelscope_fastinst.structures import Instances, Sample, Target

CLASSES = ['thing']


def image(number, found):
    """One object, the left half of an image, and a result that finds it or does not."""
    mask = np.zeros((1, 16, 16), bool)
    mask[:, :, :8] = True
    sample = Sample(torch.zeros(3, 16, 16, dtype=torch.uint8), image_id=number, original_size=(16, 16),
                    annotations=[{'category_id': 0, 'segmentation': encode(mask)[0]}])
    box = [[0, 0, 8, 16]] if found else [[8, 0, 16, 16]]
    return sample, Instances(np.float32([0.9]), np.array([0]), encode(mask if found else ~mask), np.float32(box))


def metric_of(images):
    metric = FastInstCocoMetric(CLASSES)
    metric.add([found for _, found in images], {'samples': [sample for sample, _ in images]})
    return metric


def work(rank, folder):
    """What each process does; image 2, which is found, comes in both."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    try:
        objects = [1, 4][rank]
        target = Target(torch.zeros(objects, dtype=torch.int64), torch.zeros(objects, 8, 8, dtype=torch.bool))
        images = [[image(1, found=False), image(2, found=True)], [image(2, found=True), image(3, found=False)]][rank]
        cpu = torch.device('cpu')
        shared = {'num_masks': FastInstCriterion._num_masks([target], cpu),
                  'one is not finite': largest(rank == 1, cpu), 'all are finite': largest(False, cpu),
                  'values': gathered_values([metric_of(images)])}
        with open(f'{folder}/{rank}.json', 'w', encoding='utf-8') as file:
            json.dump(shared, file)
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes_agree_and_count_each_image_once(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text(encoding='utf-8')) for rank in (0, 1))
    assert first == second
    assert first['num_masks'] == 2.5
    assert (first['one is not finite'], first['all are finite']) == (1, 0)
    whole = metric_of([image(1, found=False), image(2, found=True), image(3, found=False)])
    assert first['values'] == whole.evaluate()
    assert 0 < first['values']['segm_mAP'] < 1
