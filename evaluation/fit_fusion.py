"""Fit a fusion of several uncertainties, or another estimator that needs faces, and write it.

python evaluation/fit_fusion.py --model_dir runs/NAME --faces FOLDER --of trained_head \
    embedding_norm flip_disagreement
python evaluation/fit_fusion.py --model_dir runs/idq --faces FOLDER --of trained_head runs/pcnet
python evaluation/fit_fusion.py --model_dir runs/NAME --faces FOLDER --fit laplace

Then evaluate it as `--estimator fusion:reference=runs/NAME/fusion.json`, or
`laplace:reference=runs/NAME/laplace.npz`. Takes one pass over the faces. For a fusion, use people
whom the heads were not trained on; laplace and typicality describe the training faces.
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
    parser = Parser(description="Fit a fusion, or another estimator, on faces.")
    add = parser.add_argument
    add(
        "--model",
        "--model_dir",
        required=True,
        help="run folder, branch RUN/BRANCH or packed model; embedding_norm for a backbone alone",
    )
    add("--faces", required=True, help="folder, list file or .rec pack of aligned faces")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--of",
        nargs="+",
        metavar="MEMBER",
        help="fuse: trained_head, embedding_norm, flip_disagreement, ... or run folders",
    )
    what.add_argument("--fit", metavar="ESTIMATOR", help="fit: laplace, typicality or froq")
    add(
        "--how", choices=["ranks", "model"], default="ranks", help="equal or fitted weights (ranks)"
    )
    add("--fmr", type=float, default=1e-3, help="model: FMR whose threshold pairs must pass (1e-3)")
    add("--cap", type=count, default=CAP, help=f"mated pairs of one person; 0: all ({CAP})")
    add("--out", help="file to write (RUN/fusion.json, RUN/ESTIMATOR.npz)")
    add("--checkpoint", default="best", choices=["best", "last"], help="(best)")
    add("--backbone_name", help="of a backbone alone")
    add("--backbone_weights", help="the backbone's file, where it has moved, or of it alone")
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
