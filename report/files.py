"""The files of `--report`: an HTML page with its JSON, the printed text, and pictures as PNG.

Gathers what the page shows; `report.page` writes it.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evaluation.confidence.calibration import Calibration
from evaluation.confidence.reliability import Reliability, held_out_reliability
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.run import (
    EvaluationOptions,
    EvaluationResult,
    UncertaintyResult,
    file_name,
    protocol_rows,
)
from report.data import Provenance, ReportData
from report.page import write_report
from report.sentences import caution_sentences
from report.text import report_text
from utils.files import file_sha256, write_text


def write_reports(
    result: EvaluationResult,
    folder: str | Path,
    *,
    config: Mapping[str, object] | None = None,
    files: Sequence[Path] = (),
) -> Iterator[Path]:
    """Write all files of one set into a folder, and yield their paths.

    Args:
        result: with its `uncertainties`.
        folder: of the report; made where it is missing.
        config: settings of the run that was evaluated.
        files: weights and data behind the numbers.
    """
    from report.figures import contact_sheet, edc_figure  # matplotlib

    folder, name = Path(folder), file_name(result.name)
    text = folder / f"{name}.txt"
    write_text(text, report_text(result))
    yield text
    if result.original is not None:
        yield edc_figure(result.original, folder / f"{name}-edc.png")
    images, first = result.images, result.uncertainties[0].comparisons.uncertainty
    if images is not None and len(images) == len(first):
        yield contact_sheet(images, first, folder / f"{name}-faces.png", title=name)
    provenance = _provenance(config or {}, files)
    for part in result.uncertainties:
        stem = f"{name}-{file_name(part.label)}" if part.label else name
        yield from write_report(folder, _data(result, part, provenance), stem)


def _data(result: EvaluationResult, part: UncertaintyResult, provenance: Provenance) -> ReportData:
    comparisons, images, options = part.comparisons, result.images, result.options
    presets = protocol_rows(comparisons, PROTOCOLS.values(), options.fmr[:1])
    calibration, reliability, missing = _calibrated(part, options)
    cautions = [caution for draws in part.draws.values() for caution in draws.cautions]
    shown = images is not None and len(images) == len(comparisons.uncertainty)
    return ReportData(
        name=result.name,
        method=part.method,
        comparisons=comparisons,
        curves=part.curves,
        presets=[row.curve for row in presets if row.curve],
        bootstrap=part.draws,
        risk=part.risk,
        reliability=reliability,
        calibration=calibration,
        images=images if shown else None,
        provenance=provenance,
        warnings=[*missing, *caution_sentences(cautions)],
    )


def _calibrated(
    part: UncertaintyResult, options: EvaluationOptions
) -> tuple[Calibration | None, Reliability | None, list[str]]:
    """Map and check of what uncertainties mean; a line that says why where there is none."""
    try:
        fitted = Calibration.fit(part.comparisons, fmr_target=options.fmr[0], method=part.method)
        checked = held_out_reliability(
            part.comparisons,
            score_threshold=fitted.score_threshold,
            confidence=options.confidence,
            seed=options.seed,
        )
    except ValueError as error:
        return None, None, [f"no reliability diagram: {error}"]
    return fitted, checked, []


def _provenance(config: Mapping[str, object], files: Sequence[Path]) -> Provenance:
    from utils.run import environment  # torch

    return Provenance(
        date=datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        command=sys.argv,
        environment=environment(),
        config=config,
        files={str(path): file_sha256(path) for path in files},
    )
