"""The references of a gallery: whose they are, their embeddings, and their pictures where known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.extracted import ABOUT
from data.faces import FaceImages, open_faces
from data.features import unit_rows
from evaluation.metrics.comparisons import image_uncertainties
from evaluation.metrics.thresholds import Caution
from evaluation.sets.stored import open_stored
from utils.distributed import ALONE, World

if TYPE_CHECKING:
    from evaluation.open_model import LoadedModel


@dataclass(frozen=True)
class Gallery:
    """M labelled images.

    Attributes:
        name: shown in messages and reports.
        unit: (M, D) float32 embeddings of length 1.
        uncertainty: (M,) larger = less reliable.
        label: (M,) whole numbers, one a person.
        names: (M,) of the images: paths below the gallery, keys of a pack, or row numbers.
        picture: row -> uint8 (112, 112, 3) RGB; None where there are no pictures.
        cautions: what is missing.
    """

    name: str
    unit: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    label: NDArray[np.integer]
    names: Sequence[str]
    picture: Callable[[int], NDArray[np.uint8]] | None = None
    cautions: tuple[Caution, ...] = ()

    @cached_property
    def people(self) -> dict[int, str]:
        """What each person is called: the folder that holds all images of this person alone."""
        folders: dict[int, list[str]] = {}
        for label, name in zip(self.label.tolist(), self.names, strict=True):
            parents = name.split("/")[:-1]
            folders[label] = list(commonprefix([folders.get(label, parents), parents]))
        owners = Counter(map("/".join, folders.values()))
        return {
            label: "/".join(path) if path and owners["/".join(path)] == 1 else f"person {label}"
            for label, path in folders.items()
        }


def open_gallery(
    source: str | Path,
    model: LoadedModel | None = None,
    *,
    images: str | None = None,
    batch_size: int = 64,
    parts: str | None = None,
    world: World = ALONE,
) -> Gallery:
    """Open the references of a gallery, and embed them where they are images.

    Args:
        source: stored embeddings with identities (.npz), a folder that extraction/extract.py wrote,
            or faces as `open_faces` takes them, which need a model.
        model: that embeds them.
        images: the faces that stored embeddings come from, to show them; found by their names.
        batch_size: images per forward pass.
        parts: folder in which finished parts of the embedding are kept; see `embed_images`.
        world: the ranks that share the embedding.

    Raises:
        ValueError: neither, faces without a model, something stored with one, or `images` that lack
            one of those that are stored; the message names it.
    """
    path = Path(source)
    if path.suffix == ".npz" or (path / ABOUT).is_file():
        if model is not None:
            raise ValueError(f"{source} has its own embeddings: no model goes with it")
        gallery = _open_stored(path)
        return gallery if images is None else _with_pictures(gallery, images)
    pictures = _open_images(str(source))
    if model is None:
        raise ValueError(f"{source}: which model? Only stored embeddings go without")
    if images is not None:
        raise ValueError(f"images = {images}: {source} has its own")
    from evaluation.embed import embed_images

    mu, sigma_sq = embed_images(
        model.estimator,
        pictures,
        batch_size,
        name=path.name,
        parts=parts,
        about=model.fingerprint,
        world=world,
    )
    return Gallery(
        path.stem if path.is_file() else path.name,
        unit_rows(mu),
        image_uncertainties(sigma_sq)[0].values,
        pictures.faces.labels,
        [pictures.image_name(row) for row in range(len(pictures))],
        pictures.faces.read,
    )


def _open_stored(path: Path) -> Gallery:
    stored, uncertainties, notes = open_stored(path).labelled()
    numbers = map(str, range(len(stored.identity)))
    return Gallery(
        path.stem,
        unit_rows(stored.mu),
        uncertainties[0].values,
        stored.identity,
        [*numbers] if stored.name is None else stored.name.tolist(),
        cautions=notes,
    )


def _open_images(source: str) -> FaceImages:
    path = Path(source)
    root = None if not path.exists() else path if path.is_dir() else path.parent
    return FaceImages(open_faces(source), root)


def _with_pictures(gallery: Gallery, images: str) -> Gallery:
    pictures = _open_images(images)
    rows = {pictures.image_name(row): row for row in range(len(pictures))}
    missing = next((name for name in gallery.names if name not in rows), None)
    if missing is not None:
        raise ValueError(f"{images}: no image {missing}, which {gallery.name} has")
    return replace(gallery, picture=lambda row: pictures.faces.read(rows[gallery.names[row]]))
