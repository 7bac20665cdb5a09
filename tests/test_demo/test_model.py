"""The model that a fresh checkout scores with: labelled, of the shipped backbone, and sound.

More degradation is more uncertainty: the promise of the demo, for it and for a head trained here.
"""

import itertools
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import network
from data.synthetic import DEGRADATIONS, SyntheticFaces, degradation_sweep
from demo import train_model
from estimators.base import Batch
from estimators.trained_head import TrainedHead
from evaluation import calibrate
from evaluation.confidence.calibration import Calibration
from export import pack_model
from models.load import load_tensors
from models.run import load_packed, load_run
from utils.files import file_sha256

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo"


@pytest.fixture(scope="module")
def shipped():
    return load_packed(DEMO / "model.pt", device="cpu")


def uncertainty_of(model):
    estimator = TrainedHead(frozen=model.frozen, head=model.head)
    return lambda images: estimator(Batch(np.ascontiguousarray(images))).sigma_sq[:, 0]


@pytest.fixture(scope="module")
def uncertainty(shipped):
    return uncertainty_of(shipped)


@pytest.fixture(scope="module")
def trained_here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    arguments = ["--config_file", str(ROOT / "config/config_demo.py"), "--model_dir", str(folder)]
    assert network.main([*arguments, "--set", "verification.targets=()", "device=cpu"]) == 0
    return uncertainty_of(load_run(folder, device="cpu"))


def test_the_shipped_model_is_small_and_says_what_it_is(shipped):
    assert (DEMO / "model.pt").stat().st_size < 900_000
    about = shipped.about
    assert about.label == train_model.LABEL
    assert about.label.startswith("DEMO: trained on rendered faces, so its scores mean nothing on ")
    assert about.license.startswith("MIT")
    assert about.colour_check["verdict"] == "recorded"
    assert about.sha256 == file_sha256(DEMO / "backbone.pth")


def test_its_backbone_is_the_shipped_one(shipped):
    stored = torch.load(DEMO / "model.pt", weights_only=True)["backbone"]
    original = load_tensors(DEMO / "backbone.pth")
    assert stored.keys() == original.keys()
    for name, tensor in original.items():
        assert torch.equal(stored[name].float(), tensor.float()), name
        assert torch.equal(shipped.frozen.unfolded().state_dict()[name], tensor.float()), name


def test_no_path_of_the_machine_it_was_made_on_is_in_it():
    content = (DEMO / "model.pt").read_bytes()
    for text in (b"/tmp/", b"/home/", str(DEMO.parent).encode()):
        assert text not in content


@pytest.mark.parametrize(("model", "identities"), [("uncertainty", 60), ("trained_here", 24)])
@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_more_degradation_is_more_uncertainty(model, identities, kind, request):
    sweep = degradation_sweep(kind, (0, 0.25, 0.5, 0.75, 1), identities=identities)
    means = [float(request.getfixturevalue(model)(images).mean()) for images in sweep]
    assert all(later > earlier for earlier, later in itertools.pairwise(means)), means
    assert means[-1] > means[0] + 0.1


def test_a_blur_that_is_none_of_the_renderers_raises_it_too(uncertainty):
    faces = SyntheticFaces(24, 1, 31, 0.0)
    clean = np.stack([faces.read(row) for row in range(24)])
    means = [float(uncertainty(clean).mean())]
    for sigma in (1.5, 3, 6):
        blurred = [cv2.GaussianBlur(image, (0, 0), sigma) for image in clean]
        means.append(float(uncertainty(np.stack(blurred)).mean()))
    assert all(later > earlier for earlier, later in itertools.pairwise(means)), means


def test_its_calibration_fits_it(shipped, uncertainty):
    calibration = Calibration.from_dict(shipped.calibration)
    assert calibration.name == train_model.CALIBRATION.removeprefix("faces:")
    clean, ruined = degradation_sweep("blur", (0, 1), identities=24)
    low, high = uncertainty(clean), uncertainty(ruined)
    assert calibration.iso_quality(low).mean() > 60
    assert calibration.iso_quality(high).mean() < 20
    assert calibration.probability(high).mean() > 3 * calibration.probability(low).mean()


def test_the_script_makes_such_a_file(tmp_path, monkeypatch):
    mains = {"network.py": network, "calibrate.py": calibrate, "pack_model.py": pack_model}

    def run(command, **_):  # in this process, which has imported everything already
        code = mains[Path(command[1]).name].main(command[2:])
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(train_model, "CALIBRATION", "faces:synthetic:identities=12,images=3,seed=2")
    monkeypatch.setattr(train_model, "COLOURS", "synthetic:pairs=60,seed=2")
    monkeypatch.setattr(train_model, "subprocess", SimpleNamespace(run=run))
    short = ["schedule.epochs=1", "schedule.steps_per_epoch=2", "schedule.drop_at=()"]
    assert train_model.main(["--out", str(tmp_path / "model.pt"), "--set", *short]) == 0
    made, shipped = load_packed(tmp_path / "model.pt", device="cpu"), load_packed(DEMO / "model.pt")
    assert made.config.head == shipped.config.head
    assert made.config.backbone == shipped.config.backbone
    assert vars(made.about).keys() == vars(shipped.about).keys()
    for name in ("name", "license", "source", "sha256", "label", "created"):
        assert getattr(made.about, name) == getattr(shipped.about, name)
    assert made.calibration["fmr_target"] == shipped.calibration["fmr_target"] == 0.01


def test_a_step_that_fails_ends_the_script(tmp_path, monkeypatch, capfd):
    wrong, never = ["data/synthetic.py", "--wrong"], ["data/synthetic.py", "--never"]
    monkeypatch.setattr(train_model, "steps", lambda *_: [wrong, never])
    assert train_model.main(["--out", str(tmp_path / "model.pt")]) == 2
    err = capfd.readouterr().err
    assert "--wrong" in err
    assert "--never" not in err
