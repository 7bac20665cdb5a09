from pathlib import Path

import numpy as np
import pytest
import torch

from estimators.base import (
    Batch,
    Estimate,
    EstimatorGroup,
    build_estimator,
    estimator_names,
    name_readers,
)
from evaluation.methods import named, open_methods
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


def test_names_come_from_the_text_or_the_file(tmp_path):
    (tmp_path / "run=1").mkdir()
    (tmp_path / "other.csv").write_text("")
    texts = ["a=what.csv", str(tmp_path / "run=1"), str(tmp_path / "other.csv"), "ser_fiq:passes=9"]
    assert named(texts) == [
        ("a", "what.csv"),
        ("run=1", texts[1]),
        ("other", texts[2]),
        ("ser_fiq:passes=9", "ser_fiq:passes=9"),
    ]
    (tmp_path / "margin-0.4").mkdir()
    (tmp_path / "margin-0.5").mkdir()
    folders = sorted(map(str, tmp_path.glob("margin-*")))
    assert [name for name, _ in named(folders)] == ["margin-0.4", "margin-0.5"]
    with pytest.raises(ValueError, match=r"two methods are called 'a': name them"):
        named(["a=1", "a=2"])


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


def test_estimators_of_every_folder_are_known():
    assert {"embedding_norm", "trained_head", "mc_dropout", "fusion"} <= set(estimator_names())


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


def test_methods_need_a_backbone(tmp_path):
    with pytest.raises(ValueError, match=r"which backbone\? give --backbone_name"):
        open_methods(["embedding_norm"])
    weights = tmp_path / "weights.pth"
    torch.save(MobileFaceNet().state_dict(), weights)
    scores = tmp_path / "scores.csv"
    scores.write_text("0,0.5\n")
    found = open_methods(
        ["embedding_norm", f"theirs={scores}"],
        backbone_name="mobilefacenet",
        backbone_weights=str(weights),
    )
    assert found.names == ("embedding_norm", "theirs")
    assert isinstance(found.estimator.members["theirs"].path, str | Path)
