"""Which faces and which errors the report shows, and their pictures as data URIs.

A face that occurs in several rows is shown once. NumPy; OpenCV encodes the pictures.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from evaluation.metrics.comparisons import Comparisons
    from report.data import ImageAccess

FACES = 12
ERRORS = 8
JPEG_QUALITY = 88
_TRIED = 20  # rows looked at per face shown: copies of one face are skipped


def faces(comparisons: Comparisons, images: ImageAccess | None) -> dict[str, Any]:
    """The `FACES` least and most uncertain images: row, name and uncertainty of each."""
    order = np.argsort(comparisons.uncertainty, kind="stable")
    wanted = min(FACES, max(1, len(order) // 2))
    return {
        "least_uncertain": _distinct(comparisons, order, wanted, images),
        "most_uncertain": _distinct(comparisons, order[::-1], wanted, images),
    }


def worst_errors(
    comparisons: Comparisons,
    uncertainty: NDArray[np.float32],
    threshold: float,
    limit: float,
    images: ImageAccess | None,
) -> dict[str, Any]:
    """False non-matches with the lowest and false matches with the highest scores.

    Args:
        comparisons: N of them.
        uncertainty: (N,) of each comparison.
        threshold: scores below it are non-matches.
        limit: a comparison above this uncertainty is refused.
        images: for their names.
    """
    scores, mated = comparisons.scores, comparisons.mated
    missed = np.flatnonzero(mated & (scores < threshold))
    matched = np.flatnonzero(~mated & (scores >= threshold))
    missed = missed[np.argsort(scores[missed], kind="stable")]
    matched = matched[np.argsort(-scores[matched], kind="stable")]
    return {
        "refused": 0.1,
        "uncertainty_threshold": limit,
        "score_threshold": threshold,
        "false_non_matches": [
            _pair(comparisons, int(one), uncertainty, limit, images) for one in missed[:ERRORS]
        ],
        "false_matches": [
            _pair(comparisons, int(one), uncertainty, limit, images) for one in matched[:ERRORS]
        ],
    }


def data_uri(images: ImageAccess, row: int) -> str:
    """One image as a JPEG data URI."""
    bgr = cv2.cvtColor(images.decode(row, row + 1)[0], cv2.COLOR_RGB2BGR)
    done, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(code.tobytes()).decode("ascii")


def _distinct(
    comparisons: Comparisons, order: NDArray[np.intp], wanted: int, images: ImageAccess | None
) -> list[dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for row in map(int, order[: _TRIED * wanted]):
        if len(found) == wanted:
            break
        found.setdefault(_key(comparisons, row, images), _face(comparisons, row, images))
    return list(found.values())


def _key(comparisons: Comparisons, row: int, images: ImageAccess | None) -> Any:
    if comparisons.image is not None:
        return int(comparisons.image[row])
    return row if images is None else images.decode(row, row + 1)[0].tobytes()


def _face(comparisons: Comparisons, row: int, images: ImageAccess | None) -> dict[str, Any]:
    return {
        "row": row,
        "name": "" if images is None else images.image_name(row),
        "uncertainty": float(comparisons.uncertainty[row]),
    }


def _pair(
    comparisons: Comparisons,
    place: int,
    uncertainty: NDArray[np.float32],
    limit: float,
    images: ImageAccess | None,
) -> dict[str, Any]:
    return {
        "comparison": place,
        "sides": [_face(comparisons, int(row), images) for row in comparisons.pairs[place]],
        "score": float(comparisons.scores[place]),
        "uncertainty": float(uncertainty[place]),
        "kept": bool(uncertainty[place] <= limit),
    }
