"""What a command reads, or the folder that it writes into, goes away while it runs.

It ends in one line, what is done is kept, and when all is back the same command makes what one that
never stopped makes.
"""

import ctypes
import errno
import importlib
import os
import shutil
import struct
import subprocess
import sys
import time

import pytest

from data.faces import open_faces
from data.recordio import RecordWriter
from scoring import job
from tests.helpers import ROOT
from tests.test_reliability.jobs import JOBS, content
from utils.files import Origin

KEEPS = [name for name in JOBS if name.split()[0] in ("score", "extract", "align", "train")]
FILES = [name for name in JOBS if JOBS[name].reads == "faces"]


@pytest.fixture(scope="session")
def whole(inputs, tmp_path_factory):
    """Return a function that gives what a job makes that nothing befalls."""
    known = {}

    def made(name, run):
        if name not in known:
            folder = tmp_path_factory.mktemp("whole")
            shutil.copytree(inputs, folder, dirs_exist_ok=True)
            assert run(name, folder) == 0
            known[name] = content(folder / JOBS[name].made)
        return known[name]

    return made


@pytest.fixture
def folder(inputs, tmp_path):
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs a job in a folder; its exit code."""
    monkeypatch.setattr(job, "PART_INPUTS", 8)

    def run(name, folder, again=False, source="faces"):
        monkeypatch.chdir(folder)
        script, arguments, *_, other = JOBS[name]
        command = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        words = other if again and other else arguments
        places = {"faces": source, "faces:faces": f"faces:{source}"}
        words = [places.get(word, word) for word in words]
        return command.main([*words, *["--set", f"train_images={source}"] * (name == "train")])

    return run


@pytest.fixture
def after(monkeypatch):
    """Return a function that has something done before the n-th image file is read."""
    read = Origin.read

    def at(number, act):
        left = [number]

        def reading(self, path, *more):
            left[0] -= 1
            if not left[0]:
                act()
            return read(self, path, *more)

        monkeypatch.setattr(Origin, "read", reading)

    return at


@pytest.mark.parametrize("name", FILES)
def test_a_folder_of_images_that_is_gone_is_an_error_and_the_job_resumes(
    name, folder, run, after, whole, refused
):
    expected = whole(name, run)
    faces, away = folder / "faces", folder / "away"
    after(14, lambda: faces.rename(away))
    refused(run(name, folder), "gone while it is read")
    away.rename(faces)
    assert run(name, folder, again=True) == 0
    assert content(folder / JOBS[name].made) == expected


@pytest.mark.parametrize("name", KEEPS)
def test_an_output_folder_that_is_gone_is_an_error_and_the_job_resumes(
    name, folder, run, after, whole, capsys
):
    expected = whole(name, run)
    out, away = folder / "out", folder / "away"
    after(14, lambda: out.rename(away))
    assert run(name, folder) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: "), line
    assert "gone" in line or "No such file" in line, line
    assert not out.exists()
    away.rename(out)
    assert run(name, folder, again=True) == 0
    assert content(out) == expected


@pytest.fixture
def ordinary_user():
    """Have permissions hold for root too: this thread, and those that it starts, override none."""
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    if os.geteuid():
        yield
        return
    system = ctypes.CDLL(None)
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    before = ctypes.create_string_buffer(24)
    assert system.capget(header, before) == 0
    effective, *others = struct.unpack("6I", before.raw)
    own = struct.pack("6I", effective & ~0b110, *others)  # what overrides permissions of files
    assert system.capset(header, ctypes.create_string_buffer(own, 24)) == 0
    yield
    system.capset(header, before)


@pytest.mark.parametrize("place", ["out", "faces"])
@pytest.mark.parametrize("name", ["score csv", "extract npy", "align folder", "train", "evaluate"])
def test_places_without_permission(name, place, folder, run, ordinary_user, refused):
    (folder / "out").mkdir()
    (folder / place).chmod(0o500 if place == "out" else 0)
    refused(run(name, folder), place)
    (folder / place).chmod(0o700)
    assert not list((folder / "out").rglob("*.tmp*"))


def refuse_to_list(monkeypatch, folder):
    """As a folder without permission does; root may list any."""
    scan = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("p05"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)


def cut_the_pack(monkeypatch, folder):
    pack = folder / "pack.rec"
    pack.write_bytes(pack.read_bytes()[: pack.stat().st_size * 2 // 3])


@pytest.mark.parametrize(
    ("spoil", "source", "message"),
    [
        (refuse_to_list, "faces", "p05"),
        (cut_the_pack, "pack.rec", "pack.rec is cut short"),
    ],
)
@pytest.mark.parametrize("name", ["score csv", "extract npy", "align folder", "train", "evaluate"])
def test_a_source_that_cannot_be_read_through_is_an_error(
    spoil, source, message, name, folder, run, refused, monkeypatch
):
    spoil(monkeypatch, folder)
    refused(run(name, folder, source=source), message)


@pytest.mark.parametrize(
    ("name", "missing", "code"),
    [
        ("score csv", 12, 0),
        ("score csv", 13, 2),
        ("align folder", 13, 2),
        ("extract npy", 0, 0),
        ("extract npy", 1, 2),
        ("train", 0, 0),
        ("train", 1, 2),
        ("evaluate", 1, 2),
        ("pack faces", 1, 2),
    ],
)
def test_a_share_of_a_list_may_be_missing(name, missing, code, folder, run, capsys):
    """Of 24 images: at most half where photos are scored, 1 % in sets, none of what is a rate."""
    lines = (folder / "list.txt").read_text().splitlines(keepends=True)
    for line in lines[1 : 1 + missing]:
        (folder / line.split()[0]).unlink()
    assert run(name, folder, source="list.txt") == code
    assert ("bad, more than" in capsys.readouterr().err) == (
        code == 2 and name not in ("evaluate", "pack faces")
    )


@pytest.mark.parametrize("name", ["score parquet", "extract parquet", "train", "pack faces"])
def test_a_disk_that_is_full_for_every_writer(name, folder, run, whole, refused):
    """Files end at 3000 bytes or less, with EFBIG: also those that Arrow and PyTorch write."""
    resource = pytest.importorskip("resource")
    expected = whole(name, run)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if name.startswith("extract") else 3000, hard))
    try:
        code = run(name, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    refused(code, "out")
    assert not [path for path in (folder / "out").rglob("*") if ".tmp" in path.name]
    assert run(name, folder, again=(folder / "out/last.pt").exists()) == 0
    assert content(folder / JOBS[name].made) == expected


def test_a_small_disk_that_is_made_larger(folder, tmp_path):
    """A file system of 48 KB, in a mount namespace of its own; extraction needs more."""
    script, arguments, *_ = JOBS["extract npy"]
    command = [sys.executable, str(ROOT / script), *arguments]
    mount = "mkdir out && mount -t tmpfs -o size=48k none out"
    allowed = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    if not shutil.which("unshare") or subprocess.run(allowed, capture_output=True).returncode:
        pytest.skip("needs a mount namespace")
    text = (
        f'{mount}; "$@"; echo code $?; mount -o remount,size=8m out; "$@"; echo code $?; ls -A out'
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", text, "sh", *command],
        **{"cwd": folder, "capture_output": True, "text": True},
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert "error: out" in done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "code 2"
    assert lines[-4:] == ["code 0", "about.json", "bad.csv", "shards"]


@pytest.mark.parametrize("jump", [-1e8, 1e8], ids=["back", "ahead"])
@pytest.mark.parametrize("source", ["faces", "list.txt", "pack.rec"])
def test_a_clock_that_jumps_makes_no_cache_stale(source, jump, folder, monkeypatch):
    """A cache may be made and read on either side, of files whose times are in the future too."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("data.listing.SMALLEST_CACHED", 1)
    monkeypatch.setattr("data.rec.index.SMALLEST_CACHED", 1)
    now = time.time
    for ahead in (0, 1e7):
        for path in [folder / source, *(folder / "faces").rglob("*"), folder / "pack.idx"]:
            os.utime(path, (now() + ahead, now() + ahead))
        count = len(open_faces(source))
        monkeypatch.setattr(time, "time", lambda: now() + jump)
        if source == "pack.rec":
            with RecordWriter("pack") as writer:
                for number in range(count - 1):
                    writer.write_image(number, (folder / "faces/p00/00.jpg").read_bytes())
        elif source == "list.txt":
            lines = (folder / source).read_text().splitlines(keepends=True)
            (folder / source).write_text("".join(lines[:-1]))
        else:
            next((folder / "faces/p00").glob("*.jpg")).unlink()
        assert len(open_faces(source)) == count - 1
        monkeypatch.setattr(time, "time", now)


@pytest.mark.parametrize("name", ["score csv", "extract npy", "align folder", "train", "evaluate"])
def test_an_error_in_a_thread_that_decodes_ends_the_command(name, folder, run, after, refused):
    def fail():
        raise ValueError("a decoder broke") if name == "evaluate" else OSError(5, "a disk broke")

    after(14, fail)
    refused(run(name, folder), "broke")
