"""What a command reads, or the folder that it writes into, goes away while it runs.

It ends in one line, what is done is kept, and when all is back the same command makes what one that
never stopped makes.
"""

import importlib
import shutil

import pytest

from scoring import job
from tests.test_reliability.jobs import JOBS, content, write_inputs
from utils.files import Origin

KEEPS = [name for name in JOBS if name.split()[0] in ("score", "extract", "align", "train")]
FILES = [name for name in JOBS if JOBS[name].reads == "faces"]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def whole(inputs, tmp_path_factory):
    """Return a function that gives what a job makes that nothing befalls."""
    known = {}

    def made(name, run):
        if name not in known:
            folder = tmp_path_factory.mktemp("whole")
            shutil.copytree(inputs, folder, dirs_exist_ok=True)
            assert run(name, folder) == 0
            known[name] = content(folder / JOBS[name].made)
        return known[name]

    return made


@pytest.fixture
def folder(inputs, tmp_path):
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs a job in a folder; its exit code."""
    monkeypatch.setattr(job, "PART_INPUTS", 8)

    def run(name, folder, again=False):
        monkeypatch.chdir(folder)
        script, arguments, *_, other = JOBS[name]
        command = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        return command.main(other if again and other else arguments)

    return run


@pytest.fixture
def after(monkeypatch):
    """Return a function that has something done before the n-th image file is read."""
    read = Origin.read

    def at(number, act):
        left = [number]

        def reading(self, path, *more):
            left[0] -= 1
            if not left[0]:
                act()
            return read(self, path, *more)

        monkeypatch.setattr(Origin, "read", reading)

    return at


@pytest.mark.parametrize("name", FILES)
def test_a_folder_of_images_that_is_gone_is_an_error_and_the_job_resumes(
    name, folder, run, after, whole, refused
):
    expected = whole(name, run)
    faces, away = folder / "faces", folder / "away"
    after(14, lambda: faces.rename(away))
    refused(run(name, folder), "gone while it is read")
    away.rename(faces)
    assert run(name, folder, again=True) == 0
    assert content(folder / JOBS[name].made) == expected


@pytest.mark.parametrize("name", KEEPS)
def test_an_output_folder_that_is_gone_is_an_error_and_the_job_resumes(
    name, folder, run, after, whole, capsys
):
    expected = whole(name, run)
    out, away = folder / "out", folder / "away"
    after(14, lambda: out.rename(away))
    assert run(name, folder) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: "), line
    assert "gone" in line or "No such file" in line, line
    assert not out.exists()
    away.rename(out)
    assert run(name, folder, again=True) == 0
    assert content(out) == expected
