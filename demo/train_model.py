"""Make `demo/model.pt`, the model to start with: a head on rendered faces, calibrated and packed.

python demo/train_model.py             a few minutes on one CPU core, nothing downloaded

Runs network.py, evaluation/calibrate.py and export/pack_model.py one after the other, on the
backbone of `demo/train_backbone.py`. One thread and the seeds below fix the run: the same machine
and the same torch write the same bytes; others round sums in another order, as said there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.cli import Parser, run_command

ROOT = Path(__file__).resolve().parents[1]
LABEL = "DEMO: trained on rendered faces, so its scores mean nothing on photographs"
LICENSE = "MIT, as the code: nothing but rendered faces went into it"
SOURCE = "demo/train_backbone.py and demo/train_model.py"
CREATED = "2026-11-24"  # fixed, so that the same weights make the same bytes
CHANGES = (
    "head=gap_linear:output=probability",
    "schedule.lr=1.0",
    "verification.targets=()",
    "device=cpu",
)
CALIBRATION = "faces:synthetic:identities=300,images=6,seed=21"  # people of no other seed here
FMR = "0.01"  # at 0.001 this small backbone misses too many
COLOURS = "synthetic:pairs=600,seed=22"


def steps(folder: Path, out: Path, changes: Sequence[str]) -> list[list[str]]:
    """Return the three command lines: train into the folder, calibrate there, pack into `out`."""
    config = ROOT / "config" / "config_demo.py"
    run, on_cpu = ["--model_dir", str(folder)], ["--device", "cpu"]
    about = ["--label", LABEL, "--license", LICENSE, "--source", SOURCE, "--created", CREATED]
    packed = [*run, "--out", str(out), "--pairs", COLOURS, *about, *on_cpu]
    return [
        ["network.py", "--config_file", str(config), *run, "--set", *CHANGES, *changes],
        ["evaluation/calibrate.py", *run, *("--target", CALIBRATION, "--fmr", FMR), *on_cpu],
        ["export/pack_model.py", *packed],
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Train, calibrate and pack; 0, or the exit code of the step that failed."""
    parser = Parser(main.__doc__)
    default = Path(__file__).with_name("model.pt")
    parser.add_argument("--out", type=Path, default=default, help=f"default: {default}")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the config")
    options = parser.parse_args(argv)
    return run_command(lambda: _run_steps(options.out.resolve(), options.set))


def _run_steps(out: Path, changes: Sequence[str]) -> int:
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for script, *arguments in steps(Path(folder) / "demo", out, changes):
            command = [sys.executable, str(ROOT / script), *arguments]
            process = subprocess.run(command, cwd=ROOT, env=os.environ | one_thread, check=False)
            if process.returncode:
                return process.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
