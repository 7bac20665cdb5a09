"""Run an estimator over the images of a set: images in, embeddings and uncertainties out.

`embed` takes pairs, as training and the `.bin` scripts have them; `embed_images` takes any images,
and can be stopped and started again. Several processes can share the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from estimators.base import Batch, Estimate, name_readers
from evaluation._decode_ahead import DecodedAhead, Decodes
from evaluation._parts import Parts
from evaluation._shared_out import Span, each_on_one_rank, mine, spans
from evaluation.sets.features import Features, checked_rows
from utils.distributed import ALONE, World

if TYPE_CHECKING:
    from estimators.base import Estimator
    from evaluation.sets.open_set import Images

PART_IMAGES = 2048  # images per stored part: seconds to minutes of work


class ImagePairs(Protocol):
    """N pairs of images, rows 2i and 2i+1 (`data.verification.VerificationSet` is one)."""

    @property
    def name(self) -> str:
        """Shown in messages and reports."""

    @property
    def mated(self) -> NDArray[np.bool_]:
        """(N,) whether both images show one person."""

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images start..stop-1 as (n, 112, 112, 3) RGB."""


def embed(
    estimator: Estimator,
    images: ImagePairs,
    batch_size: int = 64,
    *,
    flip: bool = False,
    progress: bool | None = None,
    world: World = ALONE,
) -> Features:
    """Embeddings and uncertainties of every image of a set of pairs.

    Args:
        estimator: any method.
        images: the set.
        batch_size: images per call, at least 1.
        flip: average with the mirror image: embeddings are added before normalisation, as the
            original's test-time augmentation does, and uncertainties are averaged.
        progress: show a bar; None shows it on a terminal only.
        world: the ranks that share the work; every one of them gets all of the result, which is
            that of one process to the last bit.

    Raises:
        ValueError: a bad batch size, an image that cannot be decoded, or an estimator that gives
            NaN; the message names the set, and is the same on every rank.
    """
    (features,) = embed_each(
        [estimator], images, batch_size, flip=flip, progress=progress, world=world
    )
    return features


def embed_each(
    estimators: Sequence[Estimator],
    images: ImagePairs,
    batch_size: int = 64,
    *,
    flip: bool = False,
    progress: bool | None = None,
    world: World = ALONE,
) -> list[Features]:
    """`embed` for several estimators in one pass: each image is decoded once.

    Estimators with the same `frozen` backbone share its forward pass. What each gives is what
    `embed` gives, to the last bit.

    Args:
        estimators: at least one.
        images: as in `embed`, as are the others.
        batch_size: images per call.
        flip: average with the mirror image.
        progress: show a bar.
        world: the ranks that share the work.

    Returns:
        One for each estimator.

    Raises:
        ValueError: as `embed`.
    """
    total = 2 * len(images.mated)
    if total == 0:
        raise ValueError(f"{images.name}: no pairs")
    run = _Run(estimators, images, batch_size, flip)
    batches = spans(total, batch_size)
    with _bar(images.name, batches, progress, world) as bar, run.ahead(mine(batches, world)):
        found = each_on_one_rank(batches, lambda start, stop: run.over(start, stop, bar), world)
    each = [_joined(list(parts)) for parts in zip(*found, strict=True)]
    return [_features(one, by, images) for one, by in zip(each, estimators, strict=True)]


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
    """Embeddings and uncertainties of the images of an `EvaluationSet`.

    Args:
        estimator: any method.
        images: the set's.
        batch_size: images per call, at least 1.
        name: of the set, for messages and the bar.
        flip: as in `embed`.
        progress: as in `embed`.
        parts: folder in which finished parts of the work are kept. A run that was stopped goes on
            there, also with another number of ranks, and a finished one is read back. Batches are
            cut the same way after a stop, so that the result is the same too (unless the estimator
            draws random numbers in order).
        about: anything else that the result depends on, such as a checkpoint's hash; parts made
            with other words are refused.
        world: as in `embed`. With `parts` a rank takes whole parts, else batches.

    Returns:
        mu (M, D) and sigma_sq (M, c), finite, no embedding of length zero.

    Raises:
        ValueError: as `embed`; also parts of another set, estimator, batch size or `about`.
    """
    total = len(images)
    if total == 0:
        raise ValueError(f"{name}: no images")
    readers = name_readers(estimator)
    names = [images.image_name(row) for row in range(total)] if readers else None
    for reader in readers:
        reader.check_names(names or [])
    run = _Run([estimator], images, batch_size, flip, names)
    facts: dict[str, str | int | bool] = {
        "set": name,
        "images": total,
        "estimator": estimator.name,
        "batch_size": batch_size,
        "flip": flip,
        "about": about,
    }
    stored = None if parts is None else Parts(Path(parts), facts)
    blocks = spans(total, max(1, PART_IMAGES // batch_size) * batch_size)
    batches = stored is None and world.size > 1  # even shares, but checked only at the end
    shares = spans(total, batch_size) if batches else blocks

    def part(start: int, stop: int) -> Estimate:
        there = None if stored is None else stored.load(start, stop)
        if there is not None:
            bar.update(stop - start)
            return there
        (made,) = run.over(start, stop, bar)
        made = made if batches else _checked(made, name, estimator, start)
        if stored is not None:
            stored.save(start, made)
        return made

    missing = [one for one in mine(shares, world) if stored is None or not stored.there(one[0])]
    with _bar(name, shares, progress, world) as bar, run.ahead(missing):
        found = _joined(each_on_one_rank(shares, part, world))
    if not batches:
        return found
    return _joined([_checked(_rows(found, *block), name, estimator, block[0]) for block in blocks])


class _Run:
    """Estimators over one set's images."""

    def __init__(
        self,
        estimators: Sequence[Estimator],
        images: Decodes,
        batch_size: int,
        flip: bool,
        names: Sequence[str] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: must be at least 1")
        self.estimators, self.images = estimators, images
        self.batch_size, self.flip, self.names = batch_size, flip, names

    @contextmanager
    def ahead(self, shares: Sequence[Span]) -> Iterator[None]:
        """Decode, inside this context, what the shares need before it is their turn."""
        batches = [batch for start, stop in shares for batch in spans(stop, self.batch_size, start)]
        with DecodedAhead(self.images, batches) as self.images:
            yield

    def over(self, start: int, stop: int, bar: tqdm) -> list[Estimate]:
        """Each estimator's estimate for images [start, stop)."""
        found = []
        for first, last in spans(stop, self.batch_size, start):
            names = self.names and self.names[first:last]
            batch = Batch(self.images.decode(first, last), range(first, last), names)
            found.append([estimate_batch(one, batch, flip=self.flip) for one in self.estimators])
            bar.update(len(batch))
        return [_joined(list(parts)) for parts in zip(*found, strict=True)]


def _joined(found: list[Estimate]) -> Estimate:
    return Estimate(
        np.concatenate([part.mu for part in found]),
        np.concatenate([part.sigma_sq for part in found]),
    )


def _rows(found: Estimate, start: int, stop: int) -> Estimate:
    return Estimate(found.mu[start:stop], found.sigma_sq[start:stop])


def _features(found: Estimate, estimator: Estimator, images: ImagePairs) -> Features:
    try:
        return Features(found.mu, found.sigma_sq, images.mated)
    except ValueError as error:
        raise ValueError(f"{images.name}, estimator {estimator.name}: {error}") from error


def _bar(name: str, found: Sequence[Span], progress: bool | None, world: World) -> tqdm:
    """Make a bar of this rank's images; the main rank alone shows it."""
    hide = None if progress is None else not progress
    total = sum(stop - start for start, stop in mine(found, world))
    return tqdm(
        total=total, desc=name, unit="img", leave=False, disable=hide if world.is_main else True
    )


def _checked(part: Estimate, name: str, estimator: Estimator, start: int) -> Estimate:
    try:
        return Estimate(*checked_rows(part.mu, part.sigma_sq))
    except ValueError as error:
        raise ValueError(
            f"{name}, estimator {estimator.name}, images from {start} on: {error}"
        ) from error


def estimate_batch(estimator: Estimator, batch: Batch, *, flip: bool) -> Estimate:
    """Estimate for a batch; `flip` as in `embed`."""
    plain = estimator(batch)
    return average_of_flip(plain, estimator(batch.mirrored())) if flip else plain


def average_of_flip(plain: Estimate, mirrored: Estimate) -> Estimate:
    """Join the estimates of images and of their mirror images, as `embed` says of `flip`."""
    mu = plain.mu + mirrored.mu
    length = np.linalg.norm(mu, axis=1, keepdims=True)
    return Estimate(
        np.divide(mu, length, out=np.zeros_like(mu), where=length > 0),
        (plain.sigma_sq + mirrored.sigma_sq) / np.float32(2),
    )
