"""Small models, made-up faces and a detector that knows where they are, for the scoring tests."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from data.align import REFERENCE
from data.synthetic import SyntheticFaces
from evaluation.confidence.calibration import Calibration
from evaluation.confidence.decision import Decision
from evaluation.estimate import Estimate
from evaluation.metrics.comparisons import Comparisons
from evaluation.scoring import Scorer
from evaluation.scoring.model import ScoringModel
from models.detectors import Detections
from models.run import backbone_record, build_head, load_frozen
from utils.checkpoint import save_checkpoint
from utils.config import Method, Schedule, TrainConfig
from utils.config_json import to_json
from utils.methods import build

TINY = Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16)
LOSSES = {"probability": "idq", "variance": "fast_mls"}


@pytest.fixture(scope="session")
def write_run():
    """Return a function (folder, output) that makes a run folder with an untrained head."""

    def write(folder, output="probability"):
        folder.mkdir(parents=True)
        torch.manual_seed(0)
        torch.save(build("models.backbones", TINY).state_dict(), folder / "backbone.pth")
        config = TrainConfig(
            name=folder.name,
            backbone=TINY,
            backbone_weights=str(folder / "backbone.pth"),
            head=Method("fc2", output=output, hidden=4),
            loss=Method(LOSSES[output]),
            train_images="synthetic:identities=4,images=2,seed=1",
            schedule=Schedule(epochs=1, steps_per_epoch=1),
            device="cpu",
        )
        frozen = load_frozen(config, "cpu", "fp32")
        payload = {
            "config": to_json(config),
            "backbone": backbone_record(frozen, config.backbone_weights),
            "head": build_head(config, frozen).state_dict(),
            "step": 1,
        }
        (folder / "config.json").write_text(to_json(config))
        save_checkpoint(folder / "best.pt", payload)
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


@dataclass
class Levels:
    """An estimator of pixels: the embedding is the mean colour of 12 blocks, less 100.

    The uncertainty is the share of light, 0..1; it writes down how large its batches were.
    """

    name: str = "levels"
    sizes: list[int] = field(default_factory=list)

    def __call__(self, images):
        self.sizes.append(len(images))
        blocks = images.reshape(len(images), 2, 56, 2, 56, 3).mean(axis=(2, 4))
        mu = (blocks.reshape(len(images), 12) - 100).astype(np.float32)
        light = images.mean(axis=(1, 2, 3))[:, None] / 255
        return Estimate(mu, light.astype(np.float32))


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
        model = ScoringModel(
            name="levels",
            estimator=estimator or Levels(),
            calibration=calibration if calibrated else None,
            decision=Decision.from_calibration(calibration) if calibrated else None,
            about={"output": output},
        )
        return Scorer(model, Found(places or {}), **options)

    return make
