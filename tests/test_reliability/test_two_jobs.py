"""A second process that would write what another one is writing is refused, and changes nothing."""

import subprocess
import sys

import pytest

from tests.helpers import ROOT
from tests.test_reliability.jobs import JOBS, content, write_inputs
from utils.files import remove_leftovers, sole_writer

LOCKED = {  # folders, or files, that one process has while it writes a job's output
    "score csv": "out/scores.csv.parts",
    "score parquet": "out/scores.parquet.parts",
    "extract npy": ("out", "out/.share-1-of-1.lock"),
    "align folder": "out/.aligned",
    "align rec": "out/.aligned",
    "train": "out",
    "compare": "out",
}
TAKING_TURNS = """
import sys
from pathlib import Path
from utils.files import sole_writer
folder = Path(sys.argv[1])
for _ in range(150):
    with sole_writer(folder, folder / ".file.lock", patience=60):
        (folder / "inside").mkdir()
        (folder / "inside").rmdir()
"""


@pytest.mark.parametrize("name", LOCKED)
def test_the_second_one_is_refused(name, commands, tmp_path):
    write_inputs(tmp_path)
    place = LOCKED[name]
    target, lock = (place, None) if isinstance(place, str) else place
    job = JOBS[name]
    with sole_writer(tmp_path / target, lock and tmp_path / lock):
        before = content(tmp_path)
        ended = commands(tmp_path, job.script, *job.arguments)
        assert content(tmp_path) == before
    assert ended.code == 2
    assert "another process is writing it; wait for it" in ended.err.splitlines()[-1]
    assert commands(tmp_path, job.script, *job.arguments).code == 0


def test_a_report_folder(commands, tmp_path):
    write_inputs(tmp_path)
    job = JOBS["evaluate"]
    with sole_writer(tmp_path / "report"):
        ended = commands(tmp_path, job.script, *job.arguments, "--report", "report")
    assert (ended.code, "report: another process" in ended.err) == (2, True)


def test_processes_take_turns(tmp_path):
    """The lock's file comes and goes with every turn, and still one process has it at a time."""
    command = [sys.executable, "-c", TAKING_TURNS, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=-1) for _ in range(3)]
    remove_leftovers(tmp_path)
    assert [(process.communicate()[1], process.returncode) for process in processes] == [
        (b"", 0)
    ] * 3
    assert list(tmp_path.iterdir()) == []


def test_two_trainings_at_a_time(commands, tmp_path):
    """One of them has the run folder; what is in it is its own."""
    write_inputs(tmp_path)
    arguments = ["--config_file", "config.py", "--model_dir"]
    program = [sys.executable, ROOT / "network.py", *arguments, "out", "--set"]
    options = {"cwd": tmp_path, "stdout": -1, "stderr": -1, "text": True}
    runs = [subprocess.Popen([*program, f"seed={seed}"], **options) for seed in (1, 2)]
    errors = [run.communicate()[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 2], errors
    refused = errors[codes.index(2)]
    assert "another process is writing it" in refused or "already holds a run" in refused
    seed = f"seed={1 + codes.index(0)}"
    assert commands(tmp_path, "network.py", *arguments, "alone", "--set", seed).code == 0
    assert content(tmp_path / "out") == content(tmp_path / "alone")
