"""Scores of single faces: photos in, one row per face out.

    from evaluation.scoring import load_scorer
    scorer = load_scorer("runs/NAME")
    result = scorer(["photo.jpg"])

Importing this loads no network and no PyTorch; opening a model does.
"""

from evaluation.scoring.rows import FaceScore
from evaluation.scoring.scorer import Scorer, load_scorer
from evaluation.scoring.scores import BestShot, ComparisonResult, Scores, Template

__all__ = [
    "BestShot",
    "ComparisonResult",
    "FaceScore",
    "Scorer",
    "Scores",
    "Template",
    "load_scorer",
]
