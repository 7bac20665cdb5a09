"""The scorer: any input, several faces per photo, full batches, and what its numbers mean."""

import numpy as np
import pytest
import torch

from data.synthetic import SyntheticFaces
from evaluation.scoring import load_scorer
from evaluation.scoring.rows import NOT_COMPUTED
from models.run import backbone_record, build_head, load_frozen
from utils.checkpoint import save_checkpoint
from utils.config import Method, Schedule, TrainConfig
from utils.config_json import to_json
from utils.methods import build

TINY = Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16)


def write_run(folder, output="probability"):
    """A run folder with an untrained head."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(build("models.backbones", TINY).state_dict(), folder / "backbone.pth")
    config = TrainConfig(
        name=folder.name,
        backbone=TINY,
        backbone_weights=str(folder / "backbone.pth"),
        head=Method("fc2", output=output, hidden=4),
        loss=Method("idq" if output == "probability" else "fast_mls"),
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


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def faces():
    """Seven rendered faces, (7, 112, 112, 3)."""
    found = SyntheticFaces(identities=7, images=1, seed=3)
    return np.stack([found.read(row) for row in range(7)])


def test_three_lines(run, faces):
    scorer = load_scorer(run, device="cpu")
    result = scorer(faces)
    assert len(result) == 7
    assert result.embeddings.shape == (7, 16)
    assert (result.quality == NOT_COMPUTED).all()
    assert ((result.uncertainty > 0) & (result.uncertainty < 1)).all()
    assert [row.image for row in result] == list(range(7))
    assert [row["uncertainty"] for row in result.to_rows()] == pytest.approx(result.uncertainty)
