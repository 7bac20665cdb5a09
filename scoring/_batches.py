"""Faces of any number of photos through the model, in full batches, whatever a photo holds.

For `Scorer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.base import Batch
from evaluation.face_score import FaceScore
from evaluation.open_model import ScoringModel
from scoring.measures import measure, reasons


class Batches:
    """Collects rows; whenever `size` faces wait, they go through the model together.

    Args:
        model: scores them.
        size: faces of a batch.
        names: of the images, for messages.
    """

    def __init__(self, model: ScoringModel, size: int, names: Sequence[str]) -> None:
        self._model, self._size, self._names = model, size, names
        self._rows: list[FaceScore] = []
        self._waiting: list[int] = []

    def add(self, row: FaceScore) -> None:
        """Take a row: a face that is aligned but not scored, or the reason why there is none."""
        if row.status == "scored":
            self._waiting.append(len(self._rows))
        elif self._model.decision is not None:
            row = replace(row, verdict="refuse")
        self._rows.append(row)
        if len(self._waiting) == self._size:
            self._score()

    def finish(self) -> list[FaceScore]:
        """Score what still waits; returns all rows in the order in which they came."""
        if self._waiting:
            self._score()
        return self._rows

    def _score(self) -> None:
        faces = [self._rows[place] for place in self._waiting]
        images = np.stack([face.aligned for face in faces if face.aligned is not None])
        estimate = self._model.estimator(Batch(images))
        mu, sigma_sq = estimate
        self._check(faces, mu, sigma_sq)
        measures = measure(images, [face.landmarks for face in faces])
        one, values = sigma_sq.shape[1] == 1, estimate.scalar()
        columns = self._meanings(values)
        for i, (place, face) in enumerate(zip(self._waiting, faces, strict=True)):
            self._rows[place] = replace(
                face,
                uncertainty=float(values[i]),
                embedding=mu[i] if mu.shape[1] else None,
                sigma_sq=None if one else sigma_sq[i],
                measures=measures[i],
                reasons=reasons(measures[i]),
                **{name: column[i] for name, column in columns.items()},
            )
        self._waiting.clear()

    def _meanings(self, values: NDArray[np.float32]) -> dict[str, list[Any]]:
        """Columns that a calibration and a decision add, each of n values."""
        calibration, decision = self._model.calibration, self._model.decision
        found: dict[str, list[Any]] = {}
        if calibration is not None:
            found["quality"] = calibration.iso_quality(values).tolist()
            found["percentile"] = calibration.percentile(values).tolist()
            found["p_false_non_match"] = calibration.probability(values).tolist()
        if decision is not None:
            found["verdict"] = list(decision.verdict(values))
        return found

    def _check(
        self,
        faces: Sequence[FaceScore],
        mu: NDArray[np.float32],
        sigma_sq: NDArray[np.float32],
    ) -> None:
        sound = np.isfinite(mu).all(axis=1) & np.isfinite(sigma_sq).all(axis=1)
        if not sound.all():
            face = faces[int(np.argmin(sound))]
            raise ValueError(
                f"{self._names[face.image]}, face {face.face}: model {self._model.name} gives NaN "
                "or infinite values; its weights are damaged, or the precision is too low (try "
                "precision fp32)"
            )
