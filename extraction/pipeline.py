"""The pipeline of an extraction: faces in, shards out, in memory that does not grow.

Threads decode ahead, the device computes, and a thread writes the last shard meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.extracted import Bad, Shard
from data.faces import Faces
from data.loader import Batch as LoadedBatch
from data.loader import BatchLoader
from estimators.base import Batch, Estimate, EstimatorGroup, harmonic_mean, name_readers
from estimators.embedding_norm import EmbeddingNorm
from estimators.trained_head import TrainedHead
from evaluation.embed import average_of_flip, estimate_batch
from extraction.shards import ShardFolder, empty, one_line
from models.heads.base import to_sigma_sq
from utils.long_work import StopRequest

Result = Callable[[], Estimate]

ROUNDED = 0.01  # of an embedding's length; float16 rounds by about 0.0003
IN_FLIGHT = 2  # batches handed to the device whose results are not fetched yet


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
    """What is to be done, and how.

    Attributes:
        faces: the source.
        name_of: what a row is called in the output.
        estimator: the methods.
        shards: the folder.
        embedding_size: D.
        dtype: of stored embeddings, "float16" or "float32".
        batch_size: images per forward pass.
        workers: threads that decode.
        flip: average with the mirror image.
        max_bad_share: of the images of a full shard that may be bad.
        facts: stored with every shard.
        pin: read images into pinned memory, for a CUDA device.
    """

    faces: Faces
    name_of: Callable[[int], str]
    estimator: EstimatorGroup
    shards: ShardFolder
    embedding_size: int
    dtype: str
    batch_size: int
    workers: int
    flip: bool
    max_bad_share: float
    facts: Mapping[str, Any]
    pin: bool = False

    def run(self, todo: Sequence[int], progress: Callable[[int], Any], stop: StopRequest) -> bool:
        """Make shards; returns whether all were made, which a stop request prevents.

        Args:
            todo: their numbers, ascending.
            progress: called with the number of images of each batch.
            stop: looked at after every batch; a shard that is not complete is dropped.

        Raises:
            ValueError: too many bad images in a shard, an embedding that float16 cannot hold, or
                an image without a score in a file of scores.
            OSError: a shard cannot be written.
        """
        sampler = ShardBatches(self.shards, todo, self.batch_size)
        readers = name_readers(self.estimator)
        for number in todo if readers else ():  # a file without them, before hours of work
            for reader in readers:
                reader.check_names(self.names(number))
        lines: list[str] = []
        loader = BatchLoader(
            self.faces,
            sampler,
            range(sampler.num_steps),
            self.workers,
            1.0,  # judged here, shard by shard
            lines.append,
            pin=self.pin,
            replace_bad=False,
        )
        queue = DeviceQueue(self.estimator, flip=self.flip)
        pending: deque[tuple[LoadedBatch, list[str], Result]] = deque()
        with _Writer(self) as writer, closing(iter(loader)) as batches:
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
        return not stop.is_requested or writer.made == len(todo)

    def names(self, number: int) -> list[str]:
        """Return the names of a shard's images."""
        return [one_line(self.name_of(row)) for row in range(*self.shards.bounds(number))]


class _Writer:
    """Fills one shard while the one before is written by a thread."""

    def __init__(self, job: Extraction) -> None:
        self._job = job
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
            self._shard, self._bad = empty(rows, job.embedding_size, columns, job.dtype), {}
        unread = np.flatnonzero(batch.missing)
        for row, line in zip(batch.rows[unread].tolist(), lines, strict=True):
            self._bad[row] = line.removeprefix(f"{job.faces.name(row)}: ")
        first = int(batch.rows[0]) - start
        self._fill(slice(first, first + len(batch.rows)), batch, result())
        if int(batch.rows[-1]) + 1 == stop:
            self._finish(number)
        return len(batch.rows)

    def _fill(self, places: slice, batch: LoadedBatch, estimate: Estimate) -> None:
        assert self._shard is not None
        mu, sigma_sq = estimate
        sound = np.isfinite(mu).all(axis=1) & np.isfinite(sigma_sq).all(axis=1) & mu.any(axis=1)
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
        if self._job.dtype == "float32":
            return mu
        with np.errstate(over="ignore", invalid="ignore"):
            stored = mu.astype(self._job.dtype)
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
        job, shard, bad = self._job, self._shard, self._bad
        assert shard is not None
        if len(bad) > job.max_bad_share * job.shards.shard_images:
            row = min(bad)
            raise ValueError(
                f"{len(bad)} of {len(shard)} images of shard {number} are bad, more than "
                f"--max_bad_share {job.max_bad_share:g} of a shard allows, such as "
                f"{job.faces.name(row)}: {bad[row]}; the shard was not written"
            )
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
        job.shards.write(number, replace(shard, name=names), listed, job.facts)


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
