"""A run becomes one file, and nothing is written where its checksum or colours are wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.synthetic import SyntheticFaces
from estimators.base import Batch
from estimators.trained_head import TrainedHead
from evaluation import calibrate
from evaluation.confidence.calibration import Calibration
from export import pack_model, packing
from models.run import load_packed, load_run
from utils.config import Method
from utils.files import file_sha256

WEIGHTS = Path(__file__).resolve().parents[2] / "demo" / "backbone.pth"
BACKBONE = {"layers": (1, 1, 1, 1), "widths": (8, 16, 32, 64), "embedding_size": 64}
PAIRS = ["--pairs", "synthetic:pairs=140,seed=4"]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory, write_run):
    """Return a function that makes a run over the demo's backbone, read in a colour order."""

    def make(color="RGB", weights=WEIGHTS):
        return write_run(
            tmp_path_factory.mktemp("runs") / "tiny",
            weights=weights,
            backbone=Method("iresnet", **BACKBONE, preprocessing={"color": color}),
            head=Method("gap_linear", output="probability"),
            loss=Method("idq"),
        )

    return make


@pytest.fixture(scope="module")
def run(make_run):
    folder = make_run()
    flags = ["--model_dir", str(folder), "--fmr", "0.1", "--device", "cpu"]
    assert calibrate.main([*flags, "--target", "synthetic:pairs=60,seed=2"]) == 0
    return folder


@pytest.fixture
def pack(tmp_path, capsys):
    """Return a function that packs a run into out/model.pt: exit code, output, errors."""

    def pack(run, *flags, license="MIT"):
        arguments = ["--model_dir", str(run), "--out", str(tmp_path / "out" / "model.pt")]
        code = pack_model.main([*arguments, "--license", license, "--device", "cpu", *flags])
        return code, *capsys.readouterr()

    return pack


def written(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").glob("*"))


def test_the_file_scores_as_the_run_does_and_says_what_it_is(run, pack, tmp_path):
    sha256 = file_sha256(WEIGHTS)
    flags = ["--source", "a zoo", "--label", "for a test", "--sha256", sha256.upper(), *PAIRS]
    code, out, err = pack(run, *flags, license=" MIT ")
    assert (code, written(tmp_path)) == (0, ["model.pt"])
    for line in (f"{sha256} (as published)", "the recorded order is right", "differ by 0.0e+00"):
        assert line in out
    assert "warning" not in err
    packed = load_packed(tmp_path / "out" / "model.pt", device="cpu")
    loaded = load_run(run, device="cpu")
    images = Batch(np.stack([SyntheticFaces(4, 1, 7).read(row) for row in range(4)]))
    ours, theirs = (TrainedHead(frozen=m.frozen, head=m.head)(images) for m in (packed, loaded))
    assert np.array_equal(ours.mu, theirs.mu)
    assert np.array_equal(ours.sigma_sq, theirs.sigma_sq)
    assert packed.calibration == Calibration.load(run / "calibration.json").to_dict()
    about = packed.about
    assert (about.name, about.license, about.source) == ("tiny", "MIT", "a zoo")
    assert (about.label, about.sha256) == ("for a test", sha256)
    assert (about.colour_check["verdict"], about.colour_check["mated"]) == ("recorded", 70)
    assert len(about.created) == 10


def test_the_wrong_colour_order_writes_nothing(make_run, pack, tmp_path):
    run = make_run("BGR")
    code, _, err = pack(run, *PAIRS)
    assert (code, written(tmp_path)) == (2, [])
    assert "error: wrong colour order: RGB separates" in err
    code, _, err = pack(run, *PAIRS, "--keep_color")
    assert (code, written(tmp_path)) == (0, ["model.pt"])
    assert "warning: packed with the worse colour order" in err
    packed = load_packed(tmp_path / "out" / "model.pt", device="cpu")
    check = packed.about.colour_check
    assert (check["verdict"], check["kept"]) == ("other", True)
    assert packed.frozen.preprocessing.color == "BGR"


def test_what_was_not_done_is_said_and_two_packings_are_equal(make_run, pack, tmp_path):
    run, files = make_run(), []
    for _ in range(2):
        code, out, err = pack(run, "--created", "2026-01-31", license="unknown")
        assert code == 0
        files.append((tmp_path / "out" / "model.pt").read_bytes())
    assert files[0] == files[1]
    assert "warning: the colour order was not checked" in err
    assert "calibration.json: the model will give raw uncertainties alone" in err
    assert "(not verified" in out
    packed = load_packed(tmp_path / "out" / "model.pt", device="cpu")
    assert (packed.about.colour_check, packed.calibration) == (None, None)
    assert packed.about.created == "2026-01-31"


def test_half_is_measured_before_it_is_kept(run, make_run, pack, tmp_path, monkeypatch):
    tensors = load_run(run, device="cpu").frozen.unfolded().state_dict()
    noisy = {
        name: tensor + 1e-4 * torch.rand_like(tensor) if tensor.ndim > 1 else tensor
        for name, tensor in tensors.items()
    }
    torch.save(noisy, tmp_path / "noisy.pth")
    folder = make_run(weights=tmp_path / "noisy.pth")
    assert pack(folder)[0] == 0
    file = tmp_path / "out" / "model.pt"
    size = file.stat().st_size
    code, out, _ = pack(folder, "--half")
    assert code == 0
    assert "unit embeddings differ by 0.0e+00" not in out
    half = file.read_bytes()
    assert len(half) < 0.55 * size
    monkeypatch.setattr(packing, "LARGEST_DIFFERENCE", 1e-9)
    code, _, err = pack(folder, "--half")
    assert code == 2
    assert "more than 1e-09; pack without --half" in err
    assert written(tmp_path) == ["model.pt"]
    assert file.read_bytes() == half


def test_a_calibration_of_another_score_is_refused(run, pack, tmp_path):
    other = tmp_path / "other.json"
    flags = ["--model_dir", str(run), "--estimator", "embedding_norm", "--device", "cpu"]
    target = ["--target", "synthetic:pairs=60,seed=2", "--fmr", "0.1", "--out", str(other)]
    assert calibrate.main([*flags, *target]) == 0
    code, _, err = pack(run, "--calibration", str(other))
    assert (code, written(tmp_path)) == (2, [])
    assert "not those of trained_head" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--license", " "], '--license is empty; "unknown, research only" is an answer'),
        (["--keep_color"], "--keep_color goes with --pairs"),
        (["--calibration", "none.json"], "no calibration file none.json"),
        (["--pairs", "lfw"], "--pairs lfw: name a .bin file"),
        (["--sha256", "0" * 64], f"but --sha256 says {'0' * 64}; download it again"),
        (["--sha256", "12ab"], "'12ab' is not a SHA-256"),
        (["--created", "today"], "'today' is not a date such as 2026-01-31"),
        (["--out", "."], "is a folder; name a file"),
        (["--model_dir", __file__], "a recogniser goes into backbone_weights"),
    ],
)
def test_mistakes_write_nothing(flags, message, run, tmp_path, refused):
    out = tmp_path / "out" / "model.pt"
    arguments = ["--model_dir", str(run), "--out", str(out), "--license", "MIT", *flags]
    refused(lambda: pack_model.main(arguments), message)
    assert written(tmp_path) == []


def test_the_backbone_may_have_moved(run, pack, tmp_path):
    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(WEIGHTS.read_bytes())
    code, out, _ = pack(run, "--backbone_weights", str(moved))
    assert code == 0
    assert f"SHA-256 of {moved}: " in out
    assert load_packed(tmp_path / "out" / "model.pt").config.backbone_weights == "backbone.pth"
