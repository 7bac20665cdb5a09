"""The whole of training on small rendered faces: log, run folder, seeds, stop and resume."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import network
from data.synthetic import SyntheticFaces, write_folder
from evaluation import verification_risk_fnmr
from models.load import load_checkpoint
from models.run import load_run
from training.trainer import Trainer
from utils.config import load_config, override

ROOT = Path(__file__).resolve().parents[2]
ONE_HEAD = "head=FC2, loss=Method('idq', scale=16.0, margin=0.45)"


@pytest.fixture(scope="module")
def config_file(config_file):
    """The config of one head, which is the first branch with fewer images."""
    text = config_file.read_text().replace("images_per_class=4", "images_per_class=3")
    path = config_file.with_name("one_head.py")
    path.write_text(text.replace("branches=BRANCHES", ONE_HEAD))
    return path


def train(config_file, folder, *changes):
    arguments = ["--config_file", str(config_file), "--model_dir", str(folder)]
    return network.main([*arguments, "--set", *changes] if changes else arguments)


@pytest.fixture(scope="module")
def finished(config_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(config_file, folder) == 0
    return folder


def test_the_log_has_the_lines_of_the_original(finished):
    lines = (finished / "log.txt").read_text().splitlines()
    assert lines[:7] == [
        "Start Training",
        "name: tiny",
        "num_epochs: 2",
        "epoch_size: 6",
        "batch_size: 12",
        "num_c_in_batch 4 num_img_each_c 3.0",
        "IDQ_loss soft 16 0.45",
    ]
    number = r"-?\d+\.\d\d(e-\d\d)?"
    pattern = re.compile(
        rf"\d{{4}}-\d\d-\d\d [\d:]+ \[(\d)-(\d)\] \| loss \d\.\d{{3}} lr(0\.01|0\.001) "
        rf"cos( {number}){{3}} pconf( {number}){{3}} t_soft( [\d.e+-]+){{3}} "
        r"uloss \d\.\d{3} mem \d+\.\d G"
    )
    steps = [pattern.fullmatch(line).group(1, 2, 3) for line in lines if "| loss" in line]
    first_epoch = [("0", step, "0.01") for step in "246"]
    assert steps == [*first_epoch, ("1", "2", "0.01"), ("1", "4", "0.001"), ("1", "6", "0.001")]
    assert sum(line.startswith("reject_factor 0.3000") for line in lines) == 2
    assert sum(line.startswith("AUERC30:") for line in lines) == 2


def test_the_run_folder_says_how_it_was_made(finished, config_file):
    assert (finished / "config.py").read_text() == config_file.read_text()
    assert json.loads((finished / "config.json").read_text())["name"] == "tiny"
    (start,) = json.loads((finished / "environment.json").read_text())
    assert start["device"].startswith("cpu")
    checkpoint = load_checkpoint(finished / "last.pt")
    assert checkpoint["step"] == 12
    assert checkpoint["backbone"]["preprocessing"]["color"] == "RGB"


def test_the_same_command_gives_the_same_losses_and_another_seed_others(
    config_file, finished, tmp_path, losses_of
):
    assert train(config_file, tmp_path / "again") == 0
    assert losses_of(tmp_path / "again") == losses_of(finished)
    assert train(config_file, tmp_path / "other", "seed=1") == 0
    assert losses_of(tmp_path / "other") != losses_of(finished)


class StopAfter(Trainer):
    stop_at = 5

    def train_step(self, *arguments):
        asked = super().train_step(*arguments)
        self.stop.is_requested = self.step == self.stop_at
        return asked


@pytest.mark.parametrize("stop_at", [5, 6, 9])
def test_a_resumed_run_equals_one_that_was_never_stopped(
    config_file, finished, tmp_path, monkeypatch, assert_same_run, stop_at
):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(StopAfter, "stop_at", stop_at)
        patch.setattr("training.job.Trainer", StopAfter)
        assert train(config_file, folder) == 130
    assert load_checkpoint(folder / "last.pt")["step"] == stop_at
    assert network.main(["--resume", str(folder)]) == 0
    assert_same_run(folder, finished)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "schedule.optimizer=adamw",
            r"schedule.optimizer = 'adamw' \(was 'sgd'\): the run's saved",
        ),
        ("head.hidden=9", r"head = Method\('fc2', output='probability', hidden=9\) \(was Method"),
        ("loss=pcnet", r"loss = 'pcnet' \(was 'idq'\)"),
        ("head_weights=head.pth", r"head_weights = 'head.pth' \(was None\)"),
        ("backbone=mobilefacenet", r"backbone = Method\('mobilefacenet'\) \(was"),
        ("schedule.epochs=1", "1 x 6 steps: the run has done 12; set schedule.epochs to 2"),
        ("schedule.steps_per_epoch=5", "2 x 5 steps: .* set schedule.epochs to 3 or more"),
    ],
)
def test_a_run_does_not_resume_as_another(finished, capsys, change, message):
    before = (finished / "config.json").read_bytes()
    assert network.main(["--resume", str(finished), "--set", change]) == 2
    output = capsys.readouterr()
    assert re.fullmatch(f"error: cannot resume with .*{message}.*\n", output.err)
    assert output.out == ""
    assert (finished / "config.json").read_bytes() == before


def test_what_may_change_where_a_run_resumes(config_file, tmp_path):
    folder = tmp_path / "run"
    assert train(config_file, folder, "schedule.epochs=1") == 0
    best = load_checkpoint(folder / "last.pt")["best"]
    settings = ["schedule.epochs=2", "schedule.lr=1e-3", "loss.margin=0.3", "schedule.momentum=0.0"]
    settings += ["verification.targets=('synthetic:pairs=30,seed=3',)", "workers=1", "seed=5"]
    assert network.main(["--resume", str(folder), "--set", *settings]) == 0
    checkpoint = load_checkpoint(folder / "last.pt")
    assert checkpoint["step"] == load_checkpoint(folder / "best.pt")["step"] == 12
    assert checkpoint["best"] not in (best, None)
    assert f"changed for what follows: {settings[0]}" in (folder / "log.txt").read_text()


def test_names_that_a_console_cannot_show_do_not_end_a_run(config_file, tmp_path):
    folder = tmp_path / "faces"
    write_folder(SyntheticFaces(8, 4, 0), folder)
    bad = os.fsencode(folder / "00000") + b"/\xff\xe4.jpg"
    Path(os.fsdecode(bad)).write_bytes(b"damaged")
    settings = [f"train_images={folder}", "max_bad_share=0.5"]
    for encoding in ("cp1252", "ascii"):
        run = tmp_path / encoding
        done = subprocess.run(
            [
                *(sys.executable, str(ROOT / "network.py"), "--config_file", str(config_file)),
                *("--model_dir", str(run), "--set", *settings),
            ],
            env={**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=True,
        )
        for text in (done.stdout, (run / "log.txt").read_bytes()):
            assert text.count(rb"\udcff\udce4.jpg") == 1
        assert done.stderr == b""


def test_a_killed_process_can_be_resumed(config_file, tmp_path):
    folder = tmp_path / "killed"
    command = [sys.executable, str(ROOT / "network.py"), "--config_file", str(config_file)]
    changes = ["--set", "schedule.steps_per_epoch=4000", "verification.targets=()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--model_dir", str(folder), *changes],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    log = folder / "log.txt"
    while not (log.exists() and "| loss" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    step = load_checkpoint(folder / "last.pt")["step"]
    assert 0 < step < 8000
    assert f"stopped at step {step}; resume with --resume {folder}" in output


def test_load_run_gives_the_trained_head(finished):
    run = load_run(finished, checkpoint="last", device="cpu")
    assert run.step == 12
    assert not run.head.training
    state = load_checkpoint(finished / "last.pt")["head"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in run.head.state_dict().items())


def test_load_run_refuses_another_backbone(finished, tmp_path):
    weights = Path(load_run(finished, device="cpu").config.backbone_weights)
    state = torch.load(weights, weights_only=True)
    state["conv1.weight"] += 1
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"trained on backbone weights .*other\.pth has"):
        load_run(finished, device="cpu", backbone_weights=str(tmp_path / "other.pth"))


def test_a_head_that_was_trained_elsewhere_can_be_evaluated_and_trained_on(
    config_file, finished, tmp_path, capsys
):
    head = load_checkpoint(finished / "best.pt")["head"]
    torch.save(head, tmp_path / "head.pth")
    change = f"head_weights={tmp_path / 'head.pth'}"
    assert verification_risk_fnmr.main(["--config_file", str(config_file), "--set", change]) == 0
    from_weights = capsys.readouterr().out
    assert verification_risk_fnmr.main(["--model_dir", str(finished)]) == 0
    assert capsys.readouterr().out == from_weights
    config = override(load_config(config_file), [change])
    head_now = Trainer(config).branches[0].head.state_dict()
    assert all(torch.equal(value, head[name]) for name, value in head_now.items())


def test_evaluation_without_a_trained_head_says_what_to_give(config_file, refused):
    refused(
        verification_risk_fnmr.main(["--config_file", str(config_file)]),
        "config 'tiny' names no head_weights; give --set head_weights=FILE",
    )


def test_load_run_says_where_it_looked(tmp_path):
    with pytest.raises(ValueError, match=r"no trained run in .*best\.pt is missing"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (["loss.name=mls"], "no option 'scale'"),
        (["head.output=variance"], "trains a head with output probability; head 'fc2' gives"),
        (["backbone_weights=absent.pth"], "absent.pth"),
        (["train_images=absent"], "absent"),
        (["classes_per_batch=9"], "9"),
        (["verification.targets=lfw"], "lfw"),
        (["verification.protocol=orginal"], "orginal"),
        (["verification.protocol=nist"], "training prints the original's table"),
        (["head.name=fc3"], "unknown name 'fc3' in models.heads; did you mean 'fc2'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(config_file, tmp_path, capsys, changes, text):
    assert train(config_file, tmp_path / "run", *changes) == 2
    assert not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert text in error


def test_photos_that_are_not_aligned_are_told_in_the_log(config_file, tmp_path):
    for person in "abcd":
        for number in range(3):
            path = tmp_path / "photos" / person / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((150, 200, 3), 20 * number + ord(person), np.uint8))
    assert train(config_file, tmp_path / "run", f"train_images={str(tmp_path / 'photos')!r}") == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert len(re.findall(r"train_images: (\d+) of \1 images \(100 %\) are no aligned", log)) == 1


def test_a_loss_that_explodes_stops_the_run_and_names_the_steps(config_file, tmp_path, capsys):
    changes = ["head.output=variance", "loss=fast_mls", "schedule.lr=1e30"]
    assert train(config_file, tmp_path / "run", *changes) == 2
    assert re.search(r"not finite at some step in \d+\.\.\d+; lower", capsys.readouterr().err)


def test_a_short_run_leaves_the_later_drops_out(config_file, tmp_path):
    text = config_file.read_text()
    assert "drop_at" in text
    arguments = ["--config_file", str(config_file), "--model_dir", str(tmp_path / "short")]
    assert network.main([*arguments, "--steps", "2"]) == 0
    assert load_checkpoint(tmp_path / "short" / "last.pt")["step"] == 2
