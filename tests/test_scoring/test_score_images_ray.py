"""Two workers of a local Ray cluster give the rows of one process, also when one of them dies."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from data.images import encode_jpeg
from data.synthetic import SyntheticFaces
from scoring import score_images

pytest.importorskip("ray")
pytest.importorskip("pandas")  # Ray Data needs it
parquet = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scoring" / "score_images.py"
NUMBER = 2500
pytestmark = pytest.mark.slow


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


def test_a_stopped_job_goes_on_and_a_finished_one_says_so(photos, tmp_path):
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
    assert "the same command goes on where it was" in errors.decode()
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


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--engine", "ray", "--out", "x.csv"], "--engine ray writes a folder of parts"),
        (["--ray_workers", "2"], "--ray_workers and --ray_address go with --engine ray"),
        (
            ["--engine", "ray", "--out", "{folder}/x.parquet", "--ray_address", "127.0.0.1:1"],
            "--ray_address 127.0.0.1:1: no Ray cluster answers there",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(flags, told, photos, tmp_path, capsys):
    filled = [flag.format(folder=tmp_path) for flag in flags]
    assert score_images.main([str(photos), "--model", "demo", *filled]) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert errors.count("\n") == 1
