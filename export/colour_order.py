"""Does a backbone want RGB or BGR, and which scaling? They are tried on a few pairs of faces.

python export/colour_order.py --backbone_name iresnet50 --backbone_weights backbone.pth \
    --pairs lfw.bin

Ends with exit code 2 when another order or scaling separates people better than that in the
options. pack_model.py runs the same check. Takes four forward passes per pair, and as many for each
other scaling on up to 50 pairs of each kind.
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
    """Try them; 0, or 2 when another one is better or nothing can be tried."""
    parser = Parser(description="Does a backbone want RGB or BGR, and which scaling?")
    add = parser.add_argument
    add("--backbone_name", help="iresnet50, mobilefacenet, name:option=...; onnx for an .onnx file")
    add("--backbone_weights", required=True, help="its file")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")
    add("--pairs", required=True, help="lfw.bin, faces:FOLDER, synthetic:pairs=400")
    add("--count", type=count, default=200, help="of each kind (200)")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    from export.colours import colour_check, require_colour_order
    from models.run import open_backbone
    from utils.onnx_runtime import is_onnx

    name = args.backbone_name or ("onnx" if is_onnx(args.backbone_weights) else "")
    frozen = open_backbone(name, args.backbone_weights, args.device, args.precision)
    check = colour_check(frozen, args.pairs, args.count)
    sys.stdout.write(check.describe())
    require_colour_order(check, "set it before a head is trained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
