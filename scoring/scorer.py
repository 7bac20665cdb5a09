"""Photos in, a score per face out: detection, alignment, the model, and what its numbers mean.

For Python users through `load_scorer`, for score_images and for the Ray engine.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from data.features import are_directions
from data.images import SIZE, to_112
from estimators.base import Batch, Estimate, estimate_of
from evaluation.confidence.calibration import Decision
from evaluation.open_model import LoadedModel, open_model
from photos.align import align
from photos.decode import Photo, is_image, is_pixels, to_photo
from photos.detectors import Detector, open_detector
from photos.sources import Item, open_sources, read_ahead
from report.sheet import FaceScore
from scoring.measures import measure, reasons, spans_a_face
from scoring.ofiq import KEY, raw_values
from scoring.rows import Row, Source, flat_row
from scoring.templates import ComparisonResult, Template, compare_faces, fuse_faces

if TYPE_CHECKING:
    from evaluation.sets.templates import Weights
    from utils.config import Precision


WORKERS = 2  # threads that decode: detection and the model take longer than that
AHEAD = 2  # photos for each thread that are decoded or being decoded
_PATH = (str, os.PathLike)


class LoadedImage(NamedTuple):
    """One image.

    Attributes:
        photo: its pixels, or why it cannot be read.
        aligned: whether it is an aligned face; None takes one of 112x112 pixels as such.
    """

    source: Source
    photo: Photo | ValueError
    aligned: bool | None = None


@dataclass(frozen=True, eq=False)
class Scores(Sequence[FaceScore]):
    """The faces of some images, image by image, the largest face first.

    Every image has at least one row; see `FaceScore.status`. A sequence: `len`, indices, slices
    (tuples) and loops give `FaceScore`.

    Attributes:
        rows: the faces.
        sources: where each image came from, by `FaceScore.image`.
    """

    rows: tuple[FaceScore, ...]
    sources: tuple[Source, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> FaceScore: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[FaceScore, ...]: ...
    def __getitem__(self, place: int | slice) -> FaceScore | tuple[FaceScore, ...]:
        return self.rows[place]

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """(n,) raw, larger = less reliable; NaN where there is no face."""
        return np.array([row.uncertainty for row in self.rows], np.float32)

    @property
    def quality(self) -> NDArray[np.uint8]:
        """(n,) 0 to 100, 100 = best; 255 where it could not be computed."""
        return np.array([row.quality for row in self.rows], np.uint8)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """(n, D), not normalised; NaN where there is no face, D = 0 without an embedding."""
        size = max((len(row.embedding) for row in self if row.embedding is not None), default=0)
        embeddings = np.full((len(self), size), np.nan, np.float32)
        for place, row in enumerate(self.rows):
            if row.embedding is not None:
                embeddings[place] = row.embedding
        return embeddings

    @property
    def largest(self) -> tuple[FaceScore, ...]:
        """The largest face of each image, or the row that says why it has none."""
        return tuple(row for row in self.rows if row.face <= 0)

    def to_rows(self, *, ofiq: bool = False) -> list[Row]:
        """Return flat rows of plain values, as score_images writes them (docs/score_photos.md).

        With `ofiq` each has the raw values of OFIQ's components as well, for `write_ofiq`.
        """
        sources = [self.sources[row.image] for row in self.rows]
        rows = [flat_row(at.file, at.index, row) for at, row in zip(sources, self, strict=True)]
        if ofiq:
            return [row | {KEY: raw_values(face)} for row, face in zip(rows, self, strict=True)]
        return rows


@dataclass(frozen=True, eq=False)
class BestShot:
    """The most reliable of several pictures.

    Attributes:
        index: number of the picture, from 0.
        score: its largest face.
        scores: all faces of all pictures.
    """

    index: int
    score: FaceScore
    scores: Scores = field(repr=False)


class Scorer:
    """Scores faces in photos; make one with `load_scorer`, which explains the arguments.

    Raises:
        ValueError: a batch size or a number of faces below 1.
    """

    def __init__(
        self,
        model: LoadedModel,
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
            self._detector = open_detector(self._detector)
        return self._detector

    def __call__(self, images: object, aligned: bool | None = None, *, bgr: bool = False) -> Scores:
        """Score every face of one or many images.

        An image that cannot be read, and one without a face, has a row that says so, of quality 255
        and with the verdict "refuse" where the model has a decision.

        Args:
            images: one or several of: a path; the bytes of an image file, an open file or an
                upload; a PIL image; an array (H, W, 3) or (H, W), or a torch tensor, which may also
                be (3, H, W); see `photos.decode.from_array`. An array (N, H, W, 3) is several.
            aligned: whether images are aligned faces; None takes those of 112x112 pixels as such,
                and searches the others for faces.
            bgr: whether arrays and tensors have OpenCV's order of colours, not RGB.

        Raises:
            TypeError: something that is not an image; names its type and what is one.
            ValueError: an array that no image can be, a file that does not exist, or a model that
                gives NaN; names the image.
        """
        return self.score_loaded(load_images(images, bgr=bgr), aligned)

    def score_loaded(self, images: Iterable[LoadedImage], aligned: bool | None = None) -> Scores:
        """Score images that are read already; see `__call__`.

        They are taken one by one and their pixels are not kept, so that a generator needs memory
        for one photo.
        """
        sources: list[Source] = []
        batches = _Batches(self.model, self.batch_size)
        for number, image in enumerate(images):
            sources.append(image.source)
            name = image.source.display_name or f"image {number}"
            if aligned is not None:
                image = image._replace(aligned=aligned)
            for row in self._aligned_faces(number, image):
                batches.add(row, name)
            del image
        return Scores(tuple(batches.finish()), tuple(sources))

    def best_shot(
        self, frames: object, aligned: bool | None = None, *, bgr: bool = False
    ) -> BestShot:
        """Pick the frame whose largest face is the most reliable; of equal ones the first.

        Frames are pictures of one person, as a call takes images, or their `Scores`.

        Raises:
            ValueError: no frame has a face.
        """
        scores = frames if isinstance(frames, Scores) else self(frames, aligned, bgr=bgr)
        faces = [row for row in scores.largest if row.status == "scored"]
        if not faces:
            first = f"; the first: {scores[0].note}" if len(scores) else ""
            raise ValueError(f"none of the {len(scores.sources)} frames has a face{first}")
        best = min(faces, key=lambda row: row.uncertainty)
        return BestShot(best.image, best, scores)

    def fuse(
        self,
        template: object,
        media: Sequence[int] | None = None,
        *,
        weights: Weights | None = None,
        aligned: bool | None = None,
        bgr: bool = False,
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
            bgr: as in a call.

        Raises:
            ValueError: no face, a model without embeddings, not one medium per image, or
                uncertainties that do not suit the weights.
        """
        if isinstance(template, list | tuple) and all(
            isinstance(face, FaceScore) for face in template
        ):
            rows = tuple(template)
        else:
            scores = template if isinstance(template, Scores) else self(template, aligned, bgr=bgr)
            rows = scores.largest
        if media is not None and len(media) != len(rows):
            raise ValueError(f"{len(media)} media for {len(rows)} images: give one number for each")
        places = [place for place, row in enumerate(rows) if row.status == "scored"]
        if not places:
            first = f"; the first: {rows[0].note}" if rows else ""
            raise ValueError(f"none of the {len(rows)} images of the template has a face{first}")
        media = None if media is None else [media[place] for place in places]
        return fuse_faces(self.model, [rows[place] for place in places], media, weights)

    def compare(
        self,
        first: object,
        second: object,
        aligned: bool | None = None,
        *,
        bgr: bool = False,
        prior: float | None = None,
    ) -> ComparisonResult:
        """Compare two faces: the score, how far it can be trusted, and what follows.

        Each side is one image as a call takes it (its largest face), a `FaceScore` or a `Template`.
        Without calibration the score and the uncertainty are given, but no decision. `prior` is the
        probability that both show one person before anybody looks at them; None for that of the
        calibration.

        Raises:
            ValueError: a side without a face or with several images, a model without embeddings, or
                a prior that is no probability or goes with no calibration of `--of match`.
        """
        sides = (
            self.side(first, "first", aligned, bgr),
            self.side(second, "second", aligned, bgr),
        )
        return compare_faces(self.model, *sides, prior)

    def explain(
        self,
        image: object,
        aligned: bool | None = None,
        *,
        bgr: bool = False,
        mean_face: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Say where in a face its uncertainty comes from.

        Args:
            image: one as a call takes it (its largest face), or a `FaceScore` of one.
            aligned: as in a call.
            bgr: as in a call.
            mean_face: (112, 112, 3) RGB that the face is compared with; None: the mean of rendered
                faces.

        Returns:
            (112, 112) for the aligned face: how much each pixel raises the logit (or logarithm) of
            the uncertainty; below 0 it lowers it. `TrainedHead.explain` has the formula.

        Raises:
            ValueError: no face, several images, or a model without gradients, such as an .onnx.
        """
        self.model.require_maps()
        face = self.side(image, "explained", aligned, bgr)
        pixels = face.aligned if isinstance(face, FaceScore) else None
        if pixels is None:
            raise ValueError("explain takes an image or a face with its pixels, not a template")
        return self.model.explain(pixels[None], mean_face)[0]

    def side(
        self, side: object, which: str, aligned: bool | None, bgr: bool
    ) -> FaceScore | Template:
        """Return one face of what `compare` takes; ValueError names `which` if there is none."""
        if isinstance(side, Template):
            return side
        if isinstance(side, FaceScore):
            face = side
        else:
            scores = side if isinstance(side, Scores) else self(side, aligned, bgr=bgr)
            if len(scores.sources) != 1:
                raise ValueError(
                    f"the {which} side has {len(scores.sources)} images: compare takes one, or a "
                    "template of several, as fuse makes it"
                )
            face = scores[0]
        if face.status != "scored":
            raise ValueError(f"the {which} side cannot be compared: {face.status}; {face.note}")
        return face

    def _aligned_faces(self, number: int, image: LoadedImage) -> list[FaceScore]:
        """The aligned faces of image `number`, not scored yet, or one row that says why none."""
        photo, aligned = image.photo, image.aligned
        if isinstance(photo, ValueError):
            return [FaceScore(image=number, status="unreadable", note=str(photo))]
        height, width = photo.pixels.shape[:2]
        has_size = (height, width) == (SIZE, SIZE)
        if not (has_size if aligned is None else aligned):
            return self._detected(number, photo)
        note = "" if has_size else f"resized from {width}x{height}"
        note = "; ".join(filter(None, (photo.note, note)))
        return [FaceScore(image=number, face=0, note=note, aligned=to_112(photo.pixels))]

    def _detected(self, number: int, photo: Photo) -> list[FaceScore]:
        boxes, landmarks, scores = self.detector(photo.pixels)
        usable = [place for place, points in enumerate(landmarks) if spans_a_face(points)]
        if not usable:
            note = "; ".join(filter(None, ("no face found", photo.note)))
            return [FaceScore(image=number, status="no face", note=note)]
        height, width = photo.pixels.shape[:2]
        size = (width * photo.scale, height * photo.scale)
        return [
            FaceScore(
                image=number,
                face=face,
                note=photo.note,
                box=tuple((boxes[place] * photo.scale).tolist()),
                landmarks=(landmarks[place] * photo.scale).astype(np.float32),
                photo_size=size,
                detection=float(scores[place]),
                aligned=align(photo.pixels, landmarks[place]),
            )
            for face, place in enumerate(usable[: self.max_faces])
        ]


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
        calibration: file of calibrate.py, instead of the model's own.
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
    ).require_photos()
    if target_risk is not None or refuse_risk is not None:
        if opened.calibration is None:
            raise ValueError(f"target_risk and refuse_risk need a calibration: {opened.header()}")
        decision = Decision.from_calibration(opened.calibration, target_risk, refuse_risk)
        opened = replace(opened, decision=decision)
    return Scorer(opened, detector, batch_size, max_faces)


class _Batches:
    """Collects rows; `size` faces go through the model together, whatever the photos hold."""

    def __init__(self, model: LoadedModel, size: int) -> None:
        self._model, self._size = model, size
        self._rows: list[FaceScore] = []
        self._waiting: list[tuple[int, str]] = []

    def add(self, row: FaceScore, name: str) -> None:
        """Take a face that is aligned but not scored, or the reason why an image has none."""
        if row.status == "scored":
            self._waiting.append((len(self._rows), name))
        elif self._model.decision is not None:
            row = replace(row, verdict="refuse")
        self._rows.append(row)
        if len(self._waiting) == self._size:
            self._score()

    def finish(self) -> list[FaceScore]:
        """Score what still waits; return all rows in the order in which they came."""
        if self._waiting:
            self._score()
        return self._rows

    def _score(self) -> None:
        faces = [self._rows[place] for place, _ in self._waiting]
        images = np.stack([face.aligned for face in faces if face.aligned is not None])
        estimate = estimate_of(self._model.estimator, Batch(images))
        self._check_finite(estimate, faces)
        mu, sigma_sq = estimate
        uncertainty = estimate.scalar()
        measures = measure(
            images, [face.landmarks for face in faces], [face.photo_size for face in faces]
        )
        scored = [
            replace(
                face,
                uncertainty=float(uncertainty[i]),
                embedding=mu[i] if mu.shape[1] else None,
                sigma_sq=None if sigma_sq.shape[1] == 1 else sigma_sq[i],
                measures=measures[i],
                reasons=reasons(measures[i]),
            )
            for i, face in enumerate(faces)
        ]
        for (place, _), face in zip(self._waiting, self._judged(scored, uncertainty), strict=True):
            self._rows[place] = face
        self._waiting.clear()

    def _judged(self, faces: list[FaceScore], uncertainty: NDArray[np.float32]) -> list[FaceScore]:
        """Add what a calibration and a decision say."""
        calibration, decision = self._model.calibration, self._model.decision
        if calibration is not None:
            columns = (
                calibration.iso_quality(uncertainty).tolist(),
                calibration.percentile(uncertainty).tolist(),
                calibration.probability(uncertainty).tolist(),
            )
            faces = [
                replace(face, quality=quality, percentile=percentile, p_false_non_match=probability)
                for face, quality, percentile, probability in zip(faces, *columns, strict=True)
            ]
        if decision is not None:
            verdicts = decision.verdict(uncertainty)
            faces = [replace(face, verdict=v) for face, v in zip(faces, verdicts, strict=True)]
        return faces

    def _check_finite(self, estimate: Estimate, faces: Sequence[FaceScore]) -> None:
        sound = np.isfinite(estimate.sigma_sq).all(axis=1)
        if estimate.mu.shape[1]:
            sound &= are_directions(estimate.mu)
        if not sound.all():
            first = int(np.argmin(sound))
            raise ValueError(
                f"{self._waiting[first][1]}, face {faces[first].face}: model {self._model.name} "
                "gives NaN or infinite values, or an embedding that is no direction; its weights "
                "are damaged, or the precision is too low (try precision fp32)"
            )


def load_images(images: object, *, bgr: bool = False) -> Iterator[LoadedImage]:
    """Read what `Scorer` takes as images one after the other; files are decoded ahead, by threads.

    A path may be any input of `photos.sources`: a folder, a list, a pack, a video.

    Raises:
        TypeError: something that is not an image; names which one, its type and what is one.
        ValueError: an array that no image can be, a path of nothing, or an iterator of bytes
            that begins with no image, as a file's lines do; names which one.
    """
    is_single = is_image(images) or isinstance(images, (*_PATH, dict, set))
    many = [images] if is_single or not isinstance(images, Iterable) else images
    if isinstance(many, list | tuple) and many and all(isinstance(x, _PATH) for x in many):
        yield from load_items(open_sources([os.fspath(path) for path in many]), WORKERS)
        return
    for place, image in enumerate(many):
        if isinstance(image, _PATH):
            yield from load_items(open_sources([os.fspath(image)]), WORKERS)
            continue
        photo = _in_memory(image, place, bgr)
        is_part = isinstance(image, bytes) and not place and not isinstance(many, Sized)
        if isinstance(photo, ValueError) and is_part:
            raise ValueError(
                f"image 0: {photo}; if these are the lines or parts of one file, give all of its "
                "bytes; if they are images, give a list"
            )
        yield LoadedImage(Source(), photo)


def load_items(items: Iterable[Item], workers: int) -> Generator[LoadedImage]:
    """Read items of `photos.sources` ahead, in so many threads."""
    for item, photo in read_ahead(items, workers, AHEAD * workers):
        yield LoadedImage(Source(item.file, item.index), photo, item.aligned)


def _in_memory(image: object, place: int, bgr: bool) -> Photo | ValueError:
    """Pixels, or why an image cannot be decoded; what is not an image at all is an error."""
    try:
        return to_photo(image, bgr=bgr)
    except TypeError as error:
        raise TypeError(f"image {place}: {error}") from error
    except ValueError as error:
        if is_pixels(image):
            raise ValueError(f"image {place}: {error}") from error
        return error
