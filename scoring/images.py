"""From what a person hands to a scorer to its aligned faces: paths, bytes, arrays, pictures.

For scoring/scorer.py and scoring/job.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.images import to_112
from photos.align import align
from photos.decode import Photo, from_array, read_photo
from photos.detectors.base import Detections
from photos.sources import Item, open_sources, read_ahead
from report.face_score import FaceScore

SIZE = 112
WORKERS = 2  # threads that decode: detection and the model take longer than that
AHEAD = 2  # photos for each thread that are decoded or being decoded

_PATH = (str, os.PathLike)
_BYTES = (bytes, bytearray, memoryview)
_KINDS = (
    "a path, the bytes of an image file, a PIL image, an array (H, W, 3), a batch of aligned faces "
    "(N, 112, 112, 3), or several of them"
)


@dataclass(frozen=True)
class Source:
    """Where an image came from.

    Attributes:
        file: path as given; "" for pixels that came without one.
        index: row of a pack or frame of a video; None for a photo.
    """

    file: str = ""
    index: int | None = None

    @property
    def display_name(self) -> str:
        """The name in a line for people."""
        name = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.file)
        return name if self.index is None else f"{name}[{self.index}]"


class LoadedImage(NamedTuple):
    """One image.

    Attributes:
        source: where it is from.
        photo: its pixels, or why it cannot be read.
        aligned: whether it is an aligned face; None takes one of 112x112 pixels as such.
    """

    source: Source
    photo: Photo | ValueError
    aligned: bool | None = None


def load_images(images: object) -> Iterator[LoadedImage]:
    """Read images one after the other; files are decoded a few ahead, by threads.

    Args:
        images: one or many of a path, encoded bytes, a PIL image, an array; or a batch. A path may
            be any input of `photos.sources`: a folder, a list, a pack, a video.

    Raises:
        ValueError: something that is not an image of these kinds, or not a file; names which one.
    """
    many = [images] if _is_single(images) else images
    if isinstance(many, dict | set) or not isinstance(many, Iterable):
        raise ValueError(f"{type(images).__name__} is not an image: give {_KINDS}")
    if isinstance(many, list | tuple) and many and all(isinstance(x, _PATH) for x in many):
        yield from load_items(open_sources([os.fspath(path) for path in many]), WORKERS)
        return
    for place, image in enumerate(many):
        if isinstance(image, _PATH):
            yield from load_items(open_sources([os.fspath(image)]), WORKERS)
        else:
            yield LoadedImage(Source(), _pixels(image, place))


def load_items(items: Iterable[Item], workers: int) -> Generator[LoadedImage]:
    """Read items of `photos.sources` ahead, in so many threads."""
    for item, photo in read_ahead(items, workers, AHEAD * workers):
        yield LoadedImage(Source(item.file, item.index), photo, item.aligned)


def aligned_faces(
    number: int,
    image: LoadedImage,
    detect: Callable[[NDArray[np.uint8]], Detections],
    max_faces: int | None,
) -> list[FaceScore]:
    """Rows of one image: its aligned faces, not scored yet, or one row that says why there is none.

    Args:
        number: of the image.
        image: pixels, or the error with which they were refused.
        detect: the detector; called for photos alone.
        max_faces: the largest ones; None for all.
    """
    photo, aligned = image.photo, image.aligned
    if isinstance(photo, ValueError):
        return [FaceScore(image=number, status="unreadable", note=str(photo))]
    height, width = photo.pixels.shape[:2]
    if aligned is None:
        aligned = (height, width) == (SIZE, SIZE)
    if not aligned:
        return _detected(number, photo, detect(photo.pixels), max_faces)
    resized = "" if (height, width) == (SIZE, SIZE) else f"resized from {width}x{height}"
    note = _joined(photo.note, resized)
    return [FaceScore(image=number, face=0, note=note, aligned=to_112(photo.pixels))]


def _detected(
    number: int, photo: Photo, detections: Detections, max_faces: int | None
) -> list[FaceScore]:
    usable = [place for place, points in enumerate(detections.landmarks) if _spans_a_face(points)]
    if not usable:
        note = _joined("no face found", photo.note)
        return [FaceScore(image=number, status="no face", note=note)]
    boxes, landmarks = detections.boxes * photo.scale, detections.landmarks * photo.scale
    return [
        FaceScore(
            image=number,
            face=face,
            note=photo.note,
            box=tuple(boxes[place].tolist()),
            landmarks=landmarks[place].astype(np.float32),
            detection=float(detections.scores[place]),
            aligned=align(photo.pixels, detections.landmarks[place]),
        )
        for face, place in enumerate(usable[:max_faces])
    ]


def _spans_a_face(points: NDArray[np.floating]) -> bool:
    """Whether five landmarks can be aligned: finite, and not all at one place."""
    return bool(np.isfinite(points).all() and np.ptp(points, axis=0).any())


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _is_single(images: object) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, (*_PATH, *_BYTES, Image.Image))


def _pixels(image: object, place: int) -> Photo | ValueError:
    """Pixels, or why an image cannot be decoded; what is not an image at all is an error."""
    try:
        if isinstance(image, _BYTES):
            return read_photo(bytes(image))
        if isinstance(image, np.ndarray | Image.Image):
            return from_array(image)
    except ValueError as error:
        if isinstance(image, np.ndarray):
            raise ValueError(f"image {place}: {error}") from error
        return error
    raise ValueError(f"image {place} is {type(image).__name__}: give {_KINDS}")
