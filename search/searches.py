"""Searches of probes in a gallery, and the comparisons that they amount to. NumPy only.

A search is one transaction of ISO/IEC 19795-1. Enrolled probes stand for mated comparisons: their
score is that of the own person where that is among the first ranks, else below all others. Probes
of nobody enrolled stand for non-mated ones, with their highest score. So FNIR at FPIR is FNMR at
FMR of these comparisons, and curves, bootstrap and certified risks of 1:1 hold for 1:N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.thresholds import Caution
from evaluation.sets.templates import Weights
from search.nearest import Candidates, nearest
from search.sides import Side, check_matching, templates
from utils.arrays import npz_names, read_npz
from utils.files import naming

NOT_ENROLLED = -1
SAME = 1 - 1e-5  # cosine from which on a probe is taken for the photo that the person has enrolled


@dataclass(frozen=True)
class Searches:
    """P probes, each searched for among T people.

    Attributes:
        name: of the set.
        candidates: the best K people of each probe; `rows` are people of the gallery.
        own: (P,) which of them the probe shows; `NOT_ENROLLED` for a person outside the gallery.
        person: (P,) who the probe shows, numbered among the probes.
        uncertainty: (P,) of the probes, larger = less reliable.
        gallery_uncertainty: (T,) of the templates.
        people: (T,) names of the gallery's people.
        probes: (P,) what each probe is called.
        notes: what was found when they were made.
    """

    name: str
    candidates: Candidates
    own: NDArray[np.int64]
    person: NDArray[np.int64]
    uncertainty: NDArray[np.float32]
    gallery_uncertainty: NDArray[np.float32]
    people: Sequence[str]
    probes: Sequence[str]
    notes: tuple[Caution, ...] = ()

    def __len__(self) -> int:
        return len(self.own)

    @property
    def enrolled(self) -> NDArray[np.bool_]:
        """(P,) whether the probe's person is in the gallery."""
        return self.own != NOT_ENROLLED

    @property
    def ranks(self) -> NDArray[np.int64]:
        """(P,) rank of the own person among the candidates, from 1; 0 where it is not there."""
        own = (self.candidates.rows == self.own[:, None]) & self.enrolled[:, None]
        return np.where(own.any(axis=1), own.argmax(axis=1) + 1, 0)

    def take(self, rows: NDArray[np.intp]) -> Searches:
        """Return some of the searches."""
        return replace(
            self,
            candidates=Candidates(self.candidates.scores[rows], self.candidates.rows[rows]),
            own=self.own[rows],
            person=self.person[rows],
            uncertainty=self.uncertainty[rows],
            probes=[self.probes[row] for row in rows.tolist()],
        )

    def comparisons(self, rank: int = 1) -> Comparisons:
        """Return one comparison per search; see this file's docstring.

        Args:
            rank: the own person must be among so many candidates, else the search is a miss.

        Raises:
            ValueError: more ranks than there are candidates.
        """
        kept = self.candidates.scores.shape[1]
        if not 1 <= rank <= kept:
            raise ValueError(f"rank {rank}: the search kept {kept} candidates")
        scores, ranks = self.candidates.scores, self.ranks
        own = scores[np.arange(len(self)), np.maximum(ranks, 1) - 1]
        below = np.nextafter(scores[np.isfinite(scores)].min(), np.float32(-np.inf))
        is_hit = (ranks >= 1) & (ranks <= rank)
        return Comparisons(
            self.name,
            np.where(self.enrolled, np.where(is_hit, own, below), scores[:, 0]),
            self.enrolled,
            np.arange(len(self), dtype=np.int32)[:, None].repeat(2, axis=1),
            self.uncertainty,
            self.person,
            notes=self.notes,
            name_of=self.probes.__getitem__,
        )


def search(gallery: Side, probes: Side, count: int, fusion: Weights = "mean") -> Searches:
    """Search each probe among the people of a gallery, whose images are fused to one template each.

    Raises:
        ValueError: an empty side, or sides that do not fit each other.
    """
    for side in (gallery, probes):
        if not len(side):
            raise ValueError(
                f"{side.name}: no image to search {'in' if side is gallery else 'for'}"
            )
    check_matching(gallery, probes)
    fused = templates(gallery, fusion)
    candidates = nearest(probes.mu, fused.mu, min(count, len(fused)))
    notes = list(dict.fromkeys((*gallery.notes, *probes.notes)))
    copies = candidates.scores[:, 0] >= SAME
    if copies.any():
        who = fused.person[candidates.rows[copies, 0]] != probes.person[copies]
        facts = {"copies": int(copies.sum()), "total": len(probes), "elsewhere": int(who.sum())}
        first = str(probes.images[int(copies.argmax())])
        notes.append(Caution("probe_copies", {**facts, "first": first}))
    return _searches(
        f"{probes.name} in {gallery.name}",
        candidates,
        (fused.person, probes.person),
        (fused.uncertainty, probes.uncertainty),
        probes.images.tolist(),
        notes,
    )


def read_matrix(path: str | Path, count: int) -> Searches:
    """Read searches from a matrix of scores.

    Args:
        path: `.npz` with scores (P, G) of any matcher, larger = more alike; probe (P,) and gallery
            (G,), names or whole numbers of people; and, where they are known, probe_uncertainty
            (P,) and gallery_uncertainty (G,). A person with several columns counts by the highest.
        count: candidates that are kept.

    Raises:
        ValueError: arrays that are missing, do not fit or are not numbers; names the file.
    """
    path = Path(path)
    with naming(path):
        known = npz_names(path)
        sides = ("probe", "gallery")
        arrays = read_npz(path, ("scores", *sides))
        people = [np.asarray(arrays[side]).astype(np.str_) for side in sides]
        scores = np.asarray(arrays["scores"], np.float32)
        shape = tuple(len(names) for names in people)
        if scores.shape != shape or not all(shape):
            raise ValueError(f"scores {scores.shape} for {shape[0]} probes and {shape[1]} columns")
        if not np.isfinite(scores).all():
            raise ValueError("scores has values that are NaN or infinite")
        uncertainty: list[NDArray[np.float32]] = []
        for side, size in zip(sides, shape, strict=True):
            key = f"{side}_uncertainty"
            stored = read_npz(path, (key,))[key] if key in known else np.zeros(size)
            values = np.asarray(stored, np.float32)
            if values.shape != (size,) or not np.isfinite(values).all():
                raise ValueError(f"{key}: need {size} finite numbers, one each")
            uncertainty.append(values)
    names, column = np.unique(people[1], return_inverse=True)
    order = np.argsort(column, kind="stable")
    starts = np.searchsorted(column[order], np.arange(len(names)))
    scores = np.maximum.reduceat(scores[:, order], starts, axis=1)
    best = np.minimum.reduceat(uncertainty[1][order], starts)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    candidates = Candidates(np.take_along_axis(scores, rows, 1), rows.astype(np.int64))
    labels = [f"row {row}" for row in range(len(scores))]
    sides_uncertainty = (best.astype(np.float32), uncertainty[0])
    return _searches(path.stem, candidates, (names, people[0]), sides_uncertainty, labels, ())


def _searches(
    name: str,
    candidates: Candidates,
    people: tuple[NDArray[np.str_], NDArray[np.str_]],
    uncertainty: tuple[NDArray[np.float32], NDArray[np.float32]],
    probes: Sequence[str],
    notes: Sequence[Caution],
) -> Searches:
    """Searches from the sorted people of a gallery and those of the probes."""
    gallery, own = people[0], np.searchsorted(people[0], people[1])
    enrolled = np.isin(people[1], gallery)
    without = int(len(gallery) - len(np.unique(people[1][enrolled])))
    notes = list(notes)
    if without:
        notes.append(Caution("not_probed", {"people": without, "total": len(gallery)}))
    return Searches(
        name,
        candidates,
        np.where(enrolled, own, NOT_ENROLLED),
        np.unique(people[1], return_inverse=True)[1],
        uncertainty[1],
        uncertainty[0],
        gallery.tolist(),
        probes,
        tuple(notes),
    )
