"""The library of faults.c by itself: what it counts, how it kills and fails, and what it loses."""

import errno
import os
import signal
import subprocess
import sys

import pytest

ALL_CALLS = """
import os, sys
import numpy as np, pyarrow
from pyarrow import parquet
os.mkdir("d")
fd = os.open("d/a", os.O_RDWR | os.O_CREAT)
os.write(fd, b"ab"), os.pwrite(fd, b"cd", 2), os.writev(fd, [b"ab", b"cd"])
os.ftruncate(fd, 3), os.fsync(fd), os.fdatasync(fd), os.close(fd)
with open("d/a", "rb") as file, open("d/b", "wb", 0) as copy:
    os.sendfile(copy.fileno(), file.fileno(), 0, 3)
    os.copy_file_range(file.fileno(), copy.fileno(), 3)
os.rename("d/b", os.path.abspath("c"))
folder = os.open("d", os.O_RDONLY)
os.fsync(folder), os.unlink("a", dir_fd=folder), os.close(folder), os.rmdir("d")
np.save("n.npy", np.zeros(5))
parquet.write_table(pyarrow.table({"x": [1]}), "p.parquet")
os.write(1, b"not counted"), open("n.npy", "rb").close(), open("/dev/null", "w").close()
"""
WRITE = """
import os
for name in ("a", "b"):
    with open(f"{name}.new", "wb", 0) as file:
        try:
            print(file.write(b"12345678"))
            print(file.write(b"abcdefgh"))
            os.fsync(file.fileno())
        except OSError as error:
            print(error.errno)
    os.rename(f"{name}.new", name)
os.mkdir("d")
os.unlink("a")
"""  # open, write, write, fsync, close, rename; once more; mkdir, unlink


@pytest.fixture
def run(library, tmp_path):
    """Return a function that runs a program below a fault: its exit code, output and calls."""
    folder, log, stash = (tmp_path / name for name in ("work", "log", "stash"))
    folder.mkdir(), stash.mkdir()

    def run(program, at=0, fault="kill", **more):
        own = {"LD_PRELOAD": library, "FAULTS_FOLDER": folder, "FAULTS_AT": at, "FAULTS_DO": fault}
        own |= {"FAULTS_LOG": log, "FAULTS_STASH": stash}
        own |= {f"FAULTS_{name.upper()}": value for name, value in more.items()}
        command = [sys.executable, "-c", program]
        env = os.environ | {name: str(value) for name, value in own.items()}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout.split(), log.read_text().replace(f"{folder}/", "")

    run.folder = folder
    return run


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_it_counts_whoever_calls(run):
    code, _, log = run(ALL_CALLS)
    assert code == 0
    calls = log.splitlines()
    assert calls[:10] == [
        *("mkdir d", "open d/a", "write d/a", "write d/a", "write d/a", "truncate d/a"),
        *("fsync d/a", "fsync d/a", "close d/a", "open d/b"),
    ]
    assert calls[10:18] == [
        *("write d/b", "write d/b", "close d/b", "rename c"),
        *("fsync d", "unlink d/a", "rmdir d", "open n.npy"),
    ]
    assert {"write n.npy", "close n.npy", "write p.parquet", "close p.parquet"} < set(calls)
    assert len(files(run.folder)["n.npy"]) == 128 + 40


@pytest.mark.parametrize(
    ("at", "left"),
    [
        (1, {}),
        (2, {"a.new": b"1234"}),
        (3, {"a.new": b"12345678abcd"}),
        (6, {"a.new": b"12345678abcdefgh"}),
        (8, {"a": b"12345678abcdefgh", "b.new": b"1234"}),
    ],
)
def test_a_kill_leaves_half_of_a_write(run, at, left):
    code, _, log = run(WRITE, at)
    assert (code, files(run.folder)) == (-signal.SIGKILL, left)
    assert log.splitlines()[-1].startswith("!")
    assert log.count("\n") == at


@pytest.mark.parametrize(
    ("at", "fault", "once", "printed", "rest"),
    [
        (2, "ENOSPC", 1, [errno.ENOSPC, 8, 8], b""),
        (2, "EIO", 1, [errno.EIO, 8, 8], b""),
        (2, "short", 0, [4, errno.ENOSPC], b"1234"),
        (4, "ENOSPC", 0, [8, 8, errno.ENOSPC], b"12345678abcdefgh"),
        (6, "EACCES", 1, [8, 8], b"12345678abcdefgh"),
        (14, "ENOSPC", 1, [8, 8, 8, 8], None),  # no unlink fails for want of space
    ],
)
def test_a_call_fails_once_or_from_then_on(run, at, fault, once, printed, rest):
    code, out, log = run(WRITE, at, fault, once=once)
    assert [int(number) for number in out] == printed
    assert (code == 0) == bool(once and fault != "EACCES")
    left = files(run.folder)
    assert left.get("a", left.get("a.new")) in (rest, None)
    assert ("!" in log) == (at != 14)


@pytest.mark.parametrize(
    ("lost", "at", "left"),
    [
        ("cut", 3, {"a.new": b""}),
        ("half", 3, {"a.new": b"123456"}),
        ("zeros", 3, {"a.new": bytes(12)}),
        ("cut", 5, {"a.new": b"12345678abcdefgh"}),  # it was synced
        ("cut", 9, {"a": b"12345678abcdefgh", "b.new": b""}),
        ("names", 7, {"a": b"old", "a.new": b"12345678abcdefgh"}),
        ("names", 8, {"a": b"old", "a.new": b"12345678abcdefgh"}),
        ("names", 14, {"a": b"old", "a.new": b"12345678abcdefgh", "b.new": b"12345678abcdefgh"}),
    ],
)
def test_a_loss_of_power_takes_what_was_not_synced(run, lost, at, left):
    if lost == "names":
        (run.folder / "a").write_bytes(b"old")
    code, _, _ = run(WRITE, at, lost=lost)
    assert (code, files(run.folder)) == (-signal.SIGKILL, left)
    assert not (run.folder / "d").exists()


def test_a_synced_folder_keeps_its_names(run):
    sync = "os.fsync(os.open('.', os.O_RDONLY))"
    program = f"import os\nos.mkdir('d'); open('a', 'w').close(); {sync}; os.mkdir('e')"
    code, _, _ = run(f"{program}\nopen('b', 'w')", 6, lost="names")
    assert code == -signal.SIGKILL
    assert {path.name for path in run.folder.iterdir()} == {"d", "a"}


def test_commands_run_in_forks(commands, tmp_path):
    drawn = ["data/synthetic.py", "--format", "folder", "--identities", 2, "--images", 1]
    whole = commands(tmp_path, *drawn, "--out", "a")
    assert (whole.code, whole.fault) == (0, None), whole.err
    assert len(list((tmp_path / "a").rglob("*.jpg"))) == 2
    at = next(n for n, call in enumerate(whole.calls, 1) if call.startswith("write a/"))
    for name, more in (("b", {}), ("c", {"fault": "EIO"}), ("d", {"fault": "short"})):
        ended = commands(tmp_path, *drawn, "--out", name, at=at, **more)
        assert ended.fault.startswith(f"write {name}/")
        assert ended.code == (2 if more else -signal.SIGKILL)
        assert ("error: " in ended.err) == bool(more)
    assert commands(tmp_path, *drawn, "--out", "e", seconds=0).code == -signal.SIGKILL
    assert commands(tmp_path, "data/synthetic.py", "--none").code == 2
