"""A run small enough for tests: a tiny backbone, rendered faces, four branches or one."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

import network
from models.backbones.iresnet import IResNet
from models.load import load_checkpoint
from tests.helpers import ROOT
from training.trainer import Trainer
from utils.config import load_config, to_json

CONFIG = """
from utils.config import Branch, Method, Schedule, TrainConfig, Verification

FC2 = Method("fc2", output="probability", hidden=8)
VARIANCE = Method("fc2", output="variance", hidden=8)
BRANCHES = (
    Branch("idq-0", head=FC2, loss=Method("idq", margin=0.45), seed=0),
    Branch("idq-1", head=FC2, loss=Method("idq", margin=0.45), seed=1),
    Branch("dropped", head=Method("multi_layer", output="probability", hidden=8, dropout=0.4,
           log_norm=1.0), loss=Method("cr_fiqa"), seed=2),
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
    folder = tmp_path_factory.mktemp("config")
    torch.manual_seed(0)
    backbone = IResNet(layers=(1, 1, 1, 1), widths=(4, 4, 8, 8))
    torch.save(backbone.state_dict(), folder / "backbone.pth")
    (folder / "tiny.py").write_text(CONFIG.format(weights=str(folder / "backbone.pth")))
    return folder / "tiny.py"


@pytest.fixture(scope="session")
def config(config_file):
    return load_config(config_file)


def train_to(folder, config, *changes):
    """Train a config, or a file of one, into a folder; it must succeed."""
    if dataclasses.is_dataclass(config):
        text = f"from utils.config import from_json\nconfig = from_json({to_json(config)!r})\n"
        config = folder.parent / f"{folder.name}.py"
        config.write_text(text)
    arguments = ["--config_file", str(config), "--model_dir", str(folder)]
    assert network.main([*arguments, "--set", *changes] if changes else arguments) == 0
    return folder


@pytest.fixture(scope="session")
def together(config_file, tmp_path_factory):
    """The folder of a finished run of four branches."""
    return train_to(tmp_path_factory.mktemp("runs") / "together", config_file)


@pytest.fixture
def train(tmp_path):
    """Return a function (config, name, changes) that trains into a folder of that name."""
    return lambda config, name="run", *changes: train_to(tmp_path / name, config, *changes)


def read_losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["global_step"], line["loss"]) for line in lines if "loss" in line]


@pytest.fixture(scope="session")
def losses_of():
    return read_losses


@pytest.fixture(scope="session")
def assert_same_run():
    """Return a function that compares the losses and the last checkpoints of two run folders."""

    def check(first, second):
        assert read_losses(first) == read_losses(second)
        one, other = (load_checkpoint(folder / "last.pt") for folder in (first, second))
        assert (one["step"], one["best"]) == (other["step"], other["best"])
        for name, tensor in one["head"].items():
            assert torch.equal(tensor, other["head"][name]), name

    return check


@pytest.fixture
def train_until(monkeypatch):
    """Return a function (step, config_file, folder) that trains and is stopped after a step."""

    def train(step, config_file, folder):
        class Stopping(Trainer):
            def train_step(self, *arguments):
                result = super().train_step(*arguments)
                self.stop.is_requested = self.step == step
                return result

        with monkeypatch.context() as patch:
            patch.setattr("training.job.Trainer", Stopping)
            arguments = ["--config_file", str(config_file), "--model_dir", str(folder)]
            assert network.main(arguments) == 130
        assert load_checkpoint(folder / "last.pt")["step"] == step

    return train


@pytest.fixture(scope="session")
def long_run():
    """Return a context of a run that no test waits for; inside, it has written a log line."""

    @contextmanager
    def start(config_file, folder, *launcher):
        changes = ["schedule.steps_per_epoch=4000", "verification.targets=()"]
        arguments = ["--config_file", config_file, "--model_dir", folder, "--set", *changes]
        command = [sys.executable, *launcher, ROOT / "network.py", *arguments]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([*map(str, command)], env=env, stdout=-1, stderr=-1, text=True)
        try:
            log, deadline = folder / "log.txt", time.monotonic() + 60
            while not (log.exists() and "| loss" in log.read_text()):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            yield process
        finally:
            process.kill()

    return start


class Tape:
    """Stands in for a GPU: recording does nothing, repeating does the work on the same tensors."""

    recorded = repeated = 0

    def capture(self, work, warm_up):
        assert warm_up == 0, "a step that is done twice is another run"
        self.recorded += 1
        losses = torch.zeros(0)

        def replay():
            self.repeated += 1
            values = work()
            losses.resize_(values.shape).copy_(values)

        return replay, losses


class RecordedTrainer(Trainer):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.config = dataclasses.replace(self.config, execution="cuda_graph")


@pytest.fixture
def tape(monkeypatch):
    """Record steps from here on, on a stand-in for a GPU that counts."""
    tape = Tape()
    monkeypatch.setattr("training.trainer.CudaGraphs", lambda device: tape)
    monkeypatch.setattr("training.job.Trainer", RecordedTrainer)
    return tape
