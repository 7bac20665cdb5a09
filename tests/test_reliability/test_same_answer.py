"""The same work gives the same answer: what may change the last digits, and what no bit.

The cases, with what docs/reliability.md promises for each, are those of benchmarks/same_answer.py,
here with the demo's backbone. Several processes are held to one by test_training/
test_many_processes.py, test_extraction/test_parts.py and test_evaluation/test_job.py, Ray by
test_scoring/test_ray_engine.py.
"""

import json
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from importlib import import_module
from io import StringIO

import numpy as np
import pytest
import torch

from benchmarks import same_answer
from benchmarks.same_answer import CASES, EXACT, Answer, Bench, Case, differences, is_kept
from tests.helpers import ROOT, python

SMALL = "classes_per_batch=4 images_per_class=4 log_every=2 verification.targets=()"
CONFIG = f"--config_file {ROOT / 'config' / 'config_demo.py'} --steps 4 --set {SMALL}"
FACES = "synthetic:identities=70,images=2,seed=5"

# Runs command lines in the folder in which it is; they are told of the faces beside it.
COMMANDS = """
import importlib, json, sys
for module, argv in json.load(open(sys.argv[1])):
    assert importlib.import_module(module).main(argv) == 0, argv
"""
TIMES = re.compile(
    rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d|[+-]\d\d:\d\d)|\"(time|memory_gib)\": [\d.]+|mem [\d.]+ G"
)


def is_short(case):
    """Leave out 8 bits, which the export holds, and threads of what embeds as `extract` does."""
    if case.processes > 1 or case.changed == "Ray" or case.model == "int8":
        return False
    return case.threads == 1 or case.command in ("train", "extract")


def in_this_process(words, case):
    """Run a command with the case's threads; what it printed."""
    main = import_module(words[0].removesuffix(".py").replace("/", ".")).main
    threads, printed = torch.get_num_threads(), StringIO()
    torch.set_num_threads(case.threads)
    try:
        with redirect_stdout(printed):
            assert main(list(words[1:])) == 0
    finally:
        torch.set_num_threads(threads)
    return printed.getvalue()


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """Return a function that gives a case's answer with a head that was trained a little."""
    folder = tmp_path_factory.mktemp("same")
    same_answer.write_faces(FACES, 140, folder / "faces")
    same_answer.write_faces(FACES, 10, folder / "photos")
    bench = Bench(folder, folder / "faces", "", CONFIG, in_this_process)
    bench.answer(Case("train", "the run"))
    bench = replace(bench, model=f"--model {folder / 'train_the_run' / 'run'}")
    slow = replace(bench, faces=folder / "photos")
    return cache(lambda case: (slow if case.command == "align" else bench).answer(case))


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if is_short(case)],
    ids=lambda case: f"{case.command}, {case.changed}",
)
def test_one_thing_changed(answer, case):
    if case.model == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    first, other = answer(Case(case.command, "first")), answer(case)
    assert is_kept(case, first, other), differences(first, other)


def test_what_is_more_than_allowed():
    vectors = np.array([[3.0, 4.0], [1.0, 0.0]])
    first = Answer(vectors, np.array([0.5, 0.25]), "a")
    other = Answer(2 * vectors[:, ::-1], np.array([0.5, 0.2]), "b")
    assert differences(first, other) == pytest.approx((1.0, 0.2))
    for allowed, kept in ((EXACT, False), ((1.0, 0.1), False), ((0.9, 0.3), False), ((1, 0.3), 1)):
        assert is_kept(Case("", "", allowed=allowed), first, other) == kept
    assert is_kept(Case("", ""), first, first)


def test_hash_seed_time_zone_locale_and_order_of_files_change_no_byte(tmp_path):
    same_answer.write_faces(FACES, 40, tmp_path / "first" / "faces")
    paths = sorted((tmp_path / "first" / "faces").rglob("*.png"), reverse=True)
    for path in paths:  # listed in another order, and younger
        copy = tmp_path / "second" / path.relative_to(tmp_path / "first")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    model, pairs = ["--model=run", "--device=cpu"], "--target=synthetic:pairs=40,seed=3"
    train = [*CONFIG.split()[:-1], "train_images=faces", "verification.targets=synthetic:pairs=20"]
    risk = [*model, pairs, "--json=risk.json", "--save_features=f.npz", "--report=report"]
    check = ["--check=synthetic:pairs=20", "--runs=0", "--faces=32"]
    commands = [
        ("network", ["--model_dir=run", *train]),
        ("evaluation.calibrate", [*model, pairs, "--fmr=.1"]),
        ("evaluation.verification_risk_fnmr", [*risk, "--replicates=20"]),
        ("evaluation.compare", ["--methods=run", pairs, "--replicates=20", "--out=table"]),
        ("extraction.extract", [*model, "--images=faces", "--out=extracted"]),
        *(
            ("scoring.score_images", ["faces", *model, f"--out={name}"])
            for name in ("s.csv", "s.json")
        ),
        ("scoring.score_images", ["faces", *model, "--out=s.parquet", "--report=sheet.html"]),
        ("export.pack_model", [*model, "--out=m.pt", "--license=MIT", "--created=2026-01-31"]),
        ("export.export", ["--model=run", "--out=m.onnx", *check]),
    ]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    environments = (
        {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"},
        {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C", "COLUMNS": "40"},
    )
    folders = tmp_path / "first", tmp_path / "second"
    written = []
    for folder, environment in zip(folders, environments, strict=True):
        done = python("-c", COMMANDS, tmp_path / "commands.json", cwd=folder, **environment)
        assert done.returncode == 0, done.stderr
        files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        content = {name: TIMES.sub(b"", path.read_bytes()) for name, path in files.items()}
        written.append(content | {"printed": TIMES.sub(b"", done.stdout.encode())})
    first, second = written
    assert [name for name in first if first[name] != second.get(name)] == []
    assert first.keys() == second.keys()
    assert len(first) > 40 + len(commands)
