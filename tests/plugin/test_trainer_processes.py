"""What several training processes share, with two of them on this machine's CPU."""
from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from modelscope_fastinst.plugin import processes
from modelscope_fastinst.plugin.metric import FastInstCocoMetric, gathered_values
from modelscope_fastinst.plugin.optimize_hook import largest
from modelscope_fastinst.plugin.processes import ProcessesError, averaged, first_here_first, from_first, join
from modelscope_fastinst.plugin.stop_hook import StopHook
from modelscope_fastinst.results.rle import encode
from modelscope_fastinst.structures import Instances, Sample

from .panoptic_runs import metrics_on

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


def asked_to_stop(rank, file):
    """The second process only is asked to stop, and the first saves for a while; whether all was saved at the end."""
    def save(trainer):
        if rank == 0:
            time.sleep(0.5)
            file.touch()

    hook = StopHook()
    hook._asked = signal.SIGTERM if rank == 1 else None
    try:
        hook.after_train_iter(SimpleNamespace(
            train_outputs={'loss': torch.zeros(())}, stepped=True, logger=SimpleNamespace(info=lambda text: None),
            checkpoint_hook=SimpleNamespace(save_within_epoch=save)))
    except SystemExit:
        return file.exists()


def work(rank, folder):
    """What each process does; image 2, which is found, comes in both."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    try:
        images = [[image(1, found=False), image(2, found=True)], [image(2, found=True), image(3, found=False)]][rank]
        cpu = torch.device('cpu')
        shared = {'join': join('cpu'), 'processes': processes.world_size(), 'mean': averaged({'loss': rank}, cpu),
                  'from the first': from_first(lambda: f'of {rank}'), 'all': processes.gathered(rank),
                  'one is not finite': largest(rank == 1, cpu), 'all are finite': largest(False, cpu),
                  'values': gathered_values([metric_of(images), *metrics_on([(0, 1, 2), (1, 2, 3)][rank])])}
        with first_here_first():   # a download, which is there for whoever comes later
            fetched = Path(folder, 'fetched')
            own = {'was there': fetched.exists()}
            fetched.touch()
        try:
            with first_here_first():
                raise OSError('no network')
        except (OSError, ProcessesError) as error:
            own['error'] = str(error)
        own['saved'] = asked_to_stop(rank, Path(folder, 'saved'))
        with open(f'{folder}/{rank}.json', 'w', encoding='utf-8') as file:
            json.dump([shared, own], file)
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes_agree_and_count_each_image_once(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    (first, own_first), (second, own_second) = (
        json.loads((tmp_path / f'{rank}.json').read_text(encoding='utf-8')) for rank in (0, 1))
    assert first == second
    assert (first['one is not finite'], first['all are finite']) == (1, 0)
    assert (first['join'], first['processes'], first['mean'], first['all']) == ('cpu', 2, {'loss': 0.5}, [0, 1])
    assert first['from the first'] == 'of 0'
    assert own_first == {'was there': False, 'error': 'no network', 'saved': True}
    assert own_second == {'was there': True,
                          'error': 'another training process failed; its own message says why',
                          'saved': True}   # a launcher ends the others soon after one has left
    whole = metric_of([image(1, found=False), image(2, found=True), image(3, found=False)])
    assert first['values'] == gathered_values([whole, *metrics_on(range(4))])
    assert all(0 < first['values'][name] < 1 for name in ('segm_mAP', 'PQ', 'mIoU'))
