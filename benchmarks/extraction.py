"""What extraction costs beyond the forward pass: images/s of both, in turn, on the same images.

OMP_NUM_THREADS=1 python benchmarks/extraction.py --backbone_name iresnet18 --images 1000

Faces are rendered into a `.rec` pack first, weights are random: speed does not depend on either.
The bare side embeds batches that are in memory; extraction reads, decodes, embeds, applies heads,
brings results back and writes shards.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks._common import compare, print_table, write_json
from data.extracted import Format, ShardFolder
from data.faces import Faces, open_faces
from data.images import encode_jpeg
from data.recordio import RecordWriter
from data.synthetic import SyntheticFaces
from estimators.base import EstimatorGroup
from estimators.trained_head import TrainedHead
from extraction.job import Extraction, ExtractOptions
from models.frozen import FrozenBackbone
from models.heads.fc2 import FC2Head
from models.run import parse_backbone
from utils.config import Execution, Precision
from utils.device import resolve_device
from utils.long_work import StopRequest
from utils.methods import build

RENDERED = 400  # distinct faces; the pack repeats them


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    args = _parser().parse_args(argv)
    device = resolve_device(args.device)
    for name, value in _defaults(device).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    torch.manual_seed(0)
    backbone = build("models.backbones", parse_backbone(args.backbone_name))
    frozen = FrozenBackbone(backbone, device, args.precision, args.execution)
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(args, frozen, Path(folder))
    header = ["format", "heads", "forward alone, images/s", "extraction, images/s", "ratio"]
    print_table(header, [[row[name] for name in ("format", "heads", *_SHOWN)] for row in rows])
    write_json(args.json, rows, device)
    return 0


_SHOWN = ("forward_images_per_s", "extraction_images_per_s", "ratio")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Extraction against the bare forward pass.")
    add = parser.add_argument
    add("--backbone_name", help="(mobilefacenet; on a GPU iresnet50)")
    add("--images", type=int, help="of the pack (512; on a GPU 65536)")
    add("--shard_images", type=int, help="images of a shard (256; on a GPU 16384)")
    add("--batch_size", type=int, help="images per forward pass (128; on a GPU 512)")
    add("--workers", type=int, help="threads that decode (1; on a GPU the cores, up to 16)")
    add("--heads", type=int, nargs="+", default=[1], help="heads on one forward pass (1)")
    add("--formats", nargs="+", default=["npy", "parquet"], choices=get_args(Format))
    add("--dtype", default="float16", choices=["float16", "float32"])
    add("--runs", type=int, default=3, help="timings of each side (3)")
    add("--device", default="auto")
    add("--precision", default="auto", choices=get_args(Precision))
    add("--execution", default="eager", choices=get_args(Execution))
    add("--json", help="write the numbers here")
    return parser


def _defaults(device: torch.device) -> dict[str, Any]:
    names = ("backbone_name", "images", "shard_images", "batch_size", "workers")
    gpu = ("iresnet50", 65536, 16384, 512, min(16, os.cpu_count() or 1))
    other = ("mobilefacenet", 512, 256, 128, 1)
    return dict(zip(names, gpu if device.type == "cuda" else other, strict=True))


def _measure(
    args: argparse.Namespace, frozen: FrozenBackbone, folder: Path
) -> list[dict[str, Any]]:
    faces = open_faces(str(_write_pack(folder, args.images)))
    batches = _in_memory(faces, args.batch_size)
    rows = []
    for heads in args.heads:
        for form in args.formats:
            job = _job(args, frozen, faces, folder / "out", form, heads)
            sides = {
                "forward": partial(_forward, frozen, batches),
                "extraction": partial(_extract, job),
            }
            seconds = compare(sides, args.runs, frozen.device)
            rows.append(
                {
                    "backbone": args.backbone_name,
                    "batch_size": args.batch_size,
                    "format": form,
                    "heads": heads,
                    "forward_images_per_s": args.images / seconds["forward"],
                    "extraction_images_per_s": args.images / seconds["extraction"],
                    "ratio": seconds["forward"] / seconds["extraction"],
                }
            )
    return rows


def _job(
    args: argparse.Namespace,
    frozen: FrozenBackbone,
    faces: Faces,
    out: Path,
    form: Format,
    heads: int,
) -> Extraction:
    names = tuple(f"head{number}" for number in range(heads))
    members = {name: TrainedHead(frozen=frozen, head=_head(frozen)) for name in names}
    options = ExtractOptions(
        images=[],
        out=out,
        dtype=args.dtype,
        batch_size=args.batch_size,
        workers=args.workers,
        max_bad_share=0.0,
    )
    shards = ShardFolder(out, form, len(faces), args.shard_images, names, "benchmark")
    group, size = EstimatorGroup(members), frozen.embedding_size
    return Extraction(options, faces, faces.name, group, shards, size, frozen.device)


def _head(frozen: FrozenBackbone) -> FC2Head:
    head = FC2Head(output="probability", features_shape=frozen.features_shape)
    return head.to(frozen.device).eval()


def _extract(job: Extraction) -> None:
    shutil.rmtree(job.shards.folder, ignore_errors=True)
    job.run(range(len(job.shards)), lambda _: None, StopRequest())


def _forward(frozen: FrozenBackbone, batches: Sequence[torch.Tensor]) -> None:
    for batch in batches:
        frozen(batch)


def _in_memory(faces: Faces, batch_size: int) -> list[torch.Tensor]:
    """Up to 16 batches on the host, taken again and again for the rest of the images."""
    starts = range(0, len(faces), batch_size)
    kept: list[torch.Tensor] = []
    for start in starts[:16]:
        rows = range(start, min(start + batch_size, len(faces)))
        batch = torch.stack([torch.from_numpy(faces.read(row)) for row in rows])
        kept.append(batch.pin_memory() if torch.cuda.is_available() else batch)
    short = len(faces) % batch_size
    batches = [kept[place % len(kept)] for place in range(len(starts))]
    if short:
        batches[-1] = batches[-1][:short]
    return batches


def _write_pack(folder: Path, images: int) -> Path:
    rendered = SyntheticFaces(RENDERED // 4, 4, seed=0)
    encoded = [encode_jpeg(rendered.read(row)) for row in range(min(images, RENDERED))]
    with RecordWriter(folder / "faces") as writer:
        for row in range(images):
            writer.write_image(row // 8, encoded[row % len(encoded)])
    return folder / "faces.rec"


if __name__ == "__main__":
    sys.exit(main())
