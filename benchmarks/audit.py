"""How many planted faults of a gallery evaluation/audit.py finds, and how many findings are faults.

python benchmarks/audit.py --faces lfw_dev --model runs/mine --seeds 5
python benchmarks/audit.py --faces synthetic:identities=400,images=6 --model demo
python benchmarks/audit.py --made_up 100000 --dimensions 128      (time and memory instead)

A twentieth each of the images is degraded strongly, copied, put under the name of another person of
the gallery, or replaced by a stranger's; a twentieth of the people is split into two. Recall is of
what was planted, precision of all findings: faults that the set had before count as wrong.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray

from benchmarks._common import print_table, write_json
from benchmarks.reasons import Face, blur, move, reduce
from data.faces import FaceImages, open_faces
from data.features import unit_rows
from estimators.base import Batch, estimate_of
from evaluation.open_model import LoadedModel, open_model
from search.audit import KINDS, AuditResult, Kind, audit
from search.gallery import Gallery

Truth = Mapping[Kind, list[set[int]]]


def noise(face: Face) -> Face:
    """Grey noise of 80 levels."""
    drawn = np.random.default_rng(int(face.sum())).normal(0, 80, face.shape)
    return np.clip(face + drawn, 0, 255).astype(np.uint8)


DEGRADED: Sequence[Callable[[Face], Face]] = (
    *(partial(blur, sigma=4), partial(reduce, side=14), partial(move, pixels=25)),
    noise,
)
FAULTS: dict[Kind, tuple[Kind, ...]] = {  # kinds of findings that tell a planted one
    "copy": ("copy",),
    "poor_quality": ("poor_quality",),
    "duplicate": ("duplicate",),
    "nearer_to_another": ("nearer_to_another", "wrong_label"),
    "wrong_label": ("wrong_label", "nearer_to_another"),
}


def embed(model: LoadedModel, faces: FaceImages, name: str) -> tuple[Gallery, Gallery]:
    """The gallery as it is, and with every image degraded in one of the ways."""
    sides: list[list[Gallery]] = []
    for start in range(0, len(faces), 64):
        images = faces.decode(start, start + 64)
        worse = np.stack([DEGRADED[(start + k) % 4](face) for k, face in enumerate(images)])
        sides.append([_gallery(model, part, name) for part in (images, worse)])
    names = [faces.image_name(row) for row in range(len(faces))]
    joined = []
    for parts in zip(*sides, strict=True):
        unit = np.concatenate([part.unit for part in parts])
        uncertainty = np.concatenate([part.uncertainty for part in parts])
        joined.append(Gallery(name, unit, uncertainty, faces.faces.labels, names))
    return joined[0], joined[1]


def _gallery(model: LoadedModel, images: NDArray[np.uint8], name: str) -> Gallery:
    mu, sigma_sq = estimate_of(model.estimator, Batch(images))
    return Gallery(name, unit_rows(mu), sigma_sq[:, 0], np.zeros(len(mu), np.int64), [])


def plant(
    clean: Gallery, degraded: Gallery, seed: int, share: float = 0.05, cap: int = 20
) -> tuple[Gallery, Truth]:
    """A gallery with faults, and for each kind the sets of rows of which one should be named.

    The people are those with three images or more, of whom at most `cap` are taken, and as many of
    those with fewer. No image has two faults, and wrong names go to people with three images or
    more, one for every three of them: enough are left to tell which does not belong.
    """
    rng = np.random.default_rng(seed)
    people, counts = np.unique(clean.person, return_counts=True)
    several = people[counts >= 3]
    fewer = rng.permutation(people[counts < 3])[: len(several)]
    chosen = np.concatenate([
        rng.permutation(np.flatnonzero(clean.person == person))[:cap]
        for person in np.sort([*several, *fewer])
    ])  # fmt: skip
    label = np.unique(clean.person[chosen], return_inverse=True)[1].astype(np.int64)
    source, is_degraded, gone = (
        chosen.copy(),
        np.zeros_like(chosen, np.bool_),
        np.zeros_like(chosen, np.bool_),
    )
    size, number = np.bincount(label), int(share * len(chosen))
    people = rng.permutation(len(size))
    strangers = people[np.argsort(size[people], kind="stable")][:number]
    gone[np.isin(label, strangers)] = True
    split = people[(size[people] >= 4) & ~np.isin(people, strangers)][: int(share * len(size))]
    free, many = ~gone & ~np.isin(label, split), size[label] >= 3
    hosts = np.flatnonzero((size >= 3) & ~np.isin(np.arange(len(size)), [*strangers, *split]))

    room = size // 3  # wrong names that people may have or miss

    def draw(where: NDArray[np.bool_], renamed: bool = False) -> NDArray[np.int64]:
        drawn: list[int] = []
        for row in rng.permutation(np.flatnonzero(free & where)).tolist():
            if len(drawn) < number and room[label[row]] >= renamed:
                room[label[row]] -= renamed
                drawn.append(row)
        free[drawn] = False
        return np.array(drawn, np.int64)

    truth: dict[Kind, list[set[int]]] = {}
    replaced = draw(many, renamed=True)[: len(strangers)]
    firsts = [int(np.flatnonzero(label == person)[0]) for person in strangers[: len(replaced)]]
    source[replaced] = chosen[firsts]
    truth["wrong_label"] = [{row} for row in replaced.tolist()]
    moved = draw(many, renamed=True)
    into = rng.permutation(np.repeat(hosts, room[hosts]))[: len(moved)]
    moved = moved[: len(into)]
    truth["nearer_to_another"] = [{row} for row in moved[into != label[moved]].tolist()]
    poor, copied = draw(~gone), draw(~gone)
    is_degraded[poor] = True
    truth["poor_quality"] = [{row} for row in poor.tolist()]
    copies = len(chosen) + np.arange(len(copied))
    truth["copy"] = [set(pair) for pair in zip(copied.tolist(), copies.tolist(), strict=True)]
    under = np.where(rng.random(len(copied)) < 0.5, label[copied], rng.choice(hosts, len(copied)))
    label[moved] = into
    truth["duplicate"] = []
    for new, person in enumerate(split.tolist(), start=len(size)):
        rows = rng.permutation(np.flatnonzero(label == person))
        label[rows[: len(rows) // 2]] = new
        truth["duplicate"].append(set(rows.tolist()))
    kept = np.append(~gone, np.ones_like(copies, np.bool_))
    place = np.cumsum(kept) - 1
    source, is_degraded = (np.append(part, part[copied])[kept] for part in (source, is_degraded))
    planted = Gallery(
        clean.name,
        np.where(is_degraded[:, None], degraded.unit[source], clean.unit[source]),
        np.where(is_degraded, degraded.uncertainty[source], clean.uncertainty[source]),
        np.append(label, under)[kept],
        [*map(str, source.tolist())],
    )
    return planted, {
        kind: [{int(place[row]) for row in rows} for rows in units] for kind, units in truth.items()
    }


def measure(result: AuditResult, truth: Truth) -> dict[Kind, list[int]]:
    """Of each kind: faults planted, those found, findings, and those that are planted faults."""
    counts = {}
    for kind in KINDS:
        named = {row for told in FAULTS[kind] for found in result.of(told) for row in found.rows}
        faulty = {row for told in FAULTS[kind] for unit in truth[told] for row in unit}
        hits = sum(bool(unit & named) for unit in truth[kind])
        right = sum(bool(faulty & set(found.rows)) for found in result.of(kind))
        counts[kind] = [len(truth[kind]), hits, len(result.of(kind)), right]
    return counts


def made_up(images: int, dimensions: int, seed: int = 0) -> Gallery:
    """Made-up embeddings, six images a person; a twentieth has each fault."""
    rng = np.random.default_rng(seed)
    label = np.arange(images) // 6
    person = rng.standard_normal((images // 6 + 1, dimensions), dtype=np.float32)
    poor, moved, split, copied = rng.random((4, images)) < 0.05
    uncertainty = np.where(poor, 3, 0.8).astype(np.float32) + rng.random(images, np.float32) / 4
    unit = rng.standard_normal((images, dimensions), dtype=np.float32)
    unit *= uncertainty[:, None]
    unit += person[label]
    unit[copied] = unit[np.flatnonzero(copied) - 1]
    label = np.where(split[label] & (np.arange(images) % 2 == 0), label + images, label)
    label[moved] = rng.permutation(label[moved])
    names = [f"{person}/{image}.jpg" for image, person in enumerate(label.tolist())]
    return Gallery("made up", unit_rows(unit), uncertainty, label, names)


def main(argv: Sequence[str] | None = None) -> int:
    """Plant, audit and print; the exit code is 0."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    add = parser.add_argument
    add("--faces", help="folder, list file, .rec pack or synthetic:...")
    add("--model", help="that embeds them")
    add("--seeds", type=int, default=5, help="galleries with faults (5)")
    add("--made_up", type=int, nargs="+", default=[], help="images of made-up galleries, instead")
    add("--dimensions", type=int, default=512)
    add("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    rows: list[list[object]] = []
    if args.made_up:
        for images in args.made_up:
            gallery = made_up(images, args.dimensions)
            before, started = _peak_mib(), time.process_time()
            result = audit(gallery)
            seconds = time.process_time() - started
            rows.append([images, len(result.findings), round(seconds, 1), before, _peak_mib()])
        print_table(["images", "findings", "processor seconds", "MiB before", "MiB at most"], rows)
    else:
        clean, degraded = embed(open_model(args.model), FaceImages(open_faces(args.faces)), "faces")
        counts = []
        for seed in range(args.seeds):
            gallery, truth = plant(clean, degraded, seed)
            counts.append(measure(audit(gallery), truth))
        for kind in KINDS:
            planted, hits, found, right = np.sum([count[kind] for count in counts], axis=0).tolist()
            worst = min(count[kind][1] / max(count[kind][0], 1) for count in counts)
            purest = min(count[kind][3] / max(count[kind][2], 1) for count in counts)
            rows.append(
                [kind, planted, hits / max(planted, 1), worst, found, right / max(found, 1), purest]
            )
        heading = ["kind", "planted", "recall", "worst seed", "found", "precision", "worst seed"]
        print_table(heading, rows)
    write_json(args.json, rows, "cpu")
    return 0


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    sys.exit(main())
