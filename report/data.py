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
    """Where the numbers come from.

    Attributes:
        date: of the evaluation, as the caller writes it; "" leaves it out (equal input then gives
            equal files on any day).
        command: the command line, one word each.
        environment: `utils.run.environment()`: versions, platform, code revision.
        config: every setting of the run that was evaluated.
        files: path -> SHA-256 of each data and weights file (`utils.files.file_sha256`).
    """

    date: str = ""
    command: Sequence[str] = ()
    environment: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """One method on one set.

    Attributes:
        name: of the set.
        method: where the uncertainties come from, such as "trained_head".
        comparisons: scores, labels and uncertainties.
        curves: the chosen protocol at each FMR target; the first is the one of the summary.
        presets: the same comparisons under every preset, for the table side by side.
        bootstrap: FMR target -> intervals of the curve at that target, for `method`; a bootstrap of
            a single method is taken to be of it, whatever its name.
        risk: the chosen discard threshold, where a target risk was requested.
        reliability: predicted against observed error rates of held-out pairs.
        calibration: the map from uncertainty to probability and quality, for the threshold table.
        images: access to the images; None where there are only numbers.
        provenance: None where nothing is known.
        warnings: further lines for people, in addition to those of the curves.
    """

    name: str
    method: str
    comparisons: Comparisons
    curves: Sequence[ProtocolCurve]
    presets: Sequence[ProtocolCurve] = ()
    bootstrap: Mapping[float, Bootstrap] = field(default_factory=dict)
    risk: RiskControl | None = None
    reliability: Reliability | None = None
    calibration: Calibration | None = None
    images: ImageAccess | None = None
    provenance: Provenance | None = None
    warnings: Sequence[str] = ()

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
        """Return the bootstrap of a curve and the method's name in it; None where there is none."""
        draws = self.bootstrap.get(curve.edc.fmr_target)
        if draws is None:
            return None
        return draws, next(iter(draws.curves)) if len(draws.curves) == 1 else self.method
