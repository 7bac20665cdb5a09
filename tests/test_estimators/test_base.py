"""The contract: a batch's output is computed once, a group has a column for each member."""

import numpy as np
import pytest
import torch

from estimators.base import Batch, Estimate, EstimatorGroup, build_estimator, name_readers
from models.backbones.mobilefacenet import MobileFaceNet
from models.frozen import FrozenBackbone
from utils.config import Method


class Fixed:
    """An estimator that gives its own numbers and counts what it saw."""

    name = "fixed"

    def __init__(self, columns):
        self.columns = columns

    def __call__(self, batch):
        return Estimate(np.ones((len(batch), 2), np.float32), self.columns[: len(batch)])


class ByRow(Fixed):
    def check_names(self, names):
        self.names = names

    def __call__(self, batch):
        rows = np.array(batch.rows, np.float32)
        return Estimate(np.zeros((len(rows), 2), np.float32), rows[:, None])


@pytest.fixture
def frozen():
    torch.manual_seed(0)
    return FrozenBackbone(MobileFaceNet())


@pytest.fixture
def faces():
    return np.random.default_rng(0).integers(256, size=(3, 112, 112, 3)).astype(np.uint8)


def test_a_batch_asks_each_backbone_once_and_mirrors_back(faces):
    calls = []

    def frozen(images):
        calls.append(images)
        return images.float().mean()

    batch = Batch(faces, rows=range(3), names=["a", "b", "c"])
    mirrored = batch.mirrored()
    assert mirrored.mirrored() is batch
    assert mirrored is batch.mirrored()
    assert (mirrored.rows, mirrored.names) == (batch.rows, batch.names)
    assert batch.output(frozen) is batch.output(frozen)
    mirrored.output(frozen)
    assert len(calls) == 2
    np.testing.assert_array_equal(calls[1].numpy(), faces[:, :, ::-1])
    del batch  # a mirror image outlives its batch
    np.testing.assert_array_equal(mirrored.mirrored().images, faces)


def test_a_group_has_a_column_for_each_and_the_first_ones_embeddings(frozen, faces):
    wide = np.array([[1, 3], [2, 2], [4, 4]], np.float32)
    by_row = ByRow(None)
    both = EstimatorGroup({"wide": Fixed(wide), "row": by_row})
    found = both(Batch(faces, range(7, 10)))
    assert both.name == "wide+row"
    assert name_readers(both) == [by_row]
    np.testing.assert_array_equal(found.mu, 1)
    np.testing.assert_allclose(found.sigma_sq, [[1.5, 7], [2, 8], [4, 9]], rtol=1e-5)


def test_a_group_shares_forward_passes(frozen, faces):
    passes = []
    frozen.backbone.register_forward_hook(lambda *_: passes.append(1))
    names = ["embedding_norm", "flip_disagreement", "mc_dropout"]
    members = {name: build_estimator(Method(name), frozen=frozen) for name in names}
    alone = [members[name](Batch(faces)).sigma_sq[:, 0] for name in names]
    passes.clear()
    together = EstimatorGroup(members)(Batch(faces)).sigma_sq
    np.testing.assert_array_equal(together.T, alone)
    assert len(passes) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("norm", r"no file, folder or estimator 'norm' \(estimators: brightness"),
        ("embeding_norm", r"did you mean 'embedding_norm'\?"),
        ("trained_head", r"trained_head needs a run: name its folder"),
    ],
)
def test_methods_that_are_not_there(name, message, frozen):
    with pytest.raises(ValueError, match=message):
        build_estimator(Method(name), frozen=frozen)
