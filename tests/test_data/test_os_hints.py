"""What the system is asked to read: everything that is needed, in few requests."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rec import index
from data.rec.reader import AT_ONCE, NEAR, merged, will_need
from data.recordio import RecordPack, RecordWriter
from tests.helpers import GOLDEN

PACKS = GOLDEN / "data" / "rec"


@given(st.lists(st.tuples(st.integers(0, 20 * NEAR), st.integers(1, 2 * NEAR)), max_size=30))
def test_parts_are_covered_in_order_and_far_apart(parts):
    starts = np.array([start for start, _ in parts], dtype=np.int64)
    ends = starts + np.array([length for _, length in parts], dtype=np.int64)
    found = merged(starts, ends)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        assert sum(low <= start and end <= high for low, high in found) == 1
    for (_, end), (start, _) in zip(found, found[1:], strict=False):
        assert start > end + NEAR
    edges = set(starts.tolist()), set(ends.tolist())
    assert all(start in edges[0] and end in edges[1] for start, end in found)


@pytest.fixture
def requests(monkeypatch):
    """Requests that were made, as (start, length)."""
    made = []
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda file, start, length, advice: made.append((start, length)),
        raising=False,
    )
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    return made


def test_records_are_requested_whole_and_long_ones_piece_by_piece(tmp_path, requests):
    with RecordWriter(tmp_path / "x") as writer:
        for key in range(40):
            writer.write(key, bytes(30_000))
    with RecordPack(tmp_path / "x.rec") as pack:
        pack.read_ahead(np.array([30, 3, 4, 39]))
        starts = pack.offsets
    last = requests.pop()
    assert last[0] == starts[39]
    assert last[1] >= 30_000
    will_need(0, np.array([5]), np.array([5 + AT_ONCE + 7]))
    assert requests[-2:] == [(5, AT_ONCE), (5 + AT_ONCE, 7)]
    del requests[-2:]
    assert requests == [(starts[3], starts[5] - starts[3]), (starts[30], starts[31] - starts[30])]


def test_a_wrong_offset_is_no_error_yet(tmp_path):
    with RecordWriter(tmp_path / "x") as writer:
        writer.write(0, b"abcd")
    (tmp_path / "x.idx").write_text("0\t-40\n1\t90000\n")
    with RecordPack(tmp_path / "x.rec") as pack:
        pack.read_ahead(np.array([0, 1]))


@pytest.mark.parametrize("name", ["mixed_header_after", "float_header_first"])
@pytest.mark.parametrize("piece", [64, 5000, 1 << 20])
@pytest.mark.parametrize("far", [0, 1 << 30])
def test_headers_gathered_by_threads_or_in_pieces_are_the_same(name, monkeypatch, far, piece):
    path = PACKS / name / "train.rec"
    with RecordPack(path) as pack:
        positions = np.random.default_rng(0).permutation(20 * len(pack)) % len(pack)
        plain, labels = pack.fields(positions), pack.images.labels
        data = path.read_bytes() + bytes(40)
        offsets = pack.offsets[positions]
    monkeypatch.setattr(index, "MANY", 1)
    monkeypatch.setattr(index, "FAR", far)
    monkeypatch.setattr(index, "_PIECE", piece)
    with RecordPack(path) as pack:
        gathered = pack.fields(positions)
        assert pack.images.labels.tolist() == labels.tolist()
        words = index.PackFile(path).words(offsets, 10)
    for column, other in zip(plain, gathered, strict=True):
        assert column.tolist() == other.tolist()
    slow = [np.frombuffer(data, "<u4", 10, start).tolist() for start in offsets.tolist()]
    assert words.tolist() == slow
