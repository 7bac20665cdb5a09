import copy

import numpy as np
import pytest
import torch
from torch import nn

from models.heads.fc2 import FC2Head
from models.heads.gap_linear import GapLinearHead
from models.output import BackboneOutput
from models.shared_batch_norm import share_batch_norms
from utils.distributed import ALONE, World

# Shared by this process and the ranks: heads with every kind of BatchNorm, and 11 rows.
SETTING = """
import torch
from torch import nn
from models.heads.fc2 import FC2Head
from models.heads.gap_linear import GapLinearHead
from models.output import BackboneOutput

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
    found = {}
    for step in range(STEPS):
        features, embedding, weight = (one[part].clone() for one in rows(step))
        features.requires_grad_()
        raw = head(BackboneOutput(embedding, features))
        (raw.sigmoid().mean(1) * weight).sum().div(ROWS).backward()
        found |= {f"raw{step}": raw.detach(), f"input{step}": features.grad}
    return found
"""

RANK = (
    SETTING
    + """
import sys
from models.shared_batch_norm import share_batch_norms
from utils.distributed import start, stop
world, _ = start("cpu")
part = slice(0, 4) if world.rank == 0 else slice(4, ROWS)
found = {}
for name, head in heads().items():
    share_batch_norms(head, world)
    found[name] = train(head, part)
    for key, value in head.named_parameters():
        world.sum_(value.grad)
        found[name]["gradient of " + key] = value.grad
    found[name] |= head.state_dict()
torch.save(found, f"{sys.argv[1]}/{world.rank}.pt")
stop(world)
"""
)


def test_two_ranks_are_one_process_on_the_joined_batch(ranks, tmp_path):
    for done in ranks(RANK, str(tmp_path)):
        assert done.returncode == 0, done.stderr
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    setting = {}
    exec(SETTING, setting)
    for name, head in setting["heads"]().items():
        found = [half[name] for half in halves]
        expected = setting["train"](head, slice(None))
        for key, value in expected.items():
            joined = torch.cat([one[key] for one in found])
            torch.testing.assert_close(joined, value, rtol=1e-5, atol=1e-6, msg=f"{name} {key}")
        state = head.state_dict()
        state |= {f"gradient of {key}": one.grad for key, one in head.named_parameters()}
        assert set(found[0]) == set(expected) | set(state)
        for key, value in state.items():
            for one in found:
                torch.testing.assert_close(
                    one[key], value, rtol=1e-5, atol=1e-6, msg=f"{name} {key}"
                )


class Twins(World):
    """Two ranks with the same rows, played by one."""

    def sum_(self, tensor):
        tensor.mul_(2)


TWINS = Twins(0, 2, 0)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def nets(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Flatten(), nn.Linear(36, 5)
    )
    net = net.append(nn.BatchNorm1d(5, affine=False, track_running_stats=False)).to(device)
    return net, copy.deepcopy(net)


@pytest.mark.parametrize("device", DEVICES)
def test_any_device_and_any_norm(device):
    shared, plain = nets(device)
    share_batch_norms(shared, TWINS)
    images = torch.randn(6, 3, 5, 5, device=device)
    double = torch.cat([images, images])
    for _ in range(2):
        one, both = shared(images), plain(double)
        torch.testing.assert_close(torch.cat([one, one]), both, rtol=1e-5, atol=1e-5)
        one[:, 0].square().sum().backward()
        (both[:, 0].square().sum() / 2).backward()
    for (key, value), expected in zip(
        shared.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6, msg=key)
    for one, other in zip(shared.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_gradients_against_differences():
    norm = nn.Sequential(nn.BatchNorm1d(3).double())
    share_batch_norms(norm, World(0, 2, 0))
    object.__setattr__(norm[0], "world", Quiet(0, 2, 0))
    rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (rows,))


class Quiet(World):
    """A rank whose companions have no rows."""

    def sum_(self, tensor):
        pass


def test_values_far_from_zero_keep_their_digits():
    norm = nn.Sequential(nn.BatchNorm1d(1, affine=False))
    share_batch_norms(norm, Quiet(0, 2, 0))
    rows = torch.tensor([[10_000.25], [10_000.5], [10_000.75]])
    np.testing.assert_allclose(
        norm(rows).ravel().numpy(), [-np.sqrt(1.5), 0, np.sqrt(1.5)], rtol=1e-3
    )


def test_the_tensors_stay_the_same_ones():
    head = FC2Head(output="variance", features_shape=(4, 2, 2), log_norm=0.5)
    state = head.state_dict(keep_vars=True)
    share_batch_norms(head, TWINS)
    shared = head.state_dict(keep_vars=True)
    assert list(shared) == list(state)
    assert all(shared[key] is state[key] for key in state)
    modules = list(head.modules())
    share_batch_norms(head, TWINS)
    assert list(head.modules()) == modules


def test_in_eval_mode_nothing_changes():
    head = GapLinearHead(output="probability", features_shape=(4, 2, 2)).eval()
    output = BackboneOutput(torch.randn(3, 5), torch.randn(3, 16))
    expected = head(output)
    share_batch_norms(head, TWINS)
    assert torch.equal(head(output), expected)
    assert not any(module.training for module in head.modules())


def test_one_rank_keeps_its_modules():
    head = FC2Head(output="probability", features_shape=(4, 2, 2))
    share_batch_norms(head, ALONE)
    assert type(head.layers[2]) is nn.BatchNorm1d
