"""One name to import: what it gives, what it loads, and what it says of foreign packages."""

import subprocess
import sys
from pathlib import Path

import pytest

import face_uncertainty

ROOT = Path(__file__).resolve().parents[2]


def run(program, folder, *paths):
    path = ":".join(map(str, [*paths, ROOT]))
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", face_uncertainty.__all__)
def test_every_name_is_there(name):
    assert getattr(face_uncertainty, name).__name__ == name


def test_unknown_names_are_errors_and_all_names_are_listed():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = face_uncertainty.no_such_name
    assert dir(face_uncertainty) == sorted(face_uncertainty.__all__)


def test_importing_it_loads_no_large_library(tmp_path):
    program = (
        "import sys, face_uncertainty\n"
        "print(sorted({'torch', 'matplotlib', 'scipy', 'cv2'} & set(sys.modules)))"
    )
    assert run(program, tmp_path).stdout == "[]\n"


@pytest.mark.parametrize("kind", ["package", "module"])
def test_a_foreign_package_of_the_same_name_is_named(tmp_path, kind):
    foreign = tmp_path / "other" / ("utils/__init__.py" if kind == "package" else "utils.py")
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    result = run("import face_uncertainty", tmp_path, tmp_path / "other")
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert str(tmp_path / "other" / "utils") in message
    assert "environment of its own" in message
    assert "ONNX" in message
