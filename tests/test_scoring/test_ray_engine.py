"""Parquet parts, and a Ray cluster: two workers give the rows of one process, also if one dies."""

import os
import signal
import subprocess
import sys
import time
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest
from pyarrow import parquet

from data.images import encode_jpeg
from data.synthetic import SyntheticFaces
from photos.sources import Item
from report.sheet import FaceScore
from scoring import score_images
from scoring.ray_engine import PART_INPUTS, ParquetParts
from scoring.rows import flat_row
from tests.helpers import ROOT

SCRIPT = ROOT / "scoring" / "score_images.py"
NUMBER = 2500
needs_ray = pytest.mark.skipif(
    not (find_spec("ray") and find_spec("pandas")), reason="needs Ray and pandas"
)


def inputs(number, prefix="photo"):
    return [Item(f"{prefix}{i}.jpg") for i in range(number)]


def made(parts, number, items):
    scores = [FaceScore(image=0, uncertainty=place / 8) for place in range(len(items))]
    rows = [flat_row(item.file, None, one) for item, one in zip(items, scores, strict=True)]
    return parts.write(number, items, rows, {"meaning": "m"})


class Counter(list):
    add_finished = list.append


@pytest.fixture
def parts(tmp_path):
    made = ParquetParts(tmp_path / "scores.parquet", {"model": "a"})
    assert not made.open()
    return made


def test_missing_parts_are_named_and_the_others_counted(parts, tmp_path):
    items = inputs(2 * PART_INPUTS + 3)
    missing = list(parts.missing(iter(items), Counter()))
    assert [number for number, _ in missing] == [0, 1, 2]
    assert [item for _, part in missing for item in part] == items
    made(parts, *missing[1])
    finished = Counter()
    assert [number for number, _ in parts.missing(iter(items), finished)] == [0, 2]
    assert finished == [PART_INPUTS]
    (file,) = (tmp_path / "scores.parquet").glob("part-*")
    before = file.read_bytes()
    made(parts, *missing[1])
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match=r"part-00000001\.parquet: the inputs have changed"):
        list(parts.missing(iter(inputs(2 * PART_INPUTS, "other")), Counter()))
    made(parts, *missing[0])
    for number, words in ((PART_INPUTS, "some were removed"), (2 * PART_INPUTS + 3, "was added")):
        with pytest.raises(ValueError, match=f"is finished, but its inputs have changed.*{words}"):
            parts.check_inputs(iter(items[:number]), Counter())
    parts.check_inputs(iter(items[: 2 * PART_INPUTS]), Counter())
    file.write_bytes(before[:100])
    with pytest.raises(ValueError, match=r"part-00000001\.parquet is damaged: delete it"):
        list(parts.missing(iter(items), Counter()))


def test_readers_take_the_folder_as_one_table(parts, tmp_path):
    folder = tmp_path / "scores.parquet"
    items = inputs(4)
    for number in range(2):
        made(parts, number, items[2 * number :][:2])
    parts.finish()
    parts.close()
    table = parquet.read_table(folder)
    assert table["file"].to_pylist() == [item.file for item in items]
    assert list(parts.rows()) == table.to_pylist()
    assert parts.open()
    parts.close()
    with pytest.raises(ValueError, match="was made with model 'a', not 'b': give what it was"):
        ParquetParts(folder, {"model": "b"}).open()
    (folder / "notes.txt").write_text("mine")
    assert not ParquetParts(folder, {"model": "b"}).open(restart=True)
    assert sorted(file.name for file in folder.iterdir()) == ["_about.json", "notes.txt"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path, message in ((tmp_path, "holds other files"), (tmp_path / "notes.txt", "is a file")):
        with pytest.raises(ValueError, match=message):
            ParquetParts(path, {}).open()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A list of 2500 paths to 40 faces and two files that are no photos."""
    folder = tmp_path_factory.mktemp("photos")
    faces = SyntheticFaces(identities=20, images=2, seed=3)
    names = [f"{row}.jpg" for row in range(len(faces.labels))]
    for row, name in enumerate(names):
        (folder / name).write_bytes(encode_jpeg(faces.read(row)))
    (folder / "text.jpg").write_text("no photo")
    names += ["text.jpg", "gone.jpg"]
    lines = [names[i % len(names)] for i in range(NUMBER)]
    (folder / "photos.txt").write_text("\n".join(lines) + "\n")
    return folder / "photos.txt"


def command(photos, out, *more):
    return [sys.executable, str(SCRIPT), str(photos), "--model", "demo", "--out", str(out), *more]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def rows(path):
    return parquet.read_table(path).to_pylist()


def workers_with(mark):
    """Process numbers of the Ray workers that have this in their environment, and score."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            named = b"ray::MapWorker" in (folder / "cmdline").read_bytes()
            if named and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.slow
@needs_ray
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
def test_a_worker_that_dies_loses_and_doubles_no_row(photos, tmp_path):
    alone = tmp_path / "alone.parquet"
    subprocess.run(command(photos, alone), env=environment(), check=True, capture_output=True)
    mark, out = uuid.uuid4().hex, tmp_path / "many.parquet"
    ray = command(photos, out, "--engine", "ray", "--ray_workers", "2")
    with subprocess.Popen(
        ray, env=environment(FACEUQ_MARK=mark), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        deadline = time.monotonic() + 120
        while not list(out.glob("part-*.parquet")) and time.monotonic() < deadline:
            assert job.poll() is None, job.communicate()
            time.sleep(0.05)
        killed = workers_with(mark)
        assert killed
        os.kill(killed[0], signal.SIGKILL)
        printed, errors = job.communicate(timeout=180)
    assert job.returncode == 0, errors.decode()
    assert rows(out) == rows(alone)
    assert len(rows(out)) == NUMBER
    assert f"{NUMBER} rows" in printed.decode()
    assert not list(out.glob("*.tmp"))


@pytest.mark.slow
@needs_ray
def test_a_stopped_job_resumes_and_a_finished_one_says_so(photos, tmp_path):
    out = tmp_path / "many.parquet"
    ray = command(photos, out, "--engine", "ray", "--ray_workers", "1")
    with subprocess.Popen(
        ray, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        deadline = time.monotonic() + 120
        while not list(out.glob("part-*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        _, errors = job.communicate(timeout=60)
    assert job.returncode == 130, errors.decode()
    assert "the same command resumes where it stopped" in errors.decode()
    first = sorted(out.glob("part-*.parquet"))[0]
    before = first.stat().st_mtime_ns
    done = subprocess.run(ray, env=environment(), check=True, capture_output=True, text=True)
    assert first.stat().st_mtime_ns == before
    assert f"{NUMBER} rows" in done.stdout
    assert [row["file"].rpartition("/")[2] for row in rows(out)] == [
        line for line in photos.read_text().split()
    ]
    again = subprocess.run(ray, env=environment(), check=True, capture_output=True, text=True)
    assert "is finished" in again.stdout


@needs_ray
def test_a_cluster_that_does_not_start_is_one_line(photos, tmp_path, refused, monkeypatch):
    def init(**_):
        raise Exception("The current node timed out during startup.")  # noqa: TRY002 - as Ray does

    monkeypatch.setattr("ray.init", init)
    flags = ["--engine", "ray", "--out", f"{tmp_path}/x.parquet"]
    code = score_images.main([str(photos), "--model", "demo", *flags])
    refused(code, "Ray does not start: The current node timed out", alone=True)


@needs_ray
def test_a_cluster_that_does_not_answer_is_one_line(photos, tmp_path, refused):
    flags = ["--engine", "ray", "--out", f"{tmp_path}/x.parquet", "--ray_address", "127.0.0.1:1"]
    code = score_images.main([str(photos), "--model", "demo", *flags])
    refused(code, "--ray_address 127.0.0.1:1: no Ray cluster answers there", alone=True)
