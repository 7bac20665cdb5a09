"""Fuse the images of a template into one embedding and one uncertainty.

Frames of one video are pooled into one medium first, then the media into the template. NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import check_variances

Weights = Literal["mean", "inverse_variance", "quality", "norm"]
Fusion = Weights | Literal["detector", "norm_detector"]  # of an IJB set, which has detector scores
Score = Literal["cosine", "mls"]

FUSIONS: tuple[Fusion, ...] = (*get_args(Weights), "detector", "norm_detector")

ROWS_AT_ONCE = 4096  # bounds the memory of one step (16 MB per array of 512 columns)
LEAST_QUALITY = 1e-6  # so that a template of hopeless images still has a direction

_Array = NDArray[np.float64]


class Templates(NamedTuple):
    """T fused templates.

    Attributes:
        ids: (T,) int64 template numbers, ascending.
        mu: (T, D) float32 embeddings of length 1.
        sigma_sq: (T, c) float32 uncertainties, larger = less reliable.
    """

    ids: NDArray[np.int64]
    mu: NDArray[np.float32]
    sigma_sq: NDArray[np.float32]


class _Groups(NamedTuple):
    """Rows sorted by template and medium, and where each medium and each template starts."""

    order: NDArray[np.int64]
    ids: NDArray[np.int64]
    media: NDArray[np.int64]
    templates: NDArray[np.int64]


def fuse_templates(
    mu: NDArray[np.float32],
    sigma_sq: NDArray[np.float32],
    template: NDArray[np.integer],
    media: NDArray[np.integer],
    weights: Weights | NDArray[np.floating] = "inverse_variance",
    *,
    correlated: bool = True,
) -> Templates:
    """Fuse M images into T templates.

    An image counts by its weight w; embeddings are normalised before they are weighed.

    - "mean": w = 1.
    - "norm": w = length of the embedding (MagFace, arXiv 2103.06627), so raw embeddings are added.
    - "quality": w = 1 - uncertainty, for uncertainties that are probabilities (IDQ, PCNet).
    - an (M,) array: any weights of 0 or more, such as a detector's scores.
    - "inverse_variance": w = 1 / sigma_sq, for each dimension where there is a variance for each
      (Shi and Jain, PFE, arXiv 1904.09658, section 3.3).

    With the first four a medium is the weighted mean of its frames and counts by their mean weight;
    the template's uncertainty is the mean under the same weights. With "inverse_variance" media are
    independent observations: the template's variance is 1 / sum(1 / variance of medium).

    Args:
        mu: (M, D) embeddings of any length but zero.
        sigma_sq: (M, c) uncertainties, larger = less reliable.
        template: (M,) which template an image belongs to.
        media: (M,) which medium (photo or video) it is from; numbers need to be unique only
            within a template.
        weights: see above.
        correlated: frames of one medium say the same thing, so its variance is the smallest of
            theirs in each dimension (PFE's rule). False takes them as independent; then it makes
            no difference which frames belong together. Only for "inverse_variance".

    Raises:
        ValueError: shapes that do not fit, uncertainties that cannot give such weights, or a
            template without direction (all weights 0, or embeddings that cancel out).
    """
    _check(mu, sigma_sq, template, media, weights)
    groups = _group(template, media)
    count = len(groups.ids)
    fused = np.empty((count, mu.shape[1]), np.float32)
    spread = np.empty((count, sigma_sq.shape[1]), np.float32)
    for block, rows, media_starts, starts in _blocks(groups):
        sums = _Sums(media_starts, starts)
        unit, length = _normalised(mu, rows)
        sigma = sigma_sq[rows].astype(np.float64)
        if isinstance(weights, str) and weights == "inverse_variance":
            direction, spread[block] = sums.by_variance(unit, sigma, correlated=correlated)
        else:
            weight = _weights(weights, rows, length, sigma)
            direction, spread[block] = sums.by_weight(unit, sigma, weight)
        size = np.linalg.norm(direction, axis=1)
        _check_sizes(size, groups.ids[block])
        fused[block] = direction / size[:, None]
    return Templates(groups.ids, fused, spread)


class _Sums:
    """Sums over the media and the templates of one block of rows."""

    def __init__(self, media: NDArray[np.int64], templates: NDArray[np.int64]) -> None:
        self.media = media
        self.templates = np.searchsorted(media, templates)  # the first medium of each

    def by_variance(
        self, unit: _Array, sigma: _Array, *, correlated: bool
    ) -> tuple[_Array, _Array]:
        """(t, D) precision-weighted means and (t, c) posterior variances."""
        precision = 1 / sigma
        joint = np.add.reduceat(precision, self.media)
        believed = np.maximum.reduceat(precision, self.media) if correlated else joint
        media = np.add.reduceat(unit * precision, self.media) * (believed / joint)
        total = np.add.reduceat(believed, self.templates)
        return np.add.reduceat(media, self.templates) / total, 1 / total

    def by_weight(self, unit: _Array, sigma: _Array, weight: _Array) -> tuple[_Array, _Array]:
        """(t, D) weighted sums of media and (t, c) weighted mean uncertainties; weight (n, 1)."""
        frames = np.diff(self.media, append=len(unit))[:, None]
        direction, spread, total = (
            np.add.reduceat(np.add.reduceat(values, self.media) / frames, self.templates)
            for values in (unit * weight, sigma * weight, weight)
        )
        return direction, np.divide(spread, total, out=spread, where=total > 0)


def _weights(
    weights: str | NDArray[np.floating], rows: NDArray[np.int64], length: _Array, sigma: _Array
) -> _Array:
    if not isinstance(weights, str):
        return weights[rows, None].astype(np.float64)
    if weights == "quality":
        return np.maximum(1 - sigma, LEAST_QUALITY)
    return length if weights == "norm" else np.ones_like(length)


def _group(template: NDArray[np.integer], media: NDArray[np.integer]) -> _Groups:
    order = np.lexsort((media, template))
    first, second = template[order], media[order]
    new_template = np.ones(len(order), np.bool_)
    new_template[1:] = first[1:] != first[:-1]
    new_media = new_template.copy()
    new_media[1:] |= second[1:] != second[:-1]
    starts = np.flatnonzero(new_template)
    return _Groups(order, first[starts].astype(np.int64), np.flatnonzero(new_media), starts)


def _blocks(
    groups: _Groups,
) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Runs of whole templates: which ones, their rows, and the starts of media and templates."""
    ends = np.append(groups.templates[1:], len(groups.order))
    begin = 0
    while begin < len(ends):
        start = int(groups.templates[begin])
        stop = max(begin + 1, int(np.searchsorted(ends, start + ROWS_AT_ONCE, "right")))
        low, high = np.searchsorted(groups.media, (start, ends[stop - 1]))
        yield (
            slice(begin, stop),
            groups.order[start : ends[stop - 1]],
            groups.media[low:high] - start,
            groups.templates[begin:stop] - start,
        )
        begin = stop


def _normalised(mu: NDArray[np.float32], rows: NDArray[np.int64]) -> tuple[_Array, _Array]:
    values = mu[rows].astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    sound = np.isfinite(length) & (length > 0)
    if not sound.all():
        row = int(rows[np.argmin(sound)])
        raise ValueError(f"the embedding of image {row} has no direction (zero, NaN or infinite)")
    return values / length, length


def _check(
    mu: NDArray[np.float32],
    sigma_sq: NDArray[np.float32],
    template: NDArray[np.integer],
    media: NDArray[np.integer],
    weights: str | NDArray[np.floating],
) -> None:
    rows = len(mu)
    shapes = (len(sigma_sq), template.shape, media.shape)
    if mu.ndim != 2 or sigma_sq.ndim != 2 or shapes != (rows, (rows,), (rows,)) or not rows:
        raise ValueError(
            f"shapes do not fit: mu {mu.shape}, sigma_sq {sigma_sq.shape}, template "
            f"{template.shape}, media {media.shape}; expected (M, D), (M, c), (M,), (M,), M >= 1"
        )
    if not isinstance(weights, str):
        if weights.shape != (rows,) or not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError(
                f"weights must be {rows} finite numbers of 0 or more, one per image; got shape "
                f"{weights.shape}, lowest {min(weights.flat, default=np.nan):.6g}"
            )
    elif weights not in get_args(Weights):
        known = ", ".join(get_args(Weights))
        raise ValueError(f"unknown weights {weights!r} (known: {known}, or an array)")
    elif weights == "inverse_variance":
        check_variances(mu, sigma_sq, "fusion by inverse variance")
    elif weights == "quality":
        _check_probabilities(sigma_sq)


def _check_probabilities(sigma_sq: NDArray[np.float32]) -> None:
    low, high = sigma_sq.min(), sigma_sq.max()
    if sigma_sq.shape[1] != 1 or not (low >= 0 and high <= 1):
        raise ValueError(
            "fusion by quality takes 1 - uncertainty as weight, so it needs one uncertainty per "
            f"image within 0 to 1; got {sigma_sq.shape[1]} within {low:.6g} to {high:.6g}: use "
            "'mean', 'norm', 'inverse_variance' for variances, or weights of your own"
        )


def _check_sizes(size: _Array, ids: NDArray[np.int64]) -> None:
    if not (size > 0).all():
        raise ValueError(
            f"template {ids[np.argmin(size > 0)]} has no direction: the weights of its images are "
            "all 0, or their embeddings cancel out"
        )
