"""Two training processes, each with half of a batch, learn what one with the whole batch learns."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.objective import points
from modelscope_fastinst.objective.criterion import build_criterion
from modelscope_fastinst.structures import Target
from tests.variants import variant_config

FASTINST = ('ppm-fpn', 'dual', 'activation-guided', True)
MASK2FORMER = ('msdeformattn', 'masked-attention', 'static', False)   # no proposals, no guided heads
SIDE = 64


def scene(objects):
    """An image and as many objects; more than the nine queries, or none, as well."""
    generator = torch.Generator().manual_seed(objects)
    masks = torch.zeros(objects, SIDE, SIDE, dtype=torch.bool)
    for mask in masks:
        top, left = torch.randint(0, 40, (2,), generator=generator).tolist()
        mask[top:top + 16, left:left + 20] = True
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return image, Target(torch.arange(objects) % 3, masks)


def grid_points(shape, device):
    """The same points for every object, wherever it is: what is random must not tell the processes apart."""
    generator = torch.Generator().manual_seed(shape[1])
    return torch.rand(1, *shape[1:], generator=generator).expand(shape)


def gradients(scenes, variant):
    torch.manual_seed(0)
    points.draw = grid_points
    config = variant_config(*variant)
    network = build_network(config).train()
    criterion = build_criterion(config['criterion'], 3)
    images, targets = zip(*scenes, strict=True)
    losses = criterion(network(list(images), list(targets), match=criterion.match), list(targets))
    sum(losses.values()).backward()
    found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    if torch.distributed.is_initialized():   # as DistributedDataParallel does
        torch.distributed.all_reduce(found)
        found /= torch.distributed.get_world_size()
    return found


def work(rank, folder, counts, variant):
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    try:
        torch.set_num_threads(1)
        found = gradients([scene(number) for number in counts[rank]], variant)
        if rank == 0:
            torch.save(found, f'{folder}/gradients.pt')
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize('counts, variant', [
    pytest.param([[1, 2], [12, 4]], FASTINST, id='unequal numbers of objects, one image with more than queries'),
    pytest.param([[1, 0], [0, 0]], FASTINST, id='a process without objects, and one object in all'),
    pytest.param([[1, 12], [0, 2]], MASK2FORMER, id='Mask2Former, which has no proposals'),
])
def test_halves_of_a_batch_give_the_gradient_of_the_whole(tmp_path, counts, variant, monkeypatch):
    monkeypatch.setattr(points, 'draw', grid_points)
    whole = gradients([scene(number) for half in counts for number in half], variant)
    torch.multiprocessing.spawn(work, (str(tmp_path), counts, variant), nprocs=2)
    halves = torch.load(tmp_path / 'gradients.pt')
    assert (halves - whole).norm() < 1e-4 * whole.norm()
