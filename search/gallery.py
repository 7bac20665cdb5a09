"""The references of a gallery: whose they are, their embeddings, and their pictures where known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.thresholds import Caution

Picture = Callable[[int], NDArray[np.uint8]]


@dataclass(frozen=True)
class Gallery:
    """M images with the people in them.

    Attributes:
        name: shown in messages and reports.
        unit: (M, D) float32 embeddings of length 1.
        uncertainty: (M,) larger = less reliable.
        person: (M,) who is shown: names or numbers.
        names: (M,) what each image is called.
        picture: row -> uint8 (112, 112, 3) RGB; None where there are no pictures.
        cautions: what is missing.
    """

    name: str
    unit: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    person: NDArray[np.str_] | NDArray[np.int64]
    names: Sequence[str]
    picture: Picture | None = None
    cautions: tuple[Caution, ...] = ()
