"""Several methods on the same comparisons: intervals, ranks and verdicts, from one set of draws.

    for comparison in compare([open_set("lfw", "datasets")], open_models(["runs/a", "runs/b"])):
        print(method_table(comparison.rows, "txt"))

Runs that differ in nothing but their seeds are a group, which has rows of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.bootstrap import Bootstrap, bootstrap, p_value
from evaluation.confidence.intervals import Interval, holm
from evaluation.metrics.comparisons import Cap, Comparisons, Unit
from evaluation.metrics.protocols import Protocol, find_protocol
from evaluation.metrics.thresholds import Caution
from evaluation.run import DISCARDS, EvaluationOptions, embed_set, show_draws
from evaluation.same_person_run import SamePersonResult, check_same_person
from evaluation.sets.stored import StoredSet
from models.seeds import Group
from utils.config import require
from utils.distributed import ALONE, World

if TYPE_CHECKING:
    from estimators.from_file import FromFile
    from evaluation.metrics.curve import ProtocolCurve
    from evaluation.open_model import LoadedModels
    from evaluation.sets.open_set import EvaluationSet

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.float32]]  # (M,) uncertainties by the name of the method


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """How methods are compared.

    Attributes:
        protocol: a preset by name, or own switches.
        fmr: targets that thresholds aim at.
        against: method or group that all others are compared with; None for the best one.
        replicates: bootstrap draws.
        confidence: of the intervals.
        unit: what is drawn; None for the best known one.
        seed: of the draws.
        batch_size: images per forward pass.
        parts: folder in which finished parts of the embedding are kept.
        of: "match" compares what each method's uncertainties add to P(same person) too.
        prior: of P(same person).
    """

    protocol: str | Protocol = "iso29794"
    fmr: Sequence[float] = (1e-3,)
    against: str | None = None
    replicates: int = 1000
    confidence: float = 0.95
    unit: Unit | None = None
    seed: int = 0
    batch_size: int = 64
    parts: str | None = None
    of: Literal["uncertainty", "match"] = "uncertainty"
    prior: float = 0.5

    def __post_init__(self) -> None:
        fmr = self.fmr
        require(not isinstance(fmr, float | str), "fmr", fmr, f"several, such as ({fmr!r},)")

    @property
    def switches(self) -> Protocol:
        """Of the protocol; ValueError for a name that is not a preset."""
        protocol = self.protocol
        return find_protocol(protocol) if isinstance(protocol, str) else protocol


class Verdict(NamedTuple):
    """One method or group of seeds against another, on the same draws.

    Attributes:
        first: its name.
        second: name of the other.
        limit: discard fraction up to which areas are taken.
        difference: of the areas, or of their means over seeds; below 0 the first is better.
        interval: of the difference.
        ahead: in how many pairs of single methods the one with the smaller mean is better.
        pairs: of single methods; 0 where two methods are compared.
        p_value: of the difference, by `evaluation.confidence.bootstrap.p_value`.
        adjusted: the same by Holm's rule over all verdicts of the table.
        family: how many these are.
        level: that `adjusted` must not exceed: 1 - confidence of the interval.
    """

    first: str
    second: str
    limit: float
    difference: float
    interval: Interval
    ahead: int = 0
    pairs: int = 0
    p_value: float = math.nan
    adjusted: float = math.nan
    family: int = 1
    level: float = 0.05

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0 and, among several verdicts, Holm's rule agrees."""
        excludes = self.interval.low > 0 or self.interval.high < 0
        return excludes and (self.family == 1 or self.adjusted <= self.level)


@dataclass(frozen=True)
class MethodRow:
    """One method on one set at one FMR target.

    Attributes:
        set: name of the set.
        fmr: target.
        method: name of the method.
        realised: false matches and non-mated comparisons behind the threshold, before any discard.
        fnmr: at `DISCARDS`.
        relative: area under the curve / area of random discard; NaN without any error.
        interval: of `relative`.
        rank: 1 = smallest area of this set and FMR.
        best_share: share of bootstrap draws in which it had the smallest area.
        verdict: against the method that all are compared with; None for that one.
        efficiency: of `ProtocolCurve.efficiencies`; empty under most protocols.
    """

    set: str
    fmr: float
    method: str
    realised: tuple[int, int]
    fnmr: tuple[float, ...]
    relative: float
    interval: Interval
    rank: int
    best_share: float
    verdict: Verdict | None
    efficiency: Mapping[float, float] = field(default_factory=dict)


def ranks(areas: Sequence[float]) -> list[int]:
    """Rank 1 for the smallest; equal areas share the better rank, NaN comes last."""
    ordered = [math.inf if math.isnan(area) else area for area in areas]
    return [1 + sum(other < area for other in ordered) for area in ordered]


@dataclass(frozen=True)
class GroupRow:
    """One group of methods that differ in their seeds alone, on one set at one FMR target.

    Attributes:
        set: name of the set.
        fmr: target.
        group: its name.
        members: its methods.
        orders: how many different batches and augmentations they were trained on.
        fnmr: means over the members, at `DISCARDS`.
        relatives: area under the curve / area of random discard, of each member.
        interval: of the mean of `relatives`, over the draws of the set.
        rank: 1 = smallest mean of this set and FMR.
        verdict: on the means, against the group that all are compared with; None for that one.
        efficiency: means over the members, as of `MethodRow`.
    """

    set: str
    fmr: float
    group: str
    members: tuple[str, ...]
    orders: int
    fnmr: tuple[float, ...]
    relatives: tuple[float, ...]
    interval: Interval
    rank: int
    verdict: Verdict | None
    efficiency: Mapping[float, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Of the relative areas."""
        return float(np.mean(self.relatives))

    @property
    def deviation(self) -> float:
        """Standard deviation of the relative areas, as of a sample (n - 1)."""
        return float(np.std(self.relatives, ddof=1))


@dataclass(frozen=True)
class MethodComparison:
    """All methods on one set at one FMR target.

    Attributes:
        name: of the set.
        cap: on the mated comparisons of one person.
        cautions: what makes these numbers uncertain: the set, the threshold, the draws.
        fmr: target.
        draws: of all methods.
        groups: of seeds.
        rows: one per method, the best first.
        group_rows: one per group, the best first.
        same_person: P(same person) by each method; None where not asked for, or at a later target.
    """

    name: str
    cap: Cap | None
    cautions: tuple[Caution, ...]
    fmr: float
    draws: Bootstrap
    groups: tuple[Group, ...]
    rows: tuple[MethodRow, ...]
    group_rows: tuple[GroupRow, ...]
    same_person: SamePersonResult | None = None

    @property
    def curve(self) -> ProtocolCurve:
        """Of the first method."""
        return next(iter(self.draws.curves.values()))


def compare(
    sets: Iterable[EvaluationSet],
    models: LoadedModels,
    options: ComparisonOptions | None = None,
    *,
    world: World = ALONE,
) -> Iterator[MethodComparison]:
    """Compare methods on sets; every image is decoded and embedded once for all of them.

    Args:
        sets: of `open_set`.
        models: of `open_models`.
        options: see `ComparisonOptions`.
        world: the ranks that embed; the main one alone gets results.

    Yields:
        One for each set and FMR target.

    Raises:
        ValueError: what the set or the models cannot give; the message names it.
    """
    options = options or ComparisonOptions()
    embedding = EvaluationOptions(batch_size=options.batch_size, parts=options.parts)
    for source in sets:
        mu, sigma_sq = embed_set(
            source, models.estimator, embedding, about=models.fingerprint, world=world
        )
        if not world.is_main:
            continue
        columns = {
            name: np.ascontiguousarray(sigma_sq[:, column])
            for column, name in enumerate(models.names)
        }
        first = source.comparisons(mu, sigma_sq[:, :1])
        if len(first.uncertainty) != len(mu):  # templates: uncertainties are fused first
            columns = {
                name: source.comparisons(mu, column[:, None]).uncertainty
                for name, column in columns.items()
            }
        yield from _compare(first, columns, models.groups, options)


def compare_scores(
    stored: StoredSet,
    scores: Mapping[str, FromFile],
    options: ComparisonOptions | None = None,
) -> Iterator[MethodComparison]:
    """Compare scores of the images whose embeddings are stored; see `compare`.

    Args:
        stored: embeddings of a set, with pairs or identities; their own uncertainties are not used.
        scores: by the name of the method.
        options: see `ComparisonOptions`.

    Raises:
        ValueError: no embeddings, or an image without a score; the message names the file.
    """
    ((_, first), *_), images = stored.comparisons(), stored.image_names()
    columns = {method: file.uncertainty_of(images) for method, file in scores.items()}
    yield from _compare(first, columns, (), options or ComparisonOptions())


def compare_stored(
    stored: Mapping[str, StoredSet], options: ComparisonOptions | None = None
) -> Iterator[MethodComparison]:
    """Compare what several tools stored for the same comparisons; see `compare`.

    Args:
        stored: by the name of the method.
        options: see `ComparisonOptions`.

    Raises:
        ValueError: files of different comparisons; the message names one.
    """
    columns: dict[str, NDArray[np.float32]] = {}
    notes: list[Caution] = []
    first: Comparisons | None = None
    for name, file in stored.items():
        for label, comparisons in file.comparisons():
            first = first or comparisons
            _require_equal(first, comparisons, file)
            notes += [note for note in comparisons.notes if note not in notes]
            columns[f"{name} {label}".strip()] = comparisons.uncertainty
    if first is None:
        raise ValueError("nothing to compare: give one stored file at least")
    first = replace(first, notes=tuple(notes))
    yield from _compare(first, columns, (), options or ComparisonOptions())


def _compare(
    comparisons: Comparisons,
    columns: Columns,
    groups: tuple[Group, ...],
    options: ComparisonOptions,
) -> Iterator[MethodComparison]:
    against, name, protocol = options.against, comparisons.name, options.switches
    known = [*columns, *(group.name for group in groups if group.name not in columns)]
    if against is not None and against not in known:
        raise ValueError(f"--against {against}: the methods are {', '.join(known)}")
    person = None
    if options.of == "match":
        person = check_same_person(
            comparisons,
            columns,
            prior=options.prior,
            unit=options.unit,
            confidence=options.confidence,
            seed=options.seed,
        )
    for fmr in options.fmr:
        draws = bootstrap(
            comparisons,
            columns,
            protocol,
            fmr,
            unit=options.unit,
            replicates=options.replicates,
            confidence=options.confidence,
            seed=options.seed,
            progress=show_draws,
        )
        rows = method_rows(name, fmr, draws, against if against in draws.curves else None)
        means = group_rows(name, fmr, draws, groups, against)
        curve = next(iter(draws.curves.values()))
        needed = draws_needed(len(draws.curves) - 1, draws.confidence)
        few = {"draws": draws.replicates, "needed": needed, "verdicts": len(draws.curves) - 1}
        cautions = (*comparisons.cautions, *curve.cautions, *draws.cautions)
        if draws.replicates < needed:
            cautions += (Caution("few_draws", few),)
        yield MethodComparison(
            *(name, comparisons.cap, cautions, fmr, draws, groups, tuple(rows), tuple(means)),
            same_person=person if fmr == options.fmr[0] else None,
        )


def _require_equal(first: Comparisons, other: Comparisons, file: StoredSet) -> None:
    same = np.array_equal(first.pairs, other.pairs) and np.array_equal(first.mated, other.mated)
    if not same or not np.allclose(first.scores, other.scores, atol=1e-5):
        raise ValueError(
            f"{file.path}: other comparisons than in {first.name}: methods are compared on the "
            "same pairs and scores, in the same order"
        )


def method_rows(name: str, fmr: float, draws: Bootstrap, against: str | None) -> list[MethodRow]:
    """One row per method, the best first; verdicts against one of them, or the best."""
    places = ranks([draws.relative(method)[0] for method in draws.curves])
    order = np.argsort(places, kind="stable")
    methods = [list(draws.curves)[place] for place in order]
    reference = against or methods[0]
    shares = draws.rank_shares()
    verdicts = _verdicts(draws, [(method, reference) for method in methods])
    rows = []
    for place, method in zip(order, methods, strict=True):
        edc = draws.curves[method].edc
        value, interval = draws.relative(method)
        rows.append(
            MethodRow(
                set=name,
                fmr=fmr,
                method=method,
                realised=(int(edc.false_matches[0]), int(edc.non_mated[0])),
                fnmr=_fnmr(draws, method),
                relative=value,
                interval=interval,
                rank=places[place],
                best_share=float(shares[method][0]),
                verdict=verdicts.get((method, reference)),
                efficiency=draws.curves[method].efficiencies(DISCARDS),
            )
        )
    return rows


def group_rows(
    name: str, fmr: float, draws: Bootstrap, groups: Sequence[Group], against: str | None
) -> list[GroupRow]:
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
    values = {group: [draws.relative(name)[0] for name in own] for group, own in members.items()}
    places = ranks([float(np.mean(relatives)) for relatives in values.values()])
    order = np.argsort(places, kind="stable")
    best = groups[order[0]].name if groups else ""
    reference = best if against is None else _reference(against, members)
    verdicts = _verdicts(draws, [(group.name, reference) for group in groups], members)
    rows = []
    for place in order:
        group = groups[place]
        rates = np.mean([_fnmr(draws, name) for name in group.members], axis=0).tolist()
        rows.append(
            GroupRow(
                set=name,
                fmr=fmr,
                group=group.name,
                members=group.members,
                orders=group.orders,
                fnmr=tuple(rates),
                relatives=tuple(values[group.name]),
                interval=draws.interval(_mean(draws.relatives, group.members)),
                rank=places[place],
                verdict=verdicts.get((group.name, reference)),
                efficiency=_mean_efficiency(draws, group.members),
            )
        )
    return rows


def _reference(against: str, members: dict[str, tuple[str, ...]]) -> str:
    """Name of the group that is called so or holds the method, or the method's where none does."""
    holding = (name for name, own in members.items() if against in own)
    return against if against in members else next(holding, against)


def _fnmr(draws: Bootstrap, method: str) -> tuple[float, ...]:
    curve = draws.curves[method]
    return tuple(float(curve.edc.fnmr[curve.index_at(share)]) for share in DISCARDS)


def _mean_efficiency(draws: Bootstrap, members: Sequence[str]) -> dict[float, float]:
    each = [draws.curves[name].efficiencies(DISCARDS) for name in members]
    return {share: float(np.mean([own[share] for own in each])) for share in each[0]}


def pairwise_verdicts(draws: Bootstrap) -> list[Verdict]:
    """Every method against every later one, with Holm's correction over all these pairs."""
    return list(_verdicts(draws, combinations(draws.curves, 2)).values())


def draws_needed(verdicts: int, confidence: float) -> int:
    """Fewest bootstrap draws with which so many verdicts can all be clear under Holm's rule."""
    return math.ceil(2 * verdicts / (1 - confidence)) - 1 if verdicts > 1 else 0


def _verdicts(
    draws: Bootstrap,
    pairs: Iterable[tuple[str, str]],
    groups: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> dict[tuple[str, str], Verdict]:
    """One verdict for each pair of different methods or groups, corrected for their number."""
    single = {pair: _verdict(draws, *pair, groups) for pair in pairs if pair[0] != pair[1]}
    adjusted = holm([verdict.p_value for verdict in single.values()])
    return {
        pair: verdict._replace(adjusted=value, family=len(single))
        for (pair, verdict), value in zip(single.items(), adjusted, strict=True)
    }


def _verdict(
    draws: Bootstrap, first: str, second: str, groups: Mapping[str, tuple[str, ...]]
) -> Verdict:
    """Compare means over seeds on the same draws, and count the pairs of single ones."""
    ours, theirs = groups.get(first, (first,)), groups.get(second, (second,))
    change = _mean(draws.areas, ours) - _mean(draws.areas, theirs)
    first_areas, second_areas = (
        np.array([draws.curves[name].areas[draws.limit] for name in names])
        for names in (ours, theirs)
    )
    difference = float(first_areas.mean() - second_areas.mean())
    gaps = (
        second_areas - first_areas[:, None]
        if difference < 0
        else first_areas[:, None] - second_areas
    )
    return Verdict(
        *(first, second, draws.limit, difference, draws.interval(change)),
        ahead=int((gaps > 0).sum()) if groups else 0,
        pairs=gaps.size if groups else 0,
        p_value=p_value(change),
        level=1 - draws.confidence,
    )


def _mean(replicates: dict[str, Floats], members: Sequence[str]) -> Floats:
    return np.mean([replicates[name] for name in members], axis=0)
