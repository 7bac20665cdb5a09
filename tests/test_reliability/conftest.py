"""Commands that meet with faults: see faults.c and forked.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers import ROOT
from tests.test_reliability.jobs import write_inputs

HERE = Path(__file__).parent


class Outcome(NamedTuple):
    """How a command ended.

    `code` is below 0 after a signal. `calls` are those that changed files below its folder, as
    "write scores.csv"; `fault` is the one that met with the fault, None where none did.
    """

    code: int
    out: str
    err: str
    calls: list[str]
    fault: str | None


class Commands:
    """Runs commands: `commands(folder, "scoring/score_images.py", "photos", ..., at=12)`.

    The folder is the working folder, and the one whose calls are counted. The fault, of faults.c,
    comes at the call `at`, from 1; 0 is none. `seconds` is a time to be killed after, anywhere;
    `constants` of the product, such as "scoring.job.PART_INPUTS", get other values.
    """

    def __init__(self, library, files):
        self._library, self._files, self._server = library, files, None

    def __call__(
        self,
        folder,
        script,
        *arguments,
        at=0,
        fault="kill",
        once=False,
        lost="",
        seconds=None,
        limit=120,
        constants=None,
        **environment,
    ):
        files, folder = self._files, str(Path(folder).resolve())
        log, stash = files / "log", files / "stash"
        for path in (log, files / "out", files / "err"):
            path.write_text("")
        shutil.rmtree(stash, ignore_errors=True)
        stash.mkdir()
        order = {
            **{"folder": folder, "script": script, "arguments": list(map(str, arguments))},
            **{"at": at, "fault": str(fault), "once": int(once), "lost": lost, "seconds": seconds},
            **{"stash": str(stash), "log": str(log), "limit": limit, "environment": environment},
            "constants": constants or {},
        }
        if self._server is None or self._server.poll() is not None:
            self._server = self._start()
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        code = json.loads(self._server.stdout.readline())
        assert code != "hangs", (order, (files / "err").read_text())
        lines = log.read_text(errors="surrogateescape").replace(f" {folder}/", " ").splitlines()
        texts = ((files / name).read_text(errors="replace") for name in ("out", "err"))
        struck = [line[1:] for line in lines if line.startswith("!")]
        calls = [line.removeprefix("!") for line in lines]
        return Outcome(code, *texts, calls, struck[0] if struck else None)

    def _start(self):
        own = {"LD_PRELOAD": self._library, "PYTHONPATH": ROOT, "XDG_CACHE_HOME": self._files}
        return subprocess.Popen(
            [sys.executable, HERE / "forked.py", self._files],
            env=os.environ | {name: str(value) for name, value in own.items()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self):
        if self._server is not None:
            self._server.communicate()


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The library of faults.c."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE"]
    subprocess.run(
        [compiler, *flags, "-o", library, HERE / "faults.c", "-ldl", "-lpthread"], check=True
    )
    return library


@pytest.fixture(scope="session")
def commands(library, tmp_path_factory):
    """A `Commands`."""
    commands = Commands(library, tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """What the jobs of jobs.py read."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder
