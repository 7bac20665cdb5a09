"""How long scripts take before they work: `--help` of each, and stored pairs through the command.

python benchmarks/startup.py --runs 7                          (two minutes)

The second table compares evaluation/verification_risk_fnmr.py --features FILE as a whole with its
two parts, reading the arrays and computing the curves, each in a fresh process; and the same within
one process that has everything imported.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks._common import compare, write_json

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (
    "network.py",
    "evaluation/verification_risk_fnmr.py",
    "evaluation/audit.py",
    "evaluation/compare.py",
    "evaluation/calibrate.py",
    "evaluation/fit_fusion.py",
    "mc_dropout/verification_risk_mcdropout_fnmr.py",
    "scoring/score_images.py",
    "extraction/extract.py",
    "export/pack_model.py",
    "export/export.py",
    "export/colour_order.py",
    "photos/align_faces.py",
    "data/recordio.py",
    "data/synthetic.py",
    "data/verification.py",
)
PARTS = """
import sys
from evaluation.original import original_table
from data.features import Features
original_table(Features.load(sys.argv[1]))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=600_000)
    parser.add_argument("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    helps = {script: _seconds([str(ROOT / script), "--help"], args.runs) for script in SCRIPTS}
    sys.stdout.write(f"seconds of --help, median of {args.runs}\n")
    for script, seconds in helps.items():
        sys.stdout.write(f"  {script:<50} {seconds:.2f}\n")
    with tempfile.TemporaryDirectory() as folder:
        stored = str(Path(folder) / "pairs.npz")
        _write_pairs(stored, args.pairs)
        times = _stored_pairs(stored, args.runs)
    for name in ("process", "inside"):
        whole, parts = times[name], times[f"{name}_parts"]
        sys.stdout.write(
            f"{args.pairs} stored pairs, {name}: command {whole:.2f} s, its two parts {parts:.2f} "
            f"s, ratio {whole / parts:.2f}\n"
        )
    if args.json:
        write_json(args.json, {"help": helps, "stored": times})
    return 0


def _stored_pairs(stored: str, runs: int) -> dict[str, float]:
    """Seconds of the command and of its parts: as processes, and inside this one."""
    from data.features import Features
    from evaluation.original import original_table
    from evaluation.verification_risk_fnmr import main as command

    def silently(call: Callable[[], object]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            call()

    script = str(ROOT / "evaluation" / "verification_risk_fnmr.py")
    return compare(
        {
            "process": partial(_run, [script, "--features", stored]),
            "process_parts": partial(_run, ["-c", PARTS, stored]),
            "inside": partial(silently, lambda: command(["--features", stored])),
            "inside_parts": lambda: original_table(Features.load(stored)),
        },
        runs,
    )


def _seconds(arguments: Sequence[str], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        _run(arguments)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _run(arguments: Sequence[str]) -> None:
    subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def _write_pairs(path: str, pairs: int, columns: int = 32) -> None:
    """Write made-up features: mated pairs are near, uncertain images less so."""
    rng = np.random.default_rng(0)
    issame = np.arange(pairs) % 2 == 0
    sigma_sq = rng.uniform(0.05, 1, (2 * pairs, 1)).astype(np.float32)
    person = rng.standard_normal((pairs, columns), np.float32)
    other = np.where(issame[:, None], person, rng.standard_normal((pairs, columns), np.float32))
    mu = np.stack([person, other], axis=1).reshape(2 * pairs, columns)
    mu += rng.standard_normal(mu.shape, np.float32) * sigma_sq * np.float32(1.5)
    np.savez(path, mu=mu, sigma_sq=sigma_sq, issame=issame)


if __name__ == "__main__":
    sys.exit(main())
