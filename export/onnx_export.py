"""The steps of an export: open the model, write the file, prove it, time it, put it in its place.

export/export.py runs them with its flags.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.faces import open_faces
from estimators.base import DIRECTION, Batch, Estimate, Estimator
from estimators.onnx import OnnxModel, metadata
from estimators.trained_head import TrainedHead
from evaluation.open_model import LoadedModel, open_model
from export import parity
from export.colours import open_named_set
from export.graph import ExportedModel, images_alone, quantise, write_onnx
from models.heads.base import Head, to_sigma_sq
from utils.files import atomic_path

RANGE_FACES = 256  # that the ranges of 8-bit activations are taken from

Write = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is exported, and how it is proved; export/export.py's flags have these names.

    Attributes:
        model: what `open_model` opens: a run folder, a packed model, "demo".
        out: the file.
        check: the faces that both engines are compared on: a `.bin` file or a set of `open_set`.
        faces: how many of them at most.
        int8: 8 bits for the backbone.
        calibration_faces: what `open_faces` opens, for 8 bits.
        quality_only: leave out backbone and embedding.
        runs: timings of each engine; 0 for none.
        backbone_weights: of a run: where the backbone's file is now.

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
        if self.faces < parity.BATCHES[-1]:
            raise ValueError(
                f"--faces {self.faces}: must be at least {parity.BATCHES[-1]}, the largest batch "
                "compared"
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


def range_faces(source: str) -> NDArray[np.uint8]:
    """Return (n, 112, 112, 3) faces for the ranges, spread evenly over a source of `open_faces`."""
    faces = open_faces(source)
    rows = np.unique(np.linspace(0, len(faces) - 1, min(RANGE_FACES, len(faces))).round())
    return np.stack([faces.read(int(row)) for row in rows])


def _prove(
    options: ExportOptions, model: LoadedModel, float32: Path, out: Path, write: Write
) -> None:
    """Compare and time, or raise ValueError; with `int8` the float file is quantised into `out`."""
    labelled = open_named_set("--check", options.check)
    images = parity.some_faces(labelled, options.faces)
    reference = model.estimator
    if options.quality_only:
        assert isinstance(reference, TrainedHead)
        reference = HeadAlone(reference.head)
    exported = OnnxModel(float32)
    difference = parity.difference(reference, exported, images, model.calibration)
    sizes = ", ".join(map(str, parity.BATCHES))
    write(
        f"ONNX Runtime against PyTorch, {len(images)} faces of {labelled.name}, in batches of "
        f"{sizes}:\n{difference.text()}"
    )
    parity.FP32.check(difference, options.out)
    engines: dict[str, Estimator] = {
        "PyTorch": reference,
        "ONNX Runtime": OnnxModel(float32, threads=1),
    }
    if options.calibration_faces is not None:
        quantise(float32, out, range_faces(options.calibration_faces), "8-bit backbone")
        engines["ONNX Runtime, 8 bits"] = OnnxModel(out, threads=1)
        small = OnnxModel(out)
        difference = parity.difference(exported, small, images, model.calibration)
        write(f"8 bits against float32, the same faces:\n{difference.text()}")
        parity.INT8.check(difference, options.out)
        for name, file in (("float32", exported), ("8 bits", small)):
            write(f"  {name:<8} {parity.accuracy(file, labelled).text()}\n")
    if options.runs:
        write(parity.timings(parity.latency(engines, images, options.runs)))
