"""Embeddings and uncertainties of every image of a pack, a folder or a list, in shards.

python extraction/extract.py --images PACK.rec --out DIR --model runs/NAME
python extraction/extract.py --images FOLDER --out DIR --backbone_name iresnet50 \
    --backbone_weights FILE --methods embedding_norm mc_dropout:form=closed_form

Every image is decoded and embedded once for all methods. Memory does not grow with the number of
images; a stopped command resumes when it is given again. The same under
`torchrun --nproc_per_node=N`, and with `--part 1/4` ... `--part 4/4` on machines that share DIR.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.cli import Parser, positive, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Extract; the exit code is 0, 2 after an error, or 130 when stopped."""
    args = _parser().parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    from extraction.job import ExtractOptions, extract

    return extract(ExtractOptions(**vars(args)))


def _parser() -> Parser:
    parser = Parser(
        description="Embeddings and uncertainties of every image, in shards.",
        epilog="The same command again resumes. Exit code: 0 when this part is done (the few "
        "unreadable images are listed), 2 after an error, 130 when stopped.",
    )
    parser.argument_default = argparse.SUPPRESS  # ExtractOptions has the defaults
    add = parser.add_argument
    add("--images", nargs="+", required=True, help=".rec pack, folder per identity, or list file")
    out = "folder for the shards, new or to resume"
    add("--out", type=Path, required=True, metavar="DIR", help=out)
    add("--model", "--model_dir", help="a method like any other, such as a run folder")
    methods = (
        "one column each: run folders, packed .pt, .onnx, files of scores, or estimators such as "
        "embedding_norm (embedding_norm, if no model is given)"
    )
    add("--methods", nargs="+", metavar="[NAME=]METHOD", help=methods)
    add(
        "--backbone_name",
        help="iresnet18 ... iresnet200, mobilefacenet, mbf, onnx, name:option=...",
    )
    add("--backbone_weights", help="its file; with a run: where the file is now")
    add("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--precision", help="of the backbone: auto, fp32, bf16, fp16 (auto)")
    executions = ["eager", "cuda_graph", "compile"]
    add("--execution", choices=executions, help="of the backbone (eager)")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--format", choices=["npy", "parquet"], help="of the shards (npy)")
    add("--dtype", choices=["float16", "float32"], help="of embeddings (float16)")
    add("--shard_images", type=positive, help="images of a shard (65536)")
    add("--batch_size", type=positive, help="images per forward pass (256)")
    add("--workers", type=positive, help="threads that decode (the cores of a process, up to 16)")
    add("--part", type=_part, metavar="K/N", help="do part K of N (1/1)")
    share = "of the images that may be unreadable before the work ends (0.01)"
    add("--max_bad_share", type=float, help=share)
    return parser


def _part(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: write K/N with K from 1 to N, such as 1/4")
    return int(part), int(parts)


if __name__ == "__main__":
    sys.exit(main())
