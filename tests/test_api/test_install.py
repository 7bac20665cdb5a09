"""`pip install .`: everything public works from another folder, data files included."""

import shutil

import pytest

from tests.helpers import ROOT, python

pytest.importorskip("setuptools", minversion="77")
PROGRAM = """
import numpy as np
from face_uncertainty import load_scorer

scorer = load_scorer("demo", device="cpu")
(face,) = scorer(np.full((1, 112, 112, 3), 90, np.uint8))
print(face.status, scorer.model.name)
"""
REPORT = "import report.page, report.sheet"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that pip installed a copy of the checkout into."""
    copy, target = (tmp_path_factory.mktemp(name) for name in ("checkout", "site"))
    ignored = shutil.ignore_patterns(".*", "runs", "tests", "docs", "benchmarks", "__pycache__")
    shutil.copytree(ROOT, copy, dirs_exist_ok=True, ignore=ignored)
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    done = python("-m", "pip", "install", "-q", *flags, "--target", target, copy)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("program", [PROGRAM, REPORT])
def test_it_works_from_another_folder(installed, tmp_path, program):
    result = python("-c", program, cwd=tmp_path, PYTHONPATH=str(installed))
    assert result.returncode == 0, result.stderr
    assert result.stdout in ("scored demo\n", "")


def test_templates_and_the_demo_model_are_installed(installed):
    assert (installed / "demo" / "model.pt").is_file()
    source = ROOT / "report" / "templates"
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in (installed / "report" / "templates").iterdir()} == names
