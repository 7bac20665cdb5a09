"""For all tests: one thread per process, and no time limits that a busy machine would break."""

import os
import signal
import socket
import subprocess
import sys
import warnings
from contextlib import contextmanager

# `pytest -n 2` on two cores is faster than four threads that wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor

from data.features import Features
from data.images import Sizes
from data.synthetic import SyntheticFaces
from evaluation.confidence.calibration import Calibration, Decision
from evaluation.metrics.comparisons import Comparisons
from evaluation.open_model import LoadedModel, Provenance
from models.backbones.base import BackboneOutput
from models.load import load_backbone, save_checkpoint
from models.run import backbone_record, build_head, load_frozen
from photos.align import REFERENCE
from photos.detectors import Detections
from scoring.scorer import Scorer
from tests.helpers import GOLDEN, ROOT, TINY, Levels
from utils.config import Method, Schedule, TrainConfig, to_json
from utils.methods import build

signal.signal(signal.SIGINT, signal.default_int_handler)  # `make test &` in a script ignores it

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def refused(capsys):
    """Return a function that wants code 2 of a command, and an error in one line with this in it.

    The code may be a function that gives it, or ends as argparse does; with `alone`, nothing else
    may have been printed.
    """

    def check(code, message, alone=False):
        try:
            code = code() if callable(code) else code
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert code == 2, (out, err)
        *before, line = err.splitlines()
        assert line.startswith("error: ")
        assert message in line
        assert not alone or (out, before) == ("", [])

    return check


@pytest.fixture
def no_waiting():
    """Return a context in which whatever makes the host wait for the CUDA device is an error."""

    @contextmanager
    def context():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")

    return context


@pytest.fixture
def ranks():
    """Return a function that runs a program as the ranks of one job, on this machine's CPU."""

    def run(program: str, *arguments: str, size: int = 2) -> list[subprocess.CompletedProcess[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        job = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-c", program, *arguments]
        started = []
        for rank in range(size):
            own = {"PYTHONPATH": ROOT, "RANK": rank, "LOCAL_RANK": rank, **job}
            env = os.environ | {name: str(value) for name, value in own.items()}
            started.append(subprocess.Popen(command, env=env, stdout=-1, stderr=-1, text=True))
        try:
            said = [process.communicate(timeout=120) for process in started]
        except subprocess.TimeoutExpired:
            for process in started:
                process.kill()
                process.communicate()
            raise
        return [
            subprocess.CompletedProcess(command, process.returncode, *texts)
            for process, texts in zip(started, said, strict=True)
        ]

    return run


GOLDEN_EVALUATION = GOLDEN / "evaluation"


@pytest.fixture(scope="session")
def golden_dir():
    return GOLDEN_EVALUATION


@pytest.fixture(scope="session")
def golden_features():
    """name -> Features of a golden set."""
    return {name: Features.load(GOLDEN_EVALUATION / f"set_{name}.npz") for name in "CDHJ"}


@pytest.fixture(scope="session")
def golden_scores():
    """name -> the original's scores."""
    return {name: np.load(GOLDEN_EVALUATION / f"set_{name}.npz")["cosine"] for name in "CDHJ"}


@pytest.fixture(scope="session")
def golden_numbers():
    """set/variant/column -> array."""
    with np.load(GOLDEN_EVALUATION / "numbers.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def golden_texts():
    """set -> variant -> printed text."""
    return json.loads((GOLDEN_EVALUATION / "texts.json").read_text())


@pytest.fixture
def made_up():
    """Return a function (pairs, seed) -> Features: mated pairs are near, uncertain ones less so."""

    def make(pairs=200, seed=0, columns=1):
        rng = np.random.default_rng(seed)
        issame = np.arange(pairs) % 2 == 0
        sigma_sq = rng.uniform(0.05, 1.0, (2 * pairs, columns)).astype(np.float32)
        person = rng.normal(size=(pairs, 16))
        other = np.where(issame[:, None], person, rng.normal(size=(pairs, 16)))
        mu = np.stack([person, other], axis=1).reshape(2 * pairs, 16)
        mu = mu + rng.normal(size=mu.shape) * sigma_sq[:, :1] * 1.5
        return Features(mu.astype(np.float32), sigma_sq, issame)

    return make


class TinyPairs:
    """A verification set of flat images: what `embed` and the contact sheet need of one."""

    name = "tiny"
    sizes = Sizes()

    def __init__(self, pairs=12):
        self.mated = np.arange(pairs) % 2 == 0

    def decode(self, start, stop):
        images = np.zeros((stop - start, 112, 112, 3), np.uint8)
        for place, row in enumerate(range(start, stop)):
            images[place, :, :56] = row * 7 % 251
            images[place, :, 56:] = row * 13 % 241
        return images

    def fingerprint(self, row):
        return row


@pytest.fixture
def tiny_pairs():
    return TinyPairs()


LOSSES = {"probability": "idq", "variance": "fast_mls"}


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A file with untrained weights of `TINY`."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    torch.save(build("models.backbones", TINY).state_dict(), path)
    return path


class EmbeddingAlone(torch.nn.Module):
    """A backbone as other tools export it."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        return self.backbone(images).embedding


@pytest.fixture(scope="session")
def write_recogniser():
    """Return a function that writes a backbone as an ONNX file for batches of any size."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")

    def write(backbone, path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # most files come from this exporter, which is old
            torch.onnx.export(
                EmbeddingAlone(backbone),
                (torch.zeros(2, 3, 112, 112),),
                path,
                dynamo=False,
                opset_version=11,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
            )
        return path

    return write


@pytest.fixture(scope="session")
def tiny_onnx(tiny_weights, write_recogniser):
    """The network of `tiny_weights` as an ONNX file."""
    return write_recogniser(load_backbone(TINY, tiny_weights), tiny_weights.with_suffix(".onnx"))


@pytest.fixture(scope="session")
def write_run():
    """Return a function that makes a run folder with untrained heads.

    `weights` is the backbone's file, made where there is none; `branches` stand for the one head;
    with a `seed`, heads are drawn from it and the seeds after it.
    """

    def write(folder, output="probability", *, weights=None, seed=None, branches=(), **fields):
        folder.mkdir(parents=True)
        torch.manual_seed(0)
        weights = weights or folder / "backbone.pth"
        backbone = fields.pop("backbone", TINY)
        if not weights.exists():
            torch.save(build("models.backbones", backbone).state_dict(), weights)
        one = {"head": Method("fc2", output=output, hidden=4), "loss": Method(LOSSES[output])}
        config = TrainConfig(
            name=folder.name,
            backbone=backbone,
            backbone_weights=str(weights),
            train_images="synthetic:identities=4,images=2,seed=1",
            schedule=Schedule(epochs=1, steps_per_epoch=1),
            device="cpu",
            **({"branches": tuple(branches)} if branches else one | fields),
        )
        frozen = load_frozen(config, "cpu", "fp32")
        record = backbone_record(frozen, config.backbone_weights)
        (folder / "config.json").write_text(to_json(config))
        if branches:
            save_checkpoint(
                folder / "last.pt", {"config": to_json(config), "backbone": record, "step": 1}
            )
        for number, (name, own) in enumerate(config.heads.items()):
            if seed is not None:
                torch.manual_seed(seed + number)
            head = build_head(own, frozen).state_dict()
            payload = {"config": to_json(own), "backbone": record, "head": head, "step": 1}
            (folder / name).mkdir(exist_ok=True)
            save_checkpoint(folder / name / "best.pt", payload)
        return folder

    return write


@pytest.fixture(scope="session")
def run(tmp_path_factory, write_run):
    """A run folder without calibration."""
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def faces():
    """Seven rendered faces, (7, 112, 112, 3)."""
    found = SyntheticFaces(identities=7, images=1, seed=3)
    return np.stack([found.read(row) for row in range(7)])


class Found:
    """A detector that was told of the faces: places (left, top) by the photo's first pixel."""

    name = "found"

    def __init__(self, places):
        self.places = places

    def __call__(self, image):
        corners = np.array(self.places[int(image[0, 0, 0])], np.float32).reshape(-1, 2)
        boxes = np.concatenate([corners, corners + 112], axis=1)
        landmarks = (corners[:, None] + REFERENCE).astype(np.float32)
        return Detections(boxes, landmarks, np.linspace(0.9, 0.5, len(corners), dtype=np.float32))


@pytest.fixture
def scene():
    """Return a function (number, faces, places) -> a photo with those faces pasted in."""

    def make(number, faces, places, shape=(300, 400)):
        photo = np.full((*shape, 3), 60, np.uint8)
        for face, (left, top) in zip(faces, places, strict=True):
            photo[top : top + 112, left : left + 112] = face
        photo[0, 0] = number
        return photo

    return make


@pytest.fixture(scope="session")
def calibration():
    """P(false non-match) is 0.3 u^2 at the score threshold 0.5; uncertainties are within 0..1."""
    rng = np.random.default_rng(0)
    uncertainty = rng.random(8000).astype(np.float32)
    pairs = np.arange(8000, dtype=np.int32).reshape(-1, 2)
    mated = np.arange(4000) % 2 == 0
    wrong = rng.random(4000) < 0.3 * uncertainty[pairs].max(axis=1) ** 2
    scores = np.where(mated & ~wrong, 1.0, 0.0) + rng.uniform(-0.2, 0.2, 4000)
    made = Comparisons("made-up", scores.astype(np.float32), mated, pairs, uncertainty)
    return Calibration.fit(made, score_threshold=0.5, method="trained_head")


@pytest.fixture
def levels(calibration):
    """Return a function (calibrated, places, ...) -> a scorer of `Levels`."""

    def make(calibrated=False, places=None, output="probability", estimator=None, **options):
        model = LoadedModel(
            name="levels",
            estimator=estimator or Levels(),
            calibration=calibration if calibrated else None,
            decision=Decision.from_calibration(calibration) if calibrated else None,
            provenance=Provenance(output=output),
        )
        return Scorer(model, Found(places or {}), **options)

    return make


class FakeBackbone:
    """A layer, then a scale and shift that stand for the last BatchNorm."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.scale = torch.linspace(0.2, 3, len(bias))
        self.shift = torch.linspace(1, -1, len(bias))

    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        embedding = features @ self.weight.T + self.bias
        return embedding * self.scale + self.shift if batch_norm else embedding

    def tail_affine(self, batch_norm: bool = True) -> tuple[Tensor, Tensor]:
        if not batch_norm:
            return self.weight, self.bias
        return self.weight * self.scale[:, None], self.bias * self.scale + self.shift


class FakeFrozen:
    """Takes the first values of an image as its features."""

    def __init__(self, backbone: FakeBackbone) -> None:
        self.backbone = backbone
        self.embedding_size = len(backbone.bias)

    def __call__(self, images: Tensor) -> BackboneOutput:
        size = self.backbone.weight.shape[1]
        features = images.flatten(1)[:, :size].float() / 64 - 2
        return BackboneOutput(self.backbone.tail(features), features)


@pytest.fixture(scope="session")
def tiny():
    """Features (8, 64), and for 16 and 512 outputs a layer and what the original gave for it."""
    stored = np.load(GOLDEN / "mc_dropout" / "tiny.npz")

    def layer(size: int) -> SimpleNamespace:
        def random(name: str) -> np.random.RandomState:
            return np.random.RandomState(zlib.crc32(name.encode()))  # noqa: NPY002

        weight = random("model.fc.weight").normal(0, 1 / 8, (size, 64)).astype(np.float32)
        bias = random("model.fc.bias").normal(0, 0.1, size).astype(np.float32)
        return SimpleNamespace(
            weight=torch.from_numpy(weight),
            bias=torch.from_numpy(bias),
            std=stored[f"reference_std_out{size}"].astype(float),
            error=stored[f"reference_se_out{size}"],
            mean_of_100=stored[f"T100_out{size}_mean"],
            sd_of_100=stored[f"T100_out{size}_sd"],
        )

    return SimpleNamespace(features=torch.from_numpy(stored["x"]), layer=layer)


@pytest.fixture
def fake():
    def fake(weight: Tensor, bias: Tensor) -> FakeFrozen:
        return FakeFrozen(FakeBackbone(weight, bias))

    return fake


@pytest.fixture(scope="session")
def layer():
    """A random layer (D, F) whose inputs differ in importance."""

    def layer(size: int, features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(size, features, generator=generator) / features**0.5
        weight *= torch.linspace(2, 0.5, size)[:, None]
        return weight, torch.randn(size, generator=generator) * 0.1

    return layer
