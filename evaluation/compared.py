"""From bootstrap draws to the rows of a comparison's tables: of methods, and of groups of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence._resample_words import area_name, verdict
from evaluation.confidence.bootstrap import Bootstrap
from evaluation.confidence.intervals import Interval
from evaluation.seeds import Group
from report.compare_table import DISCARDS, Row, ranks
from report.spread_table import Spread

Floats = NDArray[np.float64]


def method_rows(name: str, fmr: float, draws: Bootstrap, against: str | None) -> list[Row]:
    """One row per method, the best first; verdicts against one of them, or the best."""
    places = ranks([draws.relative(method)[0] for method in draws.curves])
    order = np.argsort(places, kind="stable")
    methods = [list(draws.curves)[place] for place in order]
    reference = against or methods[0]
    shares = draws.rank_shares()
    rows = []
    for place, method in zip(order, methods, strict=True):
        edc = draws.curves[method].edc
        value, interval = draws.relative(method)
        paired = None if method == reference else draws.compare(method, reference)
        rows.append(
            Row(
                set=name,
                fmr=fmr,
                method=method,
                realised=(int(edc.false_matches[0]), int(edc.non_mated[0])),
                fnmr=_fnmr(draws, method),
                relative=value,
                interval=interval,
                rank=places[place],
                best_share=float(shares[method][0]),
                verdict=paired.verdict if paired else "",
                difference=paired.difference if paired else None,
                difference_interval=paired.interval if paired else None,
            )
        )
    return rows


def spreads(
    name: str, fmr: float, draws: Bootstrap, groups: Sequence[Group], against: str | None
) -> list[Spread]:
    """One row per group of seeds, the smallest mean first.

    Args:
        name: of the set.
        fmr: target.
        draws: of all methods.
        groups: of methods among them.
        against: what the groups are compared with: a group, a method of one, or a method of none;
            None for the group with the smallest mean.
    """
    members = {group.name: group.members for group in groups}
    values = {group: [draws.relative(one)[0] for one in own] for group, own in members.items()}
    places = ranks([float(np.mean(one)) for one in values.values()])
    order = np.argsort(places, kind="stable")
    best = groups[order[0]].name if groups else ""
    reference = best if against is None else _reference(against, members)
    rows = []
    for place in order:
        group = groups[place]
        rates = np.mean([_fnmr(draws, one) for one in group.members], axis=0).tolist()
        rows.append(
            Spread(
                set=name,
                fmr=fmr,
                group=group.name,
                members=group.members,
                orders=group.orders,
                fnmr=tuple(rates),
                relatives=tuple(values[group.name]),
                interval=_interval(draws, _mean(draws.relatives, group.members)),
                rank=places[place],
                verdict=_verdict(draws, group.name, reference, members),
            )
        )
    return rows


def facts_text(draws: Bootstrap) -> str:
    """Say what stands behind the numbers, in lines."""
    curve = next(iter(draws.curves.values()))
    edc = curve.edc
    lines = [
        f"threshold {edc.score_threshold[0]:.4f}, realised FMR {edc.false_matches[0]}/"
        f"{edc.non_mated[0]}, FNMR {edc.false_non_matches[0]}/{edc.mated[0]}; the best possible "
        f"order has AUERC30/random {curve.best_relative[draws.limit]:.3f}",
        f"{draws.confidence:.0%} intervals from {draws.replicates} bootstrap draws over "
        f"{draws.drawn}; AUERC30/random is relative to random discard, the verdicts compare the "
        "area itself",
    ]
    lines += [f"warning: {line}" for line in (*curve.warnings, *draws.warnings)]
    return "\n".join(lines) + "\n"


def facts(name: str, fmr: float, draws: Bootstrap) -> dict[str, Any]:
    """Return the same as plain types."""
    curve = next(iter(draws.curves.values()))
    return {
        "set": name,
        "fmr": fmr,
        "score_threshold": float(curve.edc.score_threshold[0]),
        "false_non_matches": int(curve.edc.false_non_matches[0]),
        "mated": int(curve.edc.mated[0]),
        "unit": draws.unit,
        "units": draws.units,
        "replicates": draws.replicates,
        "confidence": draws.confidence,
        "warnings": [*curve.warnings, *draws.warnings],
    }


def _reference(against: str, members: dict[str, tuple[str, ...]]) -> str:
    """Name of the group that is called so or holds the method, or the method's where none does."""
    holding = (name for name, own in members.items() if against in own)
    return against if against in members else next(holding, against)


def _fnmr(draws: Bootstrap, method: str) -> tuple[float, ...]:
    curve = draws.curves[method]
    return tuple(float(curve.edc.fnmr[curve.index_at(share)]) for share in DISCARDS)


def _verdict(draws: Bootstrap, first: str, second: str, members: dict[str, tuple[str, ...]]) -> str:
    """Compare means over seeds on the same draws, and count the pairs of single ones."""
    if first == second:
        return ""
    ours, theirs = members[first], members.get(second, (second,))
    change = _mean(draws.areas, ours) - _mean(draws.areas, theirs)
    one, other = (
        np.array([draws.curves[name].areas[draws.limit] for name in names])
        for names in (ours, theirs)
    )
    difference = float(one.mean() - other.mean())
    what = f"mean {area_name(draws.limit)}"
    text = verdict(first, second, what, difference, _interval(draws, change))
    leader, gaps = (
        (first, other - one[:, None]) if difference < 0 else (second, one[:, None] - other)
    )
    return f"{text}; {leader} is ahead in {int((gaps > 0).sum())} of {gaps.size} pairs"


def _mean(replicates: dict[str, Floats], members: Sequence[str]) -> Floats:
    return np.mean([replicates[name] for name in members], axis=0)


def _interval(draws: Bootstrap, values: Floats) -> Interval:
    valid = values[~np.isnan(values)]
    if not valid.size:
        return Interval(float("nan"), float("nan"))
    tail = (1 - draws.confidence) / 2
    low, high = np.quantile(valid, (tail, 1 - tail))
    return Interval(float(low), float(high))
