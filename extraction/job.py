"""An extraction: what is asked for, what its folder depends on, and the share of one process.

Ranks and parts open everything together and then share nothing but the folder of shards. Memory
does not grow: threads decode ahead, the device computes, a thread writes the last shard meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.extracted import ABOUT, BAD, SHARDS, Bad, Format, Shard, ShardFolder, empty, one_line
from data.faces import FaceImages, Faces, open_faces
from data.features import are_directions
from data.loader import Batch as LoadedBatch
from data.loader import BatchLoader
from estimators.base import Batch, Estimate, EstimatorGroup, harmonic_mean, name_readers
from estimators.embedding_norm import EmbeddingNorm
from estimators.trained_head import TrainedHead
from evaluation.embed import average_of_flip, estimate_batch
from evaluation.open_model import DEMO, LoadedModels, named, open_models
from models.heads.base import to_sigma_sq
from models.load import weights_sha256
from utils.cli import explain, say_error
from utils.distributed import PeerFailed, RankLost, World, in_job, is_main_process, start, stop
from utils.files import Json, file_sha256
from utils.long_work import Progress, StopRequest, UnreadableShare, threads
from utils.parts import PartStore
from utils.run import environment
from utils.tables import require_pyarrow

if TYPE_CHECKING:
    from utils.config import Execution, Precision

VERSION = 1
STOPPED = 130
_NAMES = 1024  # of the source's images, evenly spread, that its identity is taken from
ROUNDED = 0.01  # of an embedding's length; float16 rounds by about 0.0003
IN_FLIGHT = 2  # batches handed to the device whose results are not fetched yet

Result = Callable[[], Estimate]


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
        UnreadableShare(self.max_bad_share)

    @property
    def specs(self) -> list[str]:
        """All methods as they were written."""
        return [*filter(None, [self.model]), *self.methods] or ["embedding_norm"]


def extract(options: ExtractOptions) -> int:
    """Make this process's shards, in a part and a rank; return the exit code of the script."""
    try:
        world, device = start(options.device)
        job, store = _open_together(options, device, world)
    except (ValueError, OSError, PeerFailed, RankLost) as error:
        if is_main_process():
            say_error(explain(error))
        return 2
    part, parts = options.part
    what = "extract" if parts == 1 else f"part {part} of {parts}"
    if world.size > 1:
        what += f", rank {world.rank} of {world.size}"
    own = range((part - 1) * world.size + world.rank, len(job.shards), parts * world.size)
    with closing(store), StopRequest(second_interrupts=not in_job()) as request:
        return _work(job, own, what, request)


def _open_together(
    options: ExtractOptions, device: torch.device, world: World
) -> tuple[Extraction, PartStore]:
    """Open everything on every rank, claim the folder, and part.

    Raises:
        ValueError, OSError: a mistake, which the other ranks learn of.
        PeerFailed: a mistake of another rank.
        RankLost: another rank is gone.
    """
    try:
        part, parts = options.part
        number = (part - 1) * world.size + world.rank + 1
        job, store = _open(options, device, f"{number}-of-{parts * world.size}")
        world.barrier()
    except (ValueError, OSError) as error:
        world.fail(explain(error))
        stop(world)
        raise
    except PeerFailed:
        stop(world)
        raise
    stop(world)
    return job, store


def _open(
    options: ExtractOptions, device: torch.device, share: str
) -> tuple[Extraction, PartStore]:
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
        share=share,
        name=f"{SHARDS}/{{:06d}}",
        about=ABOUT,
        compared=_compared,
        way_out="give what it was made with, or name another --out",
    )
    store.claim()
    form, size = options.format, options.shard_images
    shards = ShardFolder(options.out, form, len(faces), size, models.names, store.settings)
    size = models.backbone.embedding_size
    return Extraction(options, faces, name_of, models.estimator, shards, size, device), store


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
        backbone_sha256 = weights_sha256(options.backbone_weights)
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
    limit, done = job.options.max_bad_share, dict[int, int]()
    for number in own:
        bad = shards.bad_of_done(number, limit, lambda line: _report(line, True))
        done |= {} if bad is None else {number: bad}
    todo = [number for number in own if number not in done]
    images = sum(stop - start for start, stop in map(shards.bounds, todo))
    if len(todo) < len(own):
        _report(f"{what}: {len(own) - len(todo)} of {len(own)} shards are done", shown)
    share, finished = UnreadableShare(limit), False
    with suppress(KeyboardInterrupt), Progress(what, images, shown=shown) as progress:
        finished = job.run(todo, progress, request, share)
    if not finished:
        why = ""
        if request.terminated and in_job():
            why = " by SIGTERM, which torchrun sends when another process has died"
        _report(f"stopped{why}; the same command resumes after the last complete shard", shown)
        return STOPPED
    for number, bad in done.items():
        share.add(len(range(*shards.bounds(number))), bad, f"those that {BAD} of a shard lists")
    share.judge()
    if gone := [n for n in own if not shards.path(n).exists()]:
        raise OSError(f"{shards.path(gone[0])} is gone: the same command makes it again")
    if (count := shards.count_done()) < len(shards):
        if shown:
            rest = "other processes or parts make the rest"
            sys.stdout.write(f"{shards.folder}: {count} of {len(shards)} shards are done; {rest}\n")
        return 0
    total_bad = shards.join_bad()  # by whichever process sees that all shards are there
    outcome = f"{total_bad} without embedding (see {BAD})" if total_bad else "all embedded"
    total = "1 shard" if len(shards) == 1 else f"{len(shards)} shards"
    sys.stdout.write(f"{shards.folder}: {shards.total} images, {outcome}; {total}\n")
    return 0


def _report(line: str, shown: bool) -> None:
    if shown:
        sys.stderr.write(f"{line}\n")


class ShardBatches:
    """Rows of the batches of some shards, in ascending order; no batch spans two.

    The last batch of a shard may have fewer images than the others.
    """

    def __init__(self, shards: ShardFolder, todo: Sequence[int], batch_size: int) -> None:
        self._shards, self._todo, self._size = shards, todo, batch_size
        self._per_shard = -(-shards.shard_images // batch_size)
        self.num_steps = sum(
            -(-(stop - start) // batch_size) for start, stop in map(shards.bounds, todo)
        )

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step."""
        which, batch = divmod(step, self._per_shard)
        start, stop = self._shards.bounds(self._todo[which])
        first = start + batch * self._size
        return np.arange(first, min(first + self._size, stop), dtype=np.int64)


@dataclass(frozen=True)
class Extraction:
    """What is to be done, opened.

    Attributes:
        options: how.
        faces: the source.
        name_of: what a row is called in the output.
        estimator: the methods.
        shards: the folder.
        embedding_size: D.
        device: of the backbone.
    """

    options: ExtractOptions
    faces: Faces
    name_of: Callable[[int], str]
    estimator: EstimatorGroup
    shards: ShardFolder
    embedding_size: int
    device: torch.device

    def run(
        self,
        todo: Sequence[int],
        progress: Callable[[int], Any],
        stop: StopRequest,
        share: UnreadableShare | None = None,
    ) -> bool:
        """Make shards; returns whether all were made, which a stop request prevents.

        Args:
            todo: their numbers, ascending.
            progress: called with the number of images of each batch.
            stop: looked at after every batch; a shard that is not complete is dropped.
            share: counts images, and those without embedding.

        Raises:
            ValueError: too many bad images, an embedding that float16 cannot hold, or an image
                without a score in a file of scores.
            OSError: a shard cannot be written, or the images are gone.
        """
        sampler = ShardBatches(self.shards, todo, self.options.batch_size)
        readers = name_readers(self.estimator)
        for number in todo if readers else ():  # a file without them, before hours of work
            for reader in readers:
                reader.check_names(self.names(number))
        lines: list[str] = []
        loader = BatchLoader(
            self.faces,
            sampler,
            range(sampler.num_steps),
            threads(self.options.workers),
            1.0,  # judged here, with those that give no embedding
            lines.append,
            pin=self.device.type == "cuda",
            replace_bad=False,
        )
        queue = DeviceQueue(self.estimator, flip=self.options.flip)
        pending: deque[tuple[LoadedBatch, list[str], Result]] = deque()
        share = share or UnreadableShare(self.options.max_bad_share)
        with _Writer(self, share) as writer, closing(iter(loader)) as batches:
            for batch in batches:
                rows = batch.rows.tolist()
                names = [one_line(self.name_of(row)) for row in rows] if readers else None
                result = queue.submit(batch.images, rows, names)
                pending.append((batch, lines.copy(), result))
                lines.clear()
                if len(pending) > IN_FLIGHT:
                    progress(writer.keep(*pending.popleft()))
                if stop.is_requested:
                    break
            while pending:
                progress(writer.keep(*pending.popleft()))
        self.faces.sizes.warn("--images")
        return not stop.is_requested or writer.made == len(todo)

    def names(self, number: int) -> list[str]:
        """Return the names of a shard's images."""
        return [one_line(self.name_of(row)) for row in range(*self.shards.bounds(number))]


class _Writer:
    """Fills one shard while the one before is written by a thread."""

    def __init__(self, job: Extraction, share: UnreadableShare) -> None:
        self._job, self._share = job, share
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._writing: Future[None] | None = None
        self._shard: Shard | None = None
        self._bad: dict[int, str] = {}
        self.made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True)
        if kind is None and self._writing is not None:
            self._writing.result()

    def keep(self, batch: LoadedBatch, lines: Sequence[str], result: Result) -> int:
        """Put a batch into its shard, and have the shard written when it is complete."""
        job = self._job
        number = int(batch.rows[0]) // job.shards.shard_images
        start, stop = job.shards.bounds(number)
        if self._shard is None:
            rows = np.arange(start, stop, dtype=np.int64)
            columns = len(job.shards.columns)
            self._shard, self._bad = empty(rows, job.embedding_size, columns, job.options.dtype), {}
        unread = np.flatnonzero(batch.missing)
        for row, line in zip(batch.rows[unread].tolist(), lines, strict=True):
            self._bad[row] = line.removeprefix(f"{job.faces.name(row)}: ")
        first = int(batch.rows[0]) - start
        self._fill(slice(first, first + len(batch.rows)), batch, result())
        bad = [row for row in batch.rows.tolist() if row in self._bad]
        example = f"{job.faces.name(bad[0])}: {self._bad[bad[0]]}" if bad else ""
        self._share.add(len(batch.rows), len(bad), example)
        if int(batch.rows[-1]) + 1 == stop:
            self._finish(number)
        return len(batch.rows)

    def _fill(self, places: slice, batch: LoadedBatch, estimate: Estimate) -> None:
        assert self._shard is not None
        mu, sigma_sq = estimate
        sound = are_directions(mu) & np.isfinite(sigma_sq).all(axis=1)
        for row in batch.rows[~sound & ~batch.missing].tolist():
            self._bad[row] = "the embedding is no direction, or a value is not finite"
        ok = sound & ~batch.missing
        stored = self._rounded(mu, ok, batch)
        self._shard.label[places] = batch.labels
        self._shard.ok[places] = ok
        self._shard.embedding[places][ok] = stored[ok]
        self._shard.uncertainty[places][ok] = sigma_sq[ok]

    def _rounded(
        self, mu: NDArray[np.float32], ok: NDArray[np.bool_], batch: LoadedBatch
    ) -> NDArray[np.floating]:
        """Return embeddings as they are stored; ValueError where float16 spoils one."""
        if self._job.options.dtype == "float32":
            return mu
        with np.errstate(over="ignore", invalid="ignore"):
            stored = mu.astype(np.float16)
            moved = np.linalg.norm(stored.astype(np.float32) - mu, axis=1)
            spoilt = ok & ~(moved <= ROUNDED * np.linalg.norm(mu, axis=1))
        if spoilt.any():
            name = self._job.faces.name(int(batch.rows[spoilt][0]))
            raise ValueError(
                f"{name}: the embedding's values are too large or too small for float16; name "
                "another --out and give --dtype float32"
            )
        return stored

    def _finish(self, number: int) -> None:
        shard, bad = self._shard, self._bad
        assert shard is not None
        if self._writing is not None:
            self._writing.result()
        self._writing = self._pool.submit(self._write, number, shard, bad)
        self._shard = None
        self.made += 1

    def _write(self, number: int, shard: Shard, bad: Mapping[int, str]) -> None:
        job = self._job
        names = job.names(number)
        first = int(shard.row[0])
        listed = [Bad(row, names[row - first], bad[row]) for row in sorted(bad)]
        facts: dict[str, Json] = {
            "device": job.device.type,
            "execution": job.options.execution,
            "batch_size": job.options.batch_size,
            "torch": torch.__version__,
        }
        job.shards.write(number, replace(shard, name=names), listed, facts)


class DeviceQueue:
    """Runs batches on the device ahead of their results, so that a GPU does not wait for the host.

    Estimates are those of `EstimatorGroup`, to the last bit; `flip` averages with the mirror image
    as `evaluation.embed.embed_pairs` does. Trained heads and embedding norms are queued on the
    device and fetched when their result is used; with any other method `submit` waits.
    """

    def __init__(self, estimator: EstimatorGroup, *, flip: bool) -> None:
        self.estimator, self.flip = estimator, flip
        members = estimator.members.values()
        queueing = [m for m in members if isinstance(m, TrainedHead | EmbeddingNorm)]
        self.queues = len(queueing) == len(members)
        self._frozen = queueing[0].frozen if queueing else None
        self._heads = [member.head.eval() for member in members if isinstance(member, TrainedHead)]

    def submit(self, images: Tensor, rows: Sequence[int], names: Sequence[str] | None) -> Result:
        """Start on a batch; the returned call waits for its estimate.

        Args:
            images: (B, 112, 112, 3) uint8 RGB on the CPU; pinned memory is copied without waiting
                and must not change until the result is there.
            rows: their numbers in the source.
            names: of the images; None where nothing reads them.
        """
        if not self.queues or self._frozen is None:
            batch = Batch(images.numpy(), rows, names)
            estimate = estimate_batch(self.estimator, batch, flip=self.flip)
            return lambda: estimate
        images = images.to(self._frozen.device, non_blocking=True)
        plain = self._queue(images)
        if not self.flip:
            return plain
        mirrored = self._queue(images.flip(2))
        return lambda: average_of_flip(plain(), mirrored())

    @torch.no_grad()
    def _queue(self, images: Tensor) -> Result:
        assert self._frozen is not None
        output = self._frozen(images)
        values = [to_sigma_sq(head(output).float(), head.output) for head in self._heads]
        fetched = _fetch([output.embedding, *values])
        return lambda: self._columns(*fetched())

    def _columns(self, mu: NDArray[np.float32], *values: NDArray[np.float32]) -> Estimate:
        of_heads = iter(values)
        columns = []
        for member in self.estimator.members.values():
            if isinstance(member, EmbeddingNorm):
                columns.append(-np.linalg.norm(mu, axis=1, keepdims=True))
                continue
            sigma_sq = next(of_heads)
            is_scalar = sigma_sq.shape[1] == 1
            columns.append(sigma_sq if is_scalar else harmonic_mean(sigma_sq)[:, None])
        return Estimate(mu, np.concatenate(columns, axis=1))


def _fetch(tensors: Sequence[Tensor]) -> Callable[[], list[NDArray[Any]]]:
    """Start copies to the host; the returned call waits for them."""
    device = tensors[0].device
    if device.type != "cuda":
        arrays = [tensor.cpu().numpy() for tensor in tensors]
        return lambda: arrays
    copies = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(device))

    def wait() -> list[NDArray[Any]]:
        copied.synchronize()
        return [copy.numpy() for copy in copies]

    return wait
