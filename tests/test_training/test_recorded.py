"""Steps that are recorded and repeated leave the heads where plain steps leave them."""

import dataclasses

import pytest
import torch

import network
import training.recorded
from training.trainer import Trainer
from utils.checkpoint import load_checkpoint


class Tape:
    """Stands in for a GPU: recording does nothing, repeating does the work on the same tensors."""

    def __init__(self):
        self.recorded = self.repeated = 0

    def capture(self, work, warm_up):
        assert warm_up == 0, "a step that is done twice is another run"
        self.recorded += 1
        losses = torch.zeros(3)

        def replay():
            self.repeated += 1
            losses.copy_(work())

        return replay, losses


class Recorded(Trainer):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.config = dataclasses.replace(self.config, execution="cuda_graph")


@pytest.fixture
def run(config_file, tmp_path, monkeypatch):
    def train(*branches):
        text = config_file.read_text()
        keep = f"tuple(one for one in BRANCHES if one.name in {branches!r})"
        (tmp_path / "some.py").write_text(text.replace("branches=BRANCHES", f"branches={keep}"))
        tape = Tape()
        monkeypatch.setattr("training.trainer.CudaGraphs", lambda device: tape)
        monkeypatch.setattr("training.job.Trainer", Recorded)
        arguments = ["--config_file", str(tmp_path / "some.py")]
        assert network.main([*arguments, "--model_dir", str(tmp_path / "run")]) == 0
        return tmp_path / "run", tape

    return train


def test_recorded_steps_give_the_same_heads(run, together, losses_of):
    folder, tape = run("idq-0", "idq-1", "mls")
    assert tape.recorded == 2, "one for each learning rate"
    assert tape.repeated == 5, "12 steps, less the first and the 6 of log lines"
    for name in ("idq-0", "idq-1", "mls"):
        assert losses_of(folder / name) == losses_of(together / name)
        here, there = (load_checkpoint(one / name / "last.pt") for one in (folder, together))
        assert all(torch.equal(value, there["head"][key]) for key, value in here["head"].items())


def test_a_number_of_pairs_beyond_the_limit_is_not_recorded(run, together, monkeypatch, losses_of):
    monkeypatch.setattr(training.recorded, "MOST_RECORDINGS", 0)
    folder, tape = run("idq-0", "idq-1", "mls")
    assert (tape.recorded, tape.repeated) == (0, 0)
    assert losses_of(folder / "mls") == losses_of(together / "mls")


def test_dropout_is_never_recorded(run, together, losses_of):
    folder, tape = run("idq-0", "dropped", "mls")
    assert tape.recorded == 0
    assert losses_of(folder / "dropped") == losses_of(together / "dropped")
