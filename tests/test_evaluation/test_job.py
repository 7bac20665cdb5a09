"""The evaluation scripts as the ranks of one job: all embed, one speaks, errors are said once."""

import json
from pathlib import Path

import pytest

from data.synthetic import SyntheticFaces
from evaluation import calibrate, compare, verification_risk_fnmr
from mc_dropout import verification_risk_mcdropout_fnmr
from tests.helpers import ROOT, TINY_NAME, TORCHRUN, python, write_people

TARGETS = "synthetic:pairs=24,seed=3,synthetic:pairs=20,seed=1"

SCRIPT = """
import sys
from evaluation.verification_risk_fnmr import main
raise SystemExit(main(sys.argv[1:]))
"""

# Runs many command lines in one job, since starting one takes seconds.
MANY = """
import contextlib, importlib, io, json, sys, time
from utils import cli
from utils.distributed import start, stop

world, device = start("cpu")
cli.start = lambda _: (world, device)
cli.stop = lambda world: world.barrier()
time.sleep = lambda _: None
said = []
for module, argv in json.load(open(sys.argv[1])):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module(module).main(argv)
        except SystemExit as end:
            code = end.code
    said.append((code, out.getvalue(), err.getvalue()))
json.dump(said, open(f"{sys.argv[1]}.{world.rank}", "w"))
stop(world)
"""


@pytest.fixture
def model(tiny_weights):
    backbone = ["--backbone_name", TINY_NAME, "--backbone_weights", str(tiny_weights)]
    return [*backbone, "--estimator=embedding_norm", "--device=cpu"]


@pytest.fixture
def faces(tmp_path):
    """Five people with four pictures each; the sixth picture is cut off."""
    paths = write_people(tmp_path / "faces", SyntheticFaces(5, 4, seed=0))
    paths[5].write_bytes(paths[5].read_bytes()[:40])
    return f"faces:{tmp_path / 'faces'}"


def test_scripts_print_and_write_what_one_process_does(
    ranks, model, tiny_weights, faces, golden_dir, tmp_path, monkeypatch, capsys
):
    stored = str(golden_dir / "set_J.npz")
    fnmr = [*model, "--batch_size=8", "--target"]
    dropout = ["--backbone_name", TINY_NAME, "--resume_backbone", str(tiny_weights), "--passes=5"]
    dropout += ["--device=cpu"]
    several = ["--methods", "embedding_norm", "brightness", "--replicates=20", "--device=cpu"]
    good = [
        (verification_risk_fnmr, [*fnmr, TARGETS, "--json=o.json", "--save_features=f.npz"]),
        (verification_risk_fnmr, [*fnmr, "synthetic:pairs=24,seed=3", "--parts=parts", "--flip"]),
        (verification_risk_fnmr, ["--features", stored]),
        (verification_risk_mcdropout_fnmr, [*dropout, "--target=synthetic:pairs=24,seed=3"]),
        (calibrate, [*model, "--target=synthetic:pairs=40,seed=3", "--out=c.json", "--fmr=.1"]),
        (calibrate, ["--features", stored, "--out=d.json"]),
        (compare, [*model[:4], *several, "--target=synthetic:pairs=24,seed=3", "--out=table"]),
    ]
    bad = [
        (verification_risk_fnmr, [*fnmr, faces]),
        (verification_risk_fnmr, [*fnmr, "synthetic:pairs=24", f"--json={tiny_weights}/o.json"]),
        (verification_risk_fnmr, [*fnmr, "lfw"]),
        (verification_risk_fnmr, [*fnmr, "lfw", "--flop"]),
    ]
    commands = tmp_path / "commands.json"
    commands.write_text(json.dumps([(module.__name__, argv) for module, argv in good + bad]))
    folders = tmp_path / "alone", tmp_path / "job"
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[1])
    for done in ranks(MANY, str(commands)):
        assert done.returncode == 0, done.stderr
    first, second = (json.loads(Path(f"{commands}.{rank}").read_text()) for rank in (0, 1))
    monkeypatch.chdir(folders[0])
    for (module, argv), said, silent in zip(good + bad, first, second, strict=True):
        try:
            code = module.main(argv)
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        assert [code, captured.out, captured.err] == said
        assert silent == [code, "", ""]
        assert code == (0 if (module, argv) in good else 2)
    assert [said[2].count("error: ") for said in first] == [0] * len(good) + [1] * len(bad)
    assert "05.png" in first[len(good)][2]
    written = ({path.relative_to(at) for path in at.rglob("*")} for at in folders)
    names, same = written
    assert names == same
    for name in {name for name in names if (folders[0] / name).is_file()}:
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert one == other, name


def test_an_error_of_one_rank_alone_ends_all_with_code_2(ranks, model):
    argv = [*model, "--target=synthetic:pairs=24,seed=3"]
    program = SCRIPT.replace(
        "raise", "if __import__('os').environ['RANK'] == '1': sys.argv[4] = 'nowhere.pth'\nraise"
    )
    first, second = ranks(program, *argv)
    assert (first.returncode, second.returncode) == (2, 2)
    assert first.stderr.startswith("error: rank 1 of 2: ")
    assert "nowhere.pth" in first.stderr
    assert (first.stdout, second.stdout, second.stderr) == ("", "", "")


def test_under_torchrun(model, capsys):
    argv = [*model, "--target=synthetic:pairs=24,seed=3", "--batch_size=8"]
    done = python(*TORCHRUN, ROOT / "evaluation" / "verification_risk_fnmr.py", *argv)
    assert done.returncode == 0, done.stderr
    assert verification_risk_fnmr.main(argv) == 0
    captured = capsys.readouterr()
    assert done.stdout == captured.out
    assert done.stderr.endswith(captured.err)


# One rank is killed while the other computes, and hears of it from torchrun's signal.
KILLED = """
import os, signal, threading
from utils.cli import run_on_ranks

def body(world, device):
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    threading.Event().wait(60)

raise SystemExit(run_on_ranks("cpu", body))
"""


def test_a_rank_that_dies_ends_the_job_with_one_line(ranks):
    first, second = ranks(KILLED)
    assert (first.returncode, second.returncode) == (2, -9)
    assert first.stderr.startswith("error: ended by SIGTERM, which torchrun sends when another")
    assert first.stderr.count("\n") == 1
