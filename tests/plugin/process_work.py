"""What the training processes of the tests do: ``torchrun ... -m tests.plugin.process_work TASK FOLDER``.

Each task also runs in a single process, for comparison.
"""
from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from modelscope.trainers.hooks.hook import Hook

from modelscope_fastinst.cli import main
from modelscope_fastinst.objective import points
from modelscope_fastinst.plugin import processes
from modelscope_fastinst.plugin.build import build_evaluator
from tests.plugin.trainer_runs import shapes, trainer_for, weights

# Frozen batch norms and images of one size: then a batch is the sum of its shares. SGD, for Adam divides by gradients
# that are nothing but rounding.
EQUAL = {'model.backbone.norm': 'FrozenBN', 'train.max_epochs': 2, 'train.ema': {'decay': 0.9},
         'train.optimizer': {'type': 'SGD', 'lr': 0.002, 'momentum': 0.9, 'options': {'grad_clip': {'max_norm': 20.0}}},
         'train.checkpoint': {'period': {'interval': 1, 'max_checkpoint_num': None}},
         'evaluation.period': {'interval': 2}}


def same_points(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """In the place of ``points.draw``: every object has the same points, whichever process has it."""
    generator = torch.Generator().manual_seed(shape[1])
    return torch.rand((1, *shape[1:]), generator=generator).expand(shape).clone().to(device)


def equal(folder: Path, batch_size: int) -> None:
    """A whole training by the command line, and an evaluation; every process writes what it has found."""
    points.draw = same_points
    status = main(['train', '--config', str(folder / 'configuration.json'), '--data', str(folder / 'data'),
                   '--work-dir', str(folder / 'work'), '--device', 'cpu',
                   '--set', f'train.dataloader.batch_size_per_gpu={batch_size}'])
    evaluator = build_evaluator(str(folder / 'reference'), eval_dataset={'root': str(folder / 'data'), 'split': 'val'},
                                device='cpu', work_dir=str(folder / 'evaluated'))
    report(folder, status=status, values=evaluator.evaluate())


def shares(folder: Path) -> None:
    """A training in which the second process has images without any object at first, then a loss that is NaN."""
    seen: list[list[str]] = []

    class Watch(Hook):
        PRIORITY = 1

        def before_train_iter(self, trainer: Any) -> None:
            samples = trainer.data_batch['samples']
            seen.append([str(sample.image_id) for sample in samples])
            if processes.rank() == 1 and trainer.iter == 0:
                for target in trainer.data_batch['targets']:
                    target.labels, target.masks = target.labels[:0], target.masks[:0]

        def after_train_iter(self, trainer: Any) -> None:
            if processes.rank() == 1 and trainer.iter == 1:
                trainer.log_vars['loss'] = float('nan')

    trainer = trainer_for(folder, {'train.max_epochs': 2}, train_dataset=shapes(7), callbacks=[Watch()])
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    unused = [name for name, parameter in trainer.network.named_parameters() if parameter.requires_grad
              and torch.equal(before[name], after[name])]
    report(folder, seen=seen, unused=unused, draws=torch.rand(3).tolist(),
           checksum=[float(after[name].double().sum()) for name, _ in trainer.network.named_parameters()])


def dies(folder: Path, how: str) -> None:
    """The second process dies in the third iteration while the first goes on."""
    class Die(Hook):
        PRIORITY = 1

        def before_train_iter(self, trainer: Any) -> None:
            if processes.rank() == 1 and trainer.iter == 2:
                if how == 'killed':
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(f'{folder}/picture_7.png: cannot be read')

    trainer_for(folder, {'train.max_epochs': 500}, callbacks=[Die()]).train()


def resumed(folder: Path, stop_after: int) -> None:
    """A training that is asked to stop, by a signal to its second process only; or without, the whole of it."""
    class Stop(Hook):
        PRIORITY = 1

        def before_train_iter(self, trainer: Any) -> None:
            if processes.rank() == 1 and trainer.iter + 1 == stop_after:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer = trainer_for(folder, {'train.max_epochs': 2, 'train.ema': {'decay': 0.9}, 'train.logging.interval': 3},
                          train_dataset=shapes(12), callbacks=[Stop()], resume_from='latest')
    trainer.train()
    torch.save(weights(trainer), folder / f'weights_{processes.rank()}.pth')


def report(folder: Path, **content: Any) -> None:
    (folder / f'report_{processes.rank()}.json').write_text(json.dumps(content), encoding='utf-8')


if __name__ == '__main__':
    task, place, *values = sys.argv[1:]
    {'equal': equal, 'shares': shares, 'dies': dies, 'resumed': resumed}[task](
        Path(place), *(int(value) if value.isdigit() else value for value in values))
