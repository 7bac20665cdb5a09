"""The steps of an export: open the model, write the file, prove it, time it, put it in its place.

export/export.py runs them with its flags.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.faces import open_faces
from estimators.base import DIRECTION, Batch, Estimate, Estimator
from estimators.onnx import OnnxModel, metadata
from estimators.trained_head import TrainedHead
from evaluation.open_model import LoadedModel, open_model
from evaluation.sets.open_set import EvaluationSet, open_set
from export import proof
from export.graph import ExportedModel, images_alone, write_onnx
from export.int8 import quantise
from models.heads.base import Head
from models.uncertainty import to_sigma_sq

RANGE_FACES = 256  # that the ranges of 8-bit activations are taken from

Write = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is exported, and how it is proved.

    Attributes:
        model: what `open_model` opens: a run folder, a packed model, "demo".
        out: the file.
        check: the faces that both engines are compared on: a `.bin` file or a set of `open_set`.
        faces: how many of them at most.
        calibration_faces: what `open_faces` opens, for 8 bits; None for float32.
        quality_only: leave out backbone and embedding.
        runs: timings of each engine; 0 for none.
        backbone_weights: of a run: where the backbone's file is now.
    """

    model: str
    out: Path
    check: str
    faces: int = 256
    calibration_faces: str | None = None
    quality_only: bool = False
    runs: int = 15
    backbone_weights: str | None = None


def export(wanted: Export, write: Write) -> None:
    """Write the file; nothing is left of one that does not give the same numbers.

    Args:
        wanted: see there.
        write: takes the report, piece by piece.

    Raises:
        ValueError: what cannot be opened or exported, or a file outside the bounds.
    """
    if wanted.out.suffix != ".onnx":
        raise ValueError(f"--out {wanted.out}: must end in .onnx")
    if wanted.quality_only and wanted.calibration_faces is not None:
        raise ValueError("--int8 is for the backbone, which --quality_only leaves out")
    model = open_model(
        wanted.model, device="cpu", precision="fp32", backbone_weights=wanted.backbone_weights
    )
    network = exported_network(model, wanted.quality_only)
    write(f"{model.header()}\n")
    if not model.provenance.license:
        write("no license is stated: export/pack_model.py --license puts one into a model file\n")
    if model.calibration is None:
        write("no calibration, so no quality, percentile and p_false_non_match in the file\n")
    whole, small = (wanted.out.with_name(f"{wanted.out.name}.{n}.part") for n in ("fp32", "int8"))
    try:
        write_onnx(whole, network, facts(model), about_line(model))
        finished = _prove(wanted, model, whole, small, write)
        finished.replace(wanted.out)
    finally:
        whole.unlink(missing_ok=True)
        small.unlink(missing_ok=True)
    write(f"wrote {wanted.out}: {wanted.out.stat().st_size / 1e6:.2f} MB\n")


def exported_network(model: LoadedModel, quality_only: bool = False) -> ExportedModel:
    """Return the network of a trained head.

    Raises:
        ValueError: another kind of model, or no embedding is wanted of a head that needs one.
    """
    estimator = model.estimator
    if not isinstance(estimator, TrainedHead):
        raise ValueError(
            f"{model.name} is no run or packed model with a trained head ({estimator.name}): it "
            "cannot be exported"
        )
    if quality_only and estimator.head.reads != "images":
        raise ValueError(
            f"--quality_only: the head of {model.name} reads the backbone's features; only a head "
            "that reads images, such as student, does without"
        )
    backbone = None if quality_only else estimator.frozen.backbone
    return ExportedModel(backbone, estimator.head, model.calibration)


class HeadAlone:
    """A head that reads images, in PyTorch, without backbone and embedding.

    Args:
        head: with `reads = "images"`.
    """

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
    about: dict[str, Any] = {"name": model.name, **model.provenance.to_dict()}
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


def open_check(check: str) -> EvaluationSet:
    """Open `path/to/lfw.bin` or a set of `open_set`.

    Raises:
        ValueError: there is none.
    """
    path = Path(check)
    if path.suffix == ".bin":
        return open_set(path.stem, path.parent)
    return open_set(check)


def range_faces(source: str) -> NDArray[np.uint8]:
    """Return (n, 112, 112, 3) faces, spread evenly over a source of `open_faces`."""
    faces = open_faces(source)
    rows = np.unique(np.linspace(0, len(faces) - 1, min(RANGE_FACES, len(faces))).round())
    return np.stack([faces.read(int(row)) for row in rows])


def _prove(wanted: Export, model: LoadedModel, whole: Path, small: Path, write: Write) -> Path:
    """Compare and time; return the file that passed."""
    labelled = open_check(wanted.check)
    images = proof.some_faces(labelled, wanted.faces)
    exported = OnnxModel(whole)
    reference = model.estimator
    if wanted.quality_only:
        assert isinstance(reference, TrainedHead)
        reference = HeadAlone(reference.head)
    found = proof.difference(reference, exported, images, model.calibration)
    sizes = ", ".join(map(str, proof.BATCHES))
    write(
        f"ONNX Runtime beside PyTorch, {len(images)} faces of {labelled.name}, in batches of "
        f"{sizes}:\n"
        f"{found.text()}"
    )
    _refuse(found, proof.FP32, wanted.out)
    engines: dict[str, Estimator] = {
        "PyTorch": reference,
        "ONNX Runtime": OnnxModel(whole, threads=1),
    }
    if wanted.calibration_faces is not None:
        quantise(whole, small, range_faces(wanted.calibration_faces), "8-bit backbone")
        engines["ONNX Runtime, 8 bits"] = OnnxModel(small, threads=1)
        _prove_small(model, whole, small, images, labelled, wanted.out, write)
    if wanted.runs:
        write(_timings(proof.latency(engines, images, wanted.runs)))
    return whole if wanted.calibration_faces is None else small


def _prove_small(
    model: LoadedModel,
    whole: Path,
    small: Path,
    images: NDArray[np.uint8],
    labelled: EvaluationSet,
    out: Path,
    write: Write,
) -> None:
    """Print what 8 bits cost."""
    files = {"float32": OnnxModel(whole), "8 bits": OnnxModel(small)}
    found = proof.difference(files["float32"], files["8 bits"], images, model.calibration)
    write(f"8 bits beside float32, the same faces:\n{found.text()}")
    _refuse(found, proof.INT8, out)
    for name, file in files.items():
        write(f"  {name:<8} {_accuracy(proof.accuracy(file, labelled))}\n")


def _accuracy(found: proof.Accuracy) -> str:
    area = "no false non-match" if math.isnan(found.relative_area) else f"{found.relative_area:.4f}"
    return (
        f"FNMR {found.errors}/{found.mated} = {found.fnmr:.5f} at FMR {proof.FMR:g}, AUERC30 / "
        f"random {area}"
    )


def _refuse(found: proof.Difference, bounds: proof.Bounds, out: Path) -> None:
    broken = bounds.broken(found)
    if broken:
        raise ValueError(f"{out} is not written, its numbers differ too much: {', '.join(broken)}")


def _timings(found: Mapping[str, Mapping[int, float]]) -> str:
    lines = ["median ms per face, one thread, engines in turn:\n"]
    for name, by_size in found.items():
        cells = ", ".join(f"{ms:.3f} in a batch of {size}" for size, ms in by_size.items())
        lines.append(f"  {name:<20} {cells}\n")
    return "".join(lines)
