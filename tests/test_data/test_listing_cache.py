"""Folders and lists that were listed before: the same images, and only changes are looked into."""

import logging
import os

import pytest

from data import listing
from data.faces import open_faces


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "SMALLEST_CACHED", 1)
    root = tmp_path / "faces"
    for folder, names in {"a": "12", "b": "", "c": "345", "ä": "6"}.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / f"{name}.jpg").touch()
    settle(root)
    return root


def settle(root):
    """Make every folder old enough to be relied on."""
    for number, folder in enumerate(sorted(path for path in root.iterdir() if path.is_dir())):
        os.utime(folder, (1.7e9 + number, 1.7e9 + number))


def found(root):
    faces = open_faces(str(root))
    names = [os.path.relpath(faces.name(row), root) for row in range(len(faces))]
    return list(zip(names, faces.labels.tolist(), strict=True))


@pytest.fixture
def listed(monkeypatch):
    """Names of the folders that were looked into, in order."""
    seen = []
    look = listing._images

    def watched(root, folder):
        seen.append(folder)
        return look(root, folder)

    monkeypatch.setattr(listing, "_images", watched)
    return seen


def test_only_a_changed_folder_is_listed_again(root, listed):
    found(root)
    (root / "b" / "0.png").touch()
    (root / "c" / "4.jpg").unlink()
    del listed[:]
    names = ("a/1.jpg", "a/2.jpg", "b/0.png", "c/3.jpg", "c/5.jpg", "ä/6.jpg")
    expected = list(zip(names, (0, 0, 1, 2, 2, 3), strict=True))
    assert found(root) == expected
    assert listed == ["b", "c"]
    settle(root)
    assert found(root) == expected
    del listed[:]
    assert found(root) == expected
    assert not listed


def test_folders_that_come_and_go(root, listed):
    found(root)
    (root / "aa").mkdir()
    (root / "aa" / "7.jpg").touch()
    (root / "c").rename(root / ".hidden")
    del listed[:]
    assert found(root) == [("a/1.jpg", 0), ("a/2.jpg", 0), ("aa/7.jpg", 1), ("ä/6.jpg", 2)]
    assert listed == ["aa"]


def test_a_folder_that_changed_a_moment_ago_is_not_relied_on(root, listed):
    (root / "a" / "9.jpg").touch()
    found(root)
    changed = (root / "a").stat().st_mtime_ns
    (root / "a" / "8.jpg").touch()
    os.utime(root / "a", ns=(changed, changed))  # the clock of the file system stood still
    del listed[:]
    assert [name for name, _ in found(root)][:4] == ["a/1.jpg", "a/2.jpg", "a/8.jpg", "a/9.jpg"]
    assert listed == ["a"]


def test_a_small_folder_leaves_no_file_behind(root, monkeypatch):
    monkeypatch.setattr(listing, "SMALLEST_CACHED", 100)
    found(root)
    assert sorted(path.name for path in root.iterdir()) == ["a", "b", "c", "ä"]


def test_a_long_listing_says_how_far_it_is(root, monkeypatch, caplog):
    monkeypatch.setattr(listing, "SECONDS_BETWEEN_LINES", -1)
    with caplog.at_level(logging.INFO, "faceuq"):
        found(root)
    assert f"listing {root}: 5 images in 3 of 4 folders" in caplog.messages


def test_a_list_file_is_parsed_once(root, monkeypatch):
    path = root / "list.txt"
    path.write_text("a/1.jpg 7\nc/3.jpg 5\nä/6.jpg 7\n", encoding="utf-8")
    os.utime(path, (1.7e9, 1.7e9))
    first = open_faces(str(path))
    monkeypatch.setattr("data.listing.parse_line", lambda *_: 1 / 0)
    second = open_faces(str(path))
    assert second.labels.tolist() == [0, 1, 0]
    assert second.num_classes == 2
    assert [second.name(row) for row in range(3)] == [first.name(row) for row in range(3)]
    assert second.name(2) == str(root / "ä" / "6.jpg")
    path.write_text("a/1.jpg 7\nc/3.jpg x\n", encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        open_faces(str(path))
