"""Rendered faces with known degradations, in the formats of real data: nothing to download.

python data/synthetic.py --out faces --format folder --identities 100 --images 12     (or rec, bin)
python data/synthetic.py --sheet sheet.png                      a page that shows what is rendered
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.images import encode_jpeg, encode_png
from data.rendered.identity import HAIR_STYLES, Identity
from data.rendered.render import SIZE, render
from data.rendered.variation import DEGRADATIONS, Degradation, Variation
from utils.files import write_bytes

if TYPE_CHECKING:
    from data.verification import VerificationSet

__all__ = [
    "DEGRADATIONS",
    "HAIR_STYLES",
    "Degradation",
    "Identity",
    "SyntheticFaces",
    "Variation",
    "contact_sheet",
    "degradation_sweep",
    "main",
    "render",
    "synthetic_verification",
]

CACHE_BYTES = 256 << 20  # of rendered images kept by one SyntheticFaces: the first 7133
_IMAGES_PER_TEST_IDENTITY = 8


class SyntheticFaces:
    """N = identities x images rendered faces; row r shows identity r // images.

    The same arguments give the same pixels. An image is rendered when it is first read and kept,
    the first `CACHE_BYTES` of them, in memory that is taken as it fills.

    Args:
        identities: number of people; those of another seed are other people.
        images: of each.
        seed: names the population.
        severity: scales the strength of all degradations, from 0 (all clean) to 1.

    Attributes:
        labels: (N,) int64.
        num_classes: identities.

    Raises:
        ValueError: a count below 1, a negative seed, or a severity outside [0, 1].
    """

    def __init__(self, identities: int, images: int, seed: int = 0, severity: float = 1.0) -> None:
        _check(severity, identities=identities, images=images, seed=seed)
        self.num_classes, self.images, self.seed, self.severity = identities, images, seed, severity
        self.labels = np.repeat(np.arange(identities, dtype=np.int64), images)
        kept = min(len(self), CACHE_BYTES // (SIZE * SIZE * 3))
        self._pixels = np.zeros((kept, SIZE, SIZE, 3), dtype=np.uint8)
        self._rendered = np.zeros(kept, dtype=bool)

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

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Do nothing: there is no file."""


def synthetic_verification(
    pairs: int, seed: int = 1, identities: int | None = None, severity: float = 1.0
) -> VerificationSet:
    """Render a verification set: mated and non-mated pairs in turn, every image another one.

    Args:
        pairs: number of pairs.
        seed: names the population; choose another one than for training.
        identities: number of people, by default one for every four pairs and at least two.
        severity: scales the strength of all degradations.

    Returns:
        A set whose images are JPEG (quality 95) bytes.

    Raises:
        ValueError: a count below 1 (identities: below 2), a negative seed, or a bad severity.
    """
    from data.verification import VerificationSet

    images, mated = _verification_images(pairs, seed, identities, severity)
    name = f"synthetic:pairs={pairs},seed={seed}"
    name += "" if identities is None else f",identities={identities}"
    name += "" if severity == 1 else f",severity={severity}"
    return VerificationSet(name, list(images), mated)


def _verification_images(
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
    """Render the same images at rising strengths of one degradation.

    Args:
        kind: one of `DEGRADATIONS`.
        levels: L strengths in [0, 1].
        identities: n people, one image of each, otherwise clean.
        seed: names the population.

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


def main(argv: Sequence[str] | None = None) -> int:
    """Write rendered faces as image folders, a pack or a verification set, or a contact sheet."""
    parser = argparse.ArgumentParser(prog="synthetic.py", description=main.__doc__)
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--format", choices=("folder", "rec", "bin"), default="folder")
    parser.add_argument("--identities", type=int, help="people; default: 100, for bin pairs / 4")
    parser.add_argument("--images", type=int, default=12, help="of each identity")
    parser.add_argument("--pairs", type=int, default=3000, help="for bin")
    parser.add_argument("--seed", type=int, default=0, help="names the population")
    parser.add_argument("--severity", type=float, default=1.0, help="of degradations, 0 to 1")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet (PNG) to this file")
    options = parser.parse_args(argv)
    if options.out is None and options.sheet is None:
        parser.error("nothing to do: give --out DIR, --sheet FILE or both")
    try:
        if options.sheet is not None:
            write_bytes(options.sheet, encode_png(contact_sheet(options.seed)))
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            {"folder": _write_folder, "rec": _write_pack, "bin": _write_bin}[options.format](
                options
            )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"synthetic.py: {error}\n")
        return 2
    return 0


def _write_folder(options: argparse.Namespace) -> None:
    faces = _faces(options)
    for row in _progress(range(len(faces)), options.out):
        path = options.out / f"{row // faces.images:05d}" / f"{row % faces.images:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_jpeg(faces.read(row)))


def _write_pack(options: argparse.Namespace) -> None:
    from data.recordio import RecordWriter

    faces = _faces(options)
    with RecordWriter(options.out / "train") as writer:
        for row in _progress(range(len(faces)), options.out / "train.rec"):
            writer.write_image(
                int(faces.labels[row]), encode_jpeg(faces.read(row)), faces.name(row)
            )


def _write_bin(options: argparse.Namespace) -> None:
    from data.verification import write_bin

    images, mated = _verification_images(
        options.pairs, options.seed, options.identities, options.severity
    )
    path = options.out / "synthetic.bin"
    write_bin(path, list(_progress(images, path, 2 * len(mated))), mated)


_WRITERS = {"folder": _write_folder, "rec": _write_pack, "bin": _write_bin}


def _faces(options: argparse.Namespace) -> SyntheticFaces:
    identities = 100 if options.identities is None else options.identities
    return SyntheticFaces(identities, options.images, options.seed, options.severity)


def _progress(items: Iterable[Any], path: Path, total: int | None = None) -> Iterable[Any]:
    return tqdm(items, desc=str(path), total=total, unit="face", disable=None)


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


if __name__ == "__main__":
    sys.exit(main())
