"""Fit a fusion of several uncertainties on faces, and write it beside the head.

python evaluation/fit_fusion.py --model_dir runs/NAME --faces FOLDER --of trained_head \
    embedding_norm flip_disagreement
python evaluation/fit_fusion.py --model_dir runs/idq --faces FOLDER --of trained_head runs/pcnet

Then evaluate it as `--estimator fusion:reference=runs/NAME/fusion.json`. Takes one pass of the
members over the faces. Use people whom the heads were not trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.labelled_pairs import CAP
from utils.cli import Parser, count, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Fit and write a fusion; 0, or 2 when there is nothing to fit."""
    parser = Parser(description="Fuse several uncertainties into one.")
    add = parser.add_argument
    add(
        "--model",
        "--model_dir",
        required=True,
        help="run folder, branch RUN/BRANCH or packed model",
    )
    add("--faces", required=True, help="folder, list file or .rec pack of aligned faces")
    add(
        "--of",
        nargs="+",
        required=True,
        metavar="MEMBER",
        help="trained_head, embedding_norm, flip_disagreement, ... or run folders",
    )
    add(
        "--how", choices=["ranks", "model"], default="ranks", help="equal or fitted weights (ranks)"
    )
    add("--fmr", type=float, default=1e-3, help="model: FMR whose threshold pairs must pass (1e-3)")
    add("--cap", type=count, default=CAP, help=f"mated pairs of one person; 0: all ({CAP})")
    add("--out", help="file to write (RUN/fusion.json)")
    add("--checkpoint", default="best", choices=["best", "last"], help="(best)")
    add("--backbone_weights", help="the backbone's file, where it has moved")
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")
    args = parser.parse_args(argv)

    def body() -> int:
        from training.fusion_run import FusionOptions, fit_fusion

        sys.stdout.write(fit_fusion(FusionOptions(**vars(args))))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
