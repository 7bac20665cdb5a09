"""Each command with its n-th change of a file failing, as on a full, read-only or broken disk.

It ends in one line and exit code 2, leaves nothing behind, and the same command then makes what one
without a fault makes. A sample of all n; `FAULTS_ALL=1` tries every one.
"""

import os
import shutil

import pytest

from tests.test_reliability.jobs import JOBS, content, write_inputs

FAULTS = ("ENOSPC", "EIO", "EACCES", "short")
TRIES = 3  # of each job and fault, evenly spread


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def whole(inputs, commands, tmp_path_factory):
    """Return a function that gives what a job makes without a fault, and its calls."""
    known = {}

    def made(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("whole")
            shutil.copytree(inputs, folder, dirs_exist_ok=True)
            ended = commands(folder, JOBS[name].script, *JOBS[name].arguments)
            assert ended.code == 0, ended.err
            known[name] = content(folder / JOBS[name].made), ended.calls
        return known[name]

    return made


def leftovers(folder):
    """Temporary files and locks."""
    hidden = [path for path in folder.rglob(".*") if path.name != ".aligned"]
    return [str(path.relative_to(folder)) for path in hidden]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", JOBS)
def test_a_call_that_fails_ends_the_command_in_one_line(
    name, fault, inputs, commands, whole, tmp_path
):
    expected, calls = whole(name)
    job = JOBS[name]
    step = 1 if os.environ.get("FAULTS_ALL") else max(1, len(calls) // TRIES)
    wrong = []
    for at in range(1, len(calls) + 1, step):
        folder = tmp_path / str(at)
        shutil.copytree(inputs, folder)
        ended = commands(folder, job.script, *job.arguments, at=at, fault=fault)
        where = f"{name}, {fault} at {at} ({ended.fault})"
        last = (ended.err.splitlines() or [""])[-1]
        if "Traceback" in ended.err or ended.code not in (0, 2):
            wrong.append(f"{where}: {ended.code} {ended.err[-1500:]}")
        if ended.code == 2 and not last.startswith("error: "):
            wrong.append(f"{where}: {ended.err[-300:]!r}")
        if fault not in ("EIO", "EACCES") and (left := leftovers(folder)):
            wrong.append(f"{where}: left {left}")
        if ended.code == 0 and content(folder / job.made) != expected:
            wrong.append(f"{where}: exit 0 with other bytes")
        has_run = job.again and (folder / "out" / "last.pt").exists()
        again = commands(folder, job.script, *(job.again if has_run else job.arguments))
        if again.code != 0:
            wrong.append(f"{where}: again {again.code} {again.err[-300:]}")
        elif content(folder / job.made) != expected:
            wrong.append(f"{where}: other bytes")
        if left := leftovers(folder):
            wrong.append(f"{where}: left for good {left}")
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)
