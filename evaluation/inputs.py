"""What the evaluation scripts evaluate: sets run through an estimator, or stored files.

Either way each uncertainty ends as `Comparisons`; pairs keep their `Features` for the original's
printed block.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from estimators.base import Estimate
from evaluation.embed import embed_images
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.mutual_likelihood import rescored
from evaluation.metrics.scores import image_uncertainties
from evaluation.sets._extracted_files import ABOUT
from evaluation.sets.features import Embeddings, Features
from evaluation.sets.ijb import IjbSet
from evaluation.sets.open_set import (
    EvaluationSet,
    Images,
    LabelledSet,
    PairsSet,
    VerificationPairs,
    open_set,
)
from evaluation.sets.stored import comparisons_of, load_comparisons
from utils.distributed import ALONE, World
from utils.tables import npz_names

if TYPE_CHECKING:
    from estimators.base import Estimator


@dataclass(frozen=True)
class Scored:
    """One set, scored.

    Attributes:
        name: of the set.
        compare: makes `blocks`.
        features: of a set of pairs; None for any other.
        images: its images; None for stored files.
        files: what it was read from.
        sizes: columns of each uncertainty, where the user gave them.
        opened: the set; None for stored files.
        estimate: of its images; None for stored files.
    """

    name: str
    compare: Callable[[], list[tuple[str, Comparisons]]]
    features: Features | None
    images: Images | None
    files: tuple[Path, ...]
    sizes: tuple[int, ...] | None = None
    opened: EvaluationSet | None = None
    estimate: Estimate | None = None

    @cached_property
    def blocks(self) -> list[tuple[str, Comparisons]]:
        """(label, comparisons) of each uncertainty; the label is "" when there is only one.

        Made when first asked for: the original's table of a stored file does without.
        """
        return self.compare()


def inputs(
    estimator: Estimator | None, args: argparse.Namespace, world: World = ALONE
) -> Iterator[Scored]:
    """Open, embed and score what the flags name, one set after the other.

    All ranks share the embedding; the main one alone gets the sets.

    Raises:
        ValueError: nothing is named, or something cannot be read.
    """
    sizes = _sizes(args.sigma_sizes)
    drawn = {"non_mated": args.non_mated, "cap": args.cap, "seed": args.seed}
    if args.features:
        if not world.is_main:
            return
        path = Path(args.features)
        features = stored_pairs(path)
        if features is not None:
            compare = partial(comparisons_of, features, path.stem, sizes)
        else:
            compare = partial(load_comparisons, path, sigma_sizes=sizes, **drawn)
        file = path / ABOUT if path.is_dir() else path  # of extract.py: says what its shards are
        yield Scored(path.stem, compare, features, None, (file,), sizes)
        return
    if not args.target:
        raise ValueError("nothing to evaluate: give --target NAME[,NAME] or --features FILE.npz")
    assert estimator is not None
    for target in args.target:
        found = open_set(target, args.dataset_path, **drawn)
        if isinstance(found, IjbSet):
            found = dataclasses.replace(found, weights=args.fusion, score=args.score)
        estimate = embed_images(
            estimator,
            found.images,
            args.batch_size,
            name=found.name,
            flip=args.flip,
            parts=Path(args.parts) / file_name(found.name) if args.parts else None,
            about=args.about,
            world=world,
        )
        if not world.is_main:
            continue
        if args.save_features:
            path = one_of_many(args.save_features, found.name, len(args.target))
            _save(path, found, estimate)
            sys.stdout.write(f"wrote {path}\n")
        files = _files(target, args.dataset_path)
        yield _scored(found, estimate, sizes, args.score, files)


def file_name(name: str) -> str:
    """Replace what may not stand in a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _scored(
    found: EvaluationSet,
    estimate: Estimate,
    sizes: tuple[int, ...] | None,
    score: str,
    files: tuple[Path, ...],
) -> Scored:
    return Scored(
        found.name,
        partial(_blocks, found, estimate, sizes, score),
        _features(found, estimate, score),
        found.images,
        files,
        sizes,
        found,
        estimate,
    )


def _blocks(
    found: EvaluationSet, estimate: Estimate, sizes: tuple[int, ...] | None, score: str
) -> list[tuple[str, Comparisons]]:
    try:
        uncertainties = image_uncertainties(estimate.sigma_sq, sizes)
    except ValueError as error:
        raise ValueError(f"{found.name}: {error}") from error
    blocks: list[tuple[str, Comparisons]] = []
    for one in uncertainties:
        if not blocks or isinstance(found, IjbSet):  # templates are fused anew
            comparisons = found.comparisons(estimate.mu, one.values[:, None])
        else:
            comparisons = blocks[0][1].with_uncertainty(one.values)
        if score == "mls" and not isinstance(found, IjbSet):
            comparisons = rescored(comparisons, estimate.mu, estimate.sigma_sq)
        blocks.append((one.label, comparisons))
    return blocks


def _features(found: EvaluationSet, estimate: Estimate, score: str) -> Features | None:
    """Pairs as the original's block reads them; it knows cosine scores alone."""
    if score != "cosine" or not isinstance(found, VerificationPairs | PairsSet):
        return None
    if isinstance(found, PairsSet):
        rows = found.pairs.ravel()
        return Features(estimate.mu[rows], estimate.sigma_sq[rows], found.mated)
    return Features(estimate.mu, estimate.sigma_sq, found.pairs.mated)


def _save(path: Path, found: EvaluationSet, estimate: Estimate) -> None:
    features = _features(found, estimate, "cosine")
    if features is not None:
        features.save(path)
        return
    if not isinstance(found, LabelledSet):
        raise ValueError(
            f"--save_features: {found.name} has neither pairs nor labelled faces; "
            "--save_scores writes its scores"
        )
    names = np.array([found.images.image_name(row) for row in range(len(found.images))])
    Embeddings(estimate.mu, estimate.sigma_sq, found.labels, names).save(path)


def stored_pairs(path: Path) -> Features | None:
    """Features of a stored file that has them; None for any other kind of file."""
    if path.suffix != ".npz" or not path.is_file():
        return None
    has_pairs = {"mu", "sigma_sq", "issame"} <= set(npz_names(path))
    return Features.load(path) if has_pairs else None


def _files(target: str, dataset_path: str | None) -> tuple[Path, ...]:
    """Return the file behind a target, where there is a single one."""
    kind, colon, rest = target.partition(":")
    path = Path(rest) if colon else Path(dataset_path or "") / f"{target}.bin"
    if path.is_dir():
        return tuple(sorted(path.glob("*.rec")))
    return (path,) if path.is_file() else ()


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--sigma_sizes {text}: expected whole numbers such as 8,1") from None


def one_of_many(path: str, name: str, count: int) -> Path:
    """Return the file for one set: the given one; of several, one with the set's name."""
    file = Path(path)
    return file if count == 1 else file.with_name(f"{file.stem}-{file_name(name)}{file.suffix}")
