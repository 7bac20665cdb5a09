"""What a person hands to a scorer, as photos one after the other: paths, bytes, arrays, pictures.

For `Scorer`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scoring.scores import Source

if TYPE_CHECKING:
    from photos.decode import Photo

_PATH = (str, os.PathLike)
_BYTES = (bytes, bytearray, memoryview)
WORKERS = 2  # threads that decode: detection and the model take longer than that
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
    """Read images one after the other; files are decoded a few ahead, by threads.

    Args:
        images: one or many of a path, encoded bytes, a PIL image, an array; or a batch. A path may
            be any input of `photos.sources`: a folder, a list, a pack, a video.

    Raises:
        ValueError: something that is no image of these kinds, or no file; names which one.
    """
    many = [images] if _is_one(images) else images
    if isinstance(many, dict | set) or not isinstance(many, Iterable):
        raise ValueError(f"{type(images).__name__} is no image: give {WANTED}")
    if isinstance(many, list | tuple) and many and all(isinstance(one, _PATH) for one in many):
        yield from _files(many)
        return
    for place, image in enumerate(many):
        if isinstance(image, _PATH):
            yield from _files([image])
        else:
            yield Given(Source(), _pixels(image, place), None)


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, (*_PATH, *_BYTES)) or _is_pil(images)


def _is_pil(image: Any) -> bool:
    return type(image).__module__.partition(".")[0] == "PIL"


def _files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Given]:
    from photos.sources import open_sources, read_ahead

    sources = open_sources([os.fspath(path) for path in paths])
    for item, photo in read_ahead(sources, WORKERS, 2 * WORKERS):
        yield Given(Source(item.file, item.index), photo, item.aligned)


def _pixels(image: Any, place: int) -> Photo | ValueError:
    """Pixels, or why an image cannot be decoded; what is no image at all is an error."""
    from photos.decode import from_array, read_photo

    try:
        if isinstance(image, _BYTES):
            return read_photo(bytes(image))
        if isinstance(image, np.ndarray) or _is_pil(image):
            return from_array(image)
    except ValueError as error:
        if isinstance(image, np.ndarray):
            raise ValueError(f"image {place}: {error}") from error
        return error
    raise ValueError(f"image {place} is {type(image).__name__}: give {WANTED}")
