"""A stopped extraction goes on; what is damaged is made again; other settings are refused."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from extraction import job
from models.frozen import FrozenBackbone
from utils.long_work import Progress, duration


@pytest.fixture(params=["npy", "parquet"])
def form(request):
    return request.param


def made(monkeypatch):
    """List of the shards that are written from now on."""
    numbers = []
    write = job.ShardFolder.write

    def counted(self, number, *rest):
        write(self, number, *rest)
        numbers.append(number)

    monkeypatch.setattr(job.ShardFolder, "write", counted)
    return numbers


def test_a_finished_folder_is_left_alone(form, run, tmp_path, monkeypatch, content, capsys):
    assert run(tmp_path / "out", "--format", form) == 0
    before = content(tmp_path / "out")
    numbers = made(monkeypatch)
    assert run(tmp_path / "out", "--format", form, "--batch_size", "3") == 0
    assert numbers == []
    assert content(tmp_path / "out") == before
    assert capsys.readouterr().err.endswith("extract: 4 of 4 shards are done\n")


def damages(form):
    if form == "parquet":
        yield "a file cut short", "000001.parquet", lambda path: os.truncate(path, 700)
        return
    yield "no facts", "000001/shard.json", Path.unlink
    yield "damaged facts", "000001/shard.json", lambda path: path.write_text("{")
    yield "a file cut short", "000001/embedding.npy", lambda path: os.truncate(path, 700)
    yield "no file", "000001/ok.npy", Path.unlink


def test_deleted_and_damaged_shards_are_made_again(
    form, run, tmp_path, monkeypatch, content, capsys
):
    out = tmp_path / "out"
    assert run(out, "--format", form) == 0
    before = content(out)
    numbers = made(monkeypatch)
    for what, name, damage in damages(form):
        damage(out / "shards" / name)
        capsys.readouterr()
        assert run(out, "--format", form) == 0, what
        assert content(out) == before, what
        err = capsys.readouterr().err.splitlines()
        assert "000001" in err[0], what
        assert err[0].endswith(": made again"), what
        assert err[1:] == ["extract: 3 of 4 shards are done"], what
    assert set(numbers) == {1}
    path = out / "shards" / ("000003" if form == "npy" else "000003.parquet")
    shutil.rmtree(path) if form == "npy" else path.unlink()
    assert run(out, "--format", form) == 0
    assert content(out) == before
    assert numbers[-1] == 3


def test_a_shard_of_other_settings_is_made_again(run, tmp_path, content, capsys):
    assert run(tmp_path / "out") == 0
    assert run(tmp_path / "flipped", "--flip") == 0
    before = content(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "shards" / "000002")
    other, own = (tmp_path / name / "shards" / "000002" for name in ("flipped", "out"))
    shutil.copytree(other, own)
    capsys.readouterr()
    assert run(tmp_path / "out") == 0
    assert "000002 was made with other settings: made again" in capsys.readouterr().err
    assert content(tmp_path / "out") == before


def test_other_settings_are_refused(run, runs, images, tmp_path, capsys, refused):
    out = tmp_path / "out"
    assert run(out) == 0
    (tmp_path / "copy").mkdir()
    shutil.copytree(images, tmp_path / "copy" / "faces")
    assert run(out, source=tmp_path / "copy" / "faces") == 0  # the same faces, elsewhere
    (tmp_path / "copy" / "faces" / "p03" / "06.jpg").rename(tmp_path / "copy" / "x.jpg")
    capsys.readouterr()
    for changed, message in (
        (["--flip"], "was made with flip False, not True: give what it was made with, or name"),
        (["--dtype", "float32"], "made with dtype 'float16', not 'float32'"),
        (["--format", "parquet"], "made with format 'npy', not 'parquet'"),
        (["--shard_images", "9"], "made with shard_images 8, not 9"),
        (["--precision", "bf16"], "made with precision 'float32', not 'bfloat16'"),
        (["--methods", "brightness"], "made with columns ['embedding_norm'], not ['brightness']"),
        (["--images", tmp_path / "copy" / "faces"], "made with images 26, not 25"),
    ):
        refused(run(out, *changed), message)
    other = tmp_path / "two"
    assert run(other, "--methods", "a=mc_dropout:passes=3") == 0
    refused(run(other, "--methods", "a=mc_dropout:passes=4"), "options ['mc_dropout:passes=3']")
    (out / "about.json").write_text("{")
    refused(run(out), "about.json is damaged")


def test_other_weights_are_refused(run, runs, tiny_weights, backbone, tmp_path, refused):
    import torch

    assert run(tmp_path / "out") == 0
    tensors = torch.load(tiny_weights, weights_only=True)
    tensors["conv1.weight"] = tensors["conv1.weight"] * 2
    torch.save(tensors, tmp_path / "other.pth")
    model = [*backbone[:3], str(tmp_path / "other.pth")]
    refused(run(tmp_path / "out", model=model), "was made with backbone_sha256 '")
    assert run(tmp_path / "of_run", "--model_dir", runs["idq"], model=[]) == 0
    about = json.loads((tmp_path / "of_run" / "about.json").read_text())
    first = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["backbone_sha256"] == first["backbone_sha256"]
    assert [Path(file["file"]) for file in about["weights"]] == [runs["idq"] / "best.pt"]
    shutil.copytree(runs["idq"], tmp_path / "moved" / "idq")
    assert run(tmp_path / "of_run", "--model_dir", tmp_path / "moved" / "idq", model=[]) == 0
    shutil.copytree(runs["mls"], tmp_path / "swapped" / "idq")
    refused(
        run(tmp_path / "of_run", "--model_dir", tmp_path / "swapped" / "idq", model=[]),
        "was made with weights ['",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_batch_and_the_command_goes_on(
    number, run, tmp_path, monkeypatch, content, capsys
):
    assert run(tmp_path / "whole") == 0
    forward = FrozenBackbone.forward
    passes = []

    def signalled(self, images):
        passes.append(len(images))
        if len(passes) == 4:  # the last batch of the second shard
            os.kill(os.getpid(), number)
        return forward(self, images)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(FrozenBackbone, "forward", signalled)
        assert run(tmp_path / "out") == 130
    stopped = "stopped; the same command resumes after the last complete shard\n"
    assert capsys.readouterr().err == stopped
    assert passes == [4, 4, 4, 4]
    shards = tmp_path / "out" / "shards"
    assert sorted(path.name for path in shards.iterdir()) == ["000000", "000001"]
    assert run(tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_shard_that_cannot_be_written_is_an_error(run, tmp_path, monkeypatch, refused):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data.extracted._write_npy", full)
    refused(run(tmp_path / "out"), "No space left on device")
    assert list((tmp_path / "out" / "shards").iterdir()) == []


def test_progress_off_a_terminal_is_a_line_now_and_then(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 31.0, 40.0])
    monkeypatch.setattr("utils.long_work.time.monotonic", lambda: next(clock))
    with Progress("extract", 1000) as progress:
        for _ in range(3):
            progress(100)
    line = "extract: 200 of 1000 images (20.0%), 6.5 images/s, 2 min left\n"
    assert capsys.readouterr().err == line
    words = ["45 s", "10 min", "3 h 20 min", "4 days 4 h"]
    assert list(map(duration, (45, 600, 12000, 360000))) == words
