import json

import pytest

from utils.parts import PartStore


def store(folder, share="", seed=0, **options):
    return PartStore(
        folder, {"seed": seed, "set": "lfw"}, share=share, name="part-{:03d}.txt", **options
    )


def write(parts, *numbers):
    for number in numbers:
        parts.write(number, lambda path, text=str(number): path.write_text(text))


@pytest.mark.parametrize("share", ["", "1-of-2"])
def test_a_stopped_run_finds_its_parts(tmp_path, share):
    parts = store(tmp_path / "new" / "parts", share)
    parts.claim()
    assert parts.missing(range(3)) == [0, 1, 2]
    write(parts, 0, 2)
    parts.close()
    again = store(parts.folder, share)
    again.claim()
    assert again.missing(range(4)) == [1, 3]
    assert again.numbers() == [0, 2]
    assert again.path(2).read_text() == "2"
    assert again.settings == parts.settings != store(tmp_path, seed=1).settings
    assert not again.is_finished
    again.finish()
    assert again.is_finished
    again.discard()
    assert not any((tmp_path / "new").iterdir())


def test_a_part_is_whole_or_not_there(tmp_path):
    parts = store(tmp_path)
    parts.claim()

    def half(path):
        path.write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.write(0, half)
    assert not parts.has(0)
    assert not list(tmp_path.glob("*.tmp*"))


def test_other_settings_are_named_or_start_anew(tmp_path):
    parts = store(tmp_path)
    parts.claim()
    write(parts, 0, 1)
    parts.finish()
    parts.close()
    other = store(tmp_path, seed=1, way_out="give --restart")
    with pytest.raises(ValueError, match="was made with seed 0, not 1: give --restart"):
        other.claim()
    other.close()
    other.claim(restart=True)
    assert other.numbers() == []
    assert not other.is_finished
    assert json.loads((tmp_path / "about.json").read_text()) == {"seed": 1, "set": "lfw"}


def test_what_is_not_compared_may_differ(tmp_path):
    options = {"compared": lambda about: {"set": about["set"]}}
    parts = [store(tmp_path, seed=seed, **options) for seed in (0, 1)]
    for part in parts:
        part.claim()
        part.close()
    assert parts[0].settings == parts[1].settings


def test_one_process_has_the_folder_or_a_share(tmp_path, monkeypatch):
    first, second = store(tmp_path), store(tmp_path)
    first.claim()
    with pytest.raises(ValueError, match="another process is writing it"):
        second.claim(restart=True)
    first.close()
    second.claim()
    monkeypatch.setattr("utils.parts.PATIENCE", 0)
    shares = [store(tmp_path, f"{number}-of-2") for number in (1, 2, 2)]
    with pytest.raises(ValueError, match="another process is writing it"):
        shares[0].claim()
    second.close()
    shares[0].claim()
    shares[1].claim()
    with pytest.raises(ValueError, match="another process is writing it"):
        shares[2].claim()
    for share in shares:
        share.close()
    assert [path.name for path in tmp_path.iterdir()] == ["about.json"]


@pytest.mark.parametrize("restart", [False, True])
def test_folders_of_others_are_left_alone(tmp_path, restart):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="holds other files: name an empty folder"):
        store(tmp_path).claim(restart)
    with pytest.raises(ValueError, match="is a file"):
        store(tmp_path / "mine.txt").claim(restart)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_discarding_leaves_files_of_others(tmp_path):
    parts = store(tmp_path, share="1-of-2", about="_about.json", finished="_finished.json")
    parts.claim()
    write(parts, 5)
    (tmp_path / "mine.txt").write_text("keep")
    parts.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_damaged_record(tmp_path):
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(ValueError, match=r"about.json is damaged .*: delete it"):
        store(tmp_path).claim()


def test_parts_in_a_folder_below_and_leftovers(tmp_path):
    parts = PartStore(tmp_path, {}, share="1-of-2", name="shards/{:06d}")
    parts.claim()
    parts.write(3, lambda path: path.mkdir())
    (tmp_path / "shards" / ".000004.abc.tmp").mkdir()
    parts.finish()
    assert parts.numbers() == [3]
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["000003"]
    parts.remove(3)
    assert parts.numbers() == []
