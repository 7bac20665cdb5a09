"""A pack's kept index says what the pack says, or nothing."""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from data.faces import PackFaces
from data.rec import index
from data.recordio import RecordPack, RecordWriter, pack_record
from tests.helpers import GOLDEN

PACKS = GOLDEN / "data" / "rec"
CACHE = "train.rec.faceuq-index"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A pack that is old enough, and counts as large enough, to have its index kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "SMALLEST_CACHED", 10)
    folder = tmp_path / "pack"
    folder.mkdir()
    for name in ("train.rec", "train.idx"):
        shutil.copyfile(PACKS / "mixed_header_after" / name, folder / name)
    age(folder)
    return folder


def age(folder: Path, seconds: int = 0) -> None:
    for path in folder.glob("train.*"):
        if path.name != CACHE:
            os.utime(path, (1.7e9 + seconds, 1.7e9 + seconds))


def everything(folder: Path) -> tuple:
    faces = PackFaces(folder / "train.rec")
    return (
        faces.labels.tolist(),
        [faces.name(row) for row in range(len(faces))],
        [faces.encoded(row) for row in range(len(faces))],
        faces.pack.keys.tolist(),
        faces.pack.offsets.tolist(),
    )


def test_the_second_start_reads_the_cached_index_alone(folder, monkeypatch):
    first = everything(folder)
    assert (folder / CACHE).is_file()
    monkeypatch.setattr("data.rec.reader.read_starts", lambda *_: 1 / 0)
    monkeypatch.setattr("data.rec.reader.image_labels", lambda *_: 1 / 0)
    assert everything(folder) == first


def test_layouts_that_are_not_ranges_are_cached_too(folder):
    with RecordWriter(folder / "train") as writer:  # keys with gaps, shuffled labels
        for key in range(0, 60, 2):
            image = b"" if key == 20 else b"image %d" % key
            writer.write(key, pack_record(float(key * 7 % 5), key, image))
    age(folder)
    first = everything(folder)
    assert len(first[0]) == 29
    assert (folder / CACHE).is_file()
    assert everything(folder) == first


@pytest.mark.parametrize("changed", ["train.rec", "train.idx"])
def test_a_changed_pack_is_read_again(folder, changed):
    everything(folder)
    with RecordPack(folder / "train.rec") as pack:
        at = int(pack.offsets[pack.position(1)])
    data = bytearray((folder / "train.rec").read_bytes())
    assert struct.unpack_from("<I20xff", data, at + 8) == (2, 0.0, 0.0)
    if changed == "train.rec":  # the first image goes to somebody else: same size, other time
        struct.pack_into("<f", data, at + 32, 3.0)
        (folder / "train.rec").write_bytes(data)
    else:
        lines = (folder / "train.idx").read_text().splitlines(keepends=True)
        (folder / "train.idx").write_text("".join(lines[::-1]))
    os.utime(folder / changed, (1.7e9 + 1e-6, 1.7e9 + 1e-6))
    fresh = folder.parent / "fresh"
    shutil.copytree(folder, fresh)
    (fresh / CACHE).unlink()
    expected, found = everything(fresh), everything(folder)
    assert found[0] == expected[0]
    assert found[2:] == expected[2:]


def test_a_pack_that_was_just_written_or_is_small_is_not_kept(folder, monkeypatch):
    (folder / "train.idx").touch()
    everything(folder)
    assert not (folder / CACHE).exists()
    age(folder)
    monkeypatch.setattr(index, "SMALLEST_CACHED", 1000)
    everything(folder)
    assert not (folder / CACHE).exists()


def test_a_damaged_pack_is_an_error_with_a_kept_index_as_well(folder):
    names = everything(folder)[1]
    data = bytearray((folder / "train.rec").read_bytes())
    size = len(data)
    data[9000:] = bytes(size - 9000)
    (folder / "train.rec").write_bytes(data)
    age(folder)  # size and time as they were: only the content tells
    faces = PackFaces(folder / "train.rec")
    assert faces.name(14) == names[14]
    with pytest.raises(ValueError, match=r"key 15 at offset \d+: no record starts at byte"):
        faces.read(14)


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 40, 4000, 8],
        [2**40, 2**40 + 4, 2**40 + 2**33],
        [0, 2**36, 8, 2**50],
        [4, 2**34 + 4],
        [4, 2**34],
        [-4, 2**62, 0],
        [1, 2, 3],
        np.arange(20_000) * 2**21,
        np.random.default_rng(0).permutation(10_000) * 4 + 2**35,
    ],
)
def test_packed_offsets_are_the_offsets(offsets):
    offsets = np.array(offsets, dtype=np.int64)
    packed = index.Offsets.of(offsets)
    assert len(packed) == len(offsets)
    assert packed.take(np.arange(len(offsets))).tolist() == offsets.tolist()
    assert [packed.at(row) for row in range(0, len(offsets), 997)] == offsets[::997].tolist()
