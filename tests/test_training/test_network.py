"""The whole of training on small rendered faces: log, run folder, seeds, stop and resume."""

import json
import re
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import network
from evaluation import verification_risk_fnmr
from models.load import load_checkpoint
from models.run import load_run
from training.trainer import Trainer
from utils.config import load_config, override

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


@pytest.mark.parametrize("stop_at", [5, 6, 9])
def test_a_resumed_run_equals_one_that_was_never_stopped(
    config_file, finished, tmp_path, train_until, assert_same_run, stop_at
):
    train_until(stop_at, config_file, tmp_path / "stopped")
    assert network.main(["--resume", str(tmp_path / "stopped")]) == 0
    assert_same_run(tmp_path / "stopped", finished)


def test_a_killed_process_can_be_resumed(config_file, tmp_path, long_run):
    folder = tmp_path / "killed"
    with long_run(config_file, folder) as process:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
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
    code = verification_risk_fnmr.main(["--config_file", str(config_file)])
    refused(code, "config 'tiny' names no head_weights; give --set head_weights=FILE")


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
def test_a_mistake_is_one_line_and_exit_code_2(config_file, tmp_path, refused, changes, text):
    refused(train(config_file, tmp_path / "run", *changes), text, alone=True)
    assert not (tmp_path / "run").exists()


def test_photos_that_are_not_aligned_are_told_in_the_log(config_file, tmp_path):
    for person in "abcd":
        for number in range(3):
            path = tmp_path / "photos" / person / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((150, 200, 3), 20 * number + ord(person), np.uint8))
    assert train(config_file, tmp_path / "run", f"train_images={str(tmp_path / 'photos')!r}") == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert len(re.findall(r"train_images: (\d+) of \1 images \(100 %\) are not aligned", log)) == 1


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
