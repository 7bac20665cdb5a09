"""The public Python API under one name.

    from face_uncertainty import evaluate, load_scorer, open_model, open_set

Each name is imported from its room when it is first used, so that importing this file loads neither
PyTorch nor matplotlib. docs/api.md shows what the names do.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from estimators.base import Estimate, Estimator
    from evaluation.confidence.calibration import Calibration
    from evaluation.confidence.decision import Decision
    from evaluation.face_score import FaceScore
    from evaluation.metrics.comparisons import Comparisons
    from evaluation.open_model import open_model
    from evaluation.sets.open_set import open_set
    from scoring.scorer import BestShot, Scorer, Scores, load_scorer
    from scoring.templates import ComparisonResult, Template

__all__ = [
    "BestShot",
    "Calibration",
    "ComparisonResult",
    "Comparisons",
    "Decision",
    "Estimate",
    "Estimator",
    "FaceScore",
    "Scorer",
    "Scores",
    "Template",
    "load_scorer",
    "open_model",
    "open_set",
]

_MODULES = {
    "estimators.base": ("Estimate", "Estimator"),
    "evaluation.confidence.calibration": ("Calibration",),
    "evaluation.confidence.decision": ("Decision",),
    "evaluation.face_score": ("FaceScore",),
    "evaluation.metrics.comparisons": ("Comparisons",),
    "evaluation.open_model": ("open_model",),
    "evaluation.sets.open_set": ("open_set",),
    "scoring.scorer": ("BestShot", "Scorer", "Scores", "load_scorer"),
    "scoring.templates": ("ComparisonResult", "Template"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_ROOMS = (
    *("utils", "losses", "models", "data", "photos", "mc_dropout", "estimators", "evaluation"),
    *("report", "training", "scoring", "extraction", "export"),
)


def _check_rooms() -> None:
    """Refuse a package of another project that has the name of one of ours, and comes first."""
    root = Path(__file__).resolve().parent
    for room in _ROOMS:
        spec = find_spec(room)
        locations = [str(spec.origin)] if spec is not None and spec.origin else []
        if spec is not None and spec.submodule_search_locations is not None:
            locations = list(spec.submodule_search_locations)
        if any(Path(path).resolve() == root / room for path in locations):
            continue
        path = locations[0] if locations else "nowhere"
        raise ImportError(
            f"face_uncertainty needs its own package {room!r}, in {root}, but Python finds {path}: "
            "remove that from the path, install face-uncertainty into an environment of its own, "
            "or ship the model as one ONNX file, which needs none of this (docs/ship.md)"
        )


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__


_check_rooms()
