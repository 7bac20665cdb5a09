"""A run small enough for tests: a tiny backbone, rendered faces, four branches or one."""

import json

import pytest
import torch

from utils.config import load_config

CONFIG = """
from utils.config import Branch, Method, Schedule, TrainConfig, Verification

FC2 = Method("fc2", output="probability", hidden=8)
VARIANCE = Method("fc2", output="variance", hidden=8)
BRANCHES = (
    Branch("idq-0", head=FC2, loss=Method("idq", margin=0.45), seed=0),
    Branch("idq-1", head=FC2, loss=Method("idq", margin=0.45), seed=1),
    Branch("dropped", head=Method("fc2", output="probability", hidden=8, dropout=0.4, log_norm=1.0),
           loss=Method("pcnet"), seed=2),
    Branch("mls", head=VARIANCE, loss=Method("fast_mls"),
           schedule=Schedule(epochs=2, steps_per_epoch=6, lr=3e-3, momentum=0.5)),
)
config = TrainConfig(
    name="tiny",
    backbone=Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8)),
    backbone_weights={weights!r},
    branches=BRANCHES,
    train_images="synthetic:identities=8,images=4,seed=1",
    classes_per_batch=4,
    images_per_class=4,
    schedule=Schedule(epochs=2, steps_per_epoch=6, lr=1e-2, drop_at=(1.5,)),
    verification=Verification(targets=("synthetic:pairs=40,seed=9",)),
    log_every=2,
    workers=2,
    device="cpu",
)
"""


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    from models.backbones.iresnet import IResNet

    folder = tmp_path_factory.mktemp("config")
    torch.manual_seed(0)
    backbone = IResNet(layers=(1, 1, 1, 1), widths=(4, 4, 8, 8))
    torch.save(backbone.state_dict(), folder / "backbone.pth")
    (folder / "tiny.py").write_text(CONFIG.format(weights=str(folder / "backbone.pth")))
    return folder / "tiny.py"


@pytest.fixture(scope="session")
def config(config_file):
    return load_config(config_file)


@pytest.fixture(scope="session")
def together(config_file, tmp_path_factory):
    """The folder of a finished run of four branches."""
    import network

    folder = tmp_path_factory.mktemp("runs") / "together"
    assert network.main(["--config_file", str(config_file), "--model_dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def losses_of():
    def read(folder):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(line["global_step"], line["loss"]) for line in lines if "loss" in line]

    return read
