"""A run becomes one file, and nothing is written where its checksum or colours are wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import network
from data.synthetic import SyntheticFaces
from estimators.base import Batch
from estimators.trained_head import TrainedHead
from evaluation import calibrate
from evaluation.confidence.calibration import Calibration
from export import pack_model, packing
from models.packed import load_packed
from models.run import load_run
from utils.files import file_sha256

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "head=gap_linear:output=probability",
    "train_images=synthetic:identities=8,images=4,seed=1",
    "classes_per_batch=4",
    "images_per_class=3",
    "schedule.epochs=1",
    "schedule.steps_per_epoch=2",
    "schedule.drop_at=()",
    "verification.targets=()",
    "device=cpu",
)
BGR = (
    "backbone=iresnet:layers=(1,1,1,1),widths=(8,16,32,64),embedding_size=64,"
    'preprocessing={"color":"BGR"}'
)


def train(folder, *changes):
    config = ["--config_file", str(ROOT / "config/config_demo.py"), "--model_dir", str(folder)]
    assert network.main([*config, "--set", *SMALL, *changes]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = train(tmp_path_factory.mktemp("runs") / "rgb")
    flags = ["--model_dir", str(folder), "--fmr", "0.1", "--device", "cpu"]
    assert calibrate.main([*flags, "--target", "synthetic:pairs=60,seed=2"]) == 0
    return folder


@pytest.fixture(scope="module")
def trained_on_bgr(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "bgr", BGR)


@pytest.fixture
def pack(tmp_path, capsys):
    """Return a function that packs a run into out/model.pt: exit code, output, errors."""

    def pack(run, *flags):
        arguments = ["--model_dir", str(run), "--out", str(tmp_path / "out" / "model.pt")]
        code = pack_model.main([*arguments, "--device", "cpu", *flags])
        return code, *capsys.readouterr()

    return pack


def written(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").glob("*"))


def test_the_file_scores_as_the_run_does_and_says_what_it_is(trained, pack, tmp_path):
    sha256 = file_sha256(ROOT / "demo" / "backbone.pth")
    flags = ["--license", " MIT ", "--source", "a zoo", "--label", "for a test"]
    code, out, err = pack(
        trained, *flags, "--sha256", sha256.upper(), "--pairs", "synthetic:pairs=100,seed=4"
    )
    assert (code, written(tmp_path)) == (0, ["model.pt"])
    assert f"{sha256} (as published)" in out
    assert "calibration: on synthetic:pairs=60,seed=2, uncertainties of trained_head" in out
    assert "RGB is better: the recorded order is right" in out
    assert "read back: unit embeddings differ by 0.0e+00" in out
    assert "of themselves (64 faces)" in out
    assert "warning" not in err
    found = load_packed(tmp_path / "out" / "model.pt", device="cpu")
    run = load_run(trained, device="cpu")
    images = np.stack([SyntheticFaces(4, 1, 7).read(row) for row in range(4)])
    wanted = TrainedHead(frozen=run.frozen, head=run.head)(Batch(images))
    given = TrainedHead(frozen=found.frozen, head=found.head)(Batch(images))
    assert np.array_equal(wanted.mu, given.mu)
    assert np.array_equal(wanted.sigma_sq, given.sigma_sq)
    assert Calibration.from_dict(found.calibration).to_dict() == found.calibration
    stored = Calibration.load(trained / "calibration.json")
    assert found.calibration == stored.to_dict()
    about = found.about
    assert (about.name, about.license, about.source) == ("demo", "MIT", "a zoo")
    assert (about.label, about.sha256) == ("for a test", sha256)
    assert about.colour_check["verdict"] == "recorded"
    assert about.colour_check["mated"] == 50
    assert len(about.created) == 10


def test_another_checksum_writes_nothing(trained, pack, tmp_path):
    code, _, err = pack(trained, "--license", "MIT", "--sha256", "0" * 64)
    assert (code, written(tmp_path)) == (2, [])
    assert "backbone.pth is not the published file: its SHA-256 is " in err
    assert f"but --sha256 says {'0' * 64}; download it again" in err


def test_the_wrong_colour_order_writes_nothing(trained_on_bgr, pack, tmp_path):
    flags = ["--license", "MIT", "--pairs", "synthetic:pairs=140,seed=4"]
    code, out, err = pack(trained_on_bgr, *flags)
    assert (code, written(tmp_path)) == (2, [])
    assert "the recorded order is WRONG" in out
    assert "error: wrong colour order: RGB separates" in err
    assert "train the head again with it, or pack as it is with --keep_color" in err
    code, out, err = pack(trained_on_bgr, *flags, "--keep_color")
    assert (code, written(tmp_path)) == (0, ["model.pt"])
    assert "warning: packed with the worse colour order, as --keep_color says" in err
    found = load_packed(tmp_path / "out" / "model.pt", device="cpu")
    assert (found.about.colour_check["verdict"], found.about.colour_check["kept"]) == (
        "other",
        True,
    )
    assert found.frozen.preprocessing.color == "BGR"


def test_what_was_not_done_is_said_and_recorded(trained_on_bgr, pack, tmp_path):
    code, out, err = pack(trained_on_bgr, "--license", "unknown", "--created", "2026-01-31")
    assert code == 0
    assert "warning: the colour order was not checked; --pairs lfw.bin does" in err
    assert "calibration.json: the model will give raw uncertainties alone" in err
    assert "(not verified: --sha256 compares it)" in out
    found = load_packed(tmp_path / "out" / "model.pt", device="cpu")
    assert (found.about.colour_check, found.calibration) == (None, None)
    assert found.about.created == "2026-01-31"


def test_two_packings_are_the_same_bytes(trained, pack, tmp_path):
    files = []
    for _ in range(2):
        assert pack(trained, "--license", "MIT", "--created", "2026-01-31")[0] == 0
        files.append((tmp_path / "out" / "model.pt").read_bytes())
    assert files[0] == files[1]


def test_half_is_measured_before_it_is_kept(trained, pack, tmp_path, monkeypatch):
    run = load_run(trained, device="cpu")
    noisy = {
        name: tensor + 1e-4 * torch.rand_like(tensor) if tensor.ndim > 1 else tensor
        for name, tensor in run.frozen.unfolded().state_dict().items()
    }
    torch.save(noisy, tmp_path / "noisy.pth")
    folder = train(tmp_path / "noisy", f"backbone_weights={tmp_path / 'noisy.pth'}")
    assert pack(folder, "--license", "MIT")[0] == 0
    whole = (tmp_path / "out" / "model.pt").stat().st_size
    code, out, _ = pack(folder, "--license", "MIT", "--half")
    assert code == 0
    assert "unit embeddings differ by 0.0e+00" not in out
    kept = (tmp_path / "out" / "model.pt").read_bytes()
    assert len(kept) < 0.55 * whole
    monkeypatch.setattr(packing, "LARGEST_DIFFERENCE", 1e-9)
    code, _, err = pack(folder, "--license", "MIT", "--half")
    assert code == 2
    assert "from the run's, more than 1e-09; pack without --half" in err
    assert written(tmp_path) == ["model.pt"]
    assert (tmp_path / "out" / "model.pt").read_bytes() == kept


def test_a_calibration_of_another_score_is_refused(trained, pack, tmp_path):
    other = tmp_path / "other.json"
    flags = ["--model_dir", str(trained), "--estimator", "embedding_norm", "--device", "cpu"]
    target = ["--target", "synthetic:pairs=60,seed=2", "--fmr", "0.1", "--out", str(other)]
    assert calibrate.main([*flags, *target]) == 0
    code, _, err = pack(trained, "--license", "MIT", "--calibration", str(other))
    assert (code, written(tmp_path)) == (2, [])
    assert "says what the uncertainties of embedding_norm mean, not those of the run's head" in err


def test_mistakes_write_nothing(trained, pack, tmp_path, capsys):
    for flags, text in (
        (["--license", " "], '--license is empty; "unknown, research only" is an answer'),
        (["--license", "MIT", "--keep_color"], "--keep_color goes with --pairs"),
        (["--license", "MIT", "--calibration", "none.json"], "no calibration file none.json"),
        (["--license", "MIT", "--pairs", "lfw"], "--pairs lfw: name a .bin file"),
    ):
        code, _, err = pack(trained, *flags)
        assert (code, text in err) == (2, True), err
    for flags, text in (
        ([], "--license"),
        (["--license", "MIT", "--sha256", "12ab"], "'12ab' is not a SHA-256"),
        (["--license", "MIT", "--created", "today"], "'today' is not a date such as 2026-01-31"),
    ):
        with pytest.raises(SystemExit, match="2"):
            pack(trained, *flags)
        assert text in capsys.readouterr().err
    assert written(tmp_path) == []
    (tmp_path / "out" / "model.pt").mkdir(parents=True)
    code, _, err = pack(trained, "--license", "MIT")
    assert (code, "is a folder; name a file" in err) == (2, True)


def test_the_backbone_may_have_moved(trained, pack, tmp_path):
    moved = shutil.copy(ROOT / "demo" / "backbone.pth", tmp_path / "elsewhere.pth")
    code, out, _ = pack(trained, "--license", "MIT", "--backbone_weights", str(moved))
    assert code == 0
    assert f"SHA-256 of {moved}: " in out
    assert load_packed(tmp_path / "out" / "model.pt").config.backbone_weights == "backbone.pth"
