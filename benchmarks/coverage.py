"""How often bootstrap intervals hold the truth, on generated faces whose truth is known.

python benchmarks/coverage.py --sets 200 --replicates 300

Each set is a new draw of people from one population, with several images each. People and images
differ in how noisy their embeddings are, so comparisons depend on each other as real ones do. Two
designs: "labelled" (all mated against all non-mated pairs) and "list" (a `.bin` set: a few pairs of
each person and as many non-mated ones). The table has the realised coverage with the standard error
that the number of sets allows, and the width of the intervals against the true spread.

python benchmarks/coverage.py --groups --sets 200 --replicates 300

does the same for three groups: one population in which they are alike, and one in which images of
one are noisier, and people of another resemble each other.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks._common import write_json
from data.labelled_pairs import mated_pairs, non_mated_pairs
from evaluation.confidence.bootstrap import Bootstrap, bootstrap
from evaluation.confidence.differentials import GroupResult, group_results
from evaluation.metrics.comparisons import Comparisons, Unit, linked_people
from evaluation.metrics.curve import ProtocolCurve, protocol_curve
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.sets.groups import Grouping
from evaluation.sets.labelled import scores_of

Design = Literal["labelled", "list"]

PROTOCOL = replace(PROTOCOLS["iso29794"], limits=(0.3,))
FMR: dict[Design, float] = {"labelled": 1e-3, "list": 1e-2}
PEOPLE: dict[Design, int] = {"labelled": 250, "list": 750}
UNITS = ("identity", "linked", "image", "pair")
DIMENSIONS, IMAGES, NOISE, DIFFER = 24, 4, 0.4, 0.35
BLUR = {"sharp": 0.15, "blunt": 0.6}  # error of each method about the logarithm of an image's noise
LISTED_SHARE = 0.02  # of the non-mated scores of a labelled set, the high end
TRUTH_PEOPLE, TRUTH_NON_MATED = 200_000, 10_000_000

GROUP_FMR, GROUP_PEOPLE = 2e-3, 360  # of three groups
# of each group: what the noise is multiplied by, and the length of what its people share
GROUPS = {"alike": ((1.0, 0.0),) * 3, "unlike": ((1.0, 0.0), (1.3, 0.0), (1.0, 1.6))}

Values = dict[str, float]


@dataclass(frozen=True)
class Faces:
    """Generated images: (M,) who, (M, D) embeddings, and (M,) uncertainties of each method."""

    identity: NDArray[np.int64]
    mu: NDArray[np.float32]
    seen: dict[str, NDArray[np.float32]]

    def compared(self, pairs: NDArray[np.int64]) -> Comparisons:
        """Score the (P, 2) pairs."""
        first, second = self.identity[pairs].T
        return Comparisons(
            "generated",
            scores_of(self.mu, pairs),
            first == second,
            pairs.astype(np.int32),
            next(iter(self.seen.values())),
            self.identity,
            np.arange(len(self.identity)),
        )


def draw_people(
    people: int, rng: np.random.Generator, groups: Sequence[tuple[float, float]] = ((1.0, 0.0),)
) -> Faces:
    """Images of new people, who belong to the groups in turn; see `GROUPS`."""
    identity = np.repeat(np.arange(people), IMAGES)
    own = rng.normal(scale=DIFFER, size=people)[identity]
    level = own + rng.normal(scale=DIFFER, size=len(identity))
    centre = rng.normal(size=(people, DIMENSIONS))[identity]
    factor, shared = np.array(groups)[identity % len(groups)].T
    level += np.log(factor)
    centre[:, 0] += shared
    spread = NOISE * np.exp(level)[:, None] * rng.normal(size=centre.shape)
    seen = {
        name: (level + rng.normal(scale=blur, size=len(level))).astype(np.float32)
        for name, blur in BLUR.items()
    }
    return Faces(identity, (centre + spread).astype(np.float32), seen)


def generated(design: Design, rng: np.random.Generator) -> tuple[Faces, Comparisons]:
    """One set of new people."""
    faces = draw_people(PEOPLE[design], rng)
    if design == "labelled":
        return faces, _all_against_all(faces)
    own = mated_pairs(faces.identity, cap=3, seed=int(rng.integers(2**31)))
    others = non_mated_pairs(faces.identity, len(own), int(rng.integers(2**31)))
    return faces, faces.compared(np.concatenate([own, others]))


def truth(people: int = TRUTH_PEOPLE, non_mated: int = TRUTH_NON_MATED) -> dict[Design, Values]:
    """The values over a population so large that chance hardly matters."""
    rng = np.random.default_rng(12345)
    faces = draw_people(people, rng)
    others = non_mated_pairs(faces.identity, non_mated, 1)
    comparisons = faces.compared(np.concatenate([mated_pairs(faces.identity), others]))
    methods = {name: comparisons.with_uncertainty(one) for name, one in faces.seen.items()}
    return {
        design: values_of(
            {name: protocol_curve(one, PROTOCOL, fmr) for name, one in methods.items()}
        )
        for design, fmr in FMR.items()
    }


def values_of(curves: dict[str, ProtocolCurve]) -> Values:
    """Everything that an interval is checked for."""
    first, second = curves.values()
    return {
        "FNMR(0)": float(first.edc.fnmr[0]),
        "FNMR(.1)": float(first.edc.fnmr[first.index_at(0.1)]),
        "AUERC30": first.areas[0.3],
        "AUERC30 / random": first.relative[0.3],
        "difference": first.areas[0.3] - second.areas[0.3],
        "difference / random": first.relative[0.3] - second.relative[0.3],
    }


def intervals_of(result: Bootstrap) -> dict[str, tuple[float, float]]:
    """The interval of each of `values_of`."""
    first, second = result.curves
    low, high = result.bands(first)
    paired = result.compare(first, second)
    return {
        "FNMR(0)": (low[0], high[0]),
        "FNMR(.1)": (low[10], high[10]),
        "AUERC30": result.area(first)[1],
        "AUERC30 / random": result.relative(first)[1],
        "difference": paired.interval,
        "difference / random": paired.relative_interval,
    }


def simulate(
    design: Design, unit: str, true: Values, sets: int, replicates: int, levels: Sequence[float]
) -> Iterator[tuple[dict[tuple[str, float], bool], Values, Values]]:
    """Draw sets, and intervals on each.

    Args:
        design: of the sets.
        unit: what the bootstrap draws; "linked" for identities found by `linked_people`.
        true: of `truth`.
        sets: how many.
        replicates: of each bootstrap.
        levels: confidences to check.

    Yields:
        Whether each (value, level) was held, the estimates, and the width of the intervals at the
        first level.
    """
    for number in range(sets):
        faces, comparisons = generated(design, np.random.default_rng([7, number]))
        if unit == "linked":
            comparisons = replace(comparisons, identity=linked_people(comparisons))
        drawn: Unit = next((one for one in get_args(Unit) if one == unit), "identity")
        result = bootstrap(
            comparisons,
            faces.seen,
            PROTOCOL,
            FMR[design],
            unit=drawn,
            replicates=replicates,
            seed=number,
        )
        held: dict[tuple[str, float], bool] = {}
        widths: Values = {}
        for level in levels:
            ends = intervals_of(replace(result, confidence=level))
            for name, (low, high) in ends.items():
                held[name, level] = bool(low <= true[name] <= high)
                widths.setdefault(name, float(high - low))
        yield held, values_of(result.curves), widths


def grouped(
    groups: Sequence[tuple[float, float]], people: int, rng: np.random.Generator, pairs: int = 0
) -> tuple[Comparisons, Grouping]:
    """One set of new people of several groups: all pairs, or so many non-mated ones."""
    faces = draw_people(people, rng, groups)
    if pairs:
        others = non_mated_pairs(faces.identity, pairs, 1)
        comparisons = faces.compared(np.concatenate([mated_pairs(faces.identity), others]))
    else:
        comparisons = _all_against_all(faces)
    names = tuple("abc")
    return comparisons, Grouping("generated", names, faces.identity % len(names))


def values_of_groups(result: GroupResult) -> dict[str, tuple[float, float, float]]:
    """Each rate and each ratio with the ends of its interval."""
    values: dict[str, tuple[float, float, float]] = {}
    for part in result.differentials:
        for row in result.rows:
            errors, total = row.counts[part.kind]
            ends = row.intervals.get(part.kind, (math.nan, math.nan))
            values[f"{part.kind} of {row.group}"] = (errors / total, *ends)
            if row.group in part.relative:
                value, ends = part.relative[row.group]
                values[f"{part.kind} of {row.group} / mean"] = (value, *ends)
        values[f"{part.kind}: worst / mean"] = (part.ratio, *part.interval)
        values[f"{part.kind}: worst / best"] = (part.to_best, *part.to_best_interval)
    return values


def true_groups(design: str, people: int = 60_000, pairs: int = 3_000_000) -> Values:
    """The values over a large population; ratios of groups that are alike are 1."""
    comparisons, grouping = grouped(GROUPS[design], people, np.random.default_rng(4), pairs)
    [result] = group_results(comparisons, [grouping], PROTOCOL, GROUP_FMR, replicates=0)
    values = {name: value for name, (value, *_) in values_of_groups(result).items()}
    if design == "alike":
        values = {name: 1.0 if "/" in name else value for name, value in values.items()}
    return values


def simulate_groups(
    design: str, sets: int, replicates: int
) -> Iterator[dict[str, tuple[float, float, float]]]:
    """Draw sets, and yield `values_of_groups` of each."""
    for number in range(sets):
        rng = np.random.default_rng([8, number])
        comparisons, grouping = grouped(GROUPS[design], GROUP_PEOPLE, rng)
        [result] = group_results(
            comparisons, [grouping], PROTOCOL, GROUP_FMR, replicates=replicates, seed=number
        )
        yield values_of_groups(result)


def coverage_of_groups(
    true: Values, sets: Sequence[dict[str, tuple[float, float, float]]]
) -> dict[str, tuple[float, float]]:
    """Share of the sets whose interval holds the truth, and the median of its lower end.

    "all / mean": whether the ratios of all groups hold at once.
    """
    table = {}
    at_once: dict[str, list[NDArray[np.bool_]]] = {}
    for name, value in true.items():
        ends = np.array([one.get(name, (0, math.nan, math.nan))[1:] for one in sets])
        held = (ends[:, 0] <= value) & (value <= ends[:, 1])
        table[name] = float(held.mean()), float(np.median(ends[:, 0]))
        if name.endswith("/ mean") and "worst" not in name:
            at_once.setdefault(f"{name.split()[0]}: all / mean", []).append(held)
    return table | {
        name: (float(np.all(h, axis=0).mean()), math.nan) for name, h in at_once.items()
    }


def _all_against_all(faces: Faces) -> Comparisons:
    """All mated pairs, and of all non-mated ones the high end."""
    unit = faces.mu / np.linalg.norm(faces.mu, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    scores = (unit @ unit.T)[first, second]
    others = faces.identity[first] != faces.identity[second]
    lowest = float(np.quantile(scores[others], 1 - LISTED_SHARE))
    kept = np.flatnonzero(~others | (scores >= lowest))
    listed = faces.compared(np.stack([first[kept], second[kept]], axis=1))
    unlisted = len(scores) - len(kept)
    return replace(listed, unlisted=unlisted, listed_from=lowest)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sets", type=int, default=200, help="generated sets per row")
    parser.add_argument("--replicates", type=int, default=300, help="of each bootstrap")
    parser.add_argument("--units", nargs="+", choices=UNITS, default=list(UNITS))
    parser.add_argument(
        "--designs", nargs="+", choices=get_args(Design), default=list(get_args(Design))
    )
    parser.add_argument("--groups", action="store_true", help="intervals of groups instead")
    parser.add_argument("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    levels, rows = (0.95, 0.8), []
    for name in GROUPS if args.groups else ():
        true = true_groups(name)
        runs = simulate_groups(name, args.sets, args.replicates)
        table = coverage_of_groups(true, list(tqdm(runs, total=args.sets, leave=False)))
        print(f"groups that are {name}, FMR {GROUP_FMR:g}, {args.sets} sets of {GROUP_PEOPLE}")
        for value, (share, low) in table.items():
            rows.append([name, value, true.get(value), share, low])
            print(f"{value:24}{true.get(value, math.nan):9.4f}{share:9.3f}{low:9.3f}")
    if args.groups:
        print("truth; share of the 95 % intervals that hold it; median of their lower ends")
        write_json(args.json, rows, "cpu")
        return 0
    truths = truth()
    for design in args.designs:
        true = truths[design]
        print(f"design {design}, FMR {FMR[design]:g}, {args.sets} sets of {PEOPLE[design]} people")
        print(f"{'unit':9}{'value':21}{'truth':>9}{'95 % holds':>17}{'80 % holds':>17}{'width':>8}")
        for unit in args.units:
            if unit == "linked" and design == "labelled":
                continue  # all images of a person are joined there: the same as identity
            runs = simulate(design, unit, true, args.sets, args.replicates, levels)
            held, estimates, widths = zip(*tqdm(runs, total=args.sets, leave=False), strict=True)
            for name in true:
                cells = [_share([one[name, level] for one in held]) for level in levels]
                spread = float(np.std([one[name] for one in estimates]))
                width = float(np.mean([one[name] for one in widths])) / (2 * 1.96 * spread)
                rows.append([design, unit, name, true[name], *cells, width])
                print(f"{unit:9}{name:21}{true[name]:9.4f}{cells[0]:>17}{cells[1]:>17}{width:8.2f}")
    print("width: of the 95 % intervals, against 2 x 1.96 standard deviations of the estimate")
    write_json(args.json, rows, "cpu")
    return 0


def _share(held: Sequence[bool]) -> str:
    share = sum(held) / len(held)
    return f"{share:.3f} +- {math.sqrt(share * (1 - share) / len(held)):.3f}"


if __name__ == "__main__":
    sys.exit(main())
