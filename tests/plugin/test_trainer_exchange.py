"""When several processes exchange gradients; light imports, for each process makes them anew."""
from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.nn.parallel import DistributedDataParallel


def processes(rank, folder):
    """Two processes gather two iterations; the second is bad, so its exchange of gradients does not take place."""
    from modelscope_fastinst.plugin.optimize_hook import OptimizeHook
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    try:
        network = torch.nn.Linear(2, 1, bias=False)
        torch.nn.init.ones_(network.weight)
        model = DistributedDataParallel(network)
        hook = OptimizeHook(cumulative_iters=2)
        trainer = SimpleNamespace(
            model=model, network=network, optimizer=torch.optim.SGD(network.parameters(), 1.0), lr_scheduler=None,
            grad_scaler=torch.amp.GradScaler('cpu', enabled=False), iters_per_epoch=4, max_iters=4, amp=None,
            data_batch={}, logger=SimpleNamespace(warning=lambda text: None))
        hook.before_run(trainer)
        shared = []
        # process 0 sees 1, 3, 5, 7 and process 1 sees 2, 4, 6, 8; the fourth of process 1 is no number
        for iteration in range(4):
            trainer.iter = trainer.inner_iter = iteration
            value = 1.0 + 2 * iteration + rank
            with hook.exchange(trainer):
                loss = model(torch.tensor([[value, float('nan') if iteration == 3 and rank else 1.0]])).sum()
            trainer.train_outputs, trainer.log_vars = {'loss': loss}, {'loss': loss.item()}
            hook.after_train_iter(trainer)
            shared.append(None if network.weight.grad is None else network.weight.grad[0, 0].item())
        torch.save({'weight': network.weight.detach(), 'gradients': shared}, f'{folder}/{rank}.pth')
    finally:
        torch.distributed.destroy_process_group()


def test_processes_exchange_gradients_once_a_step(tmp_path):
    torch.multiprocessing.spawn(processes, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    # Between the steps each process has its own gradients, half of its own value (of two iterations) and no more.
    assert (first['gradients'][0], second['gradients'][0]) == (0.5, 1.0)
    torch.testing.assert_close(first['weight'], second['weight'])
    # Means over the iterations and the processes: of 1, 2, 3, 4, and of 5, 6 alone.
    torch.testing.assert_close(first['weight'][0, 0], torch.tensor(1.0 - 2.5 - 5.5))
