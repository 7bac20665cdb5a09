"""Run an estimator over the images of a verification set: images in, `Features` out.

Needs of the set only its name, its labels and decoded slices, so tests and tools can bring their
own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from evaluation.estimate import Estimate
from evaluation.features import Features

if TYPE_CHECKING:
    from evaluation.estimate import Estimator


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
) -> Features:
    """Embeddings and uncertainties of every image of a set.

    Args:
        estimator: any method; one with a true `reads_rows` also gets the number of the first row.
        images: the set.
        batch_size: images per call, at least 1.
        flip: average with the mirror image: embeddings are added before normalisation, as the
            original's test-time augmentation does, and uncertainties are averaged.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError: a bad batch size, an image that cannot be decoded, or an estimator that gives
            NaN; the message names the set.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: must be at least 1")
    total = 2 * len(images.mated)
    if total == 0:
        raise ValueError(f"{images.name}: no pairs")
    hide = None if progress is None else not progress
    parts: list[Estimate] = []
    with tqdm(total=total, desc=images.name, unit="img", leave=False, disable=hide) as bar:
        for start in range(0, total, batch_size):
            batch = images.decode(start, min(start + batch_size, total))
            parts.append(_estimate(estimator, batch, start, flip=flip))
            bar.update(len(batch))
    try:
        return Features(
            np.concatenate([part.mu for part in parts]),
            np.concatenate([part.sigma_sq for part in parts]),
            images.mated,
        )
    except ValueError as error:
        raise ValueError(f"{images.name}, estimator {estimator.name}: {error}") from error


def _estimate(
    estimator: Estimator, batch: NDArray[np.uint8], start: int, *, flip: bool
) -> Estimate:
    plain = _call(estimator, batch, start)
    if not flip:
        return plain
    mirrored = _call(estimator, np.ascontiguousarray(batch[:, :, ::-1]), start)
    mu = plain.mu + mirrored.mu
    length = np.linalg.norm(mu, axis=1, keepdims=True)
    return Estimate(
        np.divide(mu, length, out=np.zeros_like(mu), where=length > 0),
        (plain.sigma_sq + mirrored.sigma_sq) / np.float32(2),
    )


def _call(estimator: Estimator, batch: NDArray[np.uint8], start: int) -> Estimate:
    if getattr(estimator, "reads_rows", False):
        return estimator(batch, start)  # type: ignore[call-arg]
    return estimator(batch)
