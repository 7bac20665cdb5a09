"""Several processes and several parts write what one process writes, byte for byte."""

import json

import pytest

from tests.helpers import ROOT, TORCHRUN, python

PROGRAM = "import sys; from extraction import extract; sys.exit(extract.main(sys.argv[1:]))"


@pytest.fixture
def command(images, backbone, flags):
    return ["--images", str(images), *backbone, *flags]


def about(folder):
    settings = json.loads((folder / "about.json").read_text())
    return {name: value for name, value in settings.items() if name != "first_start"}


def shards(folder):
    return sorted(path.name for path in (folder / "shards").iterdir())


def test_two_ranks_write_what_one_process_writes(run, ranks, command, tmp_path, content):
    assert run(tmp_path / "one") == 0
    done = ranks(PROGRAM, *command, "--out", str(tmp_path / "two"))
    assert [process.returncode for process in done] == [0, 0], done
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert about(tmp_path / "two") == about(tmp_path / "one")
    assert "26 images, all embedded; 4 shards" in "".join(process.stdout for process in done)


def test_a_mistake_of_all_ranks_is_reported_once(ranks, command, tmp_path):
    done = ranks(PROGRAM, *command, "--out", str(tmp_path / "out"), "--max_bad_share", "2")
    assert [process.returncode for process in done] == [2, 2]
    assert "".join(process.stderr for process in done).count("error: ") == 1


def test_parts_are_done_one_by_one(run, tmp_path, content, capsys):
    assert run(tmp_path / "one") == 0
    out = tmp_path / "out"
    capsys.readouterr()
    assert run(out, "--part", "2/3") == 0
    assert capsys.readouterr().out == (
        f"{out}: 1 of 4 shards are done; other processes or parts make the rest\n"
    )
    assert shards(out) == ["000001"]
    assert not (out / "bad.csv").exists()
    assert run(out, "--part", "1/3") == 0
    assert shards(out) == ["000000", "000001", "000003"]
    assert run(out, "--part", "3/3") == 0
    assert content(out) == content(tmp_path / "one")
    assert run(out, "--part", "9/9") == 0  # more parts than shards: nothing to do


@pytest.mark.slow
def test_under_torchrun_itself(run, command, tmp_path, content):
    assert run(tmp_path / "one") == 0
    script = ROOT / "extraction" / "extract.py"
    done = python(*TORCHRUN, script, *command, "--out", tmp_path / "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "two") == content(tmp_path / "one")
