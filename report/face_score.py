"""One row per face: the result of a scorer, of score_images' files, and what a sheet shows.

NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["scored", "no face", "unreadable"]
Verdict = Literal["accept", "ask again", "refuse", ""]
NO_FACE = -1  # face index of a row that says why there is no face
NOT_COMPUTED = 255  # ISO/IEC 29794-1: no quality could be computed
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a person can see in a face.

    Attributes:
        sharpness: variance of the Laplacian of the aligned grey face; small = blurred.
        brightness: mean of the aligned grey face, 0..255.
        contrast: standard deviation of the aligned grey face.
        eye_distance: pixels between the eyes in the photo; None for an aligned input.
        yaw: degrees the head is turned, from the landmarks, positive to the viewer's right; None
            for an aligned input.
        roll: degrees the head is tilted, positive clockwise; None for an aligned input.
    """

    sharpness: float
    brightness: float
    contrast: float
    eye_distance: float | None = None
    yaw: float | None = None
    roll: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceScore:
    """One face of one image, or the reason why an image has none.

    Attributes:
        image: number of the image in the input, from 0.
        face: number of the face in its image, largest first, from 0; -1 where there is no face.
        status: "scored", "no face" or "unreadable".
        note: what was done to the image or what is wrong with it, in words; "" for neither.
        box: left, top, right, bottom in pixels of the upright photo; None for an aligned face.
        landmarks: (5, 2) x, y in the order of `LANDMARKS`; None for an aligned face.
        detection: confidence of the detector, 0..1; None for an aligned face.
        uncertainty: raw, larger = less reliable; NaN where there is no face.
        quality: 0..100, 100 = best; 255 where it could not be computed (ISO/IEC 29794-1).
        percentile: percent of the calibration set's images with lower uncertainty; NaN without
            calibration.
        p_false_non_match: probability that a mated comparison is missed when this is the face of
            lower quality of the two; NaN without calibration.
        verdict: "accept", "ask again" or "refuse"; "" without calibration.
        reasons: what a person can see that may be the cause, as in "blurred"; the worst first.
        measures: what the reasons were drawn from; None where there is no face.
        embedding: (D,) float32, not normalised; None where there is no face, or the model has none.
        sigma_sq: (D,) float32 variances whose harmonic mean `uncertainty` is, of a model that gives
            one per dimension of the embedding; else None.
        aligned: uint8 (112, 112, 3) RGB, the input of the model; None where there is no face.
    """

    image: int
    face: int = NO_FACE
    status: Status = "scored"
    note: str = ""
    box: tuple[float, float, float, float] | None = None
    landmarks: NDArray[np.float32] | None = None
    detection: float | None = None
    uncertainty: float = float("nan")
    quality: int = NOT_COMPUTED
    percentile: float = float("nan")
    p_false_non_match: float = float("nan")
    verdict: Verdict = ""
    reasons: tuple[str, ...] = ()
    measures: Measures | None = None
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)
    sigma_sq: NDArray[np.float32] | None = field(default=None, repr=False)
    aligned: NDArray[np.uint8] | None = field(default=None, repr=False)
