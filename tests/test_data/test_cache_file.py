"""Caches that do not fit count as none; what is loaded is what was stored."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from data import cache_file as _cache_file

KEY = {"kind": "test", "size": [3, 10**18]}
ARRAYS = {
    "labels": np.arange(1000, dtype=np.int32),
    "none": np.empty(0, dtype=np.uint16),
    "offsets": np.array([2**40, -1]),
}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "there" / "train.rec"
    path.parent.mkdir()
    path.write_bytes(b"records")
    return path


def beside(source: Path) -> Path:
    return source.with_name("train.rec.faceuq-index")


def same(found) -> bool:
    return found is not None and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in ARRAYS.items()
    )


def test_what_was_stored_is_loaded(source):
    assert _cache_file.load(source, KEY) is None
    _cache_file.store(source, KEY, ARRAYS)
    assert same(_cache_file.load(source, KEY))
    assert sorted(path.name for path in source.parent.iterdir()) == [
        "train.rec",
        "train.rec.faceuq-index",
    ]


def test_another_key_or_format_does_not_fit(source, monkeypatch):
    _cache_file.store(source, KEY, ARRAYS)
    assert _cache_file.load(source, {**KEY, "size": [3, 10**18 + 1]}) is None
    assert _cache_file.load(source, {"kind": "test"}) is None
    monkeypatch.setattr(_cache_file, "FORMAT", 2)
    assert _cache_file.load(source, KEY) is None


def test_a_file_cut_anywhere_is_not_used(source):
    _cache_file.store(source, KEY, ARRAYS)
    whole = beside(source).read_bytes()
    for length in [*range(0, 400, 7), len(whole) // 2, len(whole) - 64]:
        beside(source).write_bytes(whole[:length])
        assert _cache_file.load(source, KEY) is None, length


def test_a_file_changed_anywhere_is_not_used_or_says_the_same(source):
    _cache_file.store(source, KEY, ARRAYS)
    whole = beside(source).read_bytes()
    refused = 0
    for place in range(0, len(whole), 13):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        beside(source).write_bytes(changed)
        found = _cache_file.load(source, KEY)
        refused += found is None
        assert found is None or same(found), place
    assert refused > 300


def test_zeros_after_a_crash_are_not_used_and_replaced_in_the_cache_folder(source):
    _cache_file.store(source, KEY, ARRAYS)
    beside(source).write_bytes(bytes(beside(source).stat().st_size))
    assert _cache_file.load(source, KEY) is None
    _cache_file.store(source, KEY, ARRAYS)
    assert same(_cache_file.load(source, KEY))
    assert not any(beside(source).read_bytes())  # not known to be ours: left alone


def test_a_file_of_another_program_is_left_alone(source):
    beside(source).write_text("my notes")
    _cache_file.store(source, KEY, ARRAYS)
    assert beside(source).read_text() == "my notes"
    assert same(_cache_file.load(source, KEY))


def test_a_stale_file_is_replaced(source):
    _cache_file.store(source, {"kind": "old"}, ARRAYS)
    _cache_file.store(source, KEY, ARRAYS)
    assert _cache_file.load(source, {"kind": "old"}) is None
    assert same(_cache_file.load(source, KEY))


def unwritable(monkeypatch, *folders):
    """Fail to make files in some folders; permissions would not stop root, who may run this."""
    make = _cache_file.tempfile.mkstemp

    def refuse(*args, dir, **options):
        if Path(dir) in folders:
            raise PermissionError(13, "Permission denied", str(dir))
        return make(*args, dir=dir, **options)

    monkeypatch.setattr(_cache_file.tempfile, "mkstemp", refuse)


def test_an_unwritable_folder_leads_to_the_user_s_cache(source, monkeypatch, tmp_path):
    unwritable(monkeypatch, source.parent)
    _cache_file.store(source, KEY, ARRAYS)
    assert not beside(source).exists()
    assert same(_cache_file.load(source, KEY))
    assert len(list((tmp_path / "cache" / "face-uncertainty").iterdir())) == 1
    other = source.with_name("other.rec")
    other.touch()
    assert _cache_file.load(other, KEY) is None


def test_nowhere_to_write_is_told_and_no_error(source, monkeypatch, caplog, tmp_path):
    unwritable(monkeypatch, source.parent, tmp_path / "cache" / "face-uncertainty")
    with caplog.at_level(logging.INFO, "faceuq"):
        _cache_file.store(source, KEY, ARRAYS)
    assert caplog.messages == [
        f"cannot keep what was found in {source} for the next start: Permission denied"
    ]
    assert _cache_file.load(source, KEY) is None


def test_a_failure_while_writing_leaves_nothing(source, monkeypatch):
    monkeypatch.setattr(_cache_file, "_bytes", lambda block: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _cache_file.store(source, KEY, ARRAYS)
    real = _cache_file.os.fdopen

    def full(*args):
        file = real(*args)
        file.write(b"half")
        file.close()
        raise OSError(28, "No space left on device")

    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(source.parent))
    monkeypatch.setattr(_cache_file.os, "fdopen", full)
    _cache_file.store(source, KEY, ARRAYS)
    assert [path.name for path in source.parent.rglob("*") if path.is_file()] == ["train.rec"]


def test_the_header_says_what_is_inside(source):
    _cache_file.store(source, KEY, ARRAYS)
    content = beside(source).read_bytes()
    header = json.loads(content[24 : 24 + int.from_bytes(content[8:16], "little")])
    assert header["key"] == KEY
    assert [entry[0] for entry in header["arrays"]] == list(ARRAYS)


def test_a_replaced_file_does_not_disturb_who_has_it_open(source):
    _cache_file.store(source, KEY, ARRAYS)
    found = _cache_file.load(source, KEY)
    _cache_file.store(source, KEY, {"labels": np.zeros(9)})
    assert same(found)
    assert list(_cache_file.load(source, KEY)) == ["labels"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_who_may_read_the_source_may_read_its_cache(source, mode):
    source.chmod(mode)
    _cache_file.store(source, KEY, ARRAYS)
    assert beside(source).stat().st_mode & 0o777 == mode


def test_a_user_without_a_home(source, monkeypatch, caplog):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    unwritable(monkeypatch, source.parent)
    assert _cache_file.load(source, KEY) is None
    _cache_file.store(source, KEY, ARRAYS)
    assert not beside(source).exists()


def test_foreign_files_everywhere_are_told(source, tmp_path, caplog):
    cache = tmp_path / "cache" / "face-uncertainty"
    cache.mkdir(parents=True)
    for path in _cache_file._places(source):
        path.write_text("notes")
    with caplog.at_level(logging.INFO, "faceuq"):
        _cache_file.store(source, KEY, ARRAYS)
    assert caplog.messages[0].endswith("files of other programs are in its place")
