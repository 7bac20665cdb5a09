"""Score the faces in photos, folders, lists, packs and videos: one row per face.

python scoring/score_images.py PHOTO_OR_FOLDER... --model demo
python scoring/score_images.py FOLDER --model runs/NAME --out scores.csv --report sheet.html

Prints a table, or writes .csv, .json, .jsonl or .parquet. Memory does not grow with the number of
inputs; with --out a stopped command resumes where it stopped when it is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.cli import Parser, positive, run_command, share


def main(argv: Sequence[str] | None = None) -> int:
    """Score; the exit code is 0, 2 after an error, or 130 when stopped."""
    args = _parser().parse_args(argv)
    resumes = "out" in args
    hint = "the same command resumes where it stopped" if resumes else "nothing was kept"
    return run_command(lambda: _body(args), resume_hint=hint)


def _body(args: argparse.Namespace) -> int:
    from scoring import job

    options = job.ScoreOptions(**vars(args))
    if options.engine == "ray":
        from scoring import ray_engine

        ray_engine.score(options)
    else:
        job.score(options)
    return 0


def _parser() -> Parser:
    parser = Parser(
        description="Score the faces in photos: how far each can be relied on.",
        epilog="With --out the same command again resumes where it stopped. Exit code: 0 when all "
        "inputs have their rows, 2 after an error, such as many unreadable ones, 130 when stopped.",
    )
    parser.argument_default = argparse.SUPPRESS  # job.ScoreOptions has the defaults
    add = parser.add_argument
    kinds = "photo, folder, list, .bin, .rec, .parquet, video"
    add("inputs", nargs="+", metavar="INPUT", help=kinds)
    models = "run folder, packed .pt, .onnx, or the word demo"
    add("--model", "--model_dir", required=True, help=models)
    add("--out", type=Path, help="write rows here: .csv, .json, .jsonl or .parquet (print a table)")
    add("--report", type=Path, metavar="DIR_OR_HTML", help="write a contact sheet here")
    add("--columns", choices=["own", "ofiq"], help="ofiq: OFIQ's table, into --out NAME.csv (own)")
    why = "on the sheet, show what raises each face's uncertainty"
    add("--why", action="store_true", help=why)
    add("--aligned", choices=["auto", "yes", "no"], help="inputs are 112x112 faces (auto)")
    add("--detector", help="of faces: a name, or NAME:weights=FILE (mtcnn)")
    add("--every", type=positive, metavar="N", help="take every N-th video frame (1)")
    add("--max_faces", type=positive, metavar="N", help="of a photo, the largest ones (all)")
    add("--target_risk", type=share, help="accept up to this P(false non-match)")
    add("--refuse_risk", type=share, help="refuse above this P(false non-match)")
    add("--restart", action="store_true", help="begin anew, and overwrite --out")
    add("--batch_size", type=positive, help="faces per forward pass (64)")
    add("--workers", type=positive, help="threads that decode (the cores, up to 16)")
    add("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--precision", help="of the backbone: auto, fp32, bf16, fp16 (auto)")
    add("--backbone_name", help="for --model embedding_norm and other scores without training")
    add("--backbone_weights", help="its file; of a run: where the backbone's file is now")
    add("--calibration", help="file of calibrate.py, instead of the model's own")
    add("--engine", choices=["local", "ray"], help="ray: on many machines (local)")
    add("--ray_workers", type=positive, metavar="N", help="scorers at a time (a GPU or core each)")
    share_help = "of the inputs that may be unreadable before the work ends (0.5)"
    add("--max_bad_share", type=float, help=share_help)
    add("--ray_address", help="of a running cluster, or auto (a cluster on this machine)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
