"""Does a backbone want RGB or BGR? Both orders are tried on a few pairs of faces.

python export/colour_order.py --backbone_name iresnet50 --backbone_weights backbone.pth \
    --pairs lfw.bin

Ends with exit code 2 when the other order separates people better than the one in the options.
pack_model.py runs the same check. Takes four forward passes per pair.
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
    """Try both orders; 0, or 2 when the other one is better or nothing can be tried."""
    parser = Parser(description="Does a backbone want RGB or BGR?")
    add = parser.add_argument
    add("--backbone_name", required=True, help="iresnet50, mobilefacenet, or name:option=...")
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

    frozen = open_backbone(args.backbone_name, args.backbone_weights, args.device, args.precision)
    check = colour_check(frozen, args.pairs, args.count)
    sys.stdout.write(check.describe())
    require_colour_order(check, "set it before a head is trained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
