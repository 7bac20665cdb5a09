"""The fusion estimator and its script on rendered faces, with a backbone of random weights."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from data.faces import open_faces
from estimators.base import Batch, Estimate
from estimators.embedding_norm import EmbeddingNorm
from estimators.fusion import Fusion, load_fusion
from estimators.trained_head import TrainedHead
from evaluation import fit_fusion
from models.backbones.mobilefacenet import MobileFaceNet
from models.run import load_run
from utils.config import Method

FACES = "synthetic:identities=6,images=3,seed=1"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run):
    """Folder with runs `one` and `two` on one backbone, `far` on another."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("near", "other")):
        torch.manual_seed(seed)
        torch.save(MobileFaceNet(embedding_size=16).state_dict(), folder / f"{name}.pth")
    fields = {
        "backbone": Method("mobilefacenet", embedding_size=16),
        "head": Method("gap_fc2", output="probability", hidden=8),
    }
    for seed, (name, weights) in enumerate(
        {"one": "near.pth", "two": "near.pth", "far": "other.pth"}.items(), start=1
    ):
        write_run(folder / name, weights=folder / weights, seed=seed, **fields)
    return folder


@pytest.fixture(scope="module")
def images():
    faces = open_faces(FACES)
    return np.stack([faces.read(row) for row in range(len(faces))])


def fit(runs, *more, of=("trained_head", "embedding_norm")):
    out = runs / "one" / "fusion.json"
    out.unlink(missing_ok=True)
    where = ["--model_dir", str(runs / "one"), "--faces", FACES, "--device", "cpu"]
    return fit_fusion.main([*where, "--of", *of, *more]), out


def alone(estimator, images):
    return estimator(Batch(images)).sigma_sq[:, 0]


def ranks(values):
    return (rankdata(values) - 0.5) / len(values)


def test_the_mean_rank_of_two_members_for_one_image_and_for_many(runs, images, capsys):
    code, out = fit(runs)
    assert code == 0
    assert "fusion of 2 members, ranks among 18 images" in capsys.readouterr().out
    run = load_run(runs / "one", device="cpu")
    fusion = Fusion(reference=str(out), frozen=run.frozen, head=run.head)
    estimate = fusion(Batch(images))
    head = alone(TrainedHead(frozen=run.frozen, head=run.head), images)
    norm = alone(EmbeddingNorm(frozen=run.frozen), images)
    expected = (ranks(head) + ranks(norm)) / 2
    np.testing.assert_allclose(estimate.sigma_sq[:, 0], expected, atol=1e-3)
    np.testing.assert_allclose(fusion(Batch(images[4:5])).sigma_sq[:, 0], expected[4], atol=1e-3)
    np.testing.assert_allclose(estimate.mu, run.frozen(torch.from_numpy(images)).embedding)


def test_heads_of_two_runs_and_a_folder_that_moved(runs, images, tmp_path):
    code, out = fit(runs, of=("trained_head", str(runs / "two")))
    assert code == 0
    assert load_fusion(out).members == ("trained_head", "../two")
    moved = shutil.copytree(runs, tmp_path / "moved")
    run, second = (load_run(runs / name, device="cpu") for name in ("one", "two"))
    fusion = Fusion(reference=str(moved / "one" / "fusion.json"), frozen=run.frozen, head=run.head)
    heads = [alone(TrainedHead(frozen=one.frozen, head=one.head), images) for one in (run, second)]
    expected = np.mean([ranks(values) for values in heads], axis=0)
    np.testing.assert_allclose(fusion(Batch(images)).sigma_sq[:, 0], expected, atol=1e-3)


def test_a_batch_passes_the_backbone_once(runs, images, monkeypatch):
    _, out = fit(runs, of=("trained_head", "embedding_norm", str(runs / "two")))
    run = load_run(runs / "one", device="cpu")
    fusion = Fusion(reference=str(out), frozen=run.frozen, head=run.head)
    passes = []
    forward = run.frozen.forward

    def counted(batch):
        passes.append(len(batch))
        return forward(batch)

    monkeypatch.setattr(run.frozen, "forward", counted)
    fusion(Batch(images))
    assert passes == [18]


def test_the_fit_trusts_the_member_that_knows_which_faces_match(runs, monkeypatch, capsys):
    def embedded(members, images, batch_size, *, name):
        """Stand for the pass over the faces: the first column is how far an embedding is off."""
        rng = np.random.default_rng(0)
        off = rng.uniform(0, 2, len(images))
        people = np.repeat(10 * np.eye(6, 16), 3, axis=0)
        mu = people + off[:, None] * 4 * rng.normal(size=(len(images), 16))
        return Estimate(mu.astype(np.float32), np.stack([off, rng.random(len(images))], axis=1))

    monkeypatch.setattr("training.fusion_run.embed_images", embedded)
    code, out = fit(runs, "--how", "model", "--fmr", "0.05")
    assert code == 0
    weights = load_fusion(out).weights
    assert weights[0] > weights[1] + 0.2
    assert f"embedding_norm  weight {weights[1]:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (("embedding_norm", "embedding_norm"), "has the member 'embedding_norm' twice"),
        (("fusion:reference=x", "embedding_norm"), "cannot be a member of a fusion"),
        (("nonsense",), "no file, folder or estimator 'nonsense'"),
        (("far",), "far was trained on another backbone"),
        (("empty",), "no trained run in .*empty: best.pt is missing"),
    ],
)
def test_members_that_cannot_be(runs, of, message, capsys):
    (runs / "empty").mkdir(exist_ok=True)
    named = [str(runs / text) if text in ("far", "empty") else text for text in of]
    code, out = fit(runs, of=named)
    error = capsys.readouterr().err
    assert code == 2
    assert re.search(message, error)
    assert not out.exists()


def test_another_head_than_the_fitted_one_is_refused(runs, images, tmp_path):
    _, out = fit(runs)
    second = load_run(runs / "two", device="cpu")
    with pytest.raises(ValueError, match="member 'trained_head' has another head than the fusion"):
        Fusion(reference=str(out), frozen=second.frozen, head=second.head)
    first = load_run(runs / "one", device="cpu")
    of_the_folder = Fusion(reference=str(out), frozen=first.frozen)
    given = Fusion(reference=str(out), frozen=first.frozen, head=first.head)
    np.testing.assert_array_equal(alone(of_the_folder, images), alone(given, images))
    lost = tmp_path / "fusion.json"
    lost.write_bytes(out.read_bytes())
    with pytest.raises(ValueError, match=r"fusion\.json: no trained run in "):
        Fusion(reference=str(lost), frozen=first.frozen)


def test_a_file_without_its_backbone_is_read_for_members_that_need_none(runs, images):
    _, out = fit(runs, of=("embedding_norm",))
    stored = json.loads(out.read_text())
    stored["files"] = {}
    out.write_text(json.dumps(stored))
    run = load_run(runs / "one", device="cpu")
    fused = Fusion(reference=str(out), frozen=run.frozen)(Batch(images)).sigma_sq[:, 0]
    norm = alone(EmbeddingNorm(frozen=run.frozen), images)
    np.testing.assert_allclose(fused, ranks(norm), atol=1e-3)
