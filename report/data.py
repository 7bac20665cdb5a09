"""What the report is made of: results of the evaluation, most of them optional.

`report.page.write_report` turns a `ReportData` into files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.confidence.calibration import Calibration
    from evaluation.confidence.reliability import Reliability
    from evaluation.confidence.risk_control import RiskControl
    from evaluation.metrics.comparisons import Comparisons
    from evaluation.metrics.curve import ProtocolCurve


class ImageAccess(Protocol):
    """The M images behind a `Comparisons`, as evaluation sets offer them."""

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images start..stop-1 as (n, H, W, 3) RGB."""

    def image_name(self, row: int) -> str:
        """Return a name that a person can find the image by."""


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
    risk: RiskControl | None = None
    reliability: Reliability | None = None  # of held-out pairs
    calibration: Calibration | None = None  # for the table of thresholds
    images: ImageAccess | None = None
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
