"""Ship a model: one ONNX file with preprocessing, backbone, head and calibration, and its proof.

python export/export.py --model runs/NAME --out model.onnx
python export/export.py --model model.pt --out model.onnx --check faces:FOLDER
python export/export.py --model runs/NAME --out small.onnx --int8 --calibration_faces FOLDER \
    --check faces:FOLDER

The file takes uint8 (N, 112, 112, 3) RGB and gives embedding, uncertainty, quality, percentile and
p_false_non_match. It is written only if ONNX Runtime gives what PyTorch gives. See docs/ship.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.cli import Parser, count, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Export, prove and time; 0, or 2 where the file would not give the same numbers."""
    parser = Parser(description="Write a model as one ONNX file and prove that it is the same.")
    parser.argument_default = argparse.SUPPRESS  # ExportOptions has the defaults
    add = parser.add_argument
    add("--model", "--model_dir", required=True, help="run folder, packed model (.pt), or demo")
    add("--out", type=Path, required=True, help="file to write, .onnx")
    add("--check", help="faces to compare on: a .bin file, faces:FOLDER (rendered faces)")
    add("--faces", type=count, help="how many of them at most (256)")
    add("--int8", action="store_true", help="8-bit backbone; needs --calibration_faces")
    add("--calibration_faces", help="--int8: folder, list file or .rec pack like what is scored")
    add("--quality_only", action="store_true", help="a head that reads images: no embedding")
    add("--runs", type=count, help="timings of each engine; 0: none (15)")
    add("--backbone_weights", help="of a run: where the backbone's file is now")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    from export.onnx_export import ExportOptions, export

    export(ExportOptions(**vars(args)), sys.stdout.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
