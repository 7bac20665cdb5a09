"""Each command with its n-th change of a file failing, as on a full, read-only or broken disk.

It ends in one line and exit code 2, leaves nothing behind, and the same command then makes what one
without a fault makes. FACEUQ_FAULTS is how many n each command gets (2), up to all.
"""

import os
import shutil
from collections import Counter

import pytest

from tests.test_reliability.jobs import JOBS, content

FAULTS = ("ENOSPC", "EIO", "EACCES", "short")
TRIES = int(os.environ.get("FACEUQ_FAULTS", "2"))  # of each job, evenly spread


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


@pytest.mark.parametrize("name", JOBS)
def test_a_call_that_fails_ends_the_command_in_one_line(
    name, inputs, commands, whole, tmp_path, record_property
):
    if name == "export" and "FACEUQ_FAULTS" not in os.environ:
        pytest.skip("slow: run with FACEUQ_FAULTS=2")
    expected, calls = whole(name)
    job, wrong, codes = JOBS[name], [], Counter()
    for at in range(1, len(calls) + 1, max(1, len(calls) // TRIES)):
        fault, folder = FAULTS[(at + at // len(FAULTS)) % len(FAULTS)], tmp_path / str(at)
        shutil.copytree(inputs, folder)
        ended = commands(folder, job.script, *job.arguments, at=at, fault=fault)
        codes[ended.code] += bool(ended.fault)
        is_one_line = ended.err.rstrip().rpartition("\n")[2].startswith("error: ")
        clean = fault in ("EIO", "EACCES") or not leftovers(
            folder
        )  # which no file can be removed with
        is_done = ended.code == 0 and content(folder / job.made) == expected
        is_resumed = job.again and (folder / job.made / "last.pt").exists()
        again = commands(folder, job.script, *(job.again if is_resumed else job.arguments))
        problems = {
            "trace": "Traceback" in ended.err,
            "code": not is_done and (ended.code != 2 or not is_one_line),
            "leftovers": not clean or leftovers(folder),
            "again": again.code,
            "bytes": content(folder / job.made) != expected,
        }
        if any(problems.values()):
            wrong.append((fault, at, ended.fault, problems, ended.err[-900:], again.err[-300:]))
        shutil.rmtree(folder)
    record_property("faults", dict(codes))
    assert not wrong
