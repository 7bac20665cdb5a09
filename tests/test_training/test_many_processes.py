"""Two processes train as one does: same batches, same statistics, same gradients, same log."""

import json
import os
import re
import signal

import numpy as np
import pytest
import torch

import network
from data.synthetic import SyntheticFaces
from models.load import load_checkpoint
from models.run import load_run
from tests.helpers import ROOT, TORCHRUN, child_of_rank, python, write_people

HEADS = ("idq-0", "idq-1", "dropped", "mls")


def run_two(*arguments, expect=0):
    done = python(*TORCHRUN, ROOT / "network.py", *arguments)
    assert (done.returncode == 0) == (expect == 0), done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def by_two(config_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    done = run_two("--config_file", config_file, "--model_dir", folder)
    return folder, done


def assert_close_runs(together, folder, losses_of, rtol):
    for name in HEADS:
        one, two = (np.array(losses_of(path / name)) for path in (together, folder))
        np.testing.assert_array_equal(two[:, 0], one[:, 0])
        np.testing.assert_allclose(two[:, 1], one[:, 1], rtol=rtol)


def test_two_processes_give_the_losses_and_heads_of_one(by_two, together, losses_of):
    folder, _ = by_two
    assert_close_runs(together, folder, losses_of, rtol=2e-5)
    for name in HEADS:
        heads = [load_checkpoint(path / name / "last.pt")["head"] for path in (together, folder)]
        for key, tensor in heads[0].items():
            torch.testing.assert_close(heads[1][key], tensor, rtol=1e-4, atol=1e-5, msg=key)


def test_the_first_process_alone_writes_and_the_log_counts_all_pairs(by_two, together):
    folder, done = by_two
    assert done.stdout.count("Start Training") == 1
    assert done.stdout.count(f"complete at step 12; run folder: {folder}") == 1
    (start,) = json.loads((folder / "environment.json").read_text())
    assert start["processes"] == 2

    def lines(path):
        text = (path / "log.txt").read_text()
        return re.findall(r"\] idq-0.*? cos ([\d. -]+) pconf", text), text.count("AUERC30:")

    assert lines(folder) == lines(together)


def test_one_process_that_is_asked_to_stop_stops_both_at_one_step(config_file, tmp_path, long_run):
    folder = tmp_path / "run"
    with long_run(config_file, folder, *TORCHRUN) as process:
        os.kill(child_of_rank(process.pid, 1), signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    step = load_checkpoint(folder / "last.pt")["step"]
    assert output.count(f"stopped at step {step}; resume with --resume {folder}") == 1, errors
    assert "lost contact" not in errors
    assert load_checkpoint(folder / "mls" / "last.pt")["step"] == step


def test_a_run_of_one_resumes_with_two(config_file, together, tmp_path, losses_of):
    """It stops at step 6 by a config of half the length."""
    half = ("schedule.epochs=1", "schedule.drop_at=()")
    whole = ("schedule.epochs=2", "schedule.drop_at=(1.5,)", "branches.mls.schedule.drop_at=()")
    folder = tmp_path / "run"
    arguments = ["--config_file", str(config_file), "--model_dir", str(folder)]
    assert network.main([*arguments, "--set", *half]) == 0
    run_two("--resume", folder, "--set", *whole)
    assert_close_runs(together, folder, losses_of, rtol=5e-5)


def test_a_process_that_dies_ends_the_job_with_one_message_and_a_way_on(
    config_file, tmp_path, long_run
):
    folder = tmp_path / "run"
    with long_run(config_file, folder, *TORCHRUN) as process:
        os.kill(child_of_rank(process.pid, 1), signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("error: lost contact with another process of this job") == 1, errors
    assert f"resume from step 0 with --resume {folder}" in errors
    assert "Traceback" not in errors.split("error: lost contact")[0]
    assert load_checkpoint(folder / "last.pt")["step"] == 0
    assert network.main(["--resume", str(folder), "--set", "schedule.steps_per_epoch=2"]) == 0
    assert load_run(folder / "mls", checkpoint="last", device="cpu").step == 4


def test_images_that_one_process_alone_cannot_read_are_in_the_log(config_file, tmp_path):
    damaged = write_people(tmp_path / "faces", SyntheticFaces(4, 4, seed=1))[::4]
    for path in damaged:
        path.write_bytes(b"no image")
    changes = [f"train_images={tmp_path / 'faces'}", "log_every=100", "max_bad_share=1.0"]
    changes += ["schedule.epochs=1", "schedule.steps_per_epoch=1", "schedule.drop_at=()"]
    changes += ["verification.targets=()"]  # one step: each process reads half of the identities
    run_two("--config_file", config_file, "--model_dir", tmp_path / "run", "--set", *changes)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert set(re.findall(r"skipped: (\S+?):", log)) == set(map(str, damaged))


def test_classes_that_cannot_be_shared_out(config_file, tmp_path):
    arguments = ["--config_file", config_file, "--model_dir", tmp_path / "run"]
    done = run_two(*arguments, "--set", "classes_per_batch=3", expect=2)
    assert done.stderr.count("error: ") == 1
    assert re.search(r"classes_per_batch.*3.*2", done.stderr)
    assert not (tmp_path / "run").exists()
