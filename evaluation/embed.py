"""Run estimators over the images of a set: images in, embeddings and uncertainties out.

`embed_images` takes any images, and resumes where it was stopped; `embed_pairs` takes pairs and
several estimators. An image that a set repeats is decoded and embedded once. The ranks of a job
share the work, and each gets all of the result, which is that of one process to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.faces import Images
from data.features import Features, checked_rows
from data.images import first_rows
from estimators.base import Batch, Estimate, Estimator, estimate_of, name_readers
from utils.arrays import read_npz
from utils.cli import explain
from utils.distributed import ALONE, World
from utils.files import Json
from utils.long_work import prefetch, threads
from utils.parts import PartStore

PART_IMAGES = 2048  # images per stored part: seconds to minutes of work
BATCHES = 6  # decoded or being decoded ahead, at most

Result = TypeVar("Result")
Span = tuple[int, int]  # of rows, the end not included


class ImagePairs(Images, Protocol):
    """N pairs of images, rows 2i and 2i+1 (`data.verification.VerificationSet` is one)."""

    @property
    def name(self) -> str:
        """Shown in messages and reports."""

    @property
    def mated(self) -> NDArray[np.bool_]:
        """(N,) whether both images show one person."""


def embed_pairs(
    estimators: Sequence[Estimator],
    pairs: ImagePairs,
    batch_size: int = 64,
    *,
    flip: bool = False,
    progress: bool | None = None,
    world: World = ALONE,
) -> list[Features]:
    """Embed a set of pairs for one or more estimators, which share each backbone's forward pass.

    Each gives what it would give alone, to the last bit. Equal images are embedded once
    (`plan_batches`), except for an estimator that looks them up by name. `flip` averages with the
    mirror image: embeddings are added before normalisation, as the original's test-time
    augmentation does, and uncertainties are averaged. A bar (`progress`) is shown on a terminal
    only, if that is None.

    Raises:
        ValueError: a bad batch size, an image that cannot be decoded, or an estimator that gives
            NaN; the message names the set, and is the same on every rank.
    """
    total = 2 * len(pairs.mated)
    if total == 0:
        raise ValueError(f"{pairs.name}: no pairs")
    work = _Work(estimators, pairs, total, batch_size, flip, pairs.name)
    estimates = work.run(work.plan(world), None, progress, world)
    return [Features(*estimate, pairs.mated) for estimate in estimates]


def embed_images(
    estimator: Estimator,
    images: Images,
    batch_size: int = 64,
    *,
    name: str,
    flip: bool = False,
    progress: bool | None = None,
    parts: str | Path | None = None,
    about: str = "",
    world: World = ALONE,
) -> Estimate:
    """Embeddings and uncertainties of M images; `flip` and `progress` as in `embed_pairs`.

    Finished parts of the work are kept in the folder `parts`. A run that was stopped resumes there,
    also with another number of ranks, and a finished one is read back. Batches are cut the same way
    after a stop, so that the result is the same too (unless the estimator draws random numbers in
    order). A rank takes whole parts, or batches where there is no folder. `about` is anything else
    that the result depends on, such as a checkpoint's hash: parts made with other words are
    refused.

    Returns:
        mu (M, D) and sigma_sq (M, c), finite, no embedding of length zero.

    Raises:
        ValueError: as `embed_pairs`; also parts of another set, estimator, batch size or `about`.
    """
    total = len(images)
    if total == 0:
        raise ValueError(f"{name}: no images")
    readers = name_readers(estimator)
    names = [images.image_name(row) for row in range(total)] if readers else []
    for reader in readers:
        reader.check_names(names)
    work = _Work([estimator], images, total, batch_size, flip, name, names or None)
    plan = work.plan(world)
    store = None
    if parts is not None:
        facts: dict[str, Json] = {
            "set": name,
            "images": total,
            "estimator": estimator.name,
            "batch_size": batch_size,
            "flip": flip,
            "about": about,
        }
        if plan.places is not None:
            facts["distinct"] = len(np.unique(plan.rows))
        share = f"{world.rank + 1}-of-{world.size}"
        store = PartStore(Path(parts), facts, share=share, name="part-{:09d}.npz")
        store.claim()
    try:
        (estimate,) = work.run(plan, store, progress, world)
    finally:
        if store is not None:
            store.close()
    return estimate


@dataclass(frozen=True)
class _Work:
    """Estimators over one set's images."""

    estimators: Sequence[Estimator]
    images: Images
    total: int
    batch_size: int
    flip: bool
    name: str
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size}: must be at least 1")

    def plan(self, world: World) -> Plan:
        """Plan the batches; where an estimator looks images up by name, each row is by itself."""
        if any(map(name_readers, self.estimators)):
            return plan_batches(np.arange(self.total), self.batch_size)
        shares = _spans(0, self.total, PART_IMAGES)
        own = shares[world.rank :: world.size]
        numbers = prefetch(self._fingerprints, own, threads(None), BATCHES)
        with closing(numbers):
            parts = list(_on_ranks(shares, own, lambda _: next(numbers), world))
        return plan_batches(first_rows(np.concatenate(parts)), self.batch_size)

    def run(
        self, plan: Plan, store: PartStore | None, progress: bool | None, world: World
    ) -> list[Estimate]:
        """Return each estimator's estimate for all images; `store` is for one estimator alone."""
        size = self.batch_size
        if store is not None:  # whole batches, so that they are the same after a stop
            size *= max(1, PART_IMAGES // size)
        shares = _spans(0, len(plan.rows), size)
        own = shares[world.rank :: world.size]
        missing = [share for share in own if store is None or not store.has(share[0])]
        batches = [
            plan.rows[slice(*span)] for share in missing for span in _spans(*share, self.batch_size)
        ]
        hidden = True if not world.is_main else None if progress is None else not progress
        bar = tqdm(
            total=sum(stop - start for start, stop in own),
            desc=self.name,
            unit="img",
            leave=False,
            disable=hidden,
        )
        decoded = prefetch(self._decode, batches, threads(None), BATCHES)

        def estimates_of(share: Span) -> list[Estimate]:
            if share not in missing:
                assert store is not None
                bar.update(share[1] - share[0])
                return [_load(store.path(share[0]), share)]
            parts = []
            for start, stop in _spans(*share, self.batch_size):
                parts.append(self._batch(next(decoded), plan.rows[start:stop]))
                bar.update(stop - start)
            estimates = [_joined(list(part)) for part in zip(*parts, strict=True)]
            if store is not None:
                store.write(share[0], lambda path: _save(path, estimates[0]))
            return estimates

        with bar, closing(decoded):
            each = _on_ranks(shares, own, estimates_of, world)
        if world.is_main:
            self.images.sizes.warn(self.name)
        return [plan.spread(_joined(list(part))) for part in zip(*each, strict=True)]

    def _fingerprints(self, span: Span) -> NDArray[np.uint64]:
        return np.array([self.images.fingerprint(row) for row in range(*span)], np.uint64)

    def _decode(self, batch: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode the images of a batch, each once."""
        distinct, places = np.unique(batch, return_inverse=True)
        runs = np.split(distinct, np.flatnonzero(np.diff(distinct) > 1) + 1)
        parts = [self.images.decode(int(run[0]), int(run[-1]) + 1) for run in runs]
        images = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return images if np.array_equal(distinct, batch) else images[places]

    def _batch(self, images: NDArray[np.uint8], batch_rows: NDArray[np.int64]) -> list[Estimate]:
        rows = batch_rows.tolist()
        batch = Batch(images, rows, self.names and [self.names[row] for row in rows])
        estimates = []
        for estimator in self.estimators:
            try:
                estimate = estimate_batch(estimator, batch, flip=self.flip)
                estimates.append(Estimate(*checked_rows(*estimate)))
            except ValueError as error:
                raise ValueError(
                    f"{self.name}, estimator {estimator.name}, images from {rows[0]} on: {error}"
                ) from error
        return estimates


class Plan(NamedTuple):
    """Which images are embedded, batch by batch.

    Attributes:
        rows: (K,) of the images.
        places: (M,) where among them each of the set's rows is; None where that is its own number.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.int64] | None

    def spread(self, estimate: Estimate) -> Estimate:
        """Return the estimate of all M rows."""
        if self.places is None:
            return estimate
        return Estimate(estimate.mu[self.places], estimate.sigma_sq[self.places])


def plan_batches(first: NDArray[np.int64], batch_size: int) -> Plan:
    """Plan batches in which an image comes once; `first` (M,) as `first_rows` gives it.

    The last digits of an embedding depend on how many images its batch has. So that they are those
    of all rows in order, batches keep their sizes: the images of the full ones fill full ones, the
    last of them with copies, and a smaller one at the end stays as it is. Unless the batch size is
    a multiple of 16, the last digits of some methods depend on the place in the batch too.
    """
    rest = len(first) % batch_size
    whole, last = np.split(first, [len(first) - rest])
    distinct, places = np.unique(whole, return_inverse=True)
    full = np.pad(distinct, (0, -len(distinct) % batch_size), "edge")
    if len(distinct) == len(whole):
        return Plan(np.concatenate([full, last]), None)
    places = np.concatenate([places, len(full) + np.arange(rest)])
    return Plan(np.concatenate([full, last]), places)


def estimate_batch(estimator: Estimator, batch: Batch, *, flip: bool) -> Estimate:
    """Estimate for a batch; `flip` as in `embed_pairs`."""
    plain = estimate_of(estimator, batch)
    return average_of_flip(plain, estimate_of(estimator, batch.mirrored())) if flip else plain


def average_of_flip(plain: Estimate, mirrored: Estimate) -> Estimate:
    """Join the estimates of images and of their mirror images, as `embed_pairs` says of `flip`."""
    mu = plain.mu + mirrored.mu
    length = np.linalg.norm(mu, axis=1, keepdims=True)
    return Estimate(
        np.divide(mu, length, out=np.zeros_like(mu), where=length > 0),
        (plain.sigma_sq + mirrored.sigma_sq) / np.float32(2),
    )


def _spans(start: int, stop: int, size: int) -> list[Span]:
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


def _on_ranks(
    shares: Sequence[Span],
    own: Sequence[Span],
    work: Callable[[Span], Result],
    world: World,
) -> Iterator[Result]:
    """Return the work's result for every share in order, on every rank.

    Raises:
        ValueError: of the work, on all ranks alike; of several, that of the earliest rows.
    """
    results: list[Result] = []
    problem: tuple[int, str] | None = None
    for share in own:
        try:
            results.append(work(share))
        except (ValueError, OSError) as error:
            if world.size == 1:
                raise
            problem = (share[0], explain(error))
            break
    gathered: list[tuple[list[Result], tuple[int, str] | None]]
    gathered = world.gather((results, problem))
    problems = [problem for _, problem in gathered if problem is not None]
    if problems:
        raise ValueError(min(problems)[1])
    return (gathered[k % world.size][0][k // world.size] for k in range(len(shares)))


def _load(path: Path, share: Span) -> Estimate:
    try:
        arrays = read_npz(path, ("mu", "sigma_sq"))
    except ValueError as error:
        raise ValueError(f"{error}: delete it") from error
    if {len(array) for array in arrays.values()} != {share[1] - share[0]}:
        raise ValueError(f"{path} has not the {share[1] - share[0]} images expected: delete it")
    return Estimate(arrays["mu"], arrays["sigma_sq"])


def _save(path: Path, estimate: Estimate) -> None:
    with path.open("wb") as file:
        np.savez(file, mu=estimate.mu, sigma_sq=estimate.sigma_sq)


def _joined(parts: list[Estimate]) -> Estimate:
    return Estimate(*map(np.concatenate, zip(*parts, strict=True)))
