"""What can be opened as a model, and what its header says."""

import dataclasses
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from estimators import onnx as onnx_model
from estimators.base import DIRECTION, Batch
from evaluation.confidence.decision import Decision
from evaluation.open_model import ScoringModel, open_model
from models.packed import About, save_packed
from models.run import load_run
from scoring.scorer import load_scorer

ROOT = Path(__file__).resolve().parents[2]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def calibrated(write_run, tmp_path, calibration):
    folder = write_run(tmp_path / "calibrated", "variance")
    calibration.save(folder / "calibration.json")
    return folder


def test_a_run_folder(run, faces):
    model = open_model(run, device="cpu")
    assert model.name == "tiny"
    assert (model.calibration, model.decision) == (None, None)
    assert model.about == {
        "model": str(run),
        "sha256": sha256(run / "best.pt"),
        "license": "",
        "label": "",
        "direction": DIRECTION,
        "output": "probability",
        "backbone_sha256": sha256(run / "backbone.pth"),
    }
    assert model.fusion == "quality"
    assert model.header() == (
        f"model tiny (SHA-256 {sha256(run / 'best.pt')[:12]}...); uncertainty: larger = less "
        "reliable; not calibrated, so no quality, percentile or verdict: run "
        f"evaluation/calibrate.py --model_dir {run} --dataset_path DIR --target lfw"
    )
    assert model.estimator(Batch(faces)).mu.shape == (7, 16)


def test_a_calibrated_run_says_where_its_limits_lie(calibrated, calibration):
    model = open_model(str(calibrated), device="cpu")
    assert model.fusion == "inverse_variance"
    assert model.calibration.to_dict() == calibration.to_dict()
    assert model.decision == Decision.from_calibration(calibration)
    accept, refuse = model.decision.accept_up_to, model.decision.refuse_above
    assert refuse is None
    assert model.header().endswith(
        "; uncertainty: larger = less reliable; quality: 0 to 100, 100 = best, 255 = could not be "
        "computed; score threshold 0.5 as given on made-up (FMR "
        f"{calibration.false_matches}, FNMR {calibration.false_non_matches}); accept uncertainty "
        f"<= {accept:.6g}, refuse none, between them ask again ({model.decision.rule})"
    )
    strict = dataclasses.replace(model, decision=Decision(None, 0.75, "strict"))
    assert strict.header().endswith("; accept none, refuse > 0.75, between them ask again (strict)")


def test_a_stored_decision_is_taken(calibrated, calibration):
    certified = Decision(0.2, 0.9, "FNMR of at most 0.01")
    dataclasses.replace(calibration, decision=certified).save(calibrated / "calibration.json")
    assert open_model(calibrated, device="cpu").decision == certified


def test_a_calibration_of_one_s_own(run, calibration, tmp_path):
    calibration.save(tmp_path / "other.json")
    scorer = load_scorer(run, device="cpu", calibration=tmp_path / "other.json")
    assert scorer.model.calibration.to_dict() == calibration.to_dict()


def test_a_calibration_of_another_method_is_refused(calibrated, calibration):
    file = calibrated / "calibration.json"
    dataclasses.replace(calibration, method="embedding_norm").save(file)
    expected = (
        f"{file} says what the uncertainties of embedding_norm mean, not those of trained_head: "
        "make one with evaluation/calibrate.py --estimator trained_head"
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        open_model(calibrated, device="cpu")
    dataclasses.replace(calibration, method="scores.csv").save(file)
    assert open_model(calibrated, device="cpu").calibration.method == "scores.csv"
    file.write_text("{}")
    with pytest.raises(ValueError, match=re.escape(f"{file}: version None of a calibration")):
        open_model(calibrated, device="cpu")


@pytest.fixture
def packed(calibrated, calibration, tmp_path):
    about = About(
        name="packed one",
        license="unknown, research only",
        source="",
        sha256="ab" * 32,
        label="DEMO: made-up faces",
        colour_check=None,
        created="2026-01-31",
        version="1",
    )
    run = load_run(calibrated, device="cpu")
    save_packed(tmp_path / "model.pt", run, about, calibration.to_dict())
    return tmp_path / "model.pt"


def test_a_packed_model_is_the_run_in_one_file(packed, calibrated, faces):
    model = open_model(packed, device="cpu")
    assert model.about["license"] == "unknown, research only"
    assert model.about["output"] == "variance"
    assert model.header().startswith(
        f"model packed one (SHA-256 {sha256(packed)[:12]}...); DEMO: made-up faces; uncertainty: "
    )
    found, expected = (
        model.estimator(Batch(faces)),
        open_model(calibrated, device="cpu").estimator(Batch(faces)),
    )
    np.testing.assert_array_equal(found.mu, expected.mu)
    np.testing.assert_array_equal(found.sigma_sq, expected.sigma_sq)
    assert model.decision == Decision.from_calibration(model.calibration)
    assert "calibrate the run" in dataclasses.replace(model, calibration=None).header()


def test_the_demo_is_labelled(faces):
    scorer = load_scorer("demo", device="cpu")
    assert "DEMO" in scorer.model.header()
    assert "\n" not in scorer.model.header()
    result = scorer(faces)
    assert ((result.quality <= 100) & np.isfinite(result.uncertainty)).all()


class Session:
    name = "exported"

    def __call__(self, images):
        raise AssertionError("not run here")


@pytest.mark.parametrize("stored", [None, {"accept_up_to": 0.1, "refuse_above": 0.2, "rule": "r"}])
def test_an_exported_model(monkeypatch, calibration, tmp_path, stored):
    path = tmp_path / "small.onnx"
    path.write_bytes(b"of the test")
    about = {"name": "whole", "sha256": "cd" * 32, "direction": DIRECTION, "output": "variance"}
    answer = (Session(), calibration.to_dict(), stored, about)
    monkeypatch.setattr(onnx_model, "open_onnx", lambda path: answer)
    model = open_model(path)
    assert model.name == "whole"
    assert model.about["model"] == str(path)
    assert (model.about["sha256"], model.about["exported_from"]) == (sha256(path), "cd" * 32)
    expected = Decision.from_calibration(calibration) if stored is None else Decision(**stored)
    assert model.decision == expected
    assert model.fusion == "inverse_variance"
    monkeypatch.setattr(onnx_model, "open_onnx", lambda path: (Session(), {"version": 7}, None, {}))
    with pytest.raises(ValueError, match=re.escape(f"{path}: its calibration: version 7 of a ca")):
        open_model(path)


def test_an_estimator_without_training(run, calibration, faces, tmp_path):
    weights = run / "backbone.pth"
    backbone = {
        "backbone_name": "iresnet:layers=(1,1,1,1),widths=(4,4,8,8),embedding_size=16",
        "backbone_weights": weights,
        "device": "cpu",
    }
    model = open_model("embedding_norm", **backbone)
    assert model.fusion == "norm"
    assert model.header().endswith(
        "run evaluation/calibrate.py --backbone_name ... --estimator embedding_norm --out FILE"
    )
    scorer = load_scorer("embedding_norm", **backbone)
    result = scorer(faces)
    np.testing.assert_allclose(
        result.uncertainty, -np.linalg.norm(result.embeddings, axis=1), rtol=1e-6
    )
    joint = result.embeddings.sum(axis=0)  # MagFace's rule: raw embeddings are added
    np.testing.assert_allclose(
        scorer.fuse(result).embedding, joint / np.linalg.norm(joint), rtol=1e-4, atol=1e-6
    )
    assert open_model("sharpness", **backbone).fusion == "mean"
    calibration.save(tmp_path / "c.json")
    with pytest.raises(ValueError, match="trained_head mean, not those of embedding_norm: make on"):
        open_model("embedding_norm", **backbone, calibration=tmp_path / "c.json")
    dataclasses.replace(calibration, method="embedding_norm").save(tmp_path / "c.json")
    opened = open_model("embedding_norm", **backbone, calibration=tmp_path / "c.json")
    assert opened.decision is not None
    with pytest.raises(ValueError, match="did you mean 'embedding_norm'"):
        open_model("embedding_nrm", **backbone)
    with pytest.raises(ValueError, match="backbone_name = mbf needs backbone_weights"):
        open_model("embedding_norm", backbone_name="mbf")


def test_what_is_no_model(run, tmp_path):
    with pytest.raises(ValueError, match=r"no model nowhere: give a run folder of network\.py"):
        open_model("nowhere")
    with pytest.raises(ValueError, match=re.escape(f"{run / 'best.pt'} is no packed model: give")):
        open_model(run / "best.pt")
    with pytest.raises(ValueError, match=r"no trained run in .*: best\.pt is missing"):
        open_model(tmp_path)
    with pytest.raises(ValueError, match="backbone_weights = w goes with a run folder or with b"):
        open_model("demo", backbone_weights="w")
    with pytest.raises(ValueError, match=r"no calibration file .*c\.json"):
        open_model(run, device="cpu", calibration=tmp_path / "c.json")


def test_an_exported_model_needs_no_pytorch(tmp_path):
    program = (
        "import sys\n"
        "from estimators import onnx\n"
        "from evaluation.open_model import open_model\n"
        f"open({str(tmp_path / 'm.onnx')!r}, 'wb').close()\n"
        "onnx.open_onnx = lambda path: (None, None, None, {'direction': 'd'})\n"
        f"open_model({str(tmp_path / 'm.onnx')!r})\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_model_of_nothing_has_a_header():
    assert ScoringModel(name="bare", estimator=Session()).header().startswith("model bare; uncert")
