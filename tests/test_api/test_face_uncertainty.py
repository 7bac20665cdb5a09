"""One name to import: what it gives, what it loads, and what it says of foreign packages."""

import pytest

import face_uncertainty
from tests.helpers import ROOT, python


@pytest.mark.parametrize("name", face_uncertainty.__all__)
def test_every_name_is_there(name):
    assert getattr(face_uncertainty, name).__name__ == name


def test_unknown_names_are_errors_and_all_names_are_listed():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = face_uncertainty.no_such_name
    assert dir(face_uncertainty) == sorted(face_uncertainty.__all__)


@pytest.mark.parametrize("kind", ["package", "module"])
def test_a_foreign_package_of_the_same_name_is_named(tmp_path, kind):
    foreign = tmp_path / "other" / ("utils/__init__.py" if kind == "package" else "utils.py")
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    paths = f"{tmp_path / 'other'}:{ROOT}"
    result = python("-c", "import face_uncertainty", cwd=tmp_path, PYTHONPATH=paths)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert str(tmp_path / "other" / "utils") in message
    assert "environment of its own" in message
    assert "ONNX" in message
