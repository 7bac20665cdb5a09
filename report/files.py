"""The files of `--report`: an HTML page with its JSON, the printed text, and pictures as PNG.

Gathers what the page shows; `report.page` writes it.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.confidence.calibration import Calibration
from evaluation.confidence.reliability import Reliability, held_out_reliability
from evaluation.evaluated import Block, Evaluated
from evaluation.inputs import file_name
from evaluation.metrics.protocol_curve import ProtocolCurve
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.metrics.side_by_side import side_by_side
from report.data import Provenance, ReportData
from report.page import write_report
from report.text import text_report
from utils.files import file_sha256, write_text


@dataclass(frozen=True)
class Origin:
    """Where uncertainties come from.

    Attributes:
        config: settings of the run; {} without one.
        files: weights behind the estimator.
    """

    config: dict[str, Any]
    files: tuple[Path, ...]


def write_reports(evaluated: Evaluated, args: argparse.Namespace, origin: Origin) -> Iterator[Path]:
    """Write all files of one set into `args.report`, and yield their paths."""
    from report.figures import contact_sheet, edc_figure  # matplotlib

    folder, name = Path(args.report), file_name(evaluated.scored.name)
    text = folder / f"{name}.txt"
    result = evaluated.result
    write_text(text, _text(evaluated))
    yield text
    if result is not None:
        yield edc_figure(result, folder / f"{name}-edc.png")
    images = evaluated.scored.images
    first = evaluated.blocks[0].comparisons.uncertainty
    if images is not None and len(images) == len(first):
        yield contact_sheet(images, first, folder / f"{name}-faces.png", title=name)
    provenance = _provenance(evaluated, origin)
    for block in evaluated.blocks:
        stem = f"{name}-{file_name(block.label)}" if block.label else name
        yield from write_report(folder, _data(evaluated, block, args, origin, provenance), stem)


def _text(evaluated: Evaluated) -> str:
    """What was printed, warnings with it; more for the original's protocols."""
    if evaluated.result is None:
        return evaluated.text + "".join(f"warning: {line}\n" for line in evaluated.warnings)
    extra = "".join(evaluated.beside)
    return text_report(evaluated.result) + (f"\n{extra}" if extra else "\n")


def _data(
    evaluated: Evaluated,
    block: Block,
    args: argparse.Namespace,
    origin: Origin,
    provenance: Provenance,
) -> ReportData:
    comparisons, images = block.comparisons, evaluated.scored.images
    first = evaluated.protocols[0].name
    curves = [row.curve for row in block.table.rows if row.curve and row.protocol.name == first]
    calibration, reliability, missing = _calibrated(block, args)
    shown = images is not None and len(images) == len(comparisons.uncertainty)
    return ReportData(
        name=evaluated.scored.name,
        method=block.method,
        comparisons=comparisons,
        curves=curves,
        presets=_presets(block, args.fmr[0]),
        bootstrap=block.draws,
        risk=block.risk,
        reliability=reliability,
        calibration=calibration,
        images=images if shown else None,
        provenance=provenance,
        warnings=[*missing, *(line for one in block.draws.values() for line in one.warnings)],
    )


def _presets(block: Block, fmr: float) -> list[ProtocolCurve]:
    table = side_by_side(block.comparisons, PROTOCOLS.values(), [fmr])
    return [row.curve for row in table.rows if row.curve]


def _calibrated(
    block: Block, args: argparse.Namespace
) -> tuple[Calibration | None, Reliability | None, list[str]]:
    """Map and check of what uncertainties mean; a line that says why where there is none."""
    try:
        fitted = Calibration.fit(block.comparisons, fmr_target=args.fmr[0], method=block.method)
        checked = held_out_reliability(
            block.comparisons,
            score_threshold=fitted.score_threshold,
            confidence=args.confidence,
            seed=args.seed,
        )
    except ValueError as error:
        return None, None, [f"no reliability diagram: {error}"]
    return fitted, checked, []


def _provenance(evaluated: Evaluated, origin: Origin) -> Provenance:
    from utils.run import environment  # torch

    files = [*origin.files, *evaluated.scored.files]
    return Provenance(
        date=datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        command=sys.argv,
        environment=environment(),
        config=origin.config,
        files={str(path): file_sha256(path) for path in files},
    )
