"""Several images of one person as one, and two faces compared, with what is known of either.

For `Scorer.fuse` and `Scorer.compare`; the arithmetic is that of IJB templates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from estimators.base import harmonic_mean
from evaluation.face_score import FaceScore
from evaluation.metrics.scores import cosine_of_pairs
from evaluation.open_model import ScoringModel
from evaluation.sets.templates import Weights, fuse_templates
from scoring.scores import Answer, ComparisonResult, Template


def fuse_faces(
    model: ScoringModel,
    faces: Sequence[FaceScore],
    media: Sequence[int] | None = None,
    weights: Weights | NDArray[np.floating] | None = None,
) -> Template:
    """Fuse faces of one person, weighed by how reliable each is.

    Args:
        model: that scored them.
        faces: at least one, each with an embedding.
        media: for each the number of the photo or video that it is from: frames of one video say
            nearly the same thing. None: all are separate photos.
        weights: see `fuse_templates`; None: what suits the model's uncertainty
            (`ScoringModel.fusion`).

    Raises:
        ValueError: no face, one without an embedding, not one medium per face, or uncertainties
            that do not suit the weights.
    """
    rule = model.fusion if weights is None else weights
    if not faces:
        raise ValueError("no face to fuse")
    media = range(len(faces)) if media is None else media
    if len(media) != len(faces):
        raise ValueError(f"{len(media)} media for {len(faces)} faces: give one number for each")
    sigma_sq = [
        np.array([face.uncertainty]) if face.sigma_sq is None else face.sigma_sq for face in faces
    ]
    found = fuse_templates(
        np.stack([embedding_of(face, model) for face in faces]),
        np.stack(sigma_sq).astype(np.float32),
        np.zeros(len(faces), np.int64),
        np.asarray(media, np.int64),
        rule,
    )
    one = found.sigma_sq.shape[1] == 1
    spread = found.sigma_sq[:, 0] if one else harmonic_mean(found.sigma_sq)
    return Template(
        found.mu[0], float(spread[0]), len(faces), rule if isinstance(rule, str) else "given"
    )


def compare_faces(
    model: ScoringModel, first: FaceScore | Template, second: FaceScore | Template
) -> ComparisonResult:
    """Score two faces against each other and say what follows.

    The poorer of the two decides how far the score can be trusted. With the verdict "accept" for
    its uncertainty the answer is "match" or "no match" by the calibration's score threshold, with
    any other it is "cannot tell".

    Args:
        model: that scored both.
        first: with an embedding.
        second: with an embedding.

    Raises:
        ValueError: a side without an embedding, or of another model.
    """
    sides = (embedding_of(first, model), embedding_of(second, model))
    if sides[0].shape != sides[1].shape:
        sizes = " and ".join(str(len(side)) for side in sides)
        raise ValueError(f"embeddings of {sizes} values are not of one model")
    score = float(cosine_of_pairs(np.stack(sides))[0])
    uncertainty = max(first.uncertainty, second.uncertainty)
    if model.calibration is None:
        return ComparisonResult(score, uncertainty, None, float("nan"))
    return ComparisonResult(
        score,
        uncertainty,
        _answer(model, score, uncertainty),
        float(model.calibration.probability(uncertainty)),
    )


def embedding_of(side: FaceScore | Template, model: ScoringModel) -> NDArray[np.float32]:
    """Return a face's embedding.

    Raises:
        ValueError: there is none, or one without direction.
    """
    if side.embedding is None:
        raise ValueError(
            f"model {model.name} scores faces but gives no embedding, so they cannot be compared "
            "or fused: use a model with its backbone"
        )
    if not side.embedding.any():
        raise ValueError("an embedding of zeros has no direction: it cannot be compared or fused")
    return side.embedding


def _answer(model: ScoringModel, score: float, uncertainty: float) -> Answer | None:
    if model.calibration is None or model.decision is None:
        return None
    if model.decision.verdict(uncertainty) != ["accept"]:
        return "cannot tell"
    return "match" if score >= model.calibration.score_threshold else "no match"
