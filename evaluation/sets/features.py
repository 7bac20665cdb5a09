"""The arrays that an evaluation needs, checked once, and their file: of pairs, or with identities.

Any tool can write such a file with `numpy.savez`; reading it never unpickles anything.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAYS = ("mu", "sigma_sq", "issame")


@dataclass(frozen=True)
class Features:
    """Embeddings and uncertainties of the images of N pairs; rows 2i and 2i+1 are pair i.

    Attributes:
        mu: (2N, D) float32 embeddings of any length but zero.
        sigma_sq: (2N, c) float32 uncertainties, larger = less reliable.
        issame: (N,) whether both images show one person (a mated pair).

    Raises:
        ValueError: shapes that do not fit, values that are no numbers, embeddings of length zero.
    """

    mu: NDArray[np.float32]
    sigma_sq: NDArray[np.float32]
    issame: NDArray[np.bool_]

    def __post_init__(self) -> None:
        object.__setattr__(self, "issame", _labels(self.issame))
        _set_checked(self, self.mu, self.sigma_sq)
        rows = 2 * len(self.issame) if self.issame.ndim == 1 else -1
        _check_shapes(self.mu, self.sigma_sq, "issame", self.issame, rows)
        _check_lengths(self.mu)

    @classmethod
    def load(cls, path: str | Path) -> Features:
        """Read a file that `save` (or `numpy.savez`) wrote; further arrays in it are ignored.

        Raises:
            ValueError: no such file, not an .npz file, a missing array, or unsound arrays; the
                message names the file.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no features file {path}")
        try:
            return cls(**read_arrays(path, ARRAYS))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the arrays as compressed .npz under exactly this name."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, mu=self.mu, sigma_sq=self.sigma_sq, issame=self.issame)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings and uncertainties of M images, and who is in them.

    Attributes:
        mu: (M, D) float32 embeddings of any length but zero.
        sigma_sq: (M, c) float32 uncertainties, larger = less reliable.
        identity: (M,) int64; any names or whole numbers are taken, and names are numbered.
        name: (M,) text, what each image is called; None where that is not known.

    Raises:
        ValueError: shapes that do not fit, values that are no numbers, embeddings of length zero.
    """

    mu: NDArray[np.float32]
    sigma_sq: NDArray[np.float32]
    identity: NDArray[np.int64]
    name: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        _set_checked(self, self.mu, self.sigma_sq)
        object.__setattr__(self, "identity", _identities(self.identity))
        rows = len(self.identity)
        _check_shapes(self.mu, self.sigma_sq, "identity", self.identity, rows)
        _check_lengths(self.mu)
        if self.name is not None:
            object.__setattr__(self, "name", np.asarray(self.name, np.str_))
            if self.name.shape != (rows,):
                raise ValueError(f"{self.name.shape} names for {rows} images")

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read a file that `save` (or `numpy.savez`) wrote; `name` may be missing.

        Raises:
            ValueError: as `Features.load`.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no features file {path}")
        try:
            optional = ("name",) if "name" in array_names(path) else ()
            return cls(**read_arrays(path, ("mu", "sigma_sq", "identity", *optional)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the arrays as compressed .npz under exactly this name."""
        arrays = {"mu": self.mu, "sigma_sq": self.sigma_sq, "identity": self.identity}
        named: dict[str, Any] = arrays if self.name is None else {**arrays, "name": self.name}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, **named)


def checked_rows(
    mu: NDArray[np.floating], sigma_sq: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(M, D) embeddings and (M, c) uncertainties as float32; ValueError as for `Embeddings`."""
    rows = Embeddings(mu, sigma_sq, np.arange(len(mu)))
    return rows.mu, rows.sigma_sq


def array_names(path: Path) -> list[str]:
    """Names of the arrays of an .npz file.

    Raises:
        ValueError: not an .npz file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile:
        raise ValueError("not an .npz file (or one that was cut off)") from None


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read named arrays of an .npz file without unpickling.

    Raises:
        ValueError: not an .npz file, an array that is missing, or one that holds Python objects.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("not an .npz file (or one that was cut off)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                has = ", ".join(archive.files) or "nothing"
                raise ValueError(f"no array {', '.join(missing)} (it has: {has})")
            return {name: _array(archive, name) for name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"damaged .npz file ({error})") from error


def _array(archive: Any, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = archive[name]
    except ValueError as error:  # numpy's own words advise to load without the safeguard
        raise ValueError(f"array {name} holds pickled objects: refused") from error
    return array


def _numbers(name: str, values: Any) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {array.dtype}, not numbers")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(f"{name} has {bad} of {array.size} values that are NaN or infinite")
    return array


def _labels(values: Any) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise ValueError("issame must hold only true/false or 1/0")
    return array.astype(np.bool_)


def _set_checked(holder: Features | Embeddings, mu: Any, sigma_sq: Any) -> None:
    sigma_sq = np.asarray(sigma_sq)
    sigma_sq = sigma_sq[:, None] if sigma_sq.ndim == 1 else sigma_sq
    for name, values in (("mu", mu), ("sigma_sq", sigma_sq)):
        object.__setattr__(holder, name, _numbers(name, values))


def _check_shapes(
    mu: NDArray[Any], sigma_sq: NDArray[Any], name: str, labels: NDArray[Any], rows: int
) -> None:
    sound = mu.ndim == sigma_sq.ndim == 2 and labels.ndim == 1
    if not (sound and len(mu) == len(sigma_sq) == rows and mu.shape[1] and sigma_sq.shape[1]):
        expected = "(2N, D), (2N, c), (N,)" if name == "issame" else "(M, D), (M, c), (M,)"
        raise ValueError(
            f"shapes do not fit: mu {mu.shape}, sigma_sq {sigma_sq.shape}, {name} {labels.shape}; "
            f"expected {expected}"
        )


def _check_lengths(mu: NDArray[np.float32]) -> None:
    zero = np.flatnonzero(~mu.any(axis=1))
    if zero.size:
        raise ValueError(
            f"mu has {zero.size} embeddings of length zero, the first in row {zero[0]}: "
            "a cosine with them is undefined"
        )


def _identities(values: Any) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind in "US":
        return np.unique(array, return_inverse=True)[1].reshape(array.shape).astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"identity holds {array.dtype}, not names or whole numbers")
    return array.astype(np.int64)
