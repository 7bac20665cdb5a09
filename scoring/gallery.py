"""Opens the references of a gallery, to be audited: embedded here, or stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.faces import FaceImages, Images, open_faces, people_of
from data.features import unit_rows
from estimators.base import Estimate
from evaluation.embed import embed_images
from evaluation.open_model import LoadedModel
from search.gallery import Gallery, Picture
from search.sides import is_stored, open_side
from utils.distributed import ALONE, World


def open_gallery(
    source: str,
    model: LoadedModel | None = None,
    *,
    images: str | None = None,
    batch_size: int = 64,
    parts: str | None = None,
    world: World = ALONE,
) -> Gallery:
    """Open the references of a gallery, and embed them where they are images.

    Args:
        source: what `open_side` takes; faces need a model.
        model: that embeds them.
        images: the faces that stored embeddings come from, to show them; found by their names.
        batch_size: images per forward pass.
        parts: folder in which finished parts of the embedding are kept; see `embed_images`.
        world: the ranks that share the embedding.

    Raises:
        ValueError: as `open_side`; also something stored with a model, or `images` that lack one of
            those that are stored; the message names it.
    """
    shown: list[Images] = []

    def embed(name: str, pictures: Images) -> Estimate:
        assert model is not None
        shown.append(pictures)
        return embed_images(
            *(model.estimator, pictures, batch_size),
            name=name,
            parts=parts,
            about=model.fingerprint,
            world=world,
        )

    if is_stored(source) and model is not None:
        raise ValueError(f"{source} has its own embeddings: no model goes with it")
    if images is not None and not is_stored(source):
        raise ValueError(f"images = {images}: {source} has its own")
    side = open_side(source, None if model is None else embed)
    names = side.images.tolist()
    label = np.unique(side.person, return_inverse=True)[1]
    folders = people_of(label, names, None)  # also where a file has numbers
    return Gallery(
        side.name,
        unit_rows(side.mu),
        side.uncertainty,
        side.person if folders[0].startswith("?") else folders,
        names,
        _picture(shown[0]) if shown else None if images is None else _pictures(images, names),
        side.notes,
    )


def _picture(images: Images) -> Picture:
    return lambda row: images.decode(row, row + 1)[0]


def _pictures(source: str, names: Sequence[str]) -> Picture:
    """Pictures by name."""
    path = Path(source)
    images = FaceImages(open_faces(source), path if path.is_dir() else path.parent)
    rows = {images.image_name(row): row for row in range(len(images))}
    missing = next((name for name in names if name not in rows), None)
    if missing is not None:
        raise ValueError(f"{source} has no image {missing}, which is among the embeddings")
    picture = _picture(images)
    return lambda row: picture(rows[names[row]])
