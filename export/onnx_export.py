"""The steps of an export: open the model, write the file, prove it, time it, put it in its place.

The proof is what the file gives against what PyTorch gives, for the same faces. export/export.py
runs the steps with its flags; benchmarks/onnx.py prints the same numbers.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from data.faces import FaceImages, Images, open_faces
from estimators.base import DIRECTION, Batch, Estimate, Estimator
from estimators.onnx import OnnxModel, metadata
from estimators.trained_head import TrainedHead
from evaluation.confidence.calibration import Calibration
from evaluation.embed import embed_images
from evaluation.metrics.curve import protocol_curve
from evaluation.open_model import LoadedModel, open_model
from evaluation.sets.open_set import EvaluationSet
from export.colours import open_named_set
from export.graph import ExportedModel, images_alone, quantise, write_onnx
from models.heads.base import Head, to_sigma_sq
from utils.files import atomic_path

RANGE_FACES = 256  # that the ranges of 8-bit activations are taken from
BATCHES = (1, 3, 32)
TIMED = (1, 32)
FMR = 1e-3
LIMIT = 0.3  # of the discarded share, for the area
_FEW = 10  # batches of the small sizes

Write = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is exported, and how it is proved; see the flags of export/export.py.

    Raises:
        ValueError: options that do not go together.
    """

    model: str
    out: Path
    check: str = "synthetic:pairs=128,seed=5"
    faces: int = 256
    int8: bool = False
    calibration_faces: str | None = None
    quality_only: bool = False
    runs: int = 15
    backbone_weights: str | None = None

    def __post_init__(self) -> None:
        if self.int8 != bool(self.calibration_faces):
            raise ValueError(
                "--int8 and --calibration_faces SOURCE go together: the ranges of activations are "
                "taken from faces"
            )
        if self.faces < BATCHES[-1]:
            raise ValueError(
                f"--faces {self.faces}: must be at least {BATCHES[-1]}, the largest batch compared"
            )
        if self.out.suffix != ".onnx":
            raise ValueError(f"--out {self.out}: must end in .onnx")
        if self.quality_only and self.int8:
            raise ValueError("--int8 is for the backbone, which --quality_only leaves out")


def export(options: ExportOptions, write: Write) -> None:
    """Write the file and a report; nothing is left of one that does not give the same numbers.

    Raises:
        ValueError: what cannot be opened or exported, or a file outside the bounds.
    """
    model = open_model(
        options.model, device="cpu", precision="fp32", backbone_weights=options.backbone_weights
    )
    network = exported_network(model, options.quality_only)
    write(f"{model.header()}\n")
    if not model.provenance.license:
        write("no license is stated: export/pack_model.py --license puts one into a model file\n")
    if model.calibration is None:
        write("no calibration, so no quality, percentile and p_false_non_match in the file\n")
    with atomic_path(options.out) as out, TemporaryDirectory() as scratch:
        float32 = Path(scratch) / "float32.onnx" if options.int8 else out
        write_onnx(float32, network, facts(model), about_line(model))
        _prove(options, model, float32, out, write)
    write(f"wrote {options.out}: {options.out.stat().st_size / 1e6:.2f} MB\n")


def exported_network(model: LoadedModel, quality_only: bool = False) -> ExportedModel:
    """Return the network of a trained head.

    Raises:
        ValueError: another kind of model, or `quality_only` with a head that needs an embedding.
    """
    estimator = model.estimator
    if not isinstance(estimator, TrainedHead):
        raise ValueError(
            f"{model.name} is not a run or packed model with a trained head ({estimator.name}): "
            "it cannot be exported"
        )
    if quality_only and estimator.head.reads != "images":
        raise ValueError(
            f"--quality_only: the head of {model.name} reads the backbone's features; only a head "
            "that reads images, such as student, does without"
        )
    backbone = None if quality_only else estimator.frozen.backbone
    return ExportedModel(backbone, estimator.head, model.calibration)


class HeadAlone:
    """A head that reads images, in PyTorch, without backbone and embedding."""

    name = "head_alone"

    def __init__(self, head: Head) -> None:
        self.head = head.eval()

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; mu is (B, 0)."""
        with torch.no_grad():
            raw = self.head(images_alone(torch.from_numpy(np.ascontiguousarray(batch.images))))
            sigma_sq = to_sigma_sq(raw.float(), self.head.output)
        return Estimate(np.empty((len(batch), 0), np.float32), sigma_sq.numpy())


def facts(model: LoadedModel) -> dict[str, str]:
    """Return the metadata of a model's file: where it comes from and what its numbers mean."""
    provenance = replace(model.provenance, head_sha256=model.weights_sha256.get("head", ""))
    about: dict[str, Any] = {"name": model.name, **provenance.to_dict()}
    about["model"] = Path(about.get("model", "")).name  # the folder is nobody else's matter
    calibration, decision = model.calibration, model.decision
    return metadata(
        about,
        None if calibration is None else calibration.to_dict(),
        None if decision is None else decision.to_dict(),
    )


def about_line(model: LoadedModel) -> str:
    """Return what viewers of the file show: name, label, direction, licence."""
    license_ = model.provenance.license or "not stated"
    parts = [model.name, model.provenance.label, DIRECTION, f"license: {license_}"]
    return "; ".join(part for part in parts if part)


def _prove(
    options: ExportOptions, model: LoadedModel, float32: Path, out: Path, write: Write
) -> None:
    """Compare and time, or raise ValueError; with `int8` the float file is quantised into `out`."""
    labelled = open_named_set("--check", options.check)
    images = some_faces(labelled.images, options.faces)
    reference = model.estimator
    if options.quality_only:
        assert isinstance(reference, TrainedHead)
        reference = HeadAlone(reference.head)
    exported = OnnxModel(float32)
    measured = difference(reference, exported, images, model.calibration)
    sizes = ", ".join(map(str, BATCHES))
    write(
        f"ONNX Runtime against PyTorch, {len(images)} faces of {labelled.name}, in batches of "
        f"{sizes}:\n{measured.text()}"
    )
    FP32.check(measured, options.out)
    engines: dict[str, Estimator] = {
        "PyTorch": reference,
        "ONNX Runtime": OnnxModel(float32, threads=1),
    }
    if options.calibration_faces is not None:
        quantise(float32, out, range_faces(options.calibration_faces), "8-bit backbone")
        engines["ONNX Runtime, 8 bits"] = OnnxModel(out, threads=1)
        small = OnnxModel(out)
        measured = difference(exported, small, images, model.calibration)
        write(f"8 bits against float32, the same faces:\n{measured.text()}")
        INT8.check(measured, options.out)
        for name, file in (("float32", exported), ("8 bits", small)):
            write(f"  {name:<8} {accuracy(file, labelled).text()}\n")
    if options.runs:
        write(timings(latency(engines, images, options.runs)))


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
    """The least mean cosine, rank correlation and equal quality, and the most of the others."""

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


def some_faces(images: Images, count: int) -> NDArray[np.uint8]:
    """Return (n, 112, 112, 3) at most `count` faces, spread evenly over all."""
    total = len(images)
    rows = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    return np.concatenate([images.decode(row, row + 1) for row in rows])


def range_faces(source: str) -> NDArray[np.uint8]:
    """Return the faces that ranges are taken from, of a source of `open_faces`."""
    return some_faces(FaceImages(open_faces(source)), RANGE_FACES)


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
