"""The arrays that an evaluation needs, checked once, and their file: of pairs, or with identities.

Any tool can write such a file with `numpy.savez`; reading it never unpickles anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.arrays import Array, npz_names, read_npz
from utils.files import atomic_file, naming

_GATHERED = 1 << 22  # numbers per side that cosines holds at a time
ROWS_AT_ONCE = 4096  # bounds the memory of one step
SHORTEST, LONGEST = 1e-15, 1e15  # embeddings: beyond, float32 cannot hold the squares of lengths


class _Stored:
    """Arrays in an `.npz` file, under the names of the fields."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` (or `numpy.savez`) wrote; further arrays in it are ignored.

        Raises:
            ValueError: no such file, not an .npz file, a missing array, or unsound arrays; the
                message names the file.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no features file {path}")
        with naming(path):
            optional = {"name"} - set(npz_names(path))
            names = [name for name in cls.__annotations__ if name not in optional]
            return cls(**read_npz(path, names))

    def save(self, path: str | Path) -> None:
        """Write the arrays as compressed .npz under exactly this name."""
        arrays: dict[str, Array] = {
            name: array for name, array in vars(self).items() if array is not None
        }
        with atomic_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)


@dataclass(frozen=True)
class Features(_Stored):
    """Embeddings and uncertainties of the images of N pairs; rows 2i and 2i+1 are pair i.

    Attributes:
        mu: (2N, D) float32 embeddings of any length, see `are_directions`.
        sigma_sq: (2N, c) float32 uncertainties, larger = less reliable.
        issame: (N,) whether both images show one person (a mated pair).

    Raises:
        ValueError: shapes that do not fit, values that are not numbers, embeddings that are not
            `are_directions`.
    """

    mu: NDArray[np.float32]
    sigma_sq: NDArray[np.float32]
    issame: NDArray[np.bool_]

    def __post_init__(self) -> None:
        same = np.asarray(self.issame)
        if same.dtype.kind not in "biuf" or not np.isin(same, (0, 1)).all():
            raise ValueError("issame must hold only true/false or 1/0")
        object.__setattr__(self, "issame", same.astype(np.bool_))
        _check_rows(self, "issame", self.issame, 2)


@dataclass(frozen=True)
class Embeddings(_Stored):
    """Embeddings and uncertainties of M images, and who is in them.

    Attributes:
        mu: (M, D) float32 embeddings of any length, see `are_directions`.
        sigma_sq: (M, c) float32 uncertainties, larger = less reliable.
        identity: (M,) int64; any names or whole numbers are taken, and names are numbered.
        name: (M,) text, what each image is called; None where that is not known.

    Raises:
        ValueError: shapes that do not fit, values that are not numbers, embeddings that are not
            `are_directions`.
    """

    mu: NDArray[np.float32]
    sigma_sq: NDArray[np.float32]
    identity: NDArray[np.int64]
    name: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        people = np.asarray(self.identity)
        if people.dtype.kind in "US":
            people = np.unique(people, return_inverse=True)[1].reshape(people.shape)
        elif people.dtype.kind not in "iu":
            raise ValueError(f"identity holds {people.dtype}, not names or whole numbers")
        object.__setattr__(self, "identity", people.astype(np.int64))
        _check_rows(self, "identity", self.identity, 1)
        if self.name is not None:
            object.__setattr__(self, "name", np.asarray(self.name, np.str_))
            if self.name.shape != self.identity.shape:
                raise ValueError(f"{self.name.shape} names for {len(self.identity)} images")


def checked_rows(
    mu: NDArray[np.floating], sigma_sq: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(M, D) embeddings and (M, c) uncertainties as float32; ValueError as for `Embeddings`."""
    rows = Embeddings(mu, sigma_sq, np.arange(len(mu)))
    return rows.mu, rows.sigma_sq


def _check_rows(holder: Features | Embeddings, name: str, labels: Array, per_label: int) -> None:
    """Make mu and sigma_sq float32 in two dimensions, and check them against the labels."""
    mu, sigma_sq = (_numbers(key, getattr(holder, key)) for key in ("mu", "sigma_sq"))
    sigma_sq = sigma_sq[:, None] if sigma_sq.ndim == 1 else sigma_sq
    fits = mu.ndim == sigma_sq.ndim == 2 and labels.ndim == 1 and mu.shape[1] and sigma_sq.shape[1]
    if not (fits and len(mu) == len(sigma_sq) == per_label * len(labels)):
        expected = "(2N, D), (2N, c), (N,)" if per_label == 2 else "(M, D), (M, c), (M,)"
        raise ValueError(
            f"shapes do not fit: mu {mu.shape}, sigma_sq {sigma_sq.shape}, {name} {labels.shape}; "
            f"expected {expected}"
        )
    _require_directions(mu)
    object.__setattr__(holder, "mu", mu)
    object.__setattr__(holder, "sigma_sq", sigma_sq)


def are_directions(mu: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(M,) whether embeddings (M, D) are finite, with lengths from `SHORTEST` to `LONGEST`."""
    mu = np.asarray(mu, np.float32)
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", mu, mu)
    directions: NDArray[np.bool_] = (squares >= SHORTEST**2) & (squares <= LONGEST**2)
    return directions


def _require_directions(mu: NDArray[np.floating]) -> None:
    bad = np.flatnonzero(~are_directions(mu))
    if bad.size:
        raise ValueError(
            f"mu has {bad.size} embeddings of length zero, NaN or infinity, or not within "
            f"{SHORTEST:g} to {LONGEST:g}, the first in row {bad[0]}: a cosine with them is "
            "undefined"
        )


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {array.dtype}, not numbers")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32, copy=False)
    bad = numbers.size - int(np.isfinite(numbers).sum())
    if bad:
        raise ValueError(f"{name} has {bad} of {numbers.size} values that are NaN or infinite")
    return numbers


def unit_rows(mu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale (M, D) embeddings to length 1, in float32 as `scores.cosine_of_pairs` does.

    Raises:
        ValueError: embeddings that are not `are_directions`.
    """
    mu = np.asarray(mu, np.float32)
    _require_directions(mu)
    return mu / np.sqrt((mu**2).sum(axis=1, keepdims=True))


def cosines(unit: NDArray[np.float32], pairs: NDArray[np.integer]) -> NDArray[np.float32]:
    """Cosine of each pair of rows, in blocks of bounded memory.

    A pair's score does not depend on the pairs around it, and is what `scores.cosine_of_pairs`
    gives to the last bit.

    Args:
        unit: (M, D) embeddings of length 1 (`unit_rows`).
        pairs: (P, 2) row numbers.

    Returns:
        (P,) float32.
    """
    scores = np.empty(len(pairs), np.float32)
    step = max(1, _GATHERED // unit.shape[1])
    for start in range(0, len(pairs), step):
        block = pairs[start : start + step]
        product = unit[block[:, 0]]
        product *= unit[block[:, 1]]
        product.sum(axis=1, out=scores[start : start + len(block)])
    return scores


def equal_rows(mu: NDArray[np.float32]) -> NDArray[np.int64]:
    """(M,) the same number for rows with the same bits, by a 64-bit sum of products.

    Odd random factors and wrapping sums: two different rows of a million share a number with a
    chance below 1e-7.
    """
    factors = np.random.default_rng(0).integers(2**63, size=mu.shape[1], dtype=np.uint64) * 2 + 1
    sums = np.empty(len(mu), np.uint64)
    for start in range(0, len(mu), ROWS_AT_ONCE):
        block = np.ascontiguousarray(mu[start : start + ROWS_AT_ONCE])
        words = block.view(np.uint32).astype(np.uint64)
        sums[start : start + len(block)] = (words * factors).sum(axis=1, dtype=np.uint64)
    _, first, same = np.unique(sums, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))  # in order of appearance, as in a set
    return number[same]
