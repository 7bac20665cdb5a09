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
    """What a person can see in an aligned grey face, and in the photo that it was found in."""

    sharpness: float  # variance of the Laplacian; small = blurred
    brightness: float  # mean, 0..255
    contrast: float  # standard deviation
    eye_distance: float | None = None  # in pixels of the photo
    yaw: float | None = None  # degrees turned, from the landmarks, positive to the viewer's right
    roll: float | None = None  # degrees tilted, positive clockwise


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceScore:
    """One face of one image, or the reason why an image has none.

    Without calibration, percentile and probability are NaN and the verdict is "". An aligned input
    has no box, landmarks and detection. `sigma_sq` is of models that give variances per dimension.
    """

    image: int  # its number in the input, from 0
    face: int = NO_FACE  # its number in the image, largest first, from 0
    status: Status = "scored"
    note: str = ""  # what was done to the image or what is wrong with it
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom; upright photo
    landmarks: NDArray[np.float32] | None = None  # (5, 2) x, y in the order of `LANDMARKS`
    detection: float | None = None  # confidence of the detector, 0..1
    uncertainty: float = float("nan")  # larger = less reliable
    quality: int = NOT_COMPUTED  # 0..100, 100 = best
    percentile: float = float("nan")  # of the calibration set's images with lower uncertainty
    # that a mated comparison is missed when this is the face of lower quality of the two
    p_false_non_match: float = float("nan")
    verdict: Verdict = ""
    reasons: tuple[str, ...] = ()  # what may be the cause, as in "blurred"; the worst first
    measures: Measures | None = None
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)  # (D,), not normalised
    sigma_sq: NDArray[np.float32] | None = field(default=None, repr=False)  # (D,)
    aligned: NDArray[np.uint8] | None = field(default=None, repr=False)  # (112, 112, 3) RGB
