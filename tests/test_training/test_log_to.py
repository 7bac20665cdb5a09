"""What a run writes for people to look at: curves.png, and TensorBoard's files where asked for."""

import sys
from types import ModuleType

import network


class Writer:
    scalars = {}

    def __init__(self, folder):
        self.folder = folder

    def add_scalar(self, name, value, step):
        self.scalars.setdefault(name, []).append((step, value))

    def close(self):
        self.scalars["closed"] = True


def test_curves_and_tensorboard(config_file, train, monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert list(train(config_file, "run", "log_to=tensorboard").glob("**/curves.png"))
    assert {"loss", "lr", "cos", "closed"} <= set(Writer.scalars)
    steps = [step for step, _ in Writer.scalars["loss"]]
    assert steps
    assert steps == sorted(steps)


def test_a_missing_package_is_named(config_file, tmp_path, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arguments = ["--config_file", str(config_file), "--model_dir", str(tmp_path / "run")]
    refused(network.main([*arguments, "--set", "log_to=tensorboard"]), "pip install tensorboard")
