"""Photos in, a score per face out: detection, alignment, the model, and what its numbers mean.

For Python users through `load_scorer`, for score_images and for the Ray engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.confidence.decision import Decision
from evaluation.scoring._batches import Batches
from evaluation.scoring._given import given
from evaluation.scoring.model import ScoringModel, open_model
from evaluation.scoring.rows import FaceScore
from evaluation.scoring.scores import BestShot, Scores, Source

if TYPE_CHECKING:
    from data.photos import Photo
    from models.detectors._base import Detector
    from utils.config import Precision

SIZE = 112


class Scorer:
    """Scores faces in photos; make one with `load_scorer`.

    Args:
        model: what scores an aligned face.
        detector: finds faces; a name is opened when the first photo needs it.
        batch_size: faces per forward pass.
        max_faces: of a photo, the largest ones; None for all.

    Raises:
        ValueError: a batch size or a number of faces below 1.
    """

    def __init__(
        self,
        model: ScoringModel,
        detector: str | Detector = "mtcnn",
        batch_size: int = 64,
        max_faces: int | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_faces", max_faces)):
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1")
        self.model = model
        self.batch_size, self.max_faces = batch_size, max_faces
        self._detector = detector

    @property
    def detector(self) -> Detector:
        """The detector, opened.

        Raises:
            ValueError: no such detector, or it lacks a package or its weights.
        """
        if isinstance(self._detector, str):
            from models.detectors import open_detector

            self._detector = open_detector(self._detector)
        assert not isinstance(self._detector, str)
        return self._detector

    def __call__(self, images: Any, aligned: bool | None = None) -> Scores:
        """Score every face of one or many images.

        An image that cannot be read, and one without a face, has a row that says so, of quality 255
        and with the verdict "refuse" where the model has a decision.

        Args:
            images: a path, the bytes of an image file, a PIL image, an array (H, W, 3), a batch of
                aligned faces (N, 112, 112, 3), or several of them.
            aligned: whether images are aligned faces; None takes those of 112x112 pixels as such,
                and searches the others for faces.

        Raises:
            ValueError: something that is no image, a file that does not exist, or a model that
                gives NaN; names the image.
        """
        sources: list[Source] = []
        names: list[str] = []
        batches = Batches(self.model, self.batch_size, names)
        for image, (source, photo, known) in enumerate(given(images)):
            sources.append(source)
            names.append(source.file or f"image {image}")
            for row in self._faces(image, photo, known if aligned is None else aligned):
                batches.add(row)
        return Scores(tuple(batches.finish()), tuple(sources))

    def score_photos(
        self,
        photos: Iterable[Photo | ValueError],
        aligned: Iterable[bool | None],
        names: Sequence[str] | None = None,
    ) -> list[FaceScore]:
        """Score photos that are read already: one row or more for each, in their order.

        Args:
            photos: what `data.photos` gives, or the error with which it refused one. They are taken
                one by one and not kept, so that a generator needs memory for one.
            aligned: for each whether it is an aligned face; None where that is not known.
            names: for messages; their positions by default.

        Raises:
            ValueError: the model gives NaN; names the photo.
        """
        called: list[str] = []
        batches = Batches(self.model, self.batch_size, called)
        for image, (photo, known) in enumerate(zip(photos, aligned, strict=True)):
            called.append(f"photo {image}" if names is None else names[image])
            for row in self._faces(image, photo, known):
                batches.add(row)
        return batches.finish()

    def best_shot(self, frames: Any, aligned: bool | None = None) -> BestShot:
        """Pick the frame whose largest face is the most reliable; of equal ones the first.

        Args:
            frames: pictures of one person, as a call takes images; or their `Scores`.
            aligned: as in a call.

        Raises:
            ValueError: no frame has a face.
        """
        scores = frames if isinstance(frames, Scores) else self(frames, aligned)
        faces = [row for row in scores.largest if row.status == "scored"]
        if not faces:
            said = f"; the first: {scores[0].note}" if len(scores) else ""
            raise ValueError(f"none of the {len(scores.sources)} frames has a face{said}")
        best = min(faces, key=lambda row: row.uncertainty)
        return BestShot(best.image, best, scores)

    def _faces(
        self, image: int, photo: Photo | ValueError, aligned: bool | None
    ) -> Iterable[FaceScore]:
        """Rows of one image: its aligned faces, not scored yet, or why there is none."""
        if isinstance(photo, ValueError):
            return [FaceScore(image=image, status="unreadable", note=str(photo))]
        height, width = photo.pixels.shape[:2]
        if aligned is None:
            aligned = (height, width) == (SIZE, SIZE)
        if not aligned:
            return self._detected(image, photo)
        from data.images import to_112

        note = photo.note
        if (height, width) != (SIZE, SIZE):
            note = _joined(note, f"resized from {width}x{height}")
        return [FaceScore(image=image, face=0, note=note, aligned=to_112(photo.pixels))]

    def _detected(self, image: int, photo: Photo) -> list[FaceScore]:
        from data.align import align

        found = self.detector(photo.pixels)
        boxes = np.asarray(found.boxes, np.float64) * photo.scale
        rows = [
            FaceScore(
                image=image,
                face=face,
                note=photo.note,
                box=tuple(boxes[face].tolist()),
                landmarks=np.asarray(found.landmarks[face] * photo.scale, np.float32),
                detection=float(found.scores[face]),
                aligned=align(photo.pixels, found.landmarks[face]),
            )
            for face in range(min(len(found.scores), self.max_faces or len(found.scores)))
        ]
        none = FaceScore(image=image, status="no face", note=_joined("no face found", photo.note))
        return rows or [none]


def load_scorer(
    model: str | Path,
    *,
    detector: str | Detector = "mtcnn",
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 64,
    target_risk: float | None = None,
    refuse_risk: float | None = None,
    backbone_weights: str | None = None,
    max_faces: int | None = None,
) -> Scorer:
    """Open a model for scoring photos.

    Args:
        model: a run folder, a packed file, an exported .onnx file, or "demo"; see `open_model`.
        detector: its name, as in "mtcnn" or "yunet:weights=FILE", or a `Detector` of your own.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        precision: of the backbone: "auto", "fp32", "bf16", "fp16".
        batch_size: faces per forward pass.
        target_risk: accept a face while its calibrated P(false non-match) is at most this, instead
            of by the decision that came with the calibration.
        refuse_risk: refuse a face where it is above this; see `Decision.from_calibration`.
        backbone_weights: of a run: where the backbone's file is now.
        max_faces: of a photo, the largest ones; None for all.

    Raises:
        ValueError: the model cannot be opened, is not calibrated though a risk is given, or a value
            is outside its range.
    """
    opened = open_model(
        model, device=device, precision=precision, backbone_weights=backbone_weights
    )
    if target_risk is not None or refuse_risk is not None:
        if opened.calibration is None:
            raise ValueError(f"target_risk and refuse_risk need a calibration: {opened.header()}")
        decision = Decision.from_calibration(opened.calibration, target_risk, refuse_risk)
        opened = replace(opened, decision=decision)
    return Scorer(opened, detector, batch_size, max_faces)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
