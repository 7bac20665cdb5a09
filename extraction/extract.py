"""Embeddings and uncertainties of every image of a pack, a folder or a list, in shards.

python extraction/extract.py --images PACK.rec --out DIR --model_dir runs/NAME
python extraction/extract.py --images FOLDER --out DIR --backbone_name iresnet50 \
    --backbone_weights FILE --methods embedding_norm mc_dropout:form=closed_form

Every image is decoded and embedded once for all methods. Memory does not grow with the number of
images; a stopped command goes on where it was when it is given again. The same under
`torchrun --nproc_per_node=N`, and with `--part 1/4` ... `--part 4/4` on machines that share DIR.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import torch

from data.faces import Faces, open_faces
from evaluation import flags
from evaluation.open_model import LoadedModels, open_models
from evaluation.sets.extracted import BAD, Format
from extraction.job import Extraction
from extraction.manifest import about_methods, about_source, claim, name_giver
from extraction.writer import ShardFolder
from utils.cli import Parser, run_command, say_error
from utils.config import Execution
from utils.distributed import PeerFailed, RankLost, World, in_job, is_main_process, start, stop
from utils.progress import Progress
from utils.stop import StopRequest
from utils.tables import require_pyarrow

MOST_WORKERS = 16
STOPPED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Extract; the exit code is 0, 2 after an error, or 130 when stopped."""
    args = _parser().parse_args(argv)
    try:
        return run_command(lambda: _body(args))
    except RankLost as error:
        say_error(str(error))
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description="Embeddings and uncertainties of every image, in shards.",
        epilog="The same command again goes on where it was. Exit code: 0 when this part is done, "
        "also with unreadable images (they are listed), 2 after an error, 130 when stopped.",
    )
    add = parser.add_argument
    add("--images", nargs="+", required=True, help=".rec pack, folder per identity, or list file")
    add("--out", required=True, metavar="DIR", help="folder for the shards, new or to go on with")
    add("--model", "--model_dir", help="a method like any other, such as a run folder")
    add(
        "--methods",
        nargs="+",
        default=[],
        metavar="[NAME=]METHOD",
        help="one column each: run folders, files with a score per image, or estimators such as "
        "embedding_norm (embedding_norm, if no run is given)",
    )
    flags.add_backbone_flags(parser)
    add("--execution", default="eager", choices=get_args(Execution), help="of the backbone (eager)")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--format", default="npy", choices=get_args(Format), help="of the shards (npy)")
    add("--dtype", default="float16", choices=["float16", "float32"], help="embeddings (float16)")
    add("--shard_images", type=_positive, default=65536, help="images of a shard (65536)")
    add("--batch_size", type=_positive, default=256, help="images per forward pass (256)")
    add("--workers", type=_positive, help="threads that decode (the cores of a process, up to 16)")
    add("--part", type=_part, default=(1, 1), metavar="K/N", help="do part K of N (1/1)")
    add(
        "--max_bad_share",
        type=float,
        default=0.01,
        help="of a shard's images that may be unreadable before the work stops (0.01)",
    )
    return parser


def _body(args: argparse.Namespace) -> int:
    try:
        world, device = start(args.device)
    except ValueError as error:
        if is_main_process():
            say_error(str(error))
        return 2
    job = _prepared(args, device, world)
    if job is None:
        return 2
    part, parts = args.part
    what = "extract" if parts == 1 else f"part {part} of {parts}"
    if world.size > 1:
        what += f", rank {world.rank} of {world.size}"
    world = World((part - 1) * world.size + world.rank, parts * world.size, world.local_rank)
    with StopRequest(second_interrupts=not in_job()) as request:
        return _work(job, world, what, request)


def _prepared(args: argparse.Namespace, device: torch.device, world: World) -> Extraction | None:
    """Open everything on every rank; then ranks part: they share nothing but the folder.

    A mistake is told once, by the main rank. Returns None after one.
    """
    problem = ""
    try:
        job = _open(args, device)
        world.barrier()
    except PeerFailed as error:
        problem = str(error)
    except (ValueError, OSError) as error:
        problem = str(error)
        world.fail(problem)
    if problem and world.is_main:
        say_error(problem)
    stop(world)
    return None if problem else job


def _open(args: argparse.Namespace, device: torch.device) -> Extraction:
    _check(args)
    texts = [*filter(None, [args.model]), *args.methods] or ["embedding_norm"]
    methods = open_models(
        texts,
        backbone_name=args.backbone_name,
        backbone_weights=args.backbone_weights,
        device=str(device),
        precision=args.precision,
        execution=args.execution,
    )
    faces = open_faces(args.images)
    name_of = name_giver(faces, args.images)
    return Extraction(
        faces=faces,
        name_of=name_of,
        estimator=methods.estimator,
        shards=_claimed(args, texts, methods, faces, name_of),
        embedding_size=methods.backbone.embedding_size,
        dtype=args.dtype,
        batch_size=args.batch_size,
        workers=args.workers or _workers(),
        flip=args.flip,
        max_bad_share=args.max_bad_share,
        facts={
            "device": device.type,
            "execution": args.execution,
            "batch_size": args.batch_size,
            "torch": torch.__version__,
        },
        pin=device.type == "cuda",
    )


def _check(args: argparse.Namespace) -> None:
    if args.model and args.backbone_name:
        raise ValueError(
            f"--model {args.model} has a backbone; --backbone_name does not go with it"
        )
    if not 0 <= args.max_bad_share <= 1:
        raise ValueError(f"--max_bad_share {args.max_bad_share}: must lie in 0..1")
    if args.format == "parquet":
        require_pyarrow(f"{args.out}: --format parquet")


def _claimed(
    args: argparse.Namespace,
    texts: Sequence[str],
    methods: LoadedModels,
    faces: Faces,
    name_of: Callable[[int], str],
) -> ShardFolder:
    """Make the folder, or find that what is in it was made in the same way."""
    folder = Path(args.out)
    about = {
        **about_source(faces, args.images, name_of),
        **about_methods(texts, methods, args.backbone_weights),
        "flip": args.flip,
        "format": args.format,
        "dtype": args.dtype,
        "shard_images": args.shard_images,
    }
    settings = claim(folder, about)
    return ShardFolder(folder, args.format, len(faces), args.shard_images, methods.names, settings)


def _work(job: Extraction, world: World, what: str, request: StopRequest) -> int:
    """Make this process's shards; shard s is that of process s % size, over all parts."""
    shards = job.shards
    shown = os.environ.get("RANK", "0") == "0"
    mine = range(world.rank, len(shards), world.size)
    todo = [number for number in mine if not shards.is_done(number, _told)]
    images = sum(stop - start for start, stop in map(shards.bounds, todo))
    if shown and len(todo) < len(mine):
        sys.stderr.write(f"{what}: {len(mine) - len(todo)} of {len(mine)} shards are there\n")
    progress = Progress(what, images, shown=shown)
    try:
        finished = job.run(todo, progress, request)
    except KeyboardInterrupt:
        finished = False
    finally:
        progress.close()
    if not finished:
        if shown:
            why = ""
            if request.terminated and in_job():
                why = " by SIGTERM, which torchrun sends when another process has died"
            sys.stderr.write(
                f"stopped{why}; the same command goes on after the last complete shard\n"
            )
        return STOPPED
    return _end(job, shown)


def _end(job: Extraction, shown: bool) -> int:
    """Join the lists of bad images, by whichever process sees that all shards are there."""
    shards = job.shards
    there = shards.count_done()
    if there < len(shards):
        if shown:
            sys.stdout.write(
                f"{shards.folder}: {there} of {len(shards)} shards are there; other processes or "
                "parts make the rest\n"
            )
        return 0
    bad = shards.join_bad()
    of_them = f"{bad} without embedding (see {BAD})" if bad else "all embedded"
    in_all = "1 shard" if len(shards) == 1 else f"{len(shards)} shards"
    sys.stdout.write(f"{shards.folder}: {shards.total} images, {of_them}; {in_all}\n")
    return 0


def _told(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _workers() -> int:
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_WORKERS, len(_cores()) // local))


def _cores() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: write K/N with K from 1 to N, such as 1/4")
    return int(part), int(parts)


if __name__ == "__main__":
    sys.exit(main())
