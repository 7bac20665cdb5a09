"""Caches that do not fit count as none; what is loaded is what was stored."""

import json
import logging
import zlib
from pathlib import Path

import numpy as np
import pytest

from data import cache_file

KEY = {"kind": "test", "size": [3, 10**18]}
ARRAYS = {
    "labels": np.arange(1000, dtype=np.int32),
    "none": np.empty(0, dtype=np.uint16),
    "offsets": np.array([2**40, -1]),
}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "pack" / "train.rec"
    path.parent.mkdir()
    path.write_bytes(b"records")
    return path


def neighbour(source: Path) -> Path:
    return source.with_name("train.rec.faceuq-index")


def same(arrays) -> bool:
    return arrays is not None and all(
        arrays[name].dtype == array.dtype and np.array_equal(arrays[name], array)
        for name, array in ARRAYS.items()
    )


def unwritable(monkeypatch, *folders):
    """Fail to make files in some folders; permissions would not stop root, who may run this."""
    make = cache_file.atomic_file

    def refuse(path):
        if path.parent in folders:
            raise PermissionError(13, "Permission denied", str(path))
        return make(path)

    monkeypatch.setattr(cache_file, "atomic_file", refuse)


def test_stored_arrays_are_loaded_and_the_header_names_them(source):
    assert load(source) is None
    cache_file.store(source, KEY, ARRAYS)
    assert same(load(source))
    assert {path.name for path in source.parent.iterdir()} == {source.name, neighbour(source).name}
    content = neighbour(source).read_bytes()
    header = json.loads(content[24 : 24 + int.from_bytes(content[8:16], "little")])
    assert header["key"] == KEY
    assert [entry[0] for entry in header["arrays"]] == list(ARRAYS)


def load(source, key=KEY):
    return cache_file.load(source, key, dict)


def test_another_key_or_format_does_not_fit(source, monkeypatch):
    cache_file.store(source, {"kind": "old"}, ARRAYS)
    cache_file.store(source, KEY, ARRAYS)
    for key in ({"kind": "old"}, {**KEY, "size": [3, 10**18 + 1]}, {"kind": "test"}):
        assert load(source, key) is None
    monkeypatch.setattr(cache_file, "FORMAT", 2)
    assert load(source) is None


def test_a_file_cut_or_changed_anywhere_is_not_used(source):
    cache_file.store(source, KEY, ARRAYS)
    whole = neighbour(source).read_bytes()
    for length in [*range(0, 400, 7), len(whole) // 2, len(whole) - 64]:
        neighbour(source).write_bytes(whole[:length])
        assert load(source) is None, length
    refused = 0
    for place in range(0, len(whole), 13):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        neighbour(source).write_bytes(changed)
        arrays = load(source)
        refused += arrays is None
        assert arrays is None or same(arrays), place
    assert refused > 300


HEADERS = ["[]", "{}", '{"format": 1}', "[" * 9999, '{"format": 1, "key": KEY, "arrays": [[1]]}']
ENTRIES = ['"<i8", -1, 0', '"<i8", 1, -9999', '"<f8", "1", 0']
ENTRIES += [f'"{dtype}", 1, 0' for dtype in ("O", "S4", "no", "<u$")]
for entry in ENTRIES:
    HEADERS.append(f'{{"format": 1, "key": KEY, "arrays": [["a", {entry}]], "check": 0}}')


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_says_something_else_is_built_anew(source, header):
    head = header.replace("KEY", json.dumps(KEY)).encode()
    start = cache_file._START.pack(cache_file._MAGIC, len(head), zlib.crc32(head))
    neighbour(source).write_bytes(start + head + bytes(64))
    assert load(source) is None
    cache_file.store(source, KEY, ARRAYS)
    assert cache_file.load(source, KEY, lambda arrays: arrays["absent"]) is None
    assert same(load(source))


@pytest.mark.parametrize("content", [b"my notes", bytes(5000)])
def test_a_file_of_another_program_or_of_zeros_is_left_alone(source, content):
    neighbour(source).write_bytes(content)
    assert load(source) is None
    cache_file.store(source, KEY, ARRAYS)
    assert same(load(source))
    assert neighbour(source).read_bytes() == content


def test_an_unwritable_folder_leads_to_the_user_s_cache(source, monkeypatch, tmp_path):
    unwritable(monkeypatch, source.parent)
    cache_file.store(source, KEY, ARRAYS)
    assert not neighbour(source).exists()
    assert same(load(source))
    assert len(list((tmp_path / "cache" / "face-uncertainty").iterdir())) == 1
    other = source.with_name("other.rec")
    other.touch()
    assert load(other) is None


@pytest.mark.parametrize("foreign", [False, True])
def test_nowhere_to_write_is_one_line_and_no_error(source, monkeypatch, caplog, tmp_path, foreign):
    cache = tmp_path / "cache" / "face-uncertainty"
    if foreign:
        cache.mkdir(parents=True)
        for path in cache_file._places(source):
            path.write_text("notes")
    else:
        unwritable(monkeypatch, source.parent, cache)
    with caplog.at_level(logging.INFO, "faceuq"):
        cache_file.store(source, KEY, ARRAYS)
    why = "files of other programs are in its place" if foreign else "Permission denied"
    assert caplog.messages[0].endswith(f"for the next start: {why}")
    assert load(source) is None


def test_a_replaced_file_does_not_disturb_an_open_one(source):
    cache_file.store(source, KEY, ARRAYS)
    arrays = load(source)
    cache_file.store(source, KEY, {"labels": np.zeros(9)})
    assert same(arrays)
    assert list(load(source)) == ["labels"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_who_may_read_the_source_may_read_its_cache(source, mode):
    source.chmod(mode)
    cache_file.store(source, KEY, ARRAYS)
    assert neighbour(source).stat().st_mode & 0o777 == mode


def test_a_user_without_a_home(source, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    unwritable(monkeypatch, source.parent)
    assert load(source) is None
    cache_file.store(source, KEY, ARRAYS)
    assert not neighbour(source).exists()
