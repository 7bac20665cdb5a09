import copy

import numpy as np
import pytest
import torch
from torch import nn

from models.backbones.base import BackboneOutput
from models.heads.fc2 import FC2Head
from models.heads.gap_linear import GapLinearHead
from training.branch import share_batch_norms
from utils.distributed import ALONE, World

# Shared by this process and the ranks: heads with every kind of BatchNorm, and 11 rows.
SETTING = """
import torch
from models.heads.fc2 import FC2Head
from models.heads.gap_linear import GapLinearHead
from models.backbones.base import BackboneOutput

SHAPE, ROWS, STEPS = (4, 2, 2), 11, 3

def heads():
    torch.manual_seed(0)
    made = {
        "fc2": FC2Head(output="variance", features_shape=SHAPE, hidden=6, dim=3, log_norm=0.5),
        "gap_linear": GapLinearHead(output="probability", features_shape=SHAPE),
        "average": FC2Head(output="probability", features_shape=SHAPE, hidden=5),
    }
    made["average"].layers[2].momentum = None
    return made

def rows(step):
    generator = torch.Generator().manual_seed(step)
    features = torch.randn(ROWS, 16, generator=generator) * 2 + 3
    embedding = torch.randn(ROWS, 5, generator=generator)
    return features, embedding, torch.rand(ROWS, generator=generator)

def train(head, part):
    values = {}
    for step in range(STEPS):
        features, embedding, weight = (tensor[part].clone() for tensor in rows(step))
        features.requires_grad_()
        raw = head(BackboneOutput(embedding, features))
        (raw.sigmoid().mean(1) * weight).sum().div(ROWS).backward()
        values |= {f"raw{step}": raw.detach(), f"input{step}": features.grad}
    return values
"""

RANK = (
    SETTING
    + """
import sys
from training.branch import share_batch_norms
from utils.distributed import start, stop
world, _ = start("cpu")
part = slice(0, 4) if world.rank == 0 else slice(4, ROWS)
values = {}
for name, head in heads().items():
    share_batch_norms(head, world)
    values[name] = train(head, part)
    for key, value in head.named_parameters():
        world.sum_(value.grad)
        values[name]["gradient of " + key] = value.grad
    values[name] |= head.state_dict()
torch.save(values, f"{sys.argv[1]}/{world.rank}.pt")
stop(world)
"""
)


def test_two_ranks_are_one_process_on_the_joined_batch(ranks, tmp_path):
    for process in ranks(RANK, str(tmp_path)):
        assert process.returncode == 0, process.stderr
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    setting = {}
    exec(SETTING, setting)
    for name, head in setting["heads"]().items():
        by_rank = [half[name] for half in halves]
        rows = setting["train"](head, slice(None))
        state = head.state_dict()
        state |= {f"gradient of {key}": value.grad for key, value in head.named_parameters()}
        assert set(by_rank[0]) == set(rows) | set(state)
        close = {"rtol": 1e-5, "atol": 1e-6}
        for key, value in rows.items():
            joined = torch.cat([values[key] for values in by_rank])
            torch.testing.assert_close(joined, value, **close, msg=f"{name} {key}")
        for key, value in state.items():
            for values in by_rank:
                torch.testing.assert_close(values[key], value, **close, msg=f"{name} {key}")


class Played(World):
    """One of two ranks, the other of which has the same rows (2) or none (1)."""

    def __init__(self, rows):
        super().__init__(0, 2, 0)
        object.__setattr__(self, "rows", rows)

    def sum_(self, tensor):
        tensor.mul_(self.rows)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_any_device_and_any_norm(device):
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Flatten(), nn.Linear(36, 5)
    )
    plain = plain.append(nn.BatchNorm1d(5, affine=False, track_running_stats=False)).to(device)
    shared = copy.deepcopy(plain)
    share_batch_norms(shared, Played(2))
    images = torch.randn(6, 3, 5, 5, device=device)
    for _ in range(2):
        half, both = shared(images), plain(torch.cat([images, images]))
        torch.testing.assert_close(torch.cat([half, half]), both, rtol=1e-5, atol=1e-5)
        half[:, 0].square().sum().backward()
        (both[:, 0].square().sum() / 2).backward()
    for key, expected in plain.state_dict().items():
        value = shared.state_dict()[key]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6, msg=key)
    for weight, expected in zip(shared.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, expected.grad, rtol=1e-4, atol=1e-4)


def test_gradients_against_differences():
    norm = nn.Sequential(nn.BatchNorm1d(3).double())
    share_batch_norms(norm, Played(1))
    rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (rows,))


def test_values_far_from_zero_keep_their_digits():
    norm = nn.Sequential(nn.BatchNorm1d(1, affine=False))
    share_batch_norms(norm, Played(1))
    rows = torch.tensor([[10_000.25], [10_000.5], [10_000.75]])
    np.testing.assert_allclose(
        norm(rows).ravel().numpy(), [-np.sqrt(1.5), 0, np.sqrt(1.5)], rtol=1e-3
    )


def test_the_tensors_stay_the_same_ones():
    head = FC2Head(output="variance", features_shape=(4, 2, 2), log_norm=0.5)
    state = head.state_dict(keep_vars=True)
    share_batch_norms(head, Played(2))
    shared = head.state_dict(keep_vars=True)
    assert list(shared) == list(state)
    assert all(shared[key] is state[key] for key in state)
    modules = list(head.modules())
    share_batch_norms(head, Played(2))
    assert list(head.modules()) == modules


def test_in_eval_mode_and_with_one_rank_nothing_changes():
    head = GapLinearHead(output="probability", features_shape=(4, 2, 2)).eval()
    share_batch_norms(head, ALONE)
    assert type(head.standardise) is nn.BatchNorm1d
    output = BackboneOutput(torch.randn(3, 5), torch.randn(3, 16))
    expected = head(output)
    share_batch_norms(head, Played(2))
    assert torch.equal(head(output), expected)
    assert not any(module.training for module in head.modules())
