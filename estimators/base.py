"""The one thing that the evaluation pipeline needs of a method: images in, two arrays out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Estimate(NamedTuple):
    """What an estimator says of B images.

    Attributes:
        mu: (B, D) float32 embeddings; their length does not matter, scores are cosines.
        sigma_sq: (B, c) float32 uncertainties, larger = less reliable (the file format's name);
            c is 1 for most methods and D for per-dimension variances.
    """

    mu: NDArray[np.float32]
    sigma_sq: NDArray[np.float32]


class Estimator(Protocol):
    """A method that gives embeddings and uncertainties; owns its device, gradients and seed."""

    name: str

    def __call__(self, images: NDArray[np.uint8]) -> Estimate:
        """Estimate for (B, 112, 112, 3) RGB images."""
        ...
