"""`pip install .`: everything public works from another folder, data files included."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")
ROOT = Path(__file__).resolve().parents[2]
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
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *flags, "--target", str(target), str(copy)],
        check=True,
        capture_output=True,
    )
    return target


@pytest.mark.parametrize("program", [PROGRAM, REPORT])
def test_it_works_from_another_folder(installed, tmp_path, program):
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout in ("scored demo\n", "")


def test_templates_and_the_demo_model_are_installed(installed):
    assert (installed / "demo" / "model.pt").is_file()
    source = ROOT / "report" / "templates"
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in (installed / "report" / "templates").iterdir()} == names
