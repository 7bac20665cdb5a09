"""`identify(searches, options)`: error rates of 1:N search, and the rule that they lead to.

searches = search(gallery, probes, 20)
result = identify(searches, IdentificationOptions(fpir=(0.01,)))
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.bootstrap import Bootstrap, bootstrap
from evaluation.confidence.intervals import Count, Interval, clopper_pearson
from evaluation.confidence.risk_control import TUNING, Risk, RiskControl, control_risk, split
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.curve import ProtocolCurve, protocol_curve
from evaluation.metrics.protocols import Protocol
from evaluation.metrics.thresholds import Caution, ErrorRates, caution_few, error_rates
from evaluation.run import DRAWS, show_draws
from search.doubt import Doubt, cross_fitted, threshold_at
from search.searches import Searches
from utils.config import parsed, require
from utils.files import DAMAGE, naming, read_json, write_text

RANKS = (1, 2, 5, 10, 20)
BY = ("quality", "p_error")
By = Literal["quality", "p_error"]
RISK_OF: dict[str, Risk] = {"fnir": "fnmr", "fpir": "fmr", "total": "total"}
PROTOCOL = Protocol(
    name="identification",
    rule="conservative",
    read_at="threshold",
    discard_over="all",
    ties="together",
    grid="exact",
    area="step",
    area_ends="at_limit",
    limits=(0.3,),
)


@dataclass(frozen=True, kw_only=True)
class IdentificationOptions:
    """What is computed of searches.

    Attributes:
        fpir: targets of the score threshold.
        score_threshold: the threshold itself, instead.
        rank: a search of an enrolled person is a hit if the person is among so many candidates.
        replicates: bootstrap draws over people.
        confidence: of intervals and of the risk's promise.
        target_risk: find the cut-off that keeps this risk among accepted searches; None: do not.
        risk: "fpir", "fnir" or "total".
        by: what accepts: "quality", the probe's own uncertainty, or "p_error".
        seed: of every draw.
    """

    fpir: Sequence[float] = (1e-2,)
    score_threshold: float | None = None
    rank: int = 1
    replicates: int = 1000
    confidence: float = 0.95
    target_risk: float | None = None
    risk: Literal["fpir", "fnir", "total"] = "fpir"
    by: By = "p_error"
    seed: int = 0

    def __post_init__(self) -> None:
        fpir, threshold = self.fpir, self.score_threshold
        sound = isinstance(fpir, Sequence) and bool(fpir) and all(0 < target < 1 for target in fpir)
        require(sound, "fpir", fpir, "several rates between 0 and 1, such as (0.01,)")
        require(self.risk in RISK_OF, "risk", self.risk, f"one of {', '.join(RISK_OF)}")
        require(self.by in BY, "by", self.by, f"one of {', '.join(BY)}")
        sound = threshold is None or bool(np.isfinite(threshold))
        require(sound, "score_threshold", threshold, "a finite number")


class Rate(NamedTuple):
    """Errors or hits among searches, with an interval over people."""

    counts: Count
    interval: Interval


@dataclass(frozen=True)
class SearchPoint:
    """One threshold.

    Attributes:
        fpir_target: that it was found for; None where it was given.
        threshold: of the score.
        fnir: misses among probes of enrolled people; None without such probes.
        named_wrongly: of these, those whose best candidate is somebody else and passes.
        fpir: probes of others with a candidate that passes; None without such probes.
        curves: name of an uncertainty -> FNIR and FPIR against the share discarded; none for a
            threshold that was given.
        draws: the same by bootstrap over people; None without errors to draw.
    """

    fpir_target: float | None
    threshold: float
    fnir: Rate | None
    named_wrongly: int
    fpir: Rate | None
    curves: Mapping[str, ProtocolCurve] = field(default_factory=dict)
    draws: Bootstrap | None = None


@dataclass(frozen=True, eq=False)
class SearchRule:
    """When to name the best candidate, when to say nobody, and when that cannot be told.

    Attributes:
        score_threshold: name the best candidate from this score on.
        by: what decides whether the answer can be trusted: "quality" or "p_error".
        accept_up_to: the largest value of that; None accepts nothing.
        doubt: that gives P(error).
        why: where the cut-offs come from, in words.
        weights_sha256: of the model whose scores these are.
    """

    score_threshold: float
    by: By
    accept_up_to: float | None
    doubt: Doubt | None
    why: str
    weights_sha256: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        has_doubt = self.by == "quality" or self.doubt is not None
        require(has_doubt, "by", self.by, "'quality' where there is no distribution of P(error)")

    def values(self, searches: Searches) -> NDArray[np.float32]:
        """(P,) what `by` names."""
        if self.by == "quality":
            return searches.uncertainty
        assert self.doubt is not None
        return self.doubt.p_error(searches, self.score_threshold)

    def save(self, path: str | Path) -> None:
        """Write JSON that `load` reads."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> SearchRule:
        """Read what `save` wrote; ValueError names the file."""
        with naming(path, *DAMAGE):
            rule: SearchRule = parsed(cls, read_json(path), "rule")
            return rule


@dataclass(frozen=True)
class IdentificationResult:
    """All numbers of some searches.

    Attributes:
        searches: of the probes.
        options: what was asked for.
        ranks: rank -> probes of enrolled people whose person is among so many candidates.
        det: FNIR and FPIR at every threshold, as mated and non-mated; None without both kinds.
        points: one for each target.
        risk: the certified cut-off; None where none was asked for.
        rule: what `decide` follows; None without probes of both kinds.
        cautions: what makes these numbers uncertain.
    """

    searches: Searches
    options: IdentificationOptions
    ranks: Mapping[int, Rate]
    det: ErrorRates | None
    points: tuple[SearchPoint, ...]
    risk: RiskControl | None
    rule: SearchRule | None
    cautions: tuple[Caution, ...]


def identify(
    searches: Searches,
    options: IdentificationOptions | None = None,
    *,
    weights_sha256: Mapping[str, str] | None = None,
) -> IdentificationResult:
    """Evaluate searches.

    Without a probe of a person outside the gallery FPIR is undefined, and without one of an
    enrolled person FNIR is; what remains is computed.

    Args:
        searches: of `search` or `read_matrix`.
        options: see `IdentificationOptions`.
        weights_sha256: of the model, for the rule.

    Raises:
        ValueError: a rank that was not searched for, or a risk without the probes that it needs.
    """
    options = options or IdentificationOptions()
    comparisons = searches.comparisons(options.rank)
    enrolled = searches.enrolled
    has_both = bool(enrolled.any() and not enrolled.all())
    ranks = {
        rank: rate_of(
            (searches.ranks[enrolled] >= 1) & (searches.ranks[enrolled] <= rank),
            *(searches.person[enrolled], options),
        )
        for rank in RANKS
        if rank <= searches.candidates.scores.shape[1] and enrolled.any()
    }
    points = tuple(
        _point(searches, comparisons, target, options)
        for target in (options.fpir if options.score_threshold is None else (None,))
        if target is None or not enrolled.all()
    )
    risk, rule = (None, None)
    if options.target_risk is not None:
        risk, rule = certify(searches, options)
    elif has_both:
        rule = _pointwise(searches, points[0])
    rule = rule and dataclasses.replace(rule, weights_sha256=weights_sha256 or {})
    det = error_rates(comparisons.scores, comparisons.mated) if has_both else None
    cautions = (*comparisons.cautions, *_cautions(searches, points))
    return IdentificationResult(searches, options, ranks, det, points, risk, rule, cautions)


def rate_of(
    hits: NDArray[np.bool_], person: NDArray[np.int64], options: IdentificationOptions
) -> Rate:
    """Count hits among searches, with an interval over the people who are probed.

    It is exact where nobody is searched for twice; else a bootstrap over people, and where that has
    no spread (no hit, or nothing else) the exact one of so many people.

    Args:
        hits: (n,) of the searches.
        person: (n,) who each probe shows.
        options: confidence, draws and seed.
    """
    people, row = np.unique(person, return_inverse=True)
    total, own = np.bincount(row), np.bincount(row, weights=hits)
    counts = Count(int(own.sum()), len(hits))
    if total.max() == 1 or counts.errors in (0, counts.total):
        few = counts.errors * len(people) // counts.total
        return Rate(counts, clopper_pearson(few, len(people), options.confidence))
    rng = np.random.default_rng(options.seed)
    even = np.full(len(people), 1 / len(people))
    draws = rng.multinomial(len(people), even, options.replicates or DRAWS)
    tail = (1 - options.confidence) / 2
    low, high = np.quantile((draws @ own) / (draws @ total), (tail, 1 - tail))
    return Rate(counts, Interval(float(low), float(high)))


def _point(
    searches: Searches,
    comparisons: Comparisons,
    target: float | None,
    options: IdentificationOptions,
) -> SearchPoint:
    threshold = options.score_threshold
    if target is not None:
        threshold = threshold_at(searches, target)
    assert threshold is not None
    enrolled, missed = searches.enrolled, comparisons.scores < np.float64(threshold)
    passes = searches.candidates.scores[:, 0] >= np.float64(threshold)
    wrong = enrolled & passes & (searches.ranks != 1)

    def rate(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Rate:
        return rate_of(hits[among], searches.person[among], options)

    point = SearchPoint(
        target,
        threshold,
        rate(missed, enrolled) if enrolled.any() else None,
        int(wrong.sum()),
        None if enrolled.all() else rate(passes, ~enrolled),
    )
    if point.fnir is None or point.fpir is None:
        return point
    if target is None:
        return point
    values = {"quality": searches.uncertainty}
    values |= cross_fitted(searches, target, options.seed)
    if not point.fnir.counts.errors or not options.replicates:
        curves = {
            name: protocol_curve(comparisons.with_uncertainty(each), PROTOCOL, target)
            for name, each in values.items()
        }
        return dataclasses.replace(point, curves=curves)
    draws = bootstrap(
        comparisons,
        values,
        PROTOCOL,
        target,
        replicates=options.replicates,
        confidence=options.confidence,
        seed=options.seed,
        progress=show_draws,
    )
    return dataclasses.replace(point, curves=draws.curves, draws=draws)


def certify(searches: Searches, options: IdentificationOptions) -> tuple[RiskControl, SearchRule]:
    """Find the cut-off that keeps a risk of accepted searches, and the rule that it makes.

    One search of each person is tested, as in 1:1 (`control_risk`). Distribution and threshold of
    P(error) come from a quarter of the people, who have no other say in it. The promise is about
    other probes in the same gallery.

    Raises:
        ValueError: too few searches of the kind that is needed.
    """
    assert options.target_risk is not None
    comparisons = searches.comparisons(options.rank)
    threshold, doubt, count = options.score_threshold, None, None
    fpir = options.fpir[0] if threshold is None else None
    if options.by == "p_error":
        parts = split(comparisons, (TUNING, 1 - TUNING), seed=options.seed)
        tuning, rest = (searches.take(parts.rows(part)) for part in (0, 1))
        if fpir is not None:
            threshold = threshold_at(tuning, fpir)
            others = tuning.candidates.scores[~tuning.enrolled, 0]
            count = Count(int((others >= np.float64(threshold)).sum()), len(others))
        assert threshold is not None
        doubt = Doubt.fit(tuning)
        comparisons = rest.comparisons(options.rank)
        comparisons = comparisons.with_uncertainty(doubt.p_error(rest, threshold))
    risk = control_risk(
        comparisons,
        target_risk=options.target_risk,
        risk=RISK_OF[options.risk],
        confidence=options.confidence,
        fmr_target=fpir if threshold is None else None,
        score_threshold=threshold,
        seed=options.seed,
    )
    if count is not None:
        risk = dataclasses.replace(risk, fmr_target=fpir, threshold_count=count)
    why = (
        f"{options.risk.upper()} of accepted searches is at most {options.target_risk:g}, "
        f"confidence {options.confidence:g}, among probes like those of {searches.name}"
    )
    if risk.uncertainty_threshold is None:
        why = f"accept none: it could not be certified that {why}"
    cut = risk.uncertainty_threshold
    return risk, SearchRule(risk.score_threshold, options.by, cut, doubt, why)


def _pointwise(searches: Searches, point: SearchPoint) -> SearchRule:
    """Accept while P(error) is at most the share of wrong answers of all searches."""
    assert point.fnir is not None
    assert point.fpir is not None
    errors = point.fnir.counts.errors + point.fpir.counts.errors
    rate = (errors + 0.5) / (len(searches) + 1)
    why = (
        f"accept while P(error) is at most {rate:.3g}, the share of wrong answers of "
        f"{searches.name}; this guarantees nothing (--target_risk does)"
    )
    return SearchRule(point.threshold, "p_error", rate, Doubt.fit(searches), why)


def _cautions(searches: Searches, points: tuple[SearchPoint, ...]) -> list[Caution]:
    cautions = []
    strangers = int(np.count_nonzero(~searches.enrolled))
    for point in points:
        if point.fpir_target is not None:
            expected = point.fpir_target * strangers
            facts = {"fpir": point.fpir_target, "strangers": strangers}
            few = caution_few("few_false_positives", expected, **facts)
            cautions += [few] if few else []
    if not strangers:
        cautions.append(Caution("no_strangers", {"total": len(searches)}))
    if strangers == len(searches):
        cautions.append(Caution("no_enrolled", {"total": len(searches)}))
    for point in points:
        cautions += point.draws.cautions if point.draws else ()
    return cautions
