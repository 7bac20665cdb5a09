"""Every number of the report as typed rows: `report.json` is these classes, the page shows them.

docs/evaluate.md explains the entries, and docs/report.schema.json is their JSON Schema. Undefined
numbers (NaN and infinity) are None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from report.data import Provenance

SCHEMA = "face-uncertainty/report/1"
FEW_ERRORS = 10  # a curve is dashed where fewer are left

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Numbers = list[float | None]


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
    """One protocol on the same comparisons."""

    protocol: str
    in_words: str
    fmr_target: float | None
    score_threshold: float | None
    fnmr_without_discard: Rate
    fmr_without_discard: Rate
    fnmr_after_10_percent: Rate
    areas: dict[str, float | None]
    relative_areas: dict[str, float | None]


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
    risk_control: Mapping[str, object] | None
    reliability: ReliabilityFacts | None
    calibration: Mapping[str, object] | None
    faces: Faces
    worst_errors: WorstErrors
    provenance: Provenance | None

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
