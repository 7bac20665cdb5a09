import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from data.faces import open_faces
from evaluation.sets.open_set import open_set
from models.load import load_tensors
from utils.arrays import npz_names
from utils.files import (
    atomic_file,
    atomic_path,
    file_sha256,
    open_input,
    remove_leftovers,
    sole_writer,
    write_bytes,
    write_text,
)
from utils.tables import csv_rows


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_written_whole_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "Zürich\n\r\n")
    assert path.read_bytes() == "Zürich\n\r\n".encode()
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_leaves_the_old_file_or_none(tmp_path, before):
    path = tmp_path / "file"
    if before:
        write_text(path, before)
    with pytest.raises(TypeError), atomic_file(path, "w") as file:
        file.writelines(["half", None])
    assert names(tmp_path) == ["file"] * bool(before)
    assert not before or path.read_text() == before


def test_two_writers_take_turns(tmp_path, monkeypatch):
    path = tmp_path / "file"
    waited = threading.Thread(target=write_text, args=(path, "second"))
    with atomic_file(path, "w") as file:
        waited.start()
        time.sleep(0.1)
        file.write("first")
    waited.join()
    assert path.read_text() == "second"
    monkeypatch.setattr("utils.files.PATIENCE", 0)
    with atomic_file(path) as file, pytest.raises(ValueError, match="another process is writing"):
        write_text(path, "third")
    assert names(tmp_path) == ["file"]


def test_where_no_locks_are_the_last_one_wins(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    path = tmp_path / "file"
    with atomic_file(path) as one, atomic_file(path) as other:
        one.write(b"1" * 9)
        other.write(b"2" * 9)
    assert path.read_bytes() == b"1" * 9
    assert names(tmp_path) == ["file"]


LEFT_BY_KILL = """
import os, sys
from pathlib import Path
from utils.files import atomic_file, sole_writer
folder = Path(sys.argv[1])
with sole_writer(folder), atomic_file(folder / "a.tar.gz"), atomic_file(folder / "b") as file:
    file.write(b"half")
    file.flush()
    os._exit(9)
"""


def test_what_killed_processes_left_goes_and_what_live_ones_have_stays(tmp_path):
    killed = [sys.executable, "-c", LEFT_BY_KILL, str(tmp_path)]
    subprocess.run(killed, cwd=Path(__file__).parents[2], check=False)
    (tmp_path / ".old.0123456789ab.tmp.csv").mkdir()
    (tmp_path / ".hidden").touch()
    left = names(tmp_path)
    assert ".b.tmp" in left
    assert ".lock" in left
    with atomic_file(tmp_path / "alive") as file:
        file.write(b"1")
        write_text(tmp_path / "b", "whole")
        remove_leftovers(tmp_path)
        assert names(tmp_path) == [".alive.lock", ".alive.tmp", ".hidden", ".lock", "b"]
    with sole_writer(tmp_path):
        remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "alive", "b"]


def test_a_library_gets_a_path_with_the_suffix_and_a_folder_may_be_made(tmp_path):
    with atomic_path(tmp_path / "x.npz") as path:
        assert path.suffix == ".npz"
        path.write_text("1")
    for text in ("first", "second"):  # the second one was slower
        with atomic_path(tmp_path / "folder") as path:
            path.mkdir()
            (path / "part").write_text(text)
    assert (tmp_path / "folder" / "part").read_text() == "first"
    assert names(tmp_path) == ["folder", "x.npz"]


def test_links_pipes_and_folders(tmp_path):
    write_text(tmp_path / "file", "old")
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "file").read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_text, args=(pipe, "through"))
    writer.start()
    assert pipe.read_text() == "through"
    writer.join()
    with pytest.raises(OSError, match="is a folder"):
        write_text(tmp_path, "")


def test_an_error_names_the_file(tmp_path):
    long, loop = tmp_path / ("x" * 300), tmp_path / "loop"
    with pytest.raises(OSError, match="/x+'$"):
        write_text(long, "")
    loop.symlink_to("loop")
    with pytest.raises(OSError, match=r"Too many .*/loop'$"):
        write_text(loop, "")
    assert loop.is_symlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full and /proc")
def test_a_disk_that_fails_is_named():
    with pytest.raises(OSError, match=r"No space.*'/dev/full'$"):
        write_text("/dev/full", "x")
    for read in (lambda file: file.read(), lambda file: file.readline()):
        for encoding in ((), ("latin1",)):
            with (
                open_input("/proc/self/mem", *encoding) as file,  # its first byte is no memory
                pytest.raises(OSError, match=r"Input/output error: '/proc/self/mem'$"),
            ):
                read(file)


def test_hash(tmp_path):
    write_bytes(tmp_path / "file", b"abc")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(ValueError, match="no file"):
        file_sha256(tmp_path)


def test_a_pipe_or_a_device_is_not_read(tmp_path):
    pipe, table = tmp_path / "list.txt", tmp_path / "zero.csv"
    os.mkfifo(pipe)
    table.symlink_to("/dev/zero")
    (tmp_path / "names.txt").write_text("list.txt 0\nlist.txt 1\n")
    readers = [
        lambda: open_input(pipe),
        lambda: open_input(table, "utf-8"),
        lambda: list(csv_rows(table)),
        lambda: open_faces(str(pipe)),
        lambda: open_faces(str(tmp_path / "names.txt")).encoded(0),
        lambda: open_set(f"pairs:{pipe}"),
    ]
    for reader in readers:
        with pytest.raises((OSError, ValueError), match=r"regular file|no .*file|no such"):
            reader()


@pytest.mark.parametrize(("name", "read"), [("w.pth", load_tensors), ("f.npz", npz_names)])
def test_an_archive_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path, name, read):
    with (
        zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(65):
            member.write(bytes(1 << 24))
    with pytest.raises(ValueError, match=rf"{name} would unpack to 10\d+ bytes: refused"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (map(str, range(20_001)), r"f\.npz has 20001 members, more than 20000: refused"),
        (("a", "a.npy"), r"f\.npz: two of its arrays have one name"),
    ],
)
def test_an_archive_of_too_many_members_or_twice_the_same(tmp_path, members, message):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        for member in members:
            archive.writestr(member, b"")
    with pytest.raises(ValueError, match=message):
        npz_names(tmp_path / "f.npz")
