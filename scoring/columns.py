"""The flat row of a scored face: names, order, rounding and types of its columns.

For score_images, the Python scorer's `to_rows` and the Ray engine, so that all files agree.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.face_score import LANDMARKS, FaceScore, Measures

_BOX = ("left", "top", "right", "bottom")
_POINTS = tuple(f"{name}_{axis}" for name in LANDMARKS for axis in "xy")
_MEASURES = ("sharpness", "brightness", "contrast", "eye_distance", "yaw", "roll")
WORDS = ("file", "status", "note", "verdict", "reasons")
COUNTS = ("index", "face", "quality")
COLUMNS = (
    *("file", "index", "face", "status", "note"),
    *_BOX,
    *_POINTS,
    *("detection", "uncertainty", "quality", "percentile", "p_false_non_match"),
    *("verdict", "reasons"),
    *_MEASURES,
)


def flat_row(file: str, index: int | None, score: FaceScore) -> dict[str, Any]:
    r"""Return the columns of one face, in the order of `COLUMNS`.

    Args:
        file: path as given, of a photo, a pack or a video; bytes that are no text become `\udcff`.
        index: row of a pack, frame of a video; None for a photo.
        score: the face, or why there is none.

    Returns:
        Words (never None), ints and floats; None for what is missing. Pixels and measures have two
        decimals, `uncertainty` the digits of its float32, probabilities six significant digits.
    """
    points = [None] * len(_POINTS) if score.landmarks is None else score.landmarks.reshape(-1)
    return {
        "file": plain_text(file),
        "index": index,
        "face": score.face,
        "status": score.status,
        "note": plain_text(score.note),
        **dict(zip(_BOX, map(_rounded, score.box or [None] * 4), strict=True)),
        **dict(zip(_POINTS, map(_rounded, points), strict=True)),
        "detection": _significant(score.detection, 4),
        "uncertainty": _shortest(score.uncertainty),
        "quality": int(score.quality),
        "percentile": _rounded(score.percentile),
        "p_false_non_match": _significant(score.p_false_non_match, 6),
        "verdict": score.verdict,
        "reasons": "; ".join(score.reasons),
        **_measured(score.measures),
    }


def face_score(row: Mapping[str, Any], image: int) -> FaceScore:
    """Turn a flat row back into what it was made of, but for pixels and embedding.

    Args:
        row: of `flat_row`.
        image: number of the image.
    """
    box = tuple(row[name] for name in _BOX)
    points = [row[name] for name in _POINTS]
    given = {name: row[name] for name in _MEASURES}
    return FaceScore(
        image=image,
        face=row["face"],
        status=row["status"],
        note=row["note"],
        box=None if None in box else box,
        landmarks=None if None in points else np.array(points, np.float32).reshape(-1, 2),
        detection=row["detection"],
        uncertainty=_or_nan(row["uncertainty"]),
        quality=row["quality"],
        percentile=_or_nan(row["percentile"]),
        p_false_non_match=_or_nan(row["p_false_non_match"]),
        verdict=row["verdict"],
        reasons=tuple(filter(None, row["reasons"].split("; "))),
        measures=None if given["sharpness"] is None else Measures(**given),
    )


def plain_text(text: str) -> str:
    r"""Return text that UTF-8 can carry: bytes of file names that are no text become `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


def arrow_schema() -> Any:
    """Return the `pyarrow.Schema` of the columns; ValueError where pyarrow is not installed."""
    pyarrow = import_pyarrow("pyarrow")
    kinds = {name: pyarrow.float64() for name in COLUMNS}
    kinds |= dict.fromkeys(WORDS, pyarrow.string())
    kinds |= {"index": pyarrow.int64(), "face": pyarrow.int32(), "quality": pyarrow.uint8()}
    return pyarrow.schema(list(kinds.items()))


def import_pyarrow(module: str) -> Any:
    """Return `pyarrow` or a module of it; ValueError with the way out where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            "Parquet files need pyarrow, which is not installed: pip install pyarrow"
        ) from error


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _measured(measures: Measures | None) -> dict[str, float | None]:
    if measures is None:
        return dict.fromkeys(_MEASURES)
    return {name: _rounded(getattr(measures, name)) for name in _MEASURES}


def _rounded(value: Any) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), 2)


def _significant(value: float | None, digits: int) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _shortest(value: float) -> float | None:
    """The shortest decimal number that reads back as the same float32."""
    return float(str(np.float32(value))) if math.isfinite(value) else None
