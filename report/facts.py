"""Every number of the report as typed rows: `report.json` is these classes, the page shows them.

`collect` makes them from the results of an evaluation (`ReportData`). docs/evaluate.md explains the
entries, and docs/report.schema.json is their JSON Schema. Undefined numbers (NaN and infinity) are
None. Rates come as counts with exact intervals; scores are binned first, so that ten million
comparisons take a few seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.intervals import clopper_pearson
from evaluation.metrics.curve import CurveEngine
from evaluation.original import equal_error_rates
from evaluation.run import DISCARDS
from report.words import caution_sentences, group_sentences, protocol_sentence, risk_sentences
from utils.files import Json

if TYPE_CHECKING:
    from data.faces import Images
    from evaluation.calibration_run import Reliability
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.confidence.calibration import Calibration
    from evaluation.confidence.differentials import GroupRates, GroupResult
    from evaluation.confidence.intervals import Count, Interval
    from evaluation.confidence.risk_control import RiskControl
    from evaluation.metrics.comparisons import Comparisons
    from evaluation.metrics.curve import Kept, ProtocolCurve

SCHEMA = "face-uncertainty/report/1"
FEW_ERRORS = 10  # a curve is dashed where fewer are left

Numbers = list[float | None]

SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)  # shares of the table
REFUSED = 0.1
CONFIDENCE = 0.95
LONGEST = 1001  # points of a curve; longer ones are read at every thousandth
BINS = 20, 80  # fewest and most: histograms of few scores would be noise
DECILES = 10
DET_POINTS = 300
DET_KEPT = (1.0, 0.9, 0.7)
FACES = 12
ERRORS = 8
_TRIED = 20  # rows looked at per face shown: copies of one face are skipped


@dataclass(frozen=True)
class Rate:
    """Errors among a total, with the exact 95 % interval; the rate of a total of 0 is None."""

    errors: int
    total: int
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SetSize:
    """What was compared; `non_mated` includes the unlisted ones, `identities` may be unknown."""

    comparisons: int
    mated: int
    non_mated: int
    unlisted: int
    images: int
    identities: int | None


@dataclass(frozen=True)
class CappedSetSize(SetSize):
    """Of labelled faces: `cap` mated comparisons of one person at most; the others are left out."""

    cap: int
    mated_left_out: int


@dataclass(frozen=True)
class ProtocolWords:
    """A protocol's name and its switches in words."""

    name: str
    in_words: str


@dataclass(frozen=True)
class AreaInterval:
    """Bootstrap interval of the headline's area."""

    low: float | None
    high: float | None
    confidence: float
    unit: str


@dataclass(frozen=True)
class Headline:
    """The summary: FNMR before and after refusing the share `refused`, and the relative area.

    `relative_area` is area / area of random discard up to `area_limit`.
    """

    fmr_target: float | None
    score_threshold: float | None
    fnmr_before: Rate
    fmr_before: Rate
    refused: float
    uncertainty_threshold: float | None
    fnmr_after: Rate | None
    area_limit: float
    relative_area: float | None
    interval: AreaInterval | None


@dataclass(frozen=True)
class OperatingPoint:
    """What an uncertainty threshold costs and leaves, at one share of refused comparisons."""

    discard: float
    uncertainty_threshold: float | None
    score_threshold: float | None
    kept_mated: int
    kept_non_mated: int
    fnmr: Rate
    fmr: Rate
    eer: float | None


@dataclass(frozen=True)
class CalibratedPoint(OperatingPoint):
    """With P(false non-match) of a mated comparison at the threshold, and an image's quality."""

    error_probability: float | None
    iso_quality: int


@dataclass(frozen=True)
class Span:
    """A value with its bootstrap interval."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bands:
    """Bootstrap of one curve; `area` and `relative` are taken up to the discard share `limit`."""

    unit: str
    replicates: int
    confidence: float
    limit: float
    discard_fraction: Numbers
    fnmr_low: Numbers
    fnmr_high: Numbers
    area: Span
    relative: Span


@dataclass(frozen=True)
class CurveFacts:
    """One error-versus-discard curve, all lists of one length.

    `steps`: a value holds until the next point, instead of a straight line between points.
    `areas` and `relative_areas` map a discard limit, as in "0.3", to the area up to it.
    """

    fmr_target: float | None
    score_threshold: float | None
    fnmr_without_discard: Rate
    fmr_without_discard: Rate
    fixed_threshold: bool
    steps: bool
    discard_fraction: Numbers
    fnmr: Numbers
    optimum: Numbers
    false_non_matches: list[int]
    mated: list[int]
    false_matches: list[int]
    non_mated: list[int]
    areas: dict[str, float | None]
    relative_areas: dict[str, float | None]
    bootstrap: Bands | None
    operating_points: list[OperatingPoint]

    @property
    def shown_to(self) -> float:
        """Discard share up to which it is drawn: 0.5 where hardly an error is left beyond it."""
        half = sum(share is not None and share < 0.5 for share in self.discard_fraction)
        errors = self.false_non_matches[min(half, len(self.false_non_matches) - 1)]
        return 1.0 if errors >= 2 * FEW_ERRORS else 0.5

    @property
    def refuses_mated_only(self) -> bool:
        """Whether all non-mated comparisons are kept at every point."""
        return len({point.kept_non_mated for point in self.operating_points}) == 1


@dataclass(frozen=True)
class Preset:
    """One protocol on the same comparisons; `efficiency` by discard share, under `nist` alone."""

    protocol: str
    in_words: str
    fmr_target: float | None
    score_threshold: float | None
    fnmr_without_discard: Rate
    fmr_without_discard: Rate
    fnmr_after_10_percent: Rate
    areas: dict[str, float | None]
    relative_areas: dict[str, float | None]
    efficiency: dict[str, float | None]


@dataclass(frozen=True)
class Decile:
    """Histograms of a tenth of uncertainty."""

    uncertainty_from: float
    uncertainty_to: float
    mated: list[int]
    non_mated: list[int]
    mated_total: int
    mated_median: float | None


@dataclass(frozen=True)
class Histograms:
    """Counts of scores between edges: of all comparisons, and by uncertainty, the lowest first."""

    edges: list[float]
    mated: list[int]
    non_mated: list[int]
    deciles: list[Decile]


@dataclass(frozen=True)
class Det:
    """FMR against FNMR over all thresholds, of the share of comparisons that is kept."""

    kept: float
    mated: int
    non_mated: int
    fmr: list[float]
    fnmr: list[float]


@dataclass(frozen=True)
class ReliabilityBin:
    """Held-out comparisons of about equal predicted probability of an error."""

    predicted: float
    errors: int
    observed: float
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class ReliabilityFacts:
    """Predicted against observed; `chance`: calibration error to expect of a perfect map."""

    bins: list[ReliabilityBin]
    calibration_error: float
    chance: float
    confidence: float


@dataclass(frozen=True)
class Face:
    """An image by its row; the name is "" without images."""

    row: int
    name: str
    uncertainty: float | None


@dataclass(frozen=True)
class Faces:
    """The ends of the order by uncertainty, each image once."""

    least_uncertain: list[Face]
    most_uncertain: list[Face]


@dataclass(frozen=True)
class ErrorFacts:
    """One wrong comparison; `kept`: it stays when the share `refused` is refused."""

    comparison: int
    sides: list[Face]
    score: float
    uncertainty: float | None
    kept: bool


@dataclass(frozen=True)
class WorstErrors:
    """False non-matches with the lowest and false matches with the highest scores."""

    refused: float
    uncertainty_threshold: float | None
    score_threshold: float | None
    false_non_matches: list[ErrorFacts]
    false_matches: list[ErrorFacts]


@dataclass(frozen=True)
class GroupRate:
    """A rate of one group; `low` to `high` by bootstrap, `relative` to the geometric mean of all.

    None where there is none: without draws, or where the group is too small to be compared.
    """

    errors: int
    total: int
    rate: float | None
    low: float | None
    high: float | None
    too_small: bool
    relative: Span | None


@dataclass(frozen=True)
class GroupFacts:
    """One group; `false_non_matches` and `mated` are kept at each of `discard_fraction`."""

    group: str
    people: int
    images: int
    refused_images: int
    fnmr: GroupRate
    fmr: GroupRate
    refused: GroupRate
    false_non_matches: list[int]
    mated: list[int]


@dataclass(frozen=True)
class Apart:
    """How far apart a rate is; all but `rate` are None where that is undefined."""

    rate: str
    worst: str | None
    to_geometric_mean: Span
    to_best: Span
    at_least: float | None


@dataclass(frozen=True)
class OutsideGroups:
    """Comparisons of no group: counted, but in no rate of a group."""

    mated: int
    non_mated: int
    false_matches: int


@dataclass(frozen=True)
class GroupingFacts:
    """One grouping at one FMR target."""

    name: str
    fmr_target: float | None
    score_threshold: float
    refused: float
    uncertainty_threshold: float | None
    unit: str
    units: int
    replicates: int
    confidence: float
    discard_fraction: list[float]
    groups: list[GroupFacts]
    across: OutsideGroups
    unknown: OutsideGroups
    differentials: list[Apart]
    in_words: list[str]


@dataclass(frozen=True)
class ReportFacts:
    """The whole report, in the order of `report.json`."""

    schema: str
    name: str
    method: str
    date: str
    set: SetSize
    protocol: ProtocolWords
    headline: Headline
    warnings: list[str]
    curves: list[CurveFacts]
    presets: list[Preset]
    scores: Histograms
    det: list[Det]
    groups: list[GroupingFacts]
    risk_control: Mapping[str, object] | None
    reliability: ReliabilityFacts | None
    calibration: Mapping[str, object] | None
    faces: Faces
    worst_errors: WorstErrors
    provenance: Provenance | None

    def rows(self) -> list[int]:
        """Return the rows of the images that are shown, each once."""
        errors = (*self.worst_errors.false_non_matches, *self.worst_errors.false_matches)
        sides = [side for error in errors for side in error.sides]
        shown = (*self.faces.most_uncertain, *self.faces.least_uncertain, *sides)
        return list(dict.fromkeys(face.row for face in shown))

    def to_dict(self) -> dict[str, Json]:
        """Return the content of `report.json`; TypeError as of `plain`."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


def number(value: float | np.floating) -> float | None:
    """Return a float, None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None


def numbers(values: NDArray[np.floating]) -> Numbers:
    """Return the floats of an array, None for NaN and infinity."""
    return [number(value) for value in values.tolist()]


def by_limit(areas: Mapping[float, float]) -> dict[str, float | None]:
    """Return areas by discard limit, as in "0.3"."""
    return {f"{limit:g}": number(area) for limit, area in areas.items()}


def plain(value: object) -> Json:
    """Return a value in the types of JSON, a dataclass as a dictionary.

    Raises:
        TypeError: a type that JSON has no place for.
    """
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return number(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a report cannot hold a {type(value).__name__}: {value!r:.80}")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the numbers come from; without a date, equal input gives equal files on any day."""

    date: str = ""  # of the evaluation
    command: Sequence[str] = ()  # words of the command line
    environment: Mapping[str, object] = field(default_factory=dict)  # `utils.run.environment()`
    config: Mapping[str, object] = field(default_factory=dict)  # of the run that was evaluated
    files: Mapping[str, str] = field(default_factory=dict)  # path -> SHA-256, of data and weights


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """One method on one set."""

    name: str  # of the set
    method: str  # where the uncertainties come from, such as "trained_head"
    comparisons: Comparisons
    curves: Sequence[ProtocolCurve]  # one protocol by FMR target; the first is the summary's
    presets: Sequence[ProtocolCurve] = ()  # every protocol, for the table side by side
    bootstrap: Mapping[float, Bootstrap] = field(default_factory=dict)  # by FMR target
    groups: Sequence[GroupResult] = ()
    risk: RiskControl | None = None
    reliability: Reliability | None = None  # of held-out pairs
    calibration: Calibration | None = None  # for the table of thresholds
    images: Images | None = None  # behind the comparisons
    # of aligned faces: maps of what raises their uncertainty, as `LoadedModel.explain`
    explain: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
    provenance: Provenance | None = None
    warnings: Sequence[str] = ()  # in addition to those of the curves

    def __post_init__(self) -> None:
        if not self.curves:
            raise ValueError(f"{self.name}: a report needs the curve of at least one FMR target")
        names = {curve.protocol.name for curve in self.curves}
        if len(names) > 1:
            raise ValueError(
                f"{self.name}: curves of several protocols ({', '.join(sorted(names))}): a report "
                "has one; the others belong in presets"
            )

    def draws(self, curve: ProtocolCurve) -> tuple[Bootstrap, str] | None:
        """Return the bootstrap of a curve and the method's name in it: a single one is its."""
        draws = self.bootstrap.get(curve.edc.fmr_target)
        if draws is None:
            return None
        return draws, next(iter(draws.curves)) if len(draws.curves) == 1 else self.method


def collect(data: ReportData) -> ReportFacts:
    """Return everything that the page shows and `report.json` holds."""
    comparisons, main = data.comparisons, data.curves[0]
    uncertainty = comparisons.pair_uncertainty(main.protocol.fuse)
    kept = CurveEngine(comparisons, main.protocol).kept()
    indices = [main.index_at(share) for share in _shown(main)]
    eer: list[float | None] = [None] * len(indices)
    if not comparisons.unlisted:
        rates = equal_error_rates(comparisons.scores, comparisons.mated, kept, indices)
        eer = [number(rate.value) for rate in rates]
    tables = [_operating_points(data, curve, eer, kept.thresholds) for curve in data.curves]
    limit = float(kept.thresholds[main.index_at(REFUSED)])
    return ReportFacts(
        schema=SCHEMA,
        name=data.name,
        method=data.method,
        date=data.provenance.date if data.provenance else "",
        set=_set_size(comparisons),
        protocol=ProtocolWords(main.protocol.name, protocol_sentence(main.protocol)),
        headline=_headline(data, tables[0]),
        warnings=_warnings(data),
        curves=[
            _curve(curve, data, points) for curve, points in zip(data.curves, tables, strict=True)
        ],
        presets=[_preset(curve) for curve in data.presets],
        scores=histograms(comparisons, uncertainty),
        det=_det_curves(comparisons, main, kept),
        groups=list(map(grouping_facts, data.groups)),
        risk_control=(
            {**data.risk.to_dict(), "in_words": risk_sentences(data.risk)} if data.risk else None
        ),
        reliability=_reliability(data),
        calibration=data.calibration.to_dict() if data.calibration else None,
        faces=_faces(comparisons, data.images),
        worst_errors=_worst_errors(data, uncertainty, limit),
        provenance=data.provenance,
    )


def _set_size(comparisons: Comparisons) -> SetSize:
    mated = int(comparisons.mated.sum())
    identity, image = comparisons.identity, comparisons.image
    size = SetSize(
        comparisons=mated + comparisons.non_mated_total,
        mated=mated,
        non_mated=comparisons.non_mated_total,
        unlisted=comparisons.unlisted,
        images=len(comparisons.uncertainty if image is None else np.unique(image)),
        identities=None if identity is None else len(np.unique(identity)),
    )
    cap = comparisons.cap
    return CappedSetSize(**vars(size), cap=cap.limit, mated_left_out=cap.left_out) if cap else size


def _warnings(data: ReportData) -> list[str]:
    cautions = [*data.comparisons.cautions]
    cautions += [caution for curve in data.curves for caution in curve.cautions]
    cautions += [caution for draws in data.bootstrap.values() for caution in draws.cautions]
    cautions += [caution for groups in data.groups for caution in groups.grouping.cautions]
    return list(dict.fromkeys([*data.warnings, *caution_sentences(cautions)]))


def _rate(errors: int | np.integer, total: int | np.integer) -> Rate:
    errors, total = int(errors), int(total)
    low, high = clopper_pearson(errors, total, CONFIDENCE)
    return Rate(errors, total, errors / total if total else None, low, high)


def _fnmr(curve: ProtocolCurve, index: int = 0) -> Rate:
    return _rate(curve.edc.false_non_matches[index], curve.edc.mated[index])


def _fmr(curve: ProtocolCurve, index: int = 0) -> Rate:
    return _rate(curve.edc.false_matches[index], curve.edc.non_mated[index])


def _curve(curve: ProtocolCurve, data: ReportData, points: list[OperatingPoint]) -> CurveFacts:
    edc = curve.edc
    at = np.arange(len(edc.fractions))
    if len(at) > LONGEST:
        at = np.unique([curve.index_at(share) for share in np.linspace(0, 1, LONGEST)])
    return CurveFacts(
        fmr_target=number(edc.fmr_target),
        score_threshold=number(edc.score_threshold[0]),
        fnmr_without_discard=_fnmr(curve),
        fmr_without_discard=_fmr(curve),
        fixed_threshold=curve.protocol.threshold == "fixed",
        steps=curve.protocol.area == "step",
        discard_fraction=numbers(edc.fractions[at]),
        fnmr=numbers(edc.fnmr[at]),
        optimum=numbers(curve.optimum[at]),
        false_non_matches=edc.false_non_matches[at].tolist(),
        mated=edc.mated[at].tolist(),
        false_matches=edc.false_matches[at].tolist(),
        non_mated=edc.non_mated[at].tolist(),
        areas=by_limit(curve.areas),
        relative_areas=by_limit(curve.relative),
        bootstrap=_bands(data.draws(curve)),
        operating_points=points,
    )


def _bands(draws: tuple[Bootstrap, str] | None) -> Bands | None:
    if draws is None:
        return None
    bootstrap, method = draws
    bands = bootstrap.bands(method)
    area, area_interval = bootstrap.area(method)
    relative, relative_interval = bootstrap.relative(method)
    return Bands(
        unit=bootstrap.unit,
        replicates=bootstrap.replicates,
        confidence=bootstrap.confidence,
        limit=bootstrap.limit,
        discard_fraction=numbers(bootstrap.fractions),
        fnmr_low=numbers(bands.low),
        fnmr_high=numbers(bands.high),
        area=Span(number(area), *map(number, area_interval)),
        relative=Span(number(relative), *map(number, relative_interval)),
    )


def _preset(curve: ProtocolCurve) -> Preset:
    return Preset(
        protocol=curve.protocol.name,
        in_words=protocol_sentence(curve.protocol),
        fmr_target=number(curve.edc.fmr_target),
        score_threshold=number(curve.edc.score_threshold[0]),
        fnmr_without_discard=_fnmr(curve),
        fmr_without_discard=_fmr(curve),
        fnmr_after_10_percent=_fnmr(curve, curve.index_at(REFUSED)),
        areas=by_limit(curve.areas),
        relative_areas=by_limit(curve.relative),
        efficiency=by_limit(curve.efficiencies(DISCARDS)),
    )


def _headline(data: ReportData, points: list[OperatingPoint]) -> Headline:
    """FNMR before and after refusing 10 %, and AUERC30 or else the area of the lowest limit."""
    curve = data.curves[0]
    draws = data.draws(curve)
    after = next((point for point in points if point.discard == REFUSED), None)
    limit = 0.3 if 0.3 in curve.relative else min(curve.relative)
    area, interval = curve.relative[limit], None
    if draws is not None:
        bootstrap, method = draws
        limit = bootstrap.limit
        area, (low, high) = bootstrap.relative(method)
        interval = AreaInterval(number(low), number(high), bootstrap.confidence, bootstrap.unit)
    return Headline(
        fmr_target=number(curve.edc.fmr_target),
        score_threshold=number(curve.edc.score_threshold[0]),
        fnmr_before=points[0].fnmr,
        fmr_before=points[0].fmr,
        refused=REFUSED,
        uncertainty_threshold=after.uncertainty_threshold if after else None,
        fnmr_after=after.fnmr if after else None,
        area_limit=limit,
        relative_area=number(area),
        interval=interval,
    )


def _shown(curve: ProtocolCurve) -> list[float]:
    """Discard fractions of the table, as far as the curve goes."""
    return [share for share in SHOWN if share <= curve.edc.fractions[-1] + 1e-9]


def _operating_points(
    data: ReportData,
    curve: ProtocolCurve,
    eer: list[float | None],
    thresholds: NDArray[np.floating],
) -> list[OperatingPoint]:
    """One row per discard fraction of `SHOWN`, at the curve's last fraction not above the row's.

    `eer` has one per row, the (F,) uncertainty `thresholds` one per fraction of the curve (that of
    mated comparisons, where the kinds have their own). A calibration for this FMR target adds what
    an uncertainty at the threshold means.
    """
    edc, calibration = curve.edc, data.calibration
    is_main = curve is data.curves[0]
    if calibration and not (is_main or calibration.fmr_target == edc.fmr_target):
        calibration = None
    points = []
    for share, error in zip(_shown(curve), eer, strict=True):
        at = curve.index_at(share)
        limit = float(thresholds[at])
        point = OperatingPoint(
            discard=share,
            uncertainty_threshold=number(limit),
            score_threshold=number(edc.score_threshold[at]),
            kept_mated=int(edc.mated[at]),
            kept_non_mated=int(edc.non_mated[at]),
            fnmr=_fnmr(curve, at),
            fmr=_fmr(curve, at),
            eer=error if edc.mated[at] and edc.non_mated[at] else None,
        )
        if calibration and curve.protocol.fuse == "max":
            point = CalibratedPoint(
                **vars(point),
                error_probability=number(calibration.probability([limit])[0]),
                iso_quality=int(calibration.iso_quality([limit])[0]),
            )
        points.append(point)
    return points


def histograms(comparisons: Comparisons, uncertainty: NDArray[np.float32]) -> Histograms:
    """Score histograms of both kinds: of all listed comparisons and per uncertainty decile.

    The deciles are those of the mated comparisons' (N,) uncertainties; non-mated ones are sorted
    into their ranges.
    """
    scores, mated = comparisons.scores, comparisons.mated
    bins = int(np.clip(2.5 * np.count_nonzero(mated) ** (1 / 3), *BINS))
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    place = np.clip(((scores - edges[0]) / (edges[1] - edges[0])).astype(np.int64), 0, bins - 1)
    bounds = np.percentile(uncertainty[mated].astype(np.float64), np.arange(0, 101, 10))
    decile = np.searchsorted(bounds[1:-1], uncertainty, side="left")
    mated_scores, mated_decile = scores[mated], decile[mated]
    cell = (decile * 2 + mated) * bins + place
    counts = np.bincount(cell, minlength=2 * DECILES * bins).reshape(DECILES, 2, bins)
    return Histograms(
        edges=edges.tolist(),
        mated=counts[:, 1].sum(axis=0).tolist(),
        non_mated=counts[:, 0].sum(axis=0).tolist(),
        deciles=[
            Decile(
                uncertainty_from=float(bounds[tenth]),
                uncertainty_to=float(bounds[tenth + 1]),
                mated=counts[tenth, 1].tolist(),
                non_mated=counts[tenth, 0].tolist(),
                mated_total=int(counts[tenth, 1].sum()),
                mated_median=_median(mated_scores[mated_decile == tenth]),
            )
            for tenth in range(DECILES)
        ],
    )


def _median(values: NDArray[np.float32]) -> float | None:
    return number(float(np.median(values))) if len(values) else None


def _det_curves(comparisons: Comparisons, curve: ProtocolCurve, kept: Kept) -> list[Det]:
    """Of all comparisons and of the kept 90 % and 70 %, where both kinds are left.

    At most so many points as a picture can show, evenly over the logarithm of FMR; each is the
    lowest threshold of its FMR, just above the next non-mated score.
    """
    curves = []
    for share in DET_KEPT:
        rows = kept.rows(curve.index_at(1 - share))
        mated = np.sort(comparisons.scores[rows & comparisons.mated])
        non_mated = np.sort(comparisons.scores[rows & ~comparisons.mated])
        count = len(non_mated)
        total = count + comparisons.unlisted  # the unlisted ones are all lower
        if not len(mated) or not count:
            continue
        steps = np.unique(np.geomspace(1, max(count - 1, 1), DET_POINTS).astype(np.int64))
        rejected = np.unique(non_mated[np.maximum(count - 1 - steps, 0)])[::-1]
        matches = count - np.searchsorted(non_mated, rejected, side="right")
        missed = np.searchsorted(mated, rejected, side="right") / len(mated)
        fmr = (matches / total).tolist()
        curves.append(Det(share, len(mated), total, fmr, missed.tolist()))
    return curves


def _reliability(data: ReportData) -> ReliabilityFacts | None:
    diagram = data.reliability
    if diagram is None:
        return None
    bins = [
        ReliabilityBin(part.predicted, part.errors, part.observed, part.count, *part.interval)
        for part in diagram.bins
    ]
    return ReliabilityFacts(bins, diagram.calibration_error, diagram.chance, diagram.confidence)


def grouping_facts(result: GroupResult) -> GroupingFacts:
    """Everything about one grouping, and the sentences about it."""
    return GroupingFacts(
        name=result.grouping.name,
        fmr_target=number(result.fmr_target),
        score_threshold=result.score_threshold,
        refused=result.refused,
        uncertainty_threshold=number(result.uncertainty_threshold),
        unit=result.unit,
        units=result.units,
        replicates=result.replicates,
        confidence=result.confidence,
        discard_fraction=[*result.shares],
        groups=[_group(row, result) for row in result.rows],
        across=_outside(*result.across),
        unknown=_outside(*result.unknown),
        differentials=[
            Apart(
                part.kind,
                part.worst or None,
                _span(part.ratio, part.interval),
                _span(part.to_best, part.to_best_interval),
                number(part.at_least),
            )
            for part in result.differentials
        ],
        in_words=group_sentences(result),
    )


def _outside(mated: int, others: Count) -> OutsideGroups:
    return OutsideGroups(mated, others.total, others.errors)


def _span(value: float, interval: Interval) -> Span:
    return Span(number(value), *map(number, interval))


def _group(row: GroupRates, result: GroupResult) -> GroupFacts:
    rates = {}
    for part in result.differentials:
        errors, total = row.counts[part.kind]
        low, high = row.intervals.get(part.kind, (math.nan, math.nan))
        relative = part.relative.get(row.group)
        rates[part.kind] = GroupRate(
            errors=errors,
            total=total,
            rate=errors / total if total else None,
            low=number(low),
            high=number(high),
            too_small=part.kind in row.too_small,
            relative=_span(*relative) if relative else None,
        )
    images = row.refused_images
    return GroupFacts(
        group=row.group,
        people=row.people,
        images=images.total,
        refused_images=images.errors,
        **rates,
        false_non_matches=[count.errors for count in row.kept],
        mated=[count.total for count in row.kept],
    )


def _faces(comparisons: Comparisons, images: Images | None) -> Faces:
    order = np.argsort(comparisons.uncertainty, kind="stable")
    count = min(FACES, max(1, len(order) // 2))

    def key(row: int) -> Hashable:
        if comparisons.image is not None:
            return int(comparisons.image[row])
        return row if images is None else images.decode(row, row + 1)[0].tobytes()

    def ends(order: NDArray[np.intp]) -> list[Face]:
        rows = first_distinct(order[: _TRIED * count], count, key)
        return [_face(comparisons, row, images) for row in rows]

    return Faces(least_uncertain=ends(order), most_uncertain=ends(order[::-1]))


def first_distinct(rows: NDArray[np.intp], count: int, key: Callable[[int], Hashable]) -> list[int]:
    """The first `count` rows of an order, each key once; fewer where the order ends."""
    chosen: dict[Hashable, int] = {}
    for row in map(int, rows):
        if len(chosen) == count:
            break
        chosen.setdefault(key(row), row)
    return list(chosen.values())


def _face(comparisons: Comparisons, row: int, images: Images | None) -> Face:
    name = "" if images is None else images.image_name(row)
    return Face(row, name, number(comparisons.uncertainty[row]))


def _worst_errors(data: ReportData, uncertainty: NDArray[np.float32], limit: float) -> WorstErrors:
    """Name them, with the (N,) uncertainties of all; one above the limit is refused."""
    comparisons = data.comparisons
    scores, mated = comparisons.scores, comparisons.mated
    threshold = float(data.curves[0].edc.score_threshold[0])
    missed = np.flatnonzero(mated & (scores < threshold))
    matched = np.flatnonzero(~mated & (scores >= threshold))
    missed = missed[np.argsort(scores[missed], kind="stable")]
    matched = matched[np.argsort(-scores[matched], kind="stable")]

    def error(place: int) -> ErrorFacts:
        return ErrorFacts(
            comparison=place,
            sides=[_face(comparisons, int(row), data.images) for row in comparisons.pairs[place]],
            score=float(scores[place]),
            uncertainty=number(uncertainty[place]),
            kept=bool(uncertainty[place] <= limit),
        )

    return WorstErrors(
        refused=REFUSED,
        uncertainty_threshold=number(limit),
        score_threshold=number(threshold),
        false_non_matches=[error(place) for place in missed[:ERRORS].tolist()],
        false_matches=[error(place) for place in matched[:ERRORS].tolist()],
    )
