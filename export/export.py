"""Ship a model: one ONNX file with preprocessing, backbone, head and calibration, and its proof.

python export/export.py --model runs/NAME --out model.onnx
python export/export.py --model model.pt --out model.onnx --check faces:FOLDER
python export/export.py --model runs/NAME --out small.onnx --int8 --calibration_faces FOLDER \
    --check faces:FOLDER

The file takes uint8 (N, 112, 112, 3) RGB and gives embedding, uncertainty, quality, percentile and
p_false_non_match. It is written only if ONNX Runtime gives what PyTorch gives. See docs/ship.md.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from pathlib import Path

from export.steps import Export, export
from utils.cli import Parser, count, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Export, prove and time; 0, or 2 where the file would not give the same numbers."""
    parser = Parser(description="Write a model as one ONNX file and prove that it is the same.")
    add = parser.add_argument
    add("--model", required=True, help="run folder, packed model (.pt), or demo")
    add("--out", required=True, help="file to write, .onnx")
    add(
        "--check",
        default="synthetic:pairs=128,seed=5",
        help="faces to compare on: a .bin file, faces:FOLDER, synthetic:... (rendered ones)",
    )
    add("--faces", type=count, default=256, help="how many of them at most (256)")
    add("--int8", action="store_true", help="8-bit backbone; needs --calibration_faces")
    add("--calibration_faces", help="--int8: folder, list file or .rec pack like what is scored")
    add("--quality_only", action="store_true", help="a head that reads images: no embedding")
    add("--runs", type=count, default=15, help="timings of each engine; 0: none (15)")
    add("--backbone_weights", help="of a run: where the backbone's file is now")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    if args.int8 != bool(args.calibration_faces):
        raise ValueError(
            "--int8 and --calibration_faces SOURCE go together: the ranges of "
            "activations are taken from faces"
        )
    if args.faces < 32:
        raise ValueError(f"--faces {args.faces}: must be at least 32, the largest batch compared")
    wanted = Export(
        model=args.model,
        out=Path(args.out),
        check=args.check,
        faces=args.faces,
        calibration_faces=args.calibration_faces,
        quality_only=args.quality_only,
        runs=args.runs,
        backbone_weights=args.backbone_weights,
    )
    export(wanted, sys.stdout.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
