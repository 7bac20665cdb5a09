"""Help, and the evaluation of what is stored, load neither PyTorch nor matplotlib."""

from importlib import import_module

import pytest

from tests.helpers import python

PROGRAM = """
import importlib, sys
name, *words = sys.argv[1:]
try:
    code = importlib.import_module(name).main(words)
except SystemExit as end:
    code = end.code
heavy = {"torch", "matplotlib", "scipy", "cv2"} & set(sys.modules)
sys.exit(code or (f"loads {heavy}" if heavy else 0))
"""
SCRIPTS = (
    "evaluation.verification_risk_fnmr",
    "evaluation.audit",
    "evaluation.compare",
    "evaluation.calibrate",
    "evaluation.identification",
    "mc_dropout.verification_risk_mcdropout_fnmr",
)
OTHERS = ("extraction.extract", "export.export", "export.pack_model", "scoring.score_images")


@pytest.mark.parametrize(
    "words",
    [*((script, "--help") for script in SCRIPTS), (SCRIPTS[0], "--features", "set_J.npz")],
    ids=" ".join,
)
def test_only_what_is_needed_is_loaded(words, golden_dir):
    done = python("-c", PROGRAM, *words, cwd=golden_dir)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        ("import face_uncertainty", {"torch", "matplotlib", "scipy", "cv2"}),
        ("import face_uncertainty, scoring.scorer", {"torch", "matplotlib", "onnxruntime"}),
        ("import utils.distributed as d; d.ALONE.barrier()", {"torch"}),
    ],
)
def test_imports_are_light_and_print_nothing(program, heavy):
    done = python("-c", f"import sys; {program}; print({heavy} & set(sys.modules))")
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize("name", [*SCRIPTS, *OTHERS])
def test_every_command_takes_a_model_by_both_flags(name, capsys):
    with pytest.raises(SystemExit):
        import_module(name).main(["--help"])
    assert {"--model", "--model_dir"} <= set(capsys.readouterr().out.replace(",", " ").split())
