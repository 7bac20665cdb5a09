"""Several heads on one forward pass learn exactly what each learns by itself; recorded or not."""

import dataclasses
import json
import re

import pytest
import torch

import network
import training.trainer
from models.load import load_checkpoint
from models.run import load_run
from training.trainer import Trainer
from utils.config import Method


@pytest.mark.parametrize("name", ["idq-1", "dropped", "mls"])
def test_a_branch_equals_training_it_alone(config, train, together, assert_same_run, name):
    (branch,) = [branch for branch in config.branches if branch.name == name]
    folder = train(config.branch_config(branch))
    assert_same_run(folder, together / name)
    best = [load_checkpoint(path / "best.pt")["head"] for path in (folder, together / name)]
    assert all(torch.equal(value, best[1][key]) for key, value in best[0].items())


def test_seeds_and_losses_differ(together, losses_of):
    names = ("idq-0", "idq-1", "dropped", "mls")
    assert len({str(losses_of(together / name)) for name in names}) == 4


def test_a_branch_folder_is_a_run_folder(config, together):
    run = load_run(together / "dropped", device="cpu")
    assert run.config == config.branch_config(config.branches[2])
    assert json.loads((together / "dropped" / "config.json").read_text())["name"] == "tiny-dropped"
    assert not (together / "best.pt").exists()


def test_the_log_names_the_branch_of_each_line(together):
    lines = (together / "log.txt").read_text().splitlines()
    starts = [line for line in lines if "_loss" in line]
    assert [line.split()[0] for line in starts] == ["idq-0", "idq-1", "dropped", "mls"]
    steps = [line.split("|")[0].split()[-2:] for line in lines if "| loss" in line]
    assert steps[:4] == [["[0-2]", name] for name in ("idq-0", "idq-1", "dropped", "mls")]
    tables = [line for line in lines if line.startswith("---synthetic") and " mls " in line]
    assert len(tables) == 2
    own = (together / "mls" / "log.txt").read_text()
    area = re.search(r"fmr1000 ([\d.]+), of the best 70 % [\d.]+, AUERC30 ([\d.]+)", tables[1])
    assert own.count("AUERC30:") == 2
    last = own[own.index("step 12") :]
    assert f"AUERC30: {area[2]}" in last
    assert re.search(rf"reject_factor 0.0000 .*fmr1000 {area[1]}", last)


def test_a_stopped_run_resumes_to_the_same_heads(
    config_file, together, tmp_path, train_until, assert_same_run
):
    train_until(5, config_file, tmp_path / "stopped")
    assert network.main(["--resume", str(tmp_path / "stopped")]) == 0
    for name in ("idq-0", "dropped", "mls"):
        assert_same_run(tmp_path / "stopped" / name, together / name)


@pytest.mark.parametrize("steps", [3, 4])
def test_steps_that_share_a_forward_pass_are_the_same_steps(
    config_file, together, train, assert_same_run, steps
):
    """Of 12 steps with an epoch's end at 6: groups of 3 fit, groups of 4 lie across it."""
    folder = train(config_file, "run", f"steps_per_forward={steps}")
    for name in ("idq-0", "dropped", "mls"):
        assert_same_run(folder / name, together / name)


def test_a_branch_that_does_not_fit_is_named(config):
    wrong = dataclasses.replace(config.branches[0], loss=Method("mls"))
    with pytest.raises(ValueError, match="loss 'mls' trains a head with output variance"):
        Trainer(dataclasses.replace(config, branches=(wrong,)))


def test_a_branch_may_start_from_a_head_of_an_earlier_run(config, together):
    path = together / "idq-1" / "best.pt"
    branch = dataclasses.replace(config.branches[0], head_weights=str(path))
    trainer = Trainer(dataclasses.replace(config, branches=(branch,)))
    stored = load_checkpoint(path)["head"]
    state = trainer.branches[0].head.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in state.items())


def some(config, *names):
    branches = tuple(branch for branch in config.branches if branch.name in names)
    return dataclasses.replace(config, branches=branches)


def test_recorded_steps_give_the_same_heads(config, train, tape, together, assert_same_run):
    folder = train(some(config, "idq-0", "idq-1", "mls"))
    assert tape.recorded == 2, "one for each learning rate"
    assert tape.repeated == 5, "12 steps, less the first and the 6 of log lines"
    for name in ("idq-0", "idq-1", "mls"):
        assert_same_run(folder / name, together / name)


@pytest.mark.parametrize(("limit", "name"), [(0, "mls"), (None, "dropped")])
def test_dropout_and_numbers_of_pairs_beyond_the_limit_are_not_recorded(
    config, train, tape, together, assert_same_run, monkeypatch, limit, name
):
    if limit is not None:
        monkeypatch.setattr(training.trainer, "MOST_RECORDINGS", limit)
    folder = train(some(config, "idq-0", name))
    assert (tape.recorded, tape.repeated) == (0, 0)
    assert_same_run(folder / name, together / name)
