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

if TYPE_CHECKING:  # the same names for editors and type checkers
    from estimators.base import Batch as Batch
    from estimators.base import Estimate as Estimate
    from estimators.base import Estimator as Estimator
    from evaluation.calibration_run import CalibrationOptions as CalibrationOptions
    from evaluation.calibration_run import CalibrationResult as CalibrationResult
    from evaluation.calibration_run import calibrate as calibrate
    from evaluation.comparison import ComparisonOptions as ComparisonOptions
    from evaluation.comparison import MethodComparison as MethodComparison
    from evaluation.comparison import compare as compare
    from evaluation.comparison import compare_stored as compare_stored
    from evaluation.confidence.calibration import Calibration as Calibration
    from evaluation.confidence.calibration import Decision as Decision
    from evaluation.metrics.comparisons import Comparisons as Comparisons
    from evaluation.open_model import LoadedModel as LoadedModel
    from evaluation.open_model import open_model as open_model
    from evaluation.open_model import open_models as open_models
    from evaluation.run import EvaluationOptions as EvaluationOptions
    from evaluation.run import EvaluationResult as EvaluationResult
    from evaluation.run import evaluate as evaluate
    from evaluation.sets.open_set import open_set as open_set
    from evaluation.sets.stored import open_stored as open_stored
    from report.audit import write_audit as write_audit
    from report.sheet import FaceScore as FaceScore
    from report.text import calibration_text as calibration_text
    from report.text import method_table as method_table
    from report.text import result_text as result_text
    from report.text import result_warnings as result_warnings
    from scoring.gallery import open_gallery as open_gallery
    from scoring.identify import Gallery as Gallery
    from scoring.identify import SearchAnswer as SearchAnswer
    from scoring.identify import enroll as enroll
    from scoring.scorer import BestShot as BestShot
    from scoring.scorer import Scorer as Scorer
    from scoring.scorer import Scores as Scores
    from scoring.scorer import load_scorer as load_scorer
    from scoring.templates import ComparisonResult as ComparisonResult
    from scoring.templates import Template as Template
    from search.audit import AuditOptions as AuditOptions
    from search.audit import AuditResult as AuditResult
    from search.audit import audit as audit
    from search.run import IdentificationOptions as IdentificationOptions
    from search.run import IdentificationResult as IdentificationResult
    from search.run import SearchRule as SearchRule
    from search.run import identify as identify
    from search.searches import search as search
    from search.sides import divide as divide
    from search.sides import open_side as open_side

_NAMES = {
    "estimators.base": "Batch Estimate Estimator",
    "evaluation.calibration_run": "CalibrationOptions CalibrationResult calibrate",
    "evaluation.comparison": "ComparisonOptions MethodComparison compare compare_stored",
    "evaluation.confidence.calibration": "Calibration Decision",
    "report.audit": "write_audit",
    "report.sheet": "FaceScore",
    "evaluation.metrics.comparisons": "Comparisons",
    "evaluation.open_model": "LoadedModel open_model open_models",
    "evaluation.run": "EvaluationOptions EvaluationResult evaluate",
    "search.audit": "AuditOptions AuditResult audit",
    "evaluation.sets.open_set": "open_set",
    "evaluation.sets.stored": "open_stored",
    "report.text": "calibration_text method_table result_text result_warnings",
    "scoring.gallery": "open_gallery",
    "search.run": "IdentificationOptions IdentificationResult SearchRule identify",
    "search.searches": "search",
    "search.sides": "divide open_side",
    "scoring.identify": "Gallery SearchAnswer enroll",
    "scoring.scorer": "BestShot Scorer Scores load_scorer",
    "scoring.templates": "ComparisonResult Template",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605
_ROOMS = (
    *("utils", "losses", "models", "data", "photos", "mc_dropout", "estimators", "evaluation"),
    *("search", "report", "training", "scoring", "extraction", "export"),
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
    return list(__all__)


_check_rooms()
