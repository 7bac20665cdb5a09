"""Scores of single faces: photos in, one row per face out.

    from scoring import load_scorer
    scorer = load_scorer("runs/NAME")
    result = scorer(["photo.jpg"])

Importing this loads no network and no PyTorch; opening a model does.
"""

from evaluation.face_score import FaceScore
from scoring.scorer import Scorer, load_scorer
from scoring.scores import BestShot, ComparisonResult, Scores, Template

__all__ = [
    "BestShot",
    "ComparisonResult",
    "FaceScore",
    "Scorer",
    "Scores",
    "Template",
    "load_scorer",
]
