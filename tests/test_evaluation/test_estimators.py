import math

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.estimators.embedding_norm import EmbeddingNorm
from evaluation.estimators.from_file import FromFile
from evaluation.estimators.trained_head import TrainedHead
from models.output import BackboneOutput
from utils.methods import available, find


def frozen(images):
    """Stand for a frozen backbone: colour means as embedding, twice that as features."""
    assert images.dtype == torch.uint8
    embedding = images.float().mean(dim=(1, 2))
    return BackboneOutput(embedding, 2 * embedding)


class Head(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output
        self.dropout = nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.tensor(0.01))

    def forward(self, output):
        return self.dropout(output.features[:, :1]) * self.weight - 2


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
MEANS = IMAGES.mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("output", "rule"),
    [("probability", lambda raw: 1 / (1 + math.exp(-raw))), ("variance", math.exp)],
)
def test_trained_head_gives_its_uncertainty(output, rule):
    head = Head(output).train()
    estimate = TrainedHead(frozen=frozen, head=head)(IMAGES)
    np.testing.assert_allclose(estimate.mu, MEANS, rtol=1e-5)
    expected = [[rule(0.02 * mean - 2)] for mean in MEANS[:, 0]]
    np.testing.assert_allclose(estimate.sigma_sq, expected, rtol=1e-5)  # dropout was off
    assert head.training  # and is on again


def test_trained_head_goes_back_to_training_after_an_error():
    head = Head("nonsense").train()
    with pytest.raises(ValueError, match="nonsense"):
        TrainedHead(frozen=frozen, head=head)(IMAGES)
    assert head.training


def test_embedding_norm_calls_short_embeddings_uncertain():
    estimate = EmbeddingNorm(frozen=frozen)(IMAGES)
    np.testing.assert_allclose(estimate.sigma_sq[:, 0], -np.linalg.norm(MEANS, axis=1), rtol=1e-5)
    assert estimate.sigma_sq.shape == (5, 1)
    dark = np.concatenate([IMAGES[:1] // 4, IMAGES[:1]])
    sigma_sq = EmbeddingNorm(frozen=frozen)(dark).sigma_sq
    assert sigma_sq[0] > sigma_sq[1]


def test_from_file_npz_aligns_by_key_and_turns_quality_round(tmp_path):
    path = tmp_path / "scores.npz"
    np.savez(path, key=[3, 1, 2], quality=[0.3, 0.1, 0.2])
    estimator = FromFile(path=str(path))
    np.testing.assert_allclose(estimator.uncertainty_of(["1", 2, 3]), [-0.1, -0.2, -0.3])
    with pytest.raises(
        ValueError, match=r"scores.npz: no score for 2 of 3 images, the first is '7"
    ):
        estimator.uncertainty_of([7, 1, 8])
    with pytest.raises(ValueError, match="needs a backbone"):
        estimator(IMAGES)


def test_from_file_csv_by_row_number(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("image,score\n" + "".join(f"{row},{row / 10}\n\n" for row in range(12)))
    estimator = FromFile(path=str(path), orientation="uncertainty", frozen=frozen)
    estimate = estimator(IMAGES, 5)
    np.testing.assert_allclose(estimate.sigma_sq[:, 0], [0.5, 0.6, 0.7, 0.8, 0.9])
    np.testing.assert_allclose(estimate.mu, MEANS, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,1\na,2\n", r"s\.csv: two scores for 'a'"),
        ("a,1\nb,nan\n", r"s\.csv: the score of 'b' is nan"),
        ("a,1\nb\n", r"s\.csv, line 2: expected a name and a number, got \['b'\]"),
        ("path,quality\na,high\n", r"s\.csv, line 2: expected a name and a number"),
        ("", r"s\.csv: no scores in it"),
    ],
)
def test_from_file_errors_name_the_file_and_the_line(tmp_path, text, message):
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        FromFile(path=str(path))


def test_from_file_other_errors(tmp_path):
    with pytest.raises(ValueError, match=r"no score file .*none\.csv"):
        FromFile(path=str(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match="orientation = 'best': must be quality or uncertainty"):
        FromFile(path="x", orientation="best")
    path = tmp_path / "s.npz"
    np.savez(path, key=[1, 2], quality=[0.5])
    with pytest.raises(ValueError, match=r"s\.npz: 2 keys for 1 scores"):
        FromFile(path=str(path))
    np.savez(path, key=[1, 2])
    with pytest.raises(ValueError, match=r"s\.npz: no array quality \(it has: key\)"):
        FromFile(path=str(path))


def test_every_estimator_is_found_by_its_file_name():
    names = available("evaluation.estimators")
    assert {"trained_head", "embedding_norm", "from_file"} <= set(names)
    for name in names:
        assert find("evaluation.estimators", name).name == name
