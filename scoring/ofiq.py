"""OFIQ's table: what five landmarks and an aligned face tell of ISO/IEC 29794-5:2025's components.

Names, order, separator, scales and the marks of a failure are those of the table that OFIQ 1.x
writes (BSI-OFIQ/OFIQ-Project). What its neural networks or 98 landmarks are needed for is marked as
failed, and so is what is another number on 112x112 pixels (sharpness, illumination uniformity).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from estimators.base import luminance
from report.sheet import NOT_COMPUTED, FaceScore
from scoring.measures import FACE_REGION
from scoring.rows import Row
from utils.files import atomic_file
from utils.tables import write_csv

COMPONENTS = (
    *("UnifiedQualityScore", "BackgroundUniformity", "IlluminationUniformity", "LuminanceMean"),
    *("LuminanceVariance", "UnderExposurePrevention", "OverExposurePrevention", "DynamicRange"),
    *("Sharpness", "CompressionArtifacts", "NaturalColour", "SingleFacePresent", "EyesOpen"),
    *("MouthClosed", "EyesVisible", "MouthOcclusionPrevention", "FaceOcclusionPrevention"),
    *("InterEyeDistance", "HeadSize", "LeftwardCropOfTheFaceImage", "RightwardCropOfTheFaceImage"),
    *("DownwardCropOfTheFaceImage", "UpwardCropOfTheFaceImage", "HeadPoseYaw", "HeadPosePitch"),
    *("HeadPoseRoll", "ExpressionNeutrality", "NoHeadCoverings"),
)
KEY = "ofiq"  # of a row with raw values
_FAILED = (0, -1)  # raw value and scale of a component that could not be assessed
_DARK, _BRIGHT = 25, 247  # luminance up to and from which a pixel is badly exposed


def _sigmoid(value: float, middle: float, width: float) -> float:
    return 1 / (1 + math.exp(min((middle - value) / width, 700.0)))


def _side_of(value: float) -> float:
    return 100 * _sigmoid(value, 0.9, 0.1)


def _turn(degrees: float) -> float:
    return 100 * math.cos(math.radians(degrees)) ** 2


# From raw values to 0..100, before the ends are cut off and the rest is rounded (clauses 7.3, 7.4).
SCALES: dict[str, Callable[[float], float]] = {
    "LuminanceMean": lambda mean: 100 * _sigmoid(mean, 0.2, 0.05) * (1 - _sigmoid(mean, 0.8, 0.05)),
    "LuminanceVariance": lambda variance: (
        100 * math.sin(60 * variance / (60 * variance + 1) * math.pi)
    ),
    "UnderExposurePrevention": lambda share: 120 * (0.832 - _sigmoid(share, 0.92, 0.05)),
    "OverExposurePrevention": lambda share: 1 / (share + 0.01),
    "DynamicRange": lambda bits: 12.5 * bits,
    "SingleFacePresent": lambda ratio: 100 * (1 - ratio),
    "InterEyeDistance": lambda pixels: 100 * _sigmoid(pixels, 70, 20),
    "LeftwardCropOfTheFaceImage": _side_of,
    "RightwardCropOfTheFaceImage": _side_of,
    "HeadPoseYaw": _turn,
    "HeadPoseRoll": _turn,
}


def scale(component: str, raw: float) -> float:
    """Return 0 to 100, 100 = best, for a raw value; whole numbers but for the dynamic range."""
    value = min(max(SCALES[component](raw), 0.0), 100.0)
    return value if component == "DynamicRange" else math.floor(value + 0.5)


def raw_values(face: FaceScore) -> dict[str, float]:
    """Return the raw value of each component that one face alone tells.

    Light is the luminance of `FACE_REGION` of the aligned face, in steps of 0 to 255 as OFIQ has
    it, but with what covers the face in it.
    """
    raw = {} if face.aligned is None else _light(face.aligned)
    measures, points = face.measures, face.landmarks
    if measures and measures.eye_distance is not None and measures.yaw is not None:
        assert measures.roll is not None
        raw["InterEyeDistance"] = measures.eye_distance / math.cos(math.radians(measures.yaw))
        raw["HeadPoseYaw"], raw["HeadPoseRoll"] = measures.yaw, measures.roll
        if points is not None and face.photo_size is not None and measures.eye_distance > 0:
            width = face.photo_size[0]
            raw["LeftwardCropOfTheFaceImage"] = float(points[0, 0]) / measures.eye_distance
            raw["RightwardCropOfTheFaceImage"] = (
                width - float(points[1, 0])
            ) / measures.eye_distance
    return raw


def _light(face: NDArray[np.uint8]) -> dict[str, float]:
    levels = np.floor(luminance(face[None])[0] * 255 + 0.5).astype(np.int64)[FACE_REGION]
    shares = np.bincount(levels, minlength=256) / len(levels)
    light, filled = np.arange(256) / 255, shares[shares > 0]
    mean = float(shares @ light)
    return {
        "LuminanceMean": mean,
        "LuminanceVariance": float(shares @ (light - mean) ** 2),
        "UnderExposurePrevention": float(shares[: _DARK + 1].sum()),
        "OverExposurePrevention": float(shares[_BRIGHT:].sum()),
        "DynamicRange": float(-(filled * np.log2(filled)).sum()),
    }


def write_ofiq(path: Path, rows: Iterable[Row]) -> None:
    """Write the table of rows with raw values under `KEY`: a line per image, of its largest face.

    Raises:
        OSError: the file cannot be written.
    """
    names = (*COMPONENTS, *(f"{name}.scalar" for name in COMPONENTS))
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        write_csv(text, chain([("Filename", *names, "")], _lines(rows)), delimiter=";")
        text.detach()


def _lines(rows: Iterable[Row]) -> Iterator[list[object]]:
    for (name, index), group in groupby(rows, key=lambda row: (row["file"], row["index"])):
        faces = list(group)
        values = _assessed(faces)
        pairs = [values.get(component, _FAILED) for component in COMPONENTS]
        file = name if index is None else f"{name}[{index}]"
        yield [file, *(_number(raw) for raw, _ in pairs), *(_number(scalar) for _, scalar in pairs)]


def _assessed(faces: list[Row]) -> dict[str, tuple[float, float]]:
    """Raw value and scale of each component of the largest of a photo's faces."""
    largest = faces[0]
    if largest["status"] != "scored":
        return {}
    raw = dict(largest[KEY])
    areas = [(row["right"] - row["left"]) * (row["bottom"] - row["top"]) for row in faces
             if row["left"] is not None]  # fmt: skip
    if areas:
        areas.sort()
        raw["SingleFacePresent"] = math.sqrt(areas[-2] / areas[-1]) if len(areas) > 1 else 0.0
    quality = largest["quality"]
    unified = (-largest["uncertainty"], -1 if quality == NOT_COMPUTED else quality)
    return {
        "UnifiedQualityScore": unified,
        **{name: (value, scale(name, value)) for name, value in raw.items()},
    }


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"
