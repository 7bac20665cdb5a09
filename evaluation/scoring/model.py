"""Open what scores faces: a run folder, a packed file, an exported .onnx, or the demo.

For `load_scorer`, score_images and the export; PyTorch is imported for runs and packed files alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.confidence.calibration import DIRECTION, FILE_NAME, Calibration
from evaluation.confidence.decision import Decision
from evaluation.sets.templates import Weights

if TYPE_CHECKING:
    from evaluation.estimate import Estimator
    from utils.config import Precision

DEMO = Path(__file__).resolve().parents[2] / "demo" / "model.pt"
QUALITY = "quality: 0 to 100, 100 = best, 255 = could not be computed"
ACCEPTED = (
    "a run folder of network.py, a packed model (.pt), an exported model (.onnx), or the word demo"
)
# Weights that suit an uncertainty, by what a head's output is (docs/templates.md).
FUSION: dict[str, Weights] = {
    "variance": "inverse_variance",
    "probability": "quality",
    "embedding_norm": "norm",
}


@dataclass(frozen=True, kw_only=True)
class ScoringModel:
    """A model with what its uncertainties mean.

    Attributes:
        name: of the run, or of the file without its ending.
        estimator: aligned faces to embeddings and uncertainties; its `mu` is (B, 0) where the model
            has no embedding.
        calibration: percentiles, qualities, P(false non-match); None where none was made.
        decision: accept, ask again or refuse; None without calibration.
        about: where it comes from, in plain values: `model` (path), `sha256`, `license`, `label`,
            `direction`, `output` ("probability", "variance", "embedding_norm" or "other").
    """

    name: str
    estimator: Estimator
    calibration: Calibration | None = None
    decision: Decision | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def fusion(self) -> Weights:
        """How images of one person are weighed: see `evaluation.sets.templates.fuse_templates`."""
        return FUSION.get(self.about.get("output", ""), "mean")

    def header(self) -> str:
        """Say in one line which model this is, which way its numbers run and where the limits lie.

        For files of scores, so that a number is never without its meaning.
        """
        sha256 = self.about.get("sha256", "")
        parts = [f"model {self.name}" + (f" (SHA-256 {sha256[:12]}...)" if sha256 else "")]
        parts += [self.about[key] for key in ("label",) if self.about.get(key)]
        parts.append(self.about.get("direction", DIRECTION))
        if self.calibration is None:
            parts.append(f"not calibrated, so no quality, percentile or verdict: {self._remedy()}")
        else:
            parts += [QUALITY, _threshold(self.calibration)]
        if self.decision is not None:
            parts.append(_limits(self.decision))
        return " ".join("; ".join(parts).split())

    def _remedy(self) -> str:
        folder = Path(self.about.get("model", ""))
        if folder.is_dir():
            return (
                f"run evaluation/calibrate.py --model_dir {folder} --dataset_path DIR --target lfw"
            )
        return "calibrate the run with evaluation/calibrate.py, then pack or export it again"


def open_model(
    model: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    backbone_weights: str | None = None,
) -> ScoringModel:
    """Open a model by what a person writes.

    The decision is the one stored with the calibration, or `Decision.from_calibration`.

    Args:
        model: a run folder (its best.pt, with calibration.json beside it), a packed file, an
            exported .onnx file, or "demo".
        device: see `TrainConfig.device`; an .onnx file runs on the CPU.
        precision: see `TrainConfig.precision`.
        backbone_weights: of a run: where the backbone's file is now.

    Raises:
        ValueError: there is no such model, it cannot be read, or its calibration belongs to another
            method; the message names the file.
    """
    path = DEMO if str(model) == "demo" else Path(model)
    if backbone_weights and not path.is_dir():
        raise ValueError(
            f"backbone_weights = {backbone_weights} goes with a run folder; {model} is none"
        )
    if path.is_dir():
        return _open_run(path, device, precision, backbone_weights)
    if not path.is_file():
        raise ValueError(f"no model {path}: give {ACCEPTED}")
    if path.suffix == ".onnx":
        return _open_onnx(path)
    return _open_packed(path, device, precision)


def _open_run(
    path: Path, device: str, precision: Precision, backbone_weights: str | None
) -> ScoringModel:
    from evaluation.estimators.trained_head import TrainedHead
    from models.load import file_sha256
    from models.run import load_run

    run = load_run(path, device=device, precision=precision, backbone_weights=backbone_weights)
    file = path / FILE_NAME
    calibration = Calibration.load(file) if file.is_file() else None
    if calibration is not None:
        _check_method(calibration, file)
    return ScoringModel(
        name=path.absolute().name,
        estimator=TrainedHead(frozen=run.frozen, head=run.head),
        calibration=calibration,
        decision=_decision(calibration),
        about={
            "model": str(path),
            "sha256": file_sha256(run.files[0]),
            "license": "",
            "label": "",
            "direction": DIRECTION,
            "output": run.head.output,
            "backbone_sha256": run.sha256,
        },
    )


def _open_packed(path: Path, device: str, precision: Precision) -> ScoringModel:
    from evaluation.estimators.trained_head import TrainedHead
    from models.load import file_sha256
    from models.packed import is_packed, load_packed

    if not is_packed(path):
        raise ValueError(f"{path} is no packed model: give {ACCEPTED}")
    packed = load_packed(path, device=device, precision=precision)
    calibration = _read(packed.calibration, path)
    about = packed.about
    return ScoringModel(
        name=about.name,
        estimator=TrainedHead(frozen=packed.frozen, head=packed.head),
        calibration=calibration,
        decision=_decision(calibration),
        about={
            "model": str(path),
            "sha256": file_sha256(path),
            "license": about.license,
            "label": about.label,
            "direction": DIRECTION,
            "output": packed.head.output,
            "backbone_sha256": about.sha256,
        },
    )


def _open_onnx(path: Path) -> ScoringModel:
    from evaluation.scoring.onnx_model import open_onnx

    estimator, stored, decision, about = open_onnx(path)
    calibration = _read(stored, path)
    chosen = _decision(calibration) if decision is None else Decision.from_dict(decision)
    return ScoringModel(
        name=str(about.get("name") or path.stem),
        estimator=estimator,
        calibration=calibration,
        decision=chosen,
        about={"direction": DIRECTION, **about, "model": str(path)},
    )


def _read(stored: dict[str, Any] | None, path: Path) -> Calibration | None:
    if stored is None:
        return None
    try:
        return Calibration.from_dict(stored)
    except ValueError as error:
        raise ValueError(f"{path}: its calibration: {error}") from error


def _decision(calibration: Calibration | None) -> Decision | None:
    if calibration is None:
        return None
    return calibration.decision or Decision.from_calibration(calibration)


def _check_method(calibration: Calibration, file: Path) -> None:
    """Refuse a calibration of another estimator's uncertainties, as calibrate.py may leave it."""
    from evaluation.methods import estimator_names

    name = calibration.method.partition(":")[0]
    if name != "trained_head" and name in estimator_names():
        raise ValueError(
            f"{file} says what the uncertainties of {calibration.method} mean, not those of the "
            "run's head: make it again with evaluation/calibrate.py --model_dir, without "
            "--estimator"
        )


def _threshold(calibration: Calibration) -> str:
    goal = "as given"
    if calibration.fmr_target is not None:
        goal = f"for FMR {calibration.fmr_target:g}"
    return (
        f"score threshold {calibration.score_threshold:.6g} {goal} on {calibration.name} "
        f"(FMR {calibration.false_matches}, FNMR {calibration.false_non_matches})"
    )


def _limits(decision: Decision) -> str:
    accept = "accept none"
    if decision.accept_up_to is not None:
        accept = f"accept uncertainty <= {decision.accept_up_to:.6g}"
    refuse = "refuse none"
    if decision.refuse_above is not None:
        refuse = f"refuse > {decision.refuse_above:.6g}"
    return f"{accept}, {refuse}, between them ask again ({decision.rule})"
