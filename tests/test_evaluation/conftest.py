"""Golden sets of the original, and made-up ones, for the evaluation tests."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.sets.features import Features

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluation"


@pytest.fixture(scope="session")
def golden_dir():
    return GOLDEN


@pytest.fixture(scope="session")
def golden_features():
    """name -> Features of a golden set."""
    return {name: Features.load(GOLDEN / f"set_{name}.npz") for name in "CDHJ"}


@pytest.fixture(scope="session")
def golden_scores():
    """name -> the original's scores."""
    return {name: np.load(GOLDEN / f"set_{name}.npz")["cosine"] for name in "CDHJ"}


@pytest.fixture(scope="session")
def golden_numbers():
    """set/variant/column -> array."""
    with np.load(GOLDEN / "numbers.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def golden_texts():
    """set -> variant -> printed text."""
    return json.loads((GOLDEN / "texts.json").read_text())


@pytest.fixture
def made_up():
    """Return a function (pairs, seed) -> Features: mated pairs are near, uncertain ones less so."""

    def make(pairs=200, seed=0, columns=1):
        rng = np.random.default_rng(seed)
        issame = np.arange(pairs) % 2 == 0
        sigma_sq = rng.uniform(0.05, 1.0, (2 * pairs, columns)).astype(np.float32)
        person = rng.normal(size=(pairs, 16))
        other = np.where(issame[:, None], person, rng.normal(size=(pairs, 16)))
        mu = np.stack([person, other], axis=1).reshape(2 * pairs, 16)
        mu = mu + rng.normal(size=mu.shape) * sigma_sq[:, :1] * 1.5
        return Features(mu.astype(np.float32), sigma_sq, issame)

    return make


class TinyPairs:
    """A verification set of flat images: what `embed` and the contact sheet need of one."""

    name = "tiny"

    def __init__(self, pairs=12):
        self.mated = np.arange(pairs) % 2 == 0

    def decode(self, start, stop):
        images = np.zeros((stop - start, 112, 112, 3), np.uint8)
        for place, row in enumerate(range(start, stop)):
            images[place, :, :56] = row * 7 % 251
            images[place, :, 56:] = row * 13 % 241
        return images


@pytest.fixture
def tiny_pairs():
    return TinyPairs()
