"""The two sides of a search: photos or stored embeddings with the people in them, and templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.extracted import ABOUT
from data.faces import FaceImages, Images, open_faces, people_of
from data.features import Embeddings
from estimators.base import Estimate, harmonic_mean
from evaluation.metrics.thresholds import Caution
from evaluation.sets.stored import open_stored
from evaluation.sets.templates import Weights, fuse_templates
from utils.arrays import read_npz
from utils.files import naming

DIVIDING = 1  # keeps this draw apart from later ones of people under the same seed


@dataclass(frozen=True)
class Side:
    """N images or templates.

    Attributes:
        name: for messages and reports.
        mu: (N, D) embeddings of any length but zero.
        sigma_sq: (N, c) uncertainties, larger = less reliable.
        person: (N,) who is shown; see `data.faces.people_of`.
        images: (N,) what each is called.
        notes: what was found when they were read.
    """

    name: str
    mu: NDArray[np.float32]
    sigma_sq: NDArray[np.float32]
    person: NDArray[np.str_]
    images: NDArray[np.str_]
    notes: tuple[Caution, ...] = ()

    def __len__(self) -> int:
        return len(self.mu)

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """(N,) one number for each."""
        return self.sigma_sq[:, 0] if self.sigma_sq.shape[1] == 1 else harmonic_mean(self.sigma_sq)

    def take(self, rows: NDArray[np.intp], name: str) -> Side:
        """Return some of them under another name."""
        mu, sigma_sq = self.mu[rows], self.sigma_sq[rows]
        return Side(name, mu, sigma_sq, self.person[rows], self.images[rows], self.notes)


def is_stored(source: str) -> bool:
    """Whether a side holds embeddings already, so that no model goes with it."""
    path = Path(source)
    return path.suffix.lower() == ".npz" or (path / ABOUT).is_file()


def open_side(source: str, embed: Callable[[str, Images], Estimate] | None) -> Side:
    """Open one side.

    Args:
        source: `.npz` with mu, sigma_sq and identity, a folder of extraction/extract.py, or faces
            as `open_faces` takes them, with or without `faces:` before it.
        embed: gives the embeddings of a name and its images; None where there is no model.

    Raises:
        ValueError: no such source, several uncertainties in it, or photos without a model.
    """
    path = Path(source)
    if is_stored(source):
        stored, uncertainties, notes = open_stored(path).labelled()
        if path.is_dir() and len(uncertainties) > 1:
            labels = ", ".join(each.label for each in uncertainties)
            raise ValueError(f"{path}: holds several uncertainties ({labels}); extract one of them")
        return Side(path.stem, stored.mu, stored.sigma_sq, *_people(path, stored), notes)
    source = source.removeprefix("faces:")
    faces = open_faces(source)
    rendered = source.startswith("synthetic:")
    path = Path(source)
    root = path if path.is_dir() else path.parent
    images = FaceImages(faces, None if rendered else root)
    if embed is None:
        raise ValueError(f"{source}: photos need a --model; stored embeddings (.npz) need none")
    name = source if rendered else (path.name if path.is_dir() else path.stem)
    names = np.array([images.image_name(row) for row in range(len(images))], np.str_)
    numbers = getattr(faces, "numbers", np.arange(faces.num_classes))
    person = people_of(faces.labels, names.tolist(), numbers)
    return Side(name, *embed(name, images), person, names)


def _people(path: Path, stored: Embeddings) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """People and names of stored embeddings, as the file has them."""
    rows = np.array([f"row {row}" for row in range(len(stored.mu))], np.str_)
    if path.is_dir():
        names = rows if stored.name is None else stored.name
        return people_of(stored.identity, names.tolist(), None), names
    identity = read_npz(path, ("identity",))["identity"]
    names = rows if stored.name is None else stored.name
    if identity.dtype.kind in "US":
        return identity.astype(np.str_), names
    return np.array([f"#{number}" for number in identity.tolist()]), names


def check_matching(gallery: Side, probes: Side) -> None:
    """Refuse sides whose people are called in ways that cannot be matched.

    Raises:
        ValueError: embeddings of different sizes, folder or other names against numbers, or numbers
            that were lost.
    """
    if gallery.mu.shape[1] != probes.mu.shape[1]:
        raise ValueError(
            f"{gallery.name} has embeddings of {gallery.mu.shape[1]} numbers and {probes.name} of "
            f"{probes.mu.shape[1]}: both sides need one model"
        )
    for side in (gallery, probes):
        if side.person[0].startswith("?"):
            raise ValueError(
                f"{side.name}: an extracted folder of a list or a pack does not keep its own "
                "numbers of people: give the list or pack with a --model, or one folder per person"
            )
    if gallery.person[0].startswith("#") != probes.person[0].startswith("#"):
        raise ValueError(
            f"people of {gallery.name} are called like {gallery.person[0]!r}, those of "
            f"{probes.name} like {probes.person[0]!r}: sides are matched by folders (one per "
            "person) or names, or both by the numbers of lists, packs or identities"
        )


def divide(side: Side, enrolled: int, left_out: float, seed: int) -> tuple[Side, Side]:
    """Make a gallery and probes of one set: some images of some people are enrolled.

    Of the people with more than `enrolled` images, all but a share `left_out` are in the gallery,
    with that many images; all other images are probes, also those of people with fewer.

    Args:
        side: the set.
        enrolled: images of a person in the gallery, drawn at random.
        left_out: share of those people who are not enrolled, in [0, 1).
        seed: of both draws.

    Raises:
        ValueError: nobody can be enrolled.
    """
    rng = np.random.default_rng([seed, DIVIDING])
    person = np.unique(side.person, return_inverse=True)[1]
    able = np.flatnonzero(np.bincount(person) > enrolled)
    chosen = rng.permutation(able)[: len(able) - round(left_out * len(able))]
    if not chosen.size:
        raise ValueError(f"{side.name}: nobody has more than {enrolled} images to be enrolled with")
    order = rng.permutation(len(person))
    order = order[np.argsort(person[order], kind="stable")]
    place = np.empty(len(order), np.int64)
    sizes = np.bincount(person)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_gallery = np.isin(person, chosen) & (place < enrolled)
    rows = np.flatnonzero(is_gallery), np.flatnonzero(~is_gallery)
    return side.take(rows[0], f"{side.name}, enrolled"), side.take(rows[1], f"{side.name}, probes")


def templates(side: Side, weights: Weights = "mean") -> Side:
    """One template of each person, in the order of their names; see `fuse_templates`."""
    people, person = np.unique(side.person, return_inverse=True)
    if len(people) == len(side):
        order = np.argsort(person)
        return replace(side.take(order, side.name), notes=side.notes)
    with naming(side.name):
        fused = fuse_templates(side.mu, side.sigma_sq, person, np.arange(len(side)), weights)
    return Side(side.name, fused.mu, fused.sigma_sq, people, people, side.notes)
