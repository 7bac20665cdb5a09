"""What an exported file gives against what PyTorch gives, for the same faces, and how fast.

export/onnx_export.py refuses a file by it; benchmarks/onnx.py prints the same numbers.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from estimators.base import Batch, Estimate, Estimator
from estimators.onnx import OnnxModel
from evaluation.confidence.calibration import Calibration
from evaluation.embed import embed_images
from evaluation.metrics.curve import protocol_curve
from evaluation.sets.open_set import EvaluationSet

BATCHES = (1, 3, 32)
TIMED = (1, 32)
FMR = 1e-3
LIMIT = 0.3  # of the discarded share, for the area
_FEW = 10  # batches of the small sizes


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two engines' results for the same faces.

    Attributes:
        faces: how many.
        cosine: the smallest between the two embeddings of a face; None without embeddings.
        mean_cosine: of all faces; None without embeddings.
        embedding: the largest difference of an embedding's entry; None without embeddings.
        uncertainty: the largest difference.
        relative: the largest difference of uncertainties, divided by them.
        rank_correlation: Spearman's, of the uncertainties.
        equal_quality: share of faces with the same quality; None without calibration.
        maps: largest difference of percentile, 100 x probability and quality from what the
            calibration says of the file's own uncertainties; None without calibration.
    """

    faces: int
    cosine: float | None
    mean_cosine: float | None
    embedding: float | None
    uncertainty: float
    relative: float
    rank_correlation: float
    equal_quality: float | None
    maps: float | None

    def text(self) -> str:
        """Return the numbers as lines for people."""
        lines = []
        if self.cosine is not None:
            lines.append(
                f"embedding    cosine {self.cosine:.7f} or more, {self.mean_cosine:.7f} in the mean"
            )
            lines.append(f"             largest difference {self.embedding:.3g}")
        lines.append(
            f"uncertainty  largest difference {self.uncertainty:.3g}, "
            f"{self.relative:.3g} of its value"
        )
        lines.append(f"             rank correlation {self.rank_correlation:.6f}")
        if self.equal_quality is not None:
            lines.append(f"quality      equal for {self.equal_quality:.2%} of {self.faces} faces")
            lines.append(f"calibration  largest difference {self.maps:.3g} at equal uncertainty")
        return "".join(f"  {line}\n" for line in lines)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a `Difference` may be at most.

    Attributes:
        mean_cosine: the smallest allowed.
        relative: the largest difference of uncertainties allowed, divided by them.
        rank_correlation: the smallest allowed.
        equal_quality: the smallest share allowed.
        maps: the largest difference allowed.
    """

    mean_cosine: float
    relative: float
    rank_correlation: float
    equal_quality: float
    maps: float = 1e-4

    def broken(self, difference: Difference) -> list[str]:
        """Return one phrase for each bound that does not hold."""
        least = ("mean_cosine", "rank_correlation", "equal_quality")
        phrases = []
        for name, bound in vars(self).items():
            value = getattr(difference, name)
            if value is None or (value >= bound if name in least else value <= bound):
                continue
            side = "at least" if name in least else "at most"
            phrases.append(f"{name.replace('_', ' ')} {value:.6g} (must be {side} {bound:g})")
        return phrases

    def check(self, difference: Difference, out: Path) -> None:
        """Refuse a file outside the bounds.

        Raises:
            ValueError: names the bounds.
        """
        if broken := self.broken(difference):
            raise ValueError(
                f"{out} is not written, its numbers differ too much: {', '.join(broken)}"
            )


FP32 = Bounds(mean_cosine=0.99999, relative=1e-3, rank_correlation=0.999, equal_quality=0.98)
INT8 = Bounds(mean_cosine=0.95, relative=math.inf, rank_correlation=0.95, equal_quality=0)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well a model compares the faces of a set, and how well its uncertainty finds errors.

    Attributes:
        fnmr: at `FMR`, nothing discarded.
        relative_area: under the error-versus-discard curve up to 30 %, 1 = no better than chance;
            NaN without any false non-match.
        mated: comparisons.
        errors: false non-matches among them.
    """

    fnmr: float
    relative_area: float
    mated: int
    errors: int

    def text(self) -> str:
        """Return one line for people."""
        area = f"{self.relative_area:.4f}"
        if math.isnan(self.relative_area):
            area = "no false non-match"
        return (
            f"FNMR {self.errors}/{self.mated} = {self.fnmr:.5f} at FMR {FMR:g}, AUERC30 / random "
            f"{area}"
        )


def difference(
    reference: Estimator,
    exported: OnnxModel,
    images: NDArray[np.uint8],
    calibration: Calibration | None,
) -> Difference:
    """Run both on the same faces, uint8 (N, 112, 112, 3), the file in batches of all of `BATCHES`.

    The calibration is the file's, for its own maps.
    """
    expected = _in_batches(reference, images, 32)
    uncertainty = expected.scalar()
    parts = [_outputs(exported, images[: size * _FEW], size) for size in BATCHES[:-1]]
    parts.append(_outputs(exported, images, BATCHES[-1]))
    rows = np.concatenate([np.arange(len(part["uncertainty"])) for part in parts])
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in exported.outputs}
    cosine = mean_cosine = embedding = equal = maps = None
    if "embedding" in outputs:
        cosines = _cosines(outputs["embedding"], expected.mu[rows])
        cosine, mean_cosine = float(cosines.min()), float(cosines.mean())
        embedding = float(np.abs(outputs["embedding"] - expected.mu[rows]).max())
    if calibration is not None:
        equal = float((outputs["quality"] == calibration.iso_quality(uncertainty)[rows]).mean())
        maps = _map_difference(outputs, calibration)
    last = parts[-1]["uncertainty"]
    off = np.abs(outputs["uncertainty"] - uncertainty[rows])
    return Difference(
        faces=len(images),
        cosine=cosine,
        mean_cosine=mean_cosine,
        embedding=embedding,
        uncertainty=float(off.max()),
        relative=float((off / np.abs(uncertainty[rows])).max()),
        rank_correlation=float(spearmanr(last, uncertainty).statistic),
        equal_quality=equal,
        maps=maps,
    )


def accuracy(estimator: Estimator, labelled: EvaluationSet) -> Accuracy:
    """Embed a whole set and evaluate it by the protocol iso29794.

    Raises:
        ValueError: what `embed_images` and `protocol_curve` refuse.
    """
    mu, sigma_sq = embed_images(estimator, labelled.images, name=labelled.name, progress=False)
    curve = protocol_curve(labelled.comparisons(mu, sigma_sq), "iso29794", FMR)
    return Accuracy(
        fnmr=curve.start.errors / curve.start.mated,
        relative_area=curve.relative[LIMIT],
        mated=curve.start.mated,
        errors=curve.start.errors,
    )


def latency(
    engines: Mapping[str, Estimator], images: NDArray[np.uint8], runs: int = 15
) -> dict[str, dict[int, float]]:
    """Median milliseconds per face on one thread, the engines in turn: name -> batch size -> ms.

    Engines of ONNX Runtime are to be opened with one thread; images are uint8 (N, 112, 112, 3), at
    least as many as the largest of `TIMED`; each engine is timed `runs` times.
    """
    medians: dict[str, dict[int, float]] = {name: {} for name in engines}
    with _one_thread():
        for size in TIMED:
            batch = images[:size]
            taken: dict[str, list[float]] = {name: [] for name in engines}
            for turn in range(runs + 1):
                for name, engine in engines.items():
                    start = time.perf_counter()
                    engine(Batch(batch))
                    if turn:  # the first one warms up
                        taken[name].append(time.perf_counter() - start)
            for name, values in taken.items():
                medians[name][size] = 1000 * statistics.median(values) / len(batch)
    return medians


def timings(medians: Mapping[str, Mapping[int, float]]) -> str:
    """Return what `latency` measured as lines for people."""
    lines = ["median ms per face, one thread, engines in turn:\n"]
    for name, by_size in medians.items():
        cells = ", ".join(f"{ms:.3f} in a batch of {size}" for size, ms in by_size.items())
        lines.append(f"  {name:<20} {cells}\n")
    return "".join(lines)


def some_faces(labelled: EvaluationSet, count: int) -> NDArray[np.uint8]:
    """Return (n, 112, 112, 3) at most `count` faces, spread evenly over a set."""
    total = len(labelled.images)
    rows = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    return np.concatenate([labelled.images.decode(row, row + 1) for row in rows])


def _in_batches(estimator: Estimator, images: NDArray[np.uint8], size: int) -> Estimate:
    parts = [estimator(Batch(images[at : at + size])) for at in range(0, len(images), size)]
    mu, sigma_sq = zip(*parts, strict=True)
    return Estimate(np.concatenate(mu), np.concatenate(sigma_sq))


def _outputs(exported: OnnxModel, images: NDArray[np.uint8], size: int) -> dict[str, NDArray[Any]]:
    parts = [exported.everything(images[at : at + size]) for at in range(0, len(images), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in exported.outputs}


def _cosines(exported: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    left, right = exported.astype(np.float64), expected.astype(np.float64)
    products: NDArray[np.float64] = (left * right).sum(1)
    return products / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))


def _map_difference(outputs: Mapping[str, NDArray[Any]], calibration: Calibration) -> float:
    own = outputs["uncertainty"]
    quality = outputs["quality"].astype(np.int64) - calibration.iso_quality(own)
    percentile = outputs["percentile"] - calibration.percentile(own)
    percent = 100 * (outputs["p_false_non_match"] - calibration.probability(own))
    return float(max(np.abs(off).max() for off in (quality, percentile, percent)))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
