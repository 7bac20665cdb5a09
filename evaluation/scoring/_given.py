"""What a person hands to a scorer, as photos one after the other: paths, bytes, arrays, pictures.

For `Scorer`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluation.scoring.scores import Source

if TYPE_CHECKING:
    from data.photos import Photo

WANTED = (
    "a path, the bytes of an image file, a PIL image, an array (H, W, 3), a batch of aligned faces "
    "(N, 112, 112, 3), or several of them"
)


class Given(NamedTuple):
    """One image.

    Attributes:
        source: where it is from.
        photo: its pixels, or why it cannot be read.
        aligned: whether it is an aligned face; None where that is not known.
    """

    source: Source
    photo: Photo | ValueError
    aligned: bool | None


def given(images: Any) -> Iterator[Given]:
    """Read images one after the other.

    Args:
        images: one or many of a path, encoded bytes, a PIL image, an array; or a uint8 batch.

    Raises:
        ValueError: something that is no image of these kinds, or no file; names which one.
    """
    if _is_one(images):
        yield from _one(images, 0)
        return
    if isinstance(images, dict | set) or not isinstance(images, Iterable):
        raise ValueError(f"{type(images).__name__} is no image: give {WANTED}")
    for place, image in enumerate(images):
        yield from _one(image, place)


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, str | os.PathLike | bytes | bytearray | memoryview) or _is_pil(images)


def _is_pil(image: Any) -> bool:
    return type(image).__module__.partition(".")[0] == "PIL"


def _one(image: Any, place: int) -> Iterator[Given]:
    from data.photos import from_array, read_photo

    if isinstance(image, str | os.PathLike):
        yield from _file(Path(image))
    elif isinstance(image, bytes | bytearray | memoryview):
        yield Given(Source(), _tried(read_photo, bytes(image)), None)
    elif _is_pil(image):
        yield Given(Source(), _tried(from_array, image), None)
    elif isinstance(image, np.ndarray):
        try:
            yield Given(Source(), from_array(image), None)
        except ValueError as error:
            raise ValueError(f"image {place}: {error}") from error
    else:
        raise ValueError(f"image {place} is {type(image).__name__}: give {WANTED}")


def _file(path: Path) -> Iterator[Given]:
    from data.photos import read_photo

    if not path.is_file():
        raise ValueError(f"no file {path}")
    yield Given(Source(str(path)), _tried(read_photo, path.read_bytes()), None)


def _tried(read: Any, image: Any) -> Photo | ValueError:
    try:
        photo: Photo = read(image)
    except ValueError as error:
        return error
    return photo
