"""score_images stopped at any point goes on; its files are those of a run that never stopped."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.synthetic import SyntheticFaces
from estimators.base import Estimate
from evaluation.open_model import LoadedModel
from scoring import job, score_images
from scoring.scorer import Scorer


class Killed(BaseException):
    """The process ends here."""


class Model:
    """The mean grey level; what is in `at` happens before a batch of that number."""

    def __init__(self):
        self.batches, self.at = 0, {}

    def __call__(self, batch):
        images = batch.images
        self.batches += 1
        self.at.get(self.batches, lambda: None)()
        level = images.reshape(len(images), -1).mean(axis=1, keepdims=True, dtype=np.float64)
        return Estimate(np.zeros((len(images), 0), np.float32), level.astype(np.float32))


@pytest.fixture
def model(monkeypatch):
    found = Model()

    def load(name, *, batch_size, **flags):
        return Scorer(LoadedModel(name=name, estimator=found), batch_size=batch_size)

    monkeypatch.setattr(job, "load_scorer", load)
    monkeypatch.setattr(job, "PART_INPUTS", 8)
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """41 faces, one of them damaged."""
    folder = tmp_path_factory.mktemp("photos")
    faces = SyntheticFaces(identities=41, images=1, seed=2)
    for row in range(41):
        Image.fromarray(faces.read(row)).save(folder / f"{row:02d}.png")
    (folder / "13.png").write_bytes((folder / "13.png").read_bytes()[:900])
    return folder


def score(photos, out, *more):
    return score_images.main([*arguments(photos, out), *more])


def arguments(photos, out):
    return [str(photos), "--model", "fake", "--batch_size", "4", "--out", str(out)]


@pytest.fixture
def whole(photos, tmp_path, model):
    """Bytes of a run that never stopped."""
    out = tmp_path / "whole" / "scores.csv"
    assert score(photos, out) == 0
    model.batches = 0
    content = out.read_bytes()
    assert content.count(b"\n") == 43
    return content


def parts_of(out):
    return sorted(path.name for path in out.parent.glob(f"{out.name}.parts/part-*.jsonl"))


def test_killed_at_every_step_it_goes_on_to_the_same_bytes(
    photos, tmp_path, model, whole, monkeypatch
):
    """A kill before and after every change of the file system, one run after the other."""
    out = tmp_path / "scores.csv"
    left = [0]

    def fatal(name, owner):
        real = getattr(owner, name)

        def call(*given, **named):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            result = real(*given, **named)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return result

        monkeypatch.setattr(owner, name, call)

    for name in ("replace", "unlink", "rmdir", "mkdir"):
        fatal(name, Path)
    fatal("fsync", os)
    for point in range(1, 200):
        out.unlink(missing_ok=True)
        left[0] = point
        try:
            score(photos, out)
        except Killed:
            left[0] = 0
            assert not out.exists() or out.read_bytes() == whole
            assert score(photos, out) == 0
            assert out.read_bytes() == whole
            assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "whole"]
        else:
            break
    assert point > 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_asked_to_stop_it_keeps_finished_batches(photos, tmp_path, model, whole, number, capsys):
    out = tmp_path / "scores.csv"
    model.at = {4: lambda: os.kill(os.getpid(), number)}
    assert score(photos, out) == 130
    assert "stopped; the same command resumes where it stopped" in capsys.readouterr().err
    assert not out.exists()
    assert model.batches == 4
    assert parts_of(out) == ["part-000000.jsonl", "part-000001.jsonl"]
    (tmp_path / ".scores.0123456789ab.tmp.csv").write_text("killed while it wrote the output")
    assert score(photos, out) == 0
    assert not list(tmp_path.glob(".scores*"))
    assert "16 inputs are done; resuming" in capsys.readouterr().err
    assert out.read_bytes() == whole
    assert model.batches == 4 + 7


def test_a_second_ctrl_c_ends_at_once(photos, tmp_path, model, whole):
    out = tmp_path / "scores.csv"

    def twice():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    model.at = {4: twice}
    assert score(photos, out) == 130
    assert parts_of(out) == ["part-000000.jsonl"]
    assert score(photos, out) == 0
    assert out.read_bytes() == whole


def test_parts_end_after_a_time_too(photos, tmp_path, model, monkeypatch):
    monkeypatch.setattr(job, "PART_SECONDS", 0.0)
    model.at = {4: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    assert score(photos, tmp_path / "scores.csv") == 130
    assert len(parts_of(tmp_path / "scores.csv")) == 4  # one for each batch


def test_a_finished_command_says_so(photos, tmp_path, model, capsys):
    out = tmp_path / "scores.json"
    assert score(photos, out) == 0
    before, batches = out.read_bytes(), model.batches
    assert score(photos, out) == 0
    assert f"{out} is finished; --restart scores the inputs again" in capsys.readouterr().out
    assert model.batches == batches
    assert score(photos, out, "--restart") == 0
    assert out.read_bytes() == before
    assert model.batches == 2 * batches


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_a_file_made_in_another_way_is_not_overwritten(photos, tmp_path, model, suffix, refused):
    out = tmp_path / f"scores{suffix}"
    assert score(photos, out) == 0
    before = out.read_bytes()
    code = score(photos, out, "--max_faces", "1")
    refused(code, f"{out} is there already, made in another way: --restart")
    assert score(photos, out) == 0
    assert out.read_bytes() == before
    assert score(photos, out, "--max_faces", "1", "--restart") == 0
    assert score(photos, out) == 2


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("change", ["added", "removed", "renamed"])
def test_a_finished_file_is_not_called_so_for_other_photos(
    photos, tmp_path, model, suffix, change, refused
):
    """Names with a comma and a line end, as a CSV file has to quote them."""
    folder, out = tmp_path / "photos", tmp_path / f"scores{suffix}"
    folder.mkdir()
    for name in ("=a,b.png", "c\nd.png", "e.png", "e2.png"):
        shutil.copy(photos / "00.png", folder / name)
    (folder / "f.png").write_bytes(b"damaged")
    assert score(folder, out) == 0
    assert score(folder, out) == 0
    before, name = out.read_bytes(), folder / "e2.png"
    if change == "added":
        shutil.copy(name, folder / "g.png")
    else:
        name.unlink() if change == "removed" else name.rename(folder / "e3.png")
    seen = "g.png was added" if change == "added" else "e2.png is not where it was"
    changed = f"{out} is finished, but its inputs have changed since ({folder}/{seen})"
    refused(score(folder, out), changed)
    assert out.read_bytes() == before
    assert score(folder, out, "--restart") == 0
    assert score(folder, out) == 0


@pytest.fixture
def begun(photos, tmp_path, model):
    """An output whose run was stopped after two parts of eight."""
    out = tmp_path / "scores.csv"
    model.at = {4: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    assert score(photos, out) == 130
    return out


def test_parts_of_other_settings_or_inputs_are_refused(photos, begun, tmp_path, refused):
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{photos}/{row:02d}.png\n" for row in range(41)))
    for inputs, flags, message in (
        (photos, ["--max_faces", "1"], "max_faces None, not 1: give what it was made with"),
        (listed, [], "inputs '"),
    ):
        refused(score(inputs, begun, *flags), f"{begun}.parts was made with {message}")
    assert score(listed, begun, "--max_faces", "1", "--restart") == 0
    assert begun.read_bytes().count(b"\n") == 43


def test_inputs_that_changed_meanwhile_are_told(photos, tmp_path, model, refused):
    listed, out = tmp_path / "list.txt", tmp_path / "scores.csv"
    names = [f"{photos}/{row:02d}.png\n" for row in range(41)]
    listed.write_text("".join(names))
    model.at = {4: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    assert score(listed, out) == 130
    for changed in ([names[20], *names], names[1:], names[:9]):
        listed.write_text("".join(changed))
        refused(score(listed, out), "the inputs have changed since")
    listed.write_text("".join([*names, names[0]]))
    assert score(listed, out) == 0
    assert out.read_bytes().count(b"\n") == 44


def test_a_damaged_part_is_told(photos, begun, capsys, refused):
    part = begun.parent / f"{begun.name}.parts" / "part-000001.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:-1]))
    assert score(photos, begun) == 2
    message = f"{part} is damaged: delete it and give the same command"
    assert message in capsys.readouterr().err
    part.write_text("nonsense\n")
    refused(score(photos, begun), message)
    part.unlink()
    assert score(photos, begun) == 0


def test_a_folder_of_other_things_is_left_alone(photos, tmp_path, model, refused):
    folder = tmp_path / "scores.csv.parts"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    refused(score(photos, tmp_path / "scores.csv"), "holds other files")
    assert score(photos, tmp_path / "scores.csv", "--restart") == 2
    assert (folder / "mine.txt").read_text() == "keep"


def test_two_processes_do_not_write_one_file(photos, begun, refused):
    about = json.loads((begun.parent / f"{begun.name}.parts" / "about.json").read_text())
    other = job.RowParts(begun, about)
    other.open()
    refused(score(photos, begun), "another process is writing it")
    assert score(photos, begun, "--restart") == 2
    other.close()
    assert score(photos, begun) == 0
