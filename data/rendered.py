"""Rendered faces as a data set: identities x images, verification pairs, rising degradations."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import SIZE, Sizes, encode_jpeg, fingerprint
from data.rendered_drawing import render
from data.rendered_person import DEGRADATIONS, Degradation, Identity, Variation
from utils.config import parse_method

CACHE_BYTES = 256 << 20  # of rendered images in the cache of one SyntheticFaces: the first 7133
_IMAGES_PER_TEST_IDENTITY = 8


class SyntheticFaces:
    """N = identities x images rendered faces; row r shows identity r // images.

    The same arguments give the same pixels. An image is rendered when it is first read; a
    cache holds the first `CACHE_BYTES` of them, in memory that is taken as it fills.

    Args:
        identities: number of people; those of another seed are other people.
        images: of each.
        seed: names the population.
        severity: scales the strength of all degradations, from 0 (all clean) to 1.

    Attributes:
        labels: (N,) int64.
        num_classes: identities.
        sizes: of nothing, since every image is 112x112.

    Raises:
        ValueError: a count below 1, a negative seed, or a severity outside [0, 1].
    """

    def __init__(self, identities: int, images: int, seed: int = 0, severity: float = 1.0) -> None:
        _check(severity, identities=identities, images=images, seed=seed)
        self.num_classes, self.images, self.seed, self.severity = identities, images, seed, severity
        self.labels = np.repeat(np.arange(identities, dtype=np.int64), images)
        self.sizes = Sizes()
        cached = min(len(self), CACHE_BYTES // (SIZE * SIZE * 3))
        self._pixels = np.zeros((cached, SIZE, SIZE, 3), dtype=np.uint8)
        self._rendered = np.zeros(cached, dtype=bool)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return what a message calls this image: `synthetic:SEED/identity/image`."""
        return f"synthetic:{self.seed}/{row // self.images:05d}/{row % self.images:03d}"

    def identity(self, row: int) -> Identity:
        """Return who the row shows."""
        return _identity(self.seed, row // self.images)

    def variation(self, row: int) -> Variation:
        """Return the row's conditions, with the strength of each degradation."""
        return Variation.draw(self.seed, row // self.images, row % self.images, self.severity)

    def degradation(self, row: int) -> float:
        """Return how degraded the row is, from 0 (clean) to 1: `Variation.degradation`."""
        return self.variation(row).degradation

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return (112, 112, 3) RGB, not writable where it is the cached one."""
        if row >= len(self._pixels):
            return render(self.identity(row), self.variation(row))
        if not self._rendered[row]:
            self._pixels[row] = render(self.identity(row), self.variation(row))
            self._rendered[row] = True
        image = self._pixels[row]
        image.flags.writeable = False
        return image

    def read_into(self, row: int, out: NDArray[np.uint8]) -> None:
        """Do what `read` does, into `out` (112, 112, 3)."""
        out[...] = self.read(row)

    def fingerprint(self, row: int) -> int:
        """Return a number of the row's own: no two images are the same."""
        return fingerprint(f"{self.severity} {self.name(row)}".encode())

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Do nothing: no file is read."""


@cache
def mean_face() -> NDArray[np.float32]:
    """Return (112, 112, 3) RGB, the mean of 64 clean rendered faces: a plain face of nobody."""
    faces = SyntheticFaces(64, 1, seed=5, severity=0.0)
    return np.mean([faces.read(row) for row in range(len(faces))], axis=0, dtype=np.float32)


def raw_photo(faces: SyntheticFaces, row: int) -> NDArray[np.uint8]:
    """Return a photo (300, 400, 3) that shows a face at a size and place of its own."""
    rng = np.random.default_rng((faces.seed, row, 5))
    colours = rng.integers(60, 200, (3, 4, 3)).astype(np.uint8)
    photo = cv2.resize(colours, (400, 300), interpolation=cv2.INTER_CUBIC)
    side = int(rng.integers(100, 220))
    left, top = (int(rng.integers(10, length - side - 10)) for length in (400, 300))
    face = cv2.resize(faces.read(row), (side, side), interpolation=cv2.INTER_CUBIC)
    edge = np.minimum(np.arange(side), np.arange(side)[::-1]) / (0.1 * side)
    cover = np.minimum.outer(edge, edge).clip(0, 1)[..., None]
    part = photo[top : top + side, left : left + side]
    part[:] = np.rint(part * (1 - cover) + face * cover)
    return np.asarray(photo, dtype=np.uint8)


def verification_images(
    pairs: int, seed: int, identities: int | None, severity: float
) -> tuple[Iterator[bytes], NDArray[np.bool_]]:
    """Return the encoded images, two for each pair, as they are rendered, and who is mated."""
    if identities is None:
        identities = max(2, 2 * pairs // _IMAGES_PER_TEST_IDENTITY)
    _check(severity, pairs=pairs, identities=identities, seed=seed)
    if identities < 2:
        raise ValueError(f"identities = {identities}: a non-mated pair needs at least 2")
    mated = np.arange(pairs) % 2 == 0
    rng = np.random.default_rng((seed, 4))
    first = rng.integers(identities, size=pairs)
    other = (first + rng.integers(1, identities, size=pairs)) % identities
    people = np.stack([first, np.where(mated, first, other)], axis=1).ravel()

    def rendered() -> Iterator[bytes]:
        for image, person in enumerate(people.tolist()):
            variation = Variation.draw(seed, person, image, severity)
            yield encode_jpeg(render(_identity(seed, person), variation))

    return rendered(), mated


def degradation_sweep(
    kind: Degradation, levels: Sequence[float], identities: int, seed: int = 2
) -> NDArray[np.uint8]:
    """Render one image each of n people at L rising strengths of one degradation, otherwise clean.

    Returns:
        (L, n, 112, 112, 3) RGB.

    Raises:
        ValueError: an unknown kind (the message lists the known ones), or a strength out of range.
    """
    if kind not in DEGRADATIONS:
        raise ValueError(f"no degradation {kind!r} (known: {', '.join(DEGRADATIONS)})")
    images = np.empty((len(levels), identities, SIZE, SIZE, 3), dtype=np.uint8)
    for person in range(identities):
        clean = Variation.draw(seed, person, 0, severity=0.0)
        for step, level in enumerate(levels):
            strength: dict[str, Any] = {kind: float(level)}
            degraded = dataclasses.replace(clean, **strength)
            images[step, person] = render(_identity(seed, person), degraded)
    return images


def contact_sheet(seed: int = 0, columns: int = 12) -> NDArray[np.uint8]:
    """Return a page (RGB): identities, their images as drawn, and each degradation rising."""
    rows = [
        [render(_identity(seed, row * columns + column), Variation()) for column in range(columns)]
        for row in range(4)
    ]
    drawn = SyntheticFaces(4, columns, seed)
    rows += [
        [drawn.read(row) for row in range(start, start + columns)]
        for start in range(0, len(drawn), columns)
    ]
    levels = np.linspace(0, 1, columns).tolist()
    for person, kind in enumerate(DEGRADATIONS):
        rows.append(list(degradation_sweep(kind, levels, len(DEGRADATIONS), seed)[:, person]))
    return np.vstack([np.hstack(row) for row in rows])


def synthetic_options(source: str, target: Callable[..., object]) -> dict[str, Any]:
    """Return the options of `synthetic:key=number,...`, checked against what the target takes.

    Raises:
        ValueError: not `key=number`, an unknown key, or a missing one.
    """
    options, takes = parse_method(source).options, inspect.signature(target).parameters
    numbers = {
        key: value
        for key, value in options.items()
        if key in takes and isinstance(value, (int, float))
    }
    for key in options.keys() - numbers.keys():
        raise ValueError(
            f"{source}: {key}={options[key]} is not key=number with a key of: {', '.join(takes)}"
        )
    missing = [
        name
        for name, parameter in takes.items()
        if parameter.default is parameter.empty and name not in numbers
    ]
    if missing:
        raise ValueError(f"{source}: {', '.join(missing)} missing (write {missing[0]}=NUMBER)")
    return numbers


def _check(severity: float, seed: int, **counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} = {count!r}: must be a whole number of at least 1")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed = {seed!r}: must be a whole number of at least 0")
    if not 0 <= severity <= 1:
        raise ValueError(f"severity = {severity}: must be in [0, 1]")


@lru_cache(maxsize=4096)
def _identity(seed: int, index: int) -> Identity:
    return Identity.draw(seed, index)
