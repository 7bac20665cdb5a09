"""Packs against what mxnet 1.9.1 wrote, against a slow reader, and against damage."""

import hashlib
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.faces import PackFaces
from data.images import encode_jpeg
from data.rec.reader import READ_FIRST
from data.recordio import RecordPack, RecordWriter, pack_record
from data.rendered import SyntheticFaces
from tests.helpers import GOLDEN, ROOT, SHARED

PACKS = GOLDEN / "data" / "rec"
EXPECTED = json.loads((PACKS / "expected.json").read_text())
ORACLE = SHARED / "oracle" / "rec"
MAGIC = struct.pack("<I", 0xCED7230A)


def slow_records(data: bytes) -> list[bytes]:
    """Read a pack from front to back, one 4-byte step of the format's description at a time."""
    records, at = [], 0
    while at < len(data):
        magic, packed = struct.unpack_from("<II", data, at)
        assert magic == 0xCED7230A
        kind, length = packed >> 29, packed & 0x1FFFFFFF
        part = data[at + 8 : at + 8 + length]
        if kind in (0, 1):
            records.append(part)
        else:
            records[-1] += MAGIC + part
        at += 8 + (length + 3) // 4 * 4
    return records


def write_raw(prefix: Path, payloads: dict[int, bytes]) -> Path:
    with RecordWriter(prefix) as writer:
        for key, payload in payloads.items():
            writer.write(key, payload)
    return prefix.with_name(prefix.name + ".rec")


def identity_pack(
    prefix: Path, labels: list[int], *, first_key: int = 1, ranges: dict[int, tuple] | None = None
) -> Path:
    """Write insightface's layout by hand, with the given ranges put in place of the right ones."""
    payloads: dict[int, bytes] = {}
    end = first_key + len(labels)
    people = sorted(set(labels))
    payloads[0] = pack_record((end, end + len(people)), 0)
    for key, label in enumerate(labels, start=first_key):
        payloads[key] = pack_record(float(label), key, b"image %d" % key)
    for offset, person in enumerate(people):
        keys = [key for key, label in enumerate(labels, start=first_key) if label == person]
        bounds = (ranges or {}).get(person, (keys[0], keys[-1] + 1))
        payloads[end + offset] = pack_record(bounds, end + offset)
    return write_raw(prefix, payloads)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_reads_what_mxnet_wrote(name):
    expected = EXPECTED[name]
    with RecordPack(PACKS / name / "train.rec") as pack:
        positions, labels = pack.images
        records = [pack.record_at(int(position)) for position in positions]
        assert [pack.record(key).header.labels for key in range(16, 21)] == [
            tuple(bounds) for bounds in expected["ranges"]
        ]
        assert list(pack.record(0).header.labels) == expected["header_label"]
    assert [hashlib.sha256(r.image).hexdigest() for r in records] == expected["sha256"]
    assert [r.header.id for r in records] == list(range(1, 16))
    assert labels.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_writes_byte_for_byte_what_mxnet_wrote(name, tmp_path):
    source = PACKS / name
    with RecordPack(source / "train.rec") as pack:
        lines = (source / "train.idx").read_text().splitlines()
        keys = [int(line.split("\t")[0]) for line in lines]
        write_raw(tmp_path / "train", {key: pack.read(key) for key in keys})
    data = (tmp_path / "train.rec").read_bytes()
    assert hashlib.sha256(data).hexdigest() == EXPECTED[name]["rec_sha256"]
    assert (tmp_path / "train.idx").read_bytes() == (source / "train.idx").read_bytes()


def test_write_image_gives_insightface_s_layout_byte_for_byte(tmp_path):
    source = PACKS / "float_header_first"
    with RecordPack(source / "train.rec") as pack, RecordWriter(tmp_path / "new" / "train") as new:
        for position, label in zip(*pack.images, strict=True):
            new.write_image(int(label), pack.record_at(int(position)).image, f"id {label}.jpg")
    folder = tmp_path / "new"
    for name in ("train.rec", "train.idx", "property"):
        assert (folder / name).read_bytes() == (source / name).read_bytes(), name
    assert (folder / "train.lst").read_text().splitlines()[3] == "4\t1\tid 1.jpg"
    assert sorted(path.name for path in folder.iterdir()) == [
        "property", "train.idx", "train.lst", "train.rec",
    ]  # fmt: skip


@pytest.mark.skipif(not ORACLE.exists(), reason="needs ../shared/oracle")
def test_reads_array_labels_of_the_oracle():
    expected = json.loads((ORACLE / "expected.json").read_text())["array_header_first"]
    with RecordPack(ORACLE / "array_header_first" / "train.rec") as pack:
        labels = pack.images[1].tolist()
        header = pack.record(5).header
    assert labels == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4]
    assert header.flag == 2
    assert header.labels == (2.0, 0.0)
    assert expected["images"]["5"]["flag"] == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([MAGIC, b"a", b"bc", b"\x0a\x23", b"def "]), max_size=9).map(
            b"".join
        ),
        min_size=1,
        max_size=6,
    )
)
@example([bytes(length) for length in range(READ_FIRST - 12, READ_FIRST + 1)])
def test_any_payload_survives(tmp_path_factory, payloads):
    path = write_raw(tmp_path_factory.mktemp("rec") / "x", dict(enumerate(payloads)))
    assert slow_records(path.read_bytes()) == payloads
    with RecordPack(path) as pack:
        assert [pack.read(key) for key in range(len(payloads))] == payloads


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_without_idx_the_pack_is_walked_once_and_says_so(name, tmp_path, caplog):
    shutil.copy(PACKS / name / "train.rec", tmp_path)
    with caplog.at_level(logging.WARNING, "faceuq"), RecordPack(tmp_path / "train.rec") as pack:
        found = dict(zip(pack.keys.tolist(), pack.offsets.tolist(), strict=True))
    lines = (PACKS / name / "train.idx").read_text().split()
    assert found == dict(zip(map(int, lines[::2]), map(int, lines[1::2]), strict=True))
    assert "no " + str(tmp_path / "train.idx") in caplog.text


def test_idx_in_any_order(tmp_path):
    source = PACKS / "float_header_first"
    shutil.copy(source / "train.rec", tmp_path)
    lines = (source / "train.idx").read_text().splitlines()
    (tmp_path / "train.idx").write_text("\n".join(lines[::-1]))
    with RecordPack(tmp_path / "train.rec") as pack, RecordPack(source / "train.rec") as other:
        assert pack.read(7) == other.read(7)
        assert pack.images[1].tolist() == other.images[1].tolist()


def test_right_ranges_spare_the_headers_in_between(tmp_path):
    """The label of an inner image is taken from its range: its own header is never read."""
    labels = [0, 0, 0, 1, 1, 1]
    path = identity_pack(tmp_path / "x", labels)
    data = bytearray(path.read_bytes())
    with RecordPack(path) as pack:
        inner = int(pack.offsets[pack.position(2)])
    struct.pack_into("<f", data, inner + 8 + 4, 77.0)
    path.write_bytes(data)
    with RecordPack(path) as pack:
        assert pack.images[1].tolist() == labels


@pytest.mark.parametrize("shift", range(4))
def test_keys_beyond_float32_are_put_right(tmp_path, shift, caplog):
    """Past 2^24 odd keys are rounded in float32: ranges and record 0 are off by one."""
    first = 2**24 - 5 + shift
    labels = np.repeat(np.arange(9), [3, 1, 2, 5, 1, 1, 4, 3, 2]).tolist()
    path = identity_pack(tmp_path / "x", labels, first_key=first)
    with RecordPack(path) as pack:
        stored = [pack.record(first + len(labels) + i).header.labels[0] for i in range(9)]
        exact = first + np.searchsorted(labels, np.arange(9))
        assert any(stored != exact)
        positions, found = pack.images
        assert pack.keys[positions].tolist() == list(range(first, first + len(labels)))
        assert found.tolist() == labels
    assert not caplog.records


def test_header_that_contains_the_magic_is_read_in_parts(tmp_path):
    """An id equal to the magic cuts the header itself in two."""
    identifier = 0xCED7230A
    path = write_raw(tmp_path / "x", {0: pack_record(5.0, identifier, b"image"), 1: b"\0" * 24})
    with RecordPack(path) as pack:
        assert pack.fields(np.array([0])).label.tolist() == [5.0]
        assert pack.record(0).image == b"image"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t0\n1\tforty\n", r"train.idx:2: expected `key<TAB>offset`, found '1\\tforty'"),
        ("0\t0\n1\n", "train.idx:2: expected"),
        ("0\t0\n1\t40\t7\n", "train.idx:2: expected"),
        ("", "train.idx: no records"),
        ("0\t0\n0\t40\n", "train.idx: key 0 appears more than once"),
        ("0\t3\n", "key 0 at offset 3: no record starts"),
        ("0\t90000\n", "key 0 at offset 90000: byte 90000 lies beyond the file's 70140"),
    ],
)
def test_bad_index(tmp_path, text, message):
    path = damaged(tmp_path)
    path.with_suffix(".idx").write_text(text)
    with RecordPack(path) as pack, pytest.raises(ValueError, match=message):
        _ = pack.images


@pytest.mark.parametrize("piece", [1, 7, 30, 1000])
def test_an_index_read_piece_by_piece_is_the_same(tmp_path, monkeypatch, piece):
    path = damaged(tmp_path)
    with RecordPack(path) as pack:
        expected = pack.keys.tolist(), pack.offsets.tolist()
    monkeypatch.setattr("data.rec.index._PIECE", piece)
    with RecordPack(path) as pack:
        assert (pack.keys.tolist(), pack.offsets.tolist()) == expected
    lines = path.with_suffix(".idx").read_text().splitlines(keepends=True)
    path.with_suffix(".idx").write_text("".join([*lines[:12], "12 forty\n", *lines[13:]]))
    with RecordPack(path) as pack, pytest.raises(ValueError, match="idx:13: .* found '12 forty'"):
        _ = pack.keys


def test_missing_and_empty_packs(tmp_path):
    with pytest.raises(ValueError, match="no record file"):
        RecordPack(tmp_path / "none.rec")
    for size in (0, 3):
        (tmp_path / "short.rec").write_bytes(bytes(size))
        with pytest.raises(ValueError, match=f"short.rec: {size} bytes are not a record"):
            RecordPack(tmp_path / "short.rec")


@pytest.mark.parametrize(
    ("labels", "ranges"),
    [
        ([0, 0, 1, 1, 1, 2], {0: (1, 4), 1: (4, 6)}),  # wrong ranges
        ([2, 0, 1, 0, 1, 2], {0: (1, 3), 1: (3, 5), 2: (5, 7)}),  # shuffled images
        ([0, 1, 0, 0, 1, 0], {0: (1, 4), 1: (4, 7)}),  # two ranges of one label
    ],
)
def test_identity_ranges_that_do_not_fit_are_overruled_by_the_headers(
    tmp_path, caplog, labels, ranges
):
    path = identity_pack(tmp_path / "x", labels, ranges=ranges)
    with caplog.at_level(logging.WARNING, "faceuq"), RecordPack(path) as pack:
        assert pack.images[1].tolist() == labels
    assert "identity ranges do not fit" in caplog.text


@pytest.mark.parametrize("array", [False, True])
def test_a_pack_without_identity_layout_takes_labels_from_headers(tmp_path, array):
    """Record 0 with an array of two labels is not taken for insightface's header either."""
    payloads = {
        key: pack_record((label, 0.0) if array else float(label), key, b"x")
        for key, label in enumerate([9, 4, 4, 7])
    }
    path = write_raw(tmp_path / "plain", payloads)
    with RecordPack(path) as pack:
        assert pack.images[0].tolist() == [0, 1, 2, 3]
        assert pack.images[1].tolist() == [9, 4, 4, 7]
    assert PackFaces(path).labels.tolist() == [2, 0, 0, 1]


def damaged(tmp_path: Path, start: int | None = None, content: bytes = b"") -> Path:
    """A pack with other bytes from a place on, or cut there."""
    for name in ("train.rec", "train.idx"):
        shutil.copy(PACKS / "float_header_first" / name, tmp_path)
    path = tmp_path / "train.rec"
    data = path.read_bytes()
    if start is not None:
        rest = data[start + len(content) :] if content else b""
        path.write_bytes(data[:start] + content + rest)
    return path


@pytest.mark.parametrize(
    ("start", "content", "key", "message"),
    [
        (60000, b"", 13, "key 13 at offset 55932: cut short: 549"),
        (60000, b"", 14, "key 14 at offset 60552: byte 60552 lies beyond"),
        (4712, bytes(8), 2, "key 2 at offset 4712: no record starts at byte 4712"),
        (18660, struct.pack("<I", 4673), 5, "key 5 at offset 18584: a part is missing"),
        (None, b"", 99, "no record with key 99"),
    ],
)
def test_a_damaged_record_is_named_by_file_key_and_offset(tmp_path, start, content, key, message):
    path = damaged(tmp_path, start, content)
    with RecordPack(path) as pack:
        assert pack.read(1)
        with pytest.raises(ValueError, match=f"{path}: {message}"):
            pack.read(key)
        if start in (60000, 4712):
            with pytest.raises(ValueError, match="at offset"):
                _ = pack.fields(np.arange(len(pack)))


def test_walk_over_a_damaged_pack_names_the_offset(tmp_path):
    path = damaged(tmp_path, 60000)
    path.with_suffix(".idx").unlink()
    with RecordPack(path) as pack, pytest.raises(ValueError, match=r"offset 55932: the record is"):
        _ = pack.keys


@pytest.mark.parametrize(
    ("payload", "message"),
    [(pack_record(0.5, 4, b"image"), "key 4: label 0.5"), (b"short", "key 4 at offset 0: 5 bytes")],
)
def test_records_that_are_not_images(tmp_path, payload, message):
    path = write_raw(tmp_path / "x", {4: payload})
    with RecordPack(path) as pack, pytest.raises(ValueError, match=message):
        _ = pack.images


def test_a_failed_writer_leaves_the_old_pack(tmp_path):
    (tmp_path / "x.rec").write_bytes(b"old")

    def fail():
        with RecordWriter(tmp_path / "x") as writer:
            writer.write_image(0, b"a")
            writer.write_image(2, b"b")

    with pytest.raises(ValueError, match="label 2 after 1 identities: write the images of"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["x.rec"]
    assert (tmp_path / "x.rec").read_bytes() == b"old"


@pytest.mark.parametrize("lost", [[-1], [3, 4], [0], [-3, -2, -1], list(range(5, 12))])
def test_an_index_that_lists_a_part_is_not_believed(tmp_path, caplog, lost):
    path = identity_pack(tmp_path / "p", [0, 0, 1, 1, 2, 2, 2, 3])
    with RecordPack(path) as pack:
        expected = pack.keys.tolist(), pack.images.labels.tolist()
    lines = path.with_suffix(".idx").read_text().splitlines(keepends=True)
    for place in sorted((place % len(lines) for place in lost), reverse=True):
        del lines[place]
    path.with_suffix(".idx").write_text("".join(lines))
    with RecordPack(path) as pack:
        assert (pack.keys.tolist(), pack.images.labels.tolist()) == expected
    assert f"lists {len(lines)} records" in caplog.text


@pytest.mark.parametrize(("label", "is_told"), [(1 << 24, False), ((1 << 24) + 2, True)])
def test_labels_beyond_float32_are_told(tmp_path, caplog, label, is_told):
    path = write_raw(tmp_path / "p", {0: pack_record(float(label), 0, b"image")})
    with RecordPack(path) as pack:
        assert pack.images.labels.tolist() == [label]
    assert ("float32" in caplog.text) == is_told


@pytest.mark.parametrize("change", ["cut", "longer", "again"])
def test_a_pack_that_changes_while_it_is_read_is_an_error(tmp_path, change):
    path = identity_pack(tmp_path / "x", [0, 0, 1, 1])
    os.utime(path, (1, 1))
    with RecordPack(path) as pack:
        images = pack.images
        data = path.read_bytes()
        with path.open("r+b") as file:  # in place: a file that takes its place would do no harm
            file.truncate(len(data) // 2 if change == "cut" else None)
            file.seek(0, os.SEEK_END if change == "longer" else os.SEEK_SET)
            file.write(data[: len(data) // 2])
        for read in (pack.payload, pack.record_at, pack.image_view):
            with pytest.raises(OSError, match=r"x\.rec changed while it was read"):
                read(int(images.positions[0]))
        with pytest.raises(OSError, match="changed"):
            pack.fields(np.asarray(images.positions))


READING = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from data.faces import open_faces
from data.rec import index
path, index.MANY, index.FAR = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
faces = open_faces(path)
rows = np.tile(np.arange(len(faces)), 100)
print("reading", flush=True)
with ThreadPoolExecutor(2) as pool:
    while True:
        if index.MANY == 1:
            faces.pack.fields(rows)
        list(pool.map(faces.read, range(len(faces))))
"""


@pytest.mark.parametrize(
    ("moment", "many", "far"), [(0.0, 9999, 0), (0.05, 9999, 0), (0.1, 1, 0), (0.1, 1, 1 << 30)]
)
def test_a_pack_that_is_cut_off_under_threads_does_not_end_the_process(tmp_path, moment, many, far):
    face = encode_jpeg(SyntheticFaces(1, 1, seed=1).read(0))
    with RecordWriter(tmp_path / "x") as writer:
        for row in range(400):
            writer.write_image(row // 20, face)
    command = [sys.executable, "-c", READING, tmp_path / "x.rec", str(many), str(far)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **streams) as process:
        assert process.stdout.readline() == "reading\n"
        time.sleep(moment)
        os.truncate(tmp_path / "x.rec", 1000)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert error.splitlines()[-1].startswith("OSError: ")
    assert "x.rec changed while it was read" in error
