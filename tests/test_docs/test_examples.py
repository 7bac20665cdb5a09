"""The code blocks of docs/adding_a_method.md and docs/migrating.md run as they stand."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.measure import ROOMS
from tests.test_docs.test_docs import ROOT, blocks, examples, text_of

TINY = """
from utils.config import Method, Schedule, TrainConfig, Verification

config = TrainConfig(
    name="old_head",
    backbone=Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8)),
    backbone_weights="backbone.pth",
    head=Method("fc2", output="probability", hidden=256),
    loss=Method("idq"),
    train_images="synthetic:identities=6,images=3,seed=1",
    classes_per_batch=3,
    images_per_class=2,
    schedule=Schedule(epochs=1, steps_per_epoch=1),
    device="cpu",
)
"""
# Stands in for the files that a reader of docs/migrating.md has.
PREPARE = """
import os, pickle
import numpy as np
import torch
from data.synthetic import synthetic_verification
from data.verification import write_bin
from models.heads.fc2 import FC2Head
from utils.config import Method
from utils.methods import build

torch.set_num_threads(1)
torch.manual_seed(0)
net = build("models.backbones", Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8)))
torch.save(net.state_dict(), "backbone.pth")
head = FC2Head(output="probability", features_shape=(8, 7, 7), hidden=256)
torch.save(head.state_dict(), "uncertainty_head_fc2_prob_0012_checkpoint.pth")
pairs = synthetic_verification(12, seed=3)
write_bin("datasets/lfw.bin", pairs.images, pairs.mated)
with open("lfw_feature.pkl", "wb") as file:
    pickle.dump((np.eye(24), np.ones((24, 1)), [True, False] * 6), file)
"""
DRIVER = """
import importlib, json, shlex, sys
sys.path.insert(0, "")
for language, content in json.load(open("blocks.json")):
    if language == "python":
        exec(compile(content, "block", "exec"), {"__name__": "block"})
        continue
    for line in content.splitlines():
        _, script, *arguments = shlex.split(line)
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        assert module.main([*arguments, "--set", "device=cpu"] if "network" in script
                           else [*arguments, "--device", "cpu"]) == 0, line
print("all ran")
"""
QUIET = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(copy, *arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=QUIET, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the examples of two pages in one process, in a copy of the code."""
    copy = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ROOMS:
        shutil.copytree(ROOT / package, copy / package, ignore=ignore)
    shutil.copy(ROOT / "network.py", copy)
    (copy / "config" / "config_ir50_idq_loss_glint360k.py").write_text(TINY)
    steps = [("python", PREPARE)]
    for language, title, content in blocks(text_of(ROOT / "docs" / "adding_a_method.md")):
        if title:
            (copy / title).write_text(content)
        else:
            steps.append((language, content))
    for content in examples(text_of(ROOT / "docs" / "migrating.md")):
        small = content.replace("depth=50", "layers=(1, 1, 1, 1), widths=(4, 4, 8, 8)")
        steps.append(("python", small))
    (copy / "blocks.json").write_text(json.dumps(steps))
    return copy, run(copy, "-c", DRIVER)


def test_the_contract_tests_take_the_examples_as_they_are(ran):
    """A convolutional tail, 64 to 128 dimensions, no BatchNorm1d, one loss and head more."""
    copy, done = ran
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    files = ("losses/test_contract.py", "models/test_backbones.py", "models/test_heads.py")
    chosen = ("-k", "patches or pooled or pcnet_huber", *(f"tests/test_{file}" for file in files))
    tests = run(copy, "-m", "pytest", "-q", *chosen)
    assert tests.returncode == 0, tests.stdout
    assert re.search(r"\b1\d passed", tests.stdout), tests.stdout


def test_examples_are_what_was_trained_and_evaluated(ran):
    copy, done = ran
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all ran\n")
    log = (copy / "runs" / "try" / "log.txt").read_text()
    assert "PC_huber_loss 0.2" in log
    assert len(re.findall(r"\[0-\d\] \| loss", log)) == 2
    assert done.stdout.count("reject_factor 0.3000") >= 4  # training, two scripts, the old head
    assert (copy / "lfw.npz").is_file()
