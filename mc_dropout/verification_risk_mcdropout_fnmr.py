"""Evaluate MC-dropout on verification sets, through the evaluation that trained heads go through.

python mc_dropout/verification_risk_mcdropout_fnmr.py --backbone_name iresnet50 \
    --resume_backbone backbone.pth --dataset_path DIR --target lfw,cfp_fp

Or, on the backbone of a trained run: --model_dir RUN_DIR instead of the first two.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from commands import flags
from utils.cli import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags, build the estimator, evaluate; return the exit code."""
    parser = Parser(
        description=__doc__,
        epilog="The default protocol fixes the threshold on all pairs, so that AUERC compares with "
        "trained heads.\n--protocol original-mcdropout finds it again in each kept subset, as the "
        "original's\nMC-dropout script does; with --no_batch_norm, that script's numbers.",
    )
    add = parser.add_argument
    add(
        "--backbone_name",
        help="iresnet18 ... iresnet200, mobilefacenet, mbf, onnx, name:option=...",
    )
    add("--backbone_weights", "--resume_backbone", help="file with the backbone's weights")
    add("--model", "--model_dir", help="take the backbone of this run folder or packed model")
    add("--passes", type=int, default=100, help="dropout passes (100)")
    add("--rate", type=float, default=0.5, help="share of features dropped (0.5)")
    add(
        "--form",
        choices=["sampled", "closed_form"],
        default="sampled",
        help="draw passes (sampled), or their limit",
    )
    add("--no_batch_norm", action="store_true", help="leave out the last BatchNorm in the passes")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")
    flags.add_evaluation_flags(parser)
    add("--log_dir", dest="report", help="the original's name of --report")
    args = parser.parse_args(argv)
    spec = f"mc_dropout:passes={args.passes},rate={args.rate},seed={args.seed}"
    spec += f",batch_norm={not args.no_batch_norm},form={args.form}"
    from commands.run import evaluation_main  # later than --help

    return evaluation_main(args, flags.read(flags.ModelFlags, args, estimator=spec))


if __name__ == "__main__":
    sys.exit(main())
