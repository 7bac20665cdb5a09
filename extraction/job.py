"""An extraction: what is asked for, what its folder depends on, and the share of one process.

Ranks and parts open everything together and then share nothing but the folder of shards.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from data.extracted import ABOUT, BAD, Format
from data.faces import FaceImages, Faces, open_faces
from evaluation.open_model import DEMO, LoadedModels, named, open_models
from extraction.pipeline import Extraction
from extraction.shards import ShardFolder
from utils.cli import say_error
from utils.distributed import PeerFailed, RankLost, World, in_job, is_main_process, start, stop
from utils.files import file_sha256
from utils.long_work import Progress, StopRequest
from utils.parts import Json, PartStore
from utils.run import environment
from utils.tables import require_pyarrow

if TYPE_CHECKING:
    from utils.config import Execution, Precision

VERSION = 1
MOST_WORKERS = 16
STOPPED = 130
_NAMES = 1024  # of the source's images, evenly spread, that its identity is taken from


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """What is extracted, and how, by the names of extract.py's flags.

    Raises:
        ValueError: options that do not go together.
    """

    images: Sequence[str]
    out: Path
    model: str | None = None
    methods: Sequence[str] = ()
    backbone_name: str | None = None
    backbone_weights: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    execution: Execution = "eager"
    flip: bool = False
    format: Format = "npy"
    dtype: Literal["float16", "float32"] = "float16"
    shard_images: int = 65536
    batch_size: int = 256
    workers: int | None = None
    part: tuple[int, int] = (1, 1)
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        if self.model and self.backbone_name:
            raise ValueError(
                f"--model {self.model} has a backbone; --backbone_name does not go with it"
            )
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"--max_bad_share {self.max_bad_share}: must lie in 0..1")

    @property
    def specs(self) -> list[str]:
        """All methods as they were written."""
        return [*filter(None, [self.model]), *self.methods] or ["embedding_norm"]

    @property
    def threads(self) -> int:
        """Threads that decode."""
        available = os.cpu_count() or 1
        if hasattr(os, "sched_getaffinity"):
            available = len(os.sched_getaffinity(0))
        own = available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return self.workers or max(1, min(MOST_WORKERS, own))


def extract(options: ExtractOptions) -> int:
    """Make this process's shards, in a part and a rank; return the exit code of the script."""
    try:
        world, device = start(options.device)
        job = _open_together(options, device, world)
    except (ValueError, OSError, PeerFailed, RankLost) as error:
        if is_main_process():
            say_error(str(error))
        return 2
    part, parts = options.part
    what = "extract" if parts == 1 else f"part {part} of {parts}"
    if world.size > 1:
        what += f", rank {world.rank} of {world.size}"
    own = range((part - 1) * world.size + world.rank, len(job.shards), parts * world.size)
    with StopRequest(second_interrupts=not in_job()) as request:
        return _work(job, own, what, request)


def _open_together(options: ExtractOptions, device: torch.device, world: World) -> Extraction:
    """Open everything on every rank, and part.

    Raises:
        ValueError, OSError: a mistake, which the other ranks learn of.
        PeerFailed: a mistake of another rank.
        RankLost: another rank is gone.
    """
    try:
        job = _open(options, device)
        world.barrier()
    except (ValueError, OSError) as error:
        world.fail(str(error))
        stop(world)
        raise
    except PeerFailed:
        stop(world)
        raise
    stop(world)
    return job


def _open(options: ExtractOptions, device: torch.device) -> Extraction:
    if options.format == "parquet":
        require_pyarrow(f"{options.out}: --format parquet")
    models = open_models(
        options.specs,
        backbone_name=options.backbone_name,
        backbone_weights=options.backbone_weights,
        device=str(device),
        precision=options.precision,
        execution=options.execution,
    )
    faces = open_faces(list(options.images))
    name_of = name_giver(faces, options.images)
    store = PartStore(
        options.out,
        fingerprint(options, models, faces, name_of),
        lock=False,
        about=ABOUT,
        compared=_compared,
        way_out="give what it was made with, or name another --out",
    )
    store.claim()
    form, size = options.format, options.shard_images
    shards = ShardFolder(options.out, form, len(faces), size, models.names, store.settings)
    return Extraction(
        faces=faces,
        name_of=name_of,
        estimator=models.estimator,
        shards=shards,
        embedding_size=models.backbone.embedding_size,
        dtype=options.dtype,
        batch_size=options.batch_size,
        workers=options.threads,
        flip=options.flip,
        max_bad_share=options.max_bad_share,
        pin=device.type == "cuda",
        facts={
            "device": device.type,
            "execution": options.execution,
            "batch_size": options.batch_size,
            "torch": torch.__version__,
        },
    )


def name_giver(faces: Faces, sources: Sequence[str]) -> Callable[[int], str]:
    """Return what names a row by its path below the folder or list, or by its key in the pack.

    Of several sources joined, names stay whole: keys of two packs may be the same.
    """
    if len(sources) > 1:
        return faces.name
    path = Path(sources[0])
    return FaceImages(faces, path if path.is_dir() else path.parent).image_name


def fingerprint(
    options: ExtractOptions, models: LoadedModels, faces: Faces, name_of: Callable[[int], str]
) -> dict[str, Json]:
    """Return what about.json says: the faces, the methods, every file of weights, the form.

    Faces are known by labels and some names; that costs half a second for 17 M images.
    """
    content = hashlib.sha256(np.ascontiguousarray(faces.labels).data)
    for row in np.unique(np.linspace(0, len(faces) - 1, _NAMES).astype(np.int64)).tolist():
        content.update(os.fsencode(name_of(row)) + b"\0")
    methods = [spec for _, spec in named(options.specs)]
    weights: list[Path] = []
    for spec in methods:
        path = DEMO if spec == "demo" else Path(spec)
        weights += sorted(path.rglob("best.pt")) if path.is_dir() else [path] * path.is_file()
    backbone = models.backbone
    frozen, backbone_sha256 = backbone.frozen, backbone.provenance.backbone_sha256
    if not backbone_sha256 and options.backbone_weights is not None:
        backbone_sha256 = file_sha256(options.backbone_weights)
    return {
        "version": VERSION,
        "images": len(faces),
        "identities": faces.num_classes,
        "sources": [_source(source) for source in options.images],
        "content_sha256": content.hexdigest(),
        "columns": list(models.names),
        "methods": list(options.specs),
        "options": [spec for spec in methods if spec != "demo" and not Path(spec).exists()],
        "weights": [{"file": str(file), "sha256": file_sha256(file)} for file in weights],
        "backbone_sha256": backbone_sha256,
        "preprocessing": None if frozen is None else frozen.preprocessing.to_dict(),
        "embedding_size": backbone.embedding_size,
        "precision": str((frozen and frozen.dtype) or "float32").removeprefix("torch."),
        "flip": options.flip,
        "format": options.format,
        "dtype": options.dtype,
        "shard_images": options.shard_images,
        "first_start": environment(),
    }


def _source(source: str) -> Json:
    path = Path(source)
    packs = sorted(path.glob("*.rec")) if path.is_dir() else []
    file = packs[0] if packs else path
    if not file.is_file():  # a folder of images, or rendered faces
        return {"path": source}
    status = file.stat()
    return {"path": str(file), "bytes": status.st_size, "modified": int(status.st_mtime)}


def _compared(about: dict[str, Any]) -> dict[str, Json]:
    """Leave out what may differ from start to start: where files are, and what started it."""
    compared = {name: about[name] for name in about if name not in ("first_start", "methods")}
    compared["sources"] = [
        {name: value for name, value in source.items() if name != "path"}
        for source in about["sources"]
    ]
    compared["weights"] = [file["sha256"] for file in about["weights"]]
    return compared


def _work(job: Extraction, own: range, what: str, request: StopRequest) -> int:
    shards = job.shards
    shown = os.environ.get("RANK", "0") == "0"
    todo = [n for n in own if not shards.is_done(n, lambda line: _report(line, True))]
    images = sum(stop - start for start, stop in map(shards.bounds, todo))
    if len(todo) < len(own):
        _report(f"{what}: {len(own) - len(todo)} of {len(own)} shards are done", shown)
    progress = Progress(what, images, shown=shown)
    try:
        finished = job.run(todo, progress, request)
    except KeyboardInterrupt:
        finished = False
    finally:
        progress.close()
    if not finished:
        why = ""
        if request.terminated and in_job():
            why = " by SIGTERM, which torchrun sends when another process has died"
        _report(f"stopped{why}; the same command resumes after the last complete shard", shown)
        return STOPPED
    done = shards.count_done()
    if done < len(shards):
        if shown:
            rest = "other processes or parts make the rest"
            sys.stdout.write(f"{shards.folder}: {done} of {len(shards)} shards are done; {rest}\n")
        return 0
    bad = shards.join_bad()  # by whichever process sees that all shards are there
    outcome = f"{bad} without embedding (see {BAD})" if bad else "all embedded"
    total = "1 shard" if len(shards) == 1 else f"{len(shards)} shards"
    sys.stdout.write(f"{shards.folder}: {shards.total} images, {outcome}; {total}\n")
    return 0


def _report(line: str, shown: bool) -> None:
    if shown:
        sys.stderr.write(f"{line}\n")
