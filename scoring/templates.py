"""Several images of one person as one, and two faces compared, with what is known of either.

For `Scorer.fuse` and `Scorer.compare`; the arithmetic is that of IJB templates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.features import are_directions
from estimators.base import harmonic_mean
from evaluation.metrics.comparisons import cosine_of_pairs
from evaluation.open_model import LoadedModel
from evaluation.sets.templates import Weights, fuse_templates
from report.sheet import FaceScore

Answer = Literal["match", "no match", "cannot tell"]


@dataclass(frozen=True, eq=False)
class Template:
    """Several images of one person as one.

    Attributes:
        embedding: (D,) float32 of length 1.
        uncertainty: larger = less reliable; the posterior variance where the model gives variances,
            else the weighted mean of the images' uncertainties.
        count: images in it.
        weights: the rule they were weighed by, see `fuse_templates`.
    """

    embedding: NDArray[np.float32] = field(repr=False)
    uncertainty: float
    count: int
    weights: Weights


@dataclass(frozen=True)
class ComparisonResult:
    """Whether two faces show one person, and how far that can be trusted.

    Attributes:
        score: cosine of the embeddings, larger = more alike.
        uncertainty: the larger one of the two faces.
        decision: None without calibration. A "no match" of two accepted faces is no proof of two
            people: photos taken twenty years apart may not match either.
        p_false_non_match: probability that two faces of one person, of this uncertainty, score
            below the threshold; NaN without calibration.
        p_same_person: probability that both faces show one person, from the score and both
            uncertainties, at the prior; NaN unless the calibration is of `--of match`.
        prior: of it: what it would be without having looked at the faces.
    """

    score: float
    uncertainty: float
    decision: Answer | None
    p_false_non_match: float
    p_same_person: float = math.nan
    prior: float = math.nan


def fuse_faces(
    model: LoadedModel,
    faces: Sequence[FaceScore],
    media: Sequence[int] | None = None,
    weights: Weights | None = None,
) -> Template:
    """Fuse faces of one person, weighed by how reliable each is; see `Scorer.fuse`.

    Raises:
        ValueError: a face without an embedding, or uncertainties that do not suit the weights.
    """
    rule = weights or model.fusion
    media = range(len(faces)) if media is None else media
    sigma_sq = [
        np.array([face.uncertainty]) if face.sigma_sq is None else face.sigma_sq for face in faces
    ]
    fused = fuse_templates(
        np.stack([_embedding(face, model) for face in faces]),
        np.stack(sigma_sq).astype(np.float32),
        np.zeros(len(faces), np.int64),
        np.asarray(media, np.int64),
        rule,
    )
    is_scalar = fused.sigma_sq.shape[1] == 1
    uncertainty = fused.sigma_sq[:, 0] if is_scalar else harmonic_mean(fused.sigma_sq)
    return Template(fused.mu[0], float(uncertainty[0]), len(faces), rule)


def compare_faces(
    model: LoadedModel,
    first: FaceScore | Template,
    second: FaceScore | Template,
    prior: float | None = None,
) -> ComparisonResult:
    """Score two faces of one model against each other and say what follows.

    The less reliable one decides how far the score can be trusted. With the verdict "accept" for
    its uncertainty the answer is "match" or "no match" by the calibration's score threshold, with
    any other it is "cannot tell".

    Raises:
        ValueError: a side without an embedding, or of another model; a prior outside (0, 1), or one
            for a calibration without P(same person).
    """
    same = model.calibration.same_person if model.calibration else None
    if prior is not None and same is None:
        raise ValueError(
            f"prior = {prior:g}: {model.name} has no P(same person): calibrate it with "
            "evaluation/calibrate.py --of match"
        )
    sides = (_embedding(first, model), _embedding(second, model))
    if sides[0].shape != sides[1].shape:
        sizes = " and ".join(str(len(side)) for side in sides)
        raise ValueError(f"embeddings of {sizes} values are not of one model")
    score = float(cosine_of_pairs(np.stack(sides))[0])
    uncertainty = max(first.uncertainty, second.uncertainty)
    if model.calibration is None:
        return ComparisonResult(score, uncertainty, None, float("nan"))
    answer: Answer | None = None
    if model.decision is not None:
        answer = "match" if score >= model.calibration.score_threshold else "no match"
        if model.decision.verdict(uncertainty) != ["accept"]:
            answer = "cannot tell"
    probability = float(model.calibration.probability(uncertainty))
    result = ComparisonResult(score, uncertainty, answer, probability)
    if same is None:
        return result
    prior = same.prior if prior is None else prior
    chance = same.probability(score, first.uncertainty, second.uncertainty, prior)
    return replace(result, p_same_person=float(chance), prior=prior)


def _embedding(side: FaceScore | Template, model: LoadedModel) -> NDArray[np.float32]:
    if side.embedding is None:
        raise ValueError(
            f"model {model.name} scores faces but gives no embedding, so they cannot be compared "
            "or fused: use a model with its backbone"
        )
    if not are_directions(side.embedding[None]).all():
        raise ValueError(
            "an embedding of zeros has no direction, nor has one of NaN or of numbers that are too "
            "large or small: it cannot be compared or fused"
        )
    return side.embedding
