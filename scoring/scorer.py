"""Photos in, a score per face out: detection, alignment, the model, and what its numbers mean.

For Python users through `load_scorer`, for score_images and for the Ray engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.decision import Decision
from evaluation.face_score import FaceScore
from evaluation.open_model import ScoringModel, open_model
from scoring._batches import Batches
from scoring._faces import faces_of
from scoring._given import given
from scoring.scores import BestShot, ComparisonResult, Scores, Source, Template
from scoring.templates import compare_faces, fuse_faces

if TYPE_CHECKING:
    from evaluation.sets.templates import Weights
    from photos.decode import Photo
    from photos.detectors.base import Detections, Detector
    from utils.config import Precision


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
            from photos.detectors import open_detector

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
            photos: what `photos.decode` gives, or the error with which it refused one. They are
                taken one by one and not kept, so that a generator needs memory for one.
            aligned: for each whether it is an aligned face; None where that is not known.
            names: for messages; their positions by default.

        Raises:
            ValueError: the model gives NaN; names the photo.
        """
        called: list[str] = []
        batches = Batches(self.model, self.batch_size, called)
        for photo, known in zip(photos, aligned, strict=True):
            image = len(called)
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

    def fuse(
        self,
        template: Any,
        media: Sequence[int] | None = None,
        *,
        weights: Weights | None = None,
        aligned: bool | None = None,
    ) -> Template:
        """Fuse images of one person into one embedding and one uncertainty.

        The largest face of each image counts, by how reliable it is; images without a face are left
        out.

        Args:
            template: images as a call takes them, their `Scores`, or a list of `FaceScore`.
            media: for each image the number of the photo or video that it is from, since frames of
                one video say nearly the same thing; None: all are separate photos.
            weights: "mean", "quality", "norm" or "inverse_variance"; None: what suits the model.
            aligned: as in a call.

        Raises:
            ValueError: no face, a model without embeddings, not one medium per image, or
                uncertainties that do not suit the weights.
        """
        if not isinstance(template, Scores) and _are_faces(template):
            rows = tuple(template)
        else:
            rows = (template if isinstance(template, Scores) else self(template, aligned)).largest
        if media is not None and len(media) != len(rows):
            raise ValueError(f"{len(media)} media for {len(rows)} images: give one number for each")
        kept = [place for place, row in enumerate(rows) if row.status == "scored"]
        if not kept:
            said = f"; the first: {rows[0].note}" if rows else ""
            raise ValueError(f"none of the {len(rows)} images of the template has a face{said}")
        chosen = None if media is None else [media[place] for place in kept]
        return fuse_faces(self.model, [rows[place] for place in kept], chosen, weights)

    def compare(self, first: Any, second: Any, aligned: bool | None = None) -> ComparisonResult:
        """Compare two faces: the score, how far it can be trusted, and what follows.

        Without calibration the score and the uncertainty are given, but no decision.

        Args:
            first: one image as a call takes it (its largest face), a `FaceScore`, or a `Template`.
            second: the same.
            aligned: as in a call.

        Raises:
            ValueError: a side without a face or with several images, or a model without embeddings.
        """
        sides = [
            self._side(what, which, aligned)
            for what, which in ((first, "first"), (second, "second"))
        ]
        return compare_faces(self.model, *sides)

    def _side(self, what: Any, which: str, aligned: bool | None) -> FaceScore | Template:
        if isinstance(what, Template):
            return what
        if isinstance(what, FaceScore):
            face = what
        else:
            scores = what if isinstance(what, Scores) else self(what, aligned)
            if len(scores.sources) != 1:
                raise ValueError(
                    f"the {which} side has {len(scores.sources)} images: compare takes one, or a "
                    "template of several, as fuse makes it"
                )
            face = scores[0]
        if face.status != "scored":
            raise ValueError(f"the {which} side cannot be compared: {face.status}; {face.note}")
        return face

    def _faces(
        self, image: int, photo: Photo | ValueError, aligned: bool | None
    ) -> list[FaceScore]:
        return faces_of(image, photo, aligned, self._find, self.max_faces)

    def _find(self, photo: NDArray[np.uint8]) -> Detections:
        return self.detector(photo)


def load_scorer(
    model: str | Path,
    *,
    detector: str | Detector = "mtcnn",
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 64,
    target_risk: float | None = None,
    refuse_risk: float | None = None,
    backbone_weights: str | Path | None = None,
    backbone_name: str | None = None,
    calibration: str | Path | None = None,
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
        backbone_weights: of a run: where the backbone's file is now; else that of `backbone_name`.
        backbone_name: as in "iresnet50": `model` is then an estimator without training, such as
            "embedding_norm".
        calibration: file of calibrate.py, instead of the one that the model brings.
        max_faces: of a photo, the largest ones; None for all.

    Raises:
        ValueError: the model cannot be opened, is not calibrated though a risk is given, or a value
            is outside its range.
    """
    opened = open_model(
        model,
        device=device,
        precision=precision,
        backbone_weights=backbone_weights,
        backbone_name=backbone_name,
        calibration=calibration,
    )
    if target_risk is not None or refuse_risk is not None:
        if opened.calibration is None:
            raise ValueError(f"target_risk and refuse_risk need a calibration: {opened.header()}")
        decision = Decision.from_calibration(opened.calibration, target_risk, refuse_risk)
        opened = replace(opened, decision=decision)
    return Scorer(opened, detector, batch_size, max_faces)


def _are_faces(template: Any) -> bool:
    return isinstance(template, list | tuple) and all(isinstance(x, FaceScore) for x in template)
