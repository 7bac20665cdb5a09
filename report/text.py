"""An `EvaluationResult` as text for people, with the original's table to the last digit.

Numbers here are formatted, never computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluation.metrics.thresholds import caution_few_matches
from evaluation.original import PERCENTILES, SHOWN
from report.sentences import (
    caution_sentence,
    caution_sentences,
    drawn_sentence,
    protocol_sentence,
    risk_sentences,
)
from report.tables import aligned, ijb_table, protocol_table

if TYPE_CHECKING:
    from evaluation.calibration_run import CalibrationResult
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.metrics.curve import Edc
    from evaluation.original import OriginalBlock, OriginalTable
    from evaluation.run import EvaluationResult, ProtocolRow


def result_text(result: EvaluationResult) -> str:
    """Return what the scripts print of one set."""
    parts = []
    if table := result.original:
        parts.append(f"---{table.name}\n{original_text(table)}{original_notes(table)}")
    else:
        for part in result.uncertainties:
            title = f"({part.label})\n" if part.label else ""
            parts.append(f"{title}{protocol_table(result.name, part.rows)}")
    return "".join([*parts, *extra_sections(result)])


def extra_sections(result: EvaluationResult) -> list[str]:
    """Return what goes beyond the protocols: intervals, the cut-off for a risk, TAR at FAR."""
    parts = []
    for part in result.uncertainties:
        parts += [_intervals(draws, part.label) for draws in part.draws.values()]
        if part.risk is not None:
            parts.append(f"{risk_sentences(part.risk)}\n")
    if result.templates:
        parts.append(f"{ijb_table(result.name, result.templates)}\n")
    return parts


def warnings(result: EvaluationResult) -> list[str]:
    """Return one line each of what makes numbers uncertain, with the protocols it concerns."""
    lines = [*caution_sentences(result.original.cautions)] if result.original else []
    for part in result.uncertainties:
        lines += [] if result.original else row_warnings(part.rows)
        for draws in part.draws.values():
            lines += caution_sentences(draws.cautions)
    return list(dict.fromkeys(lines))


def row_warnings(rows: Sequence[ProtocolRow]) -> list[str]:
    """Return one line each, with the protocols that it concerns."""
    concerned: dict[str, list[str]] = {}
    for row in rows:
        for line in caution_sentences(row.curve.cautions) if row.curve else ():
            concerned.setdefault(line, []).append(row.protocol.name)
    return [f"{', '.join(dict.fromkeys(names))}: {line}" for line, names in concerned.items()]


def report_text(result: EvaluationResult) -> str:
    """Return the text file of a report: what is printed, warnings and further tables with it."""
    table = result.original
    if table is None:
        return result_text(result) + "".join(f"warning: {line}\n" for line in warnings(result))
    extra = "".join(extra_sections(result))
    return original_report(table) + (f"\n{extra}" if extra else "\n")


def original_text(table: OriginalTable) -> str:
    """Return the text of the original scripts, to the last digit, line breaks included."""
    # NumPy's own layout is part of the text, so its settings must not come from the caller
    with np.printoptions(
        precision=8, threshold=1000, linewidth=75, suppress=False, floatmode="maxprec", sign="-"
    ):
        sigma = str(table.sigma_percentiles)
    return f"sigma_sq {sigma} percentile {list(PERCENTILES)}\n" + "\n".join(
        _original_block(block, table.pairs) for block in table.blocks
    )


def original_notes(table: OriginalTable) -> str:
    """Return the lines below the block: the switches in words and the counts behind the rates."""
    lines = [f"{protocol_sentence(table.protocol, 'cosine scores')}."]
    lines += [operating_point(curve) for curve in table.blocks[0].curves]
    for block in table.blocks:
        title = f"errors / comparisons behind the rates{_suffix(block.label)}:"
        lines += [title, _counts_table(block)]
    return "\n".join(lines) + "\n"


def operating_point(curve: Edc) -> str:
    """Return one line: threshold, realised FMR and FNMR without discard, as counts and as rates."""
    misses, mated = int(curve.false_non_matches[0]), int(curve.mated[0])
    matches, non_mated = int(curve.false_matches[0]), int(curve.non_mated[0])
    return (
        f"FMR {curve.fmr_target:g}: threshold {curve.score_threshold[0]:.4f}, realised FMR "
        f"{matches}/{non_mated} = {matches / non_mated:.2e}, FNMR {misses}/{mated} = "
        f"{misses / mated:.4f}"
    )


def original_report(table: OriginalTable) -> str:
    """Return the whole report: block, switches, and a table with counts and accuracies."""
    lines = [f"---{table.name}", original_text(table), original_notes(table)]
    for block in table.blocks:
        lines += [f"EER and ten-fold accuracy{_suffix(block.label)}:", _accuracy_table(block)]
    lines += [f"warning: {line}" for line in caution_sentences(table.cautions)]
    return "\n".join(lines)


def _original_block(block: OriginalBlock, pairs: int) -> str:
    fmr100, fmr1000 = block.curves
    lines = []
    for index, eer in zip(SHOWN, block.eer, strict=True):
        lines.append(
            f"reject_factor {block.kept.fractions[index]:.4f} "
            f"risk_threshold {block.kept.thresholds[index]:.6f} "
            f"keep_idxes {fmr100.mated[index] + fmr100.non_mated[index]} / {pairs} "
            f"Cosine score eer {eer.value:.6f} "
            f"fmr100 {fmr100.fnmr[index]:.6f} fmr1000 {fmr1000.fnmr[index]:.6f}\n"
        )
    lines.append(f"reject_factor mean {'-' * 45} Cosine score fmr1000 {block.areas.mean:.6f}\n")
    lines.append(f"AUERC: {block.areas.auerc:.4f}\nAUERC30: {block.areas.auerc30:.4f}\n")
    lines.append(f"AUC: {block.areas.auc:.4f}\nAUC30: {block.areas.auc30:.4f}\n")
    return "".join(lines)


def _counts_table(block: OriginalBlock) -> str:
    rows = [["discard", "kept"]]
    for curve in block.curves:
        rows[0] += [f"FNMR at FMR {curve.fmr_target:g}", "realised FMR"]
    for index in SHOWN:
        kept = block.curves[0].mated[index] + block.curves[0].non_mated[index]
        cells = [f"{block.kept.fractions[index]:.2f}", str(kept)]
        for curve in block.curves:
            cells.append(f"{curve.false_non_matches[index]}/{curve.mated[index]}")
            cells.append(f"{curve.false_matches[index]}/{curve.non_mated[index]}")
        rows.append(cells)
    return "\n".join(aligned(rows, left=0))


def _accuracy_table(block: OriginalBlock) -> str:
    rows = [["discard", "uncertainty <=", "EER", "accuracy", "threshold"]]
    for index, eer, accuracy in zip(SHOWN, block.eer, block.accuracy, strict=True):
        kept = [f"{block.kept.fractions[index]:.2f}", f"{block.kept.thresholds[index]:.6g}"]
        values = (eer.value, accuracy.value, accuracy.threshold)
        rows.append([*kept, *(f"{value:.6f}" for value in values)])
    return "\n".join(aligned(rows, left=0)) + "\n"


def _suffix(label: str) -> str:
    return f" ({label})" if label else ""


def _intervals(draws: Bootstrap, label: str) -> str:
    (name,) = draws.curves
    curve = draws.curves[name]
    bands = draws.bands(name)
    (area, area_interval), (relative, interval) = draws.area(name), draws.relative(name)
    where = f"FMR {curve.edc.fmr_target:g}"
    if curve.protocol.rule == "starting_error":
        where = f"a starting FNMR of {curve.protocol.start_fnmr:g}"
    return (
        f"{draws.confidence:.0%} intervals at {where}{_suffix(label)}, {draws.replicates} "
        f"bootstrap draws of {drawn_sentence(draws)}: FNMR {curve.edc.fnmr[0]:.4f} "
        f"[{bands.low[0]:.4f}, {bands.high[0]:.4f}]; AUERC30 {area:.5f} [{area_interval.low:.5f}, "
        f"{area_interval.high:.5f}], of random {relative:.3f} [{interval.low:.3f}, "
        f"{interval.high:.3f}]\n"
    )


def calibration_text(result: CalibrationResult) -> str:
    """Return what calibrate.py prints: the threshold, what cut-offs do, how sound it is."""
    from evaluation.confidence.intervals import clopper_pearson  # scipy

    fitted, comparisons, checked = result.calibration, result.comparisons, result.reliability
    goal = "as given" if fitted.fmr_target is None else f"for FMR {fitted.fmr_target:g}"
    low, high = clopper_pearson(*fitted.false_non_matches, result.confidence)
    people = "where they share people, the truth is less certain than that"
    if comparisons.best_unit == "pair":
        people = "whether they share people is not known here"
    text = (
        f"{fitted.name}: {fitted.false_non_matches.total} mated and "
        f"{comparisons.non_mated_total} non-mated comparisons; uncertainties of {fitted.method}\n"
        f"score threshold {fitted.score_threshold:.6g}, {goal}: FMR {fitted.false_matches}, "
        f"FNMR {fitted.false_non_matches} [{low:.4g}, {high:.4g}]\n\n"
        f"{_cutoff_table(result)}\n"
        "Quality is 100 for an uncertainty below all of this set, and 0 for one above all of it.\n"
        f"Intervals take comparisons as independent; {people}.\n\n"
        f"calibration error on people that the map was not fitted on: "
        f"{checked.calibration_error:.4f} (a perfect map would show {checked.chance:.4f} by "
        "chance)\n"
    )
    if result.risk is not None and fitted.decision is not None:
        text += f"\n{risk_sentences(result.risk)}\nstored for scorers: {fitted.decision.rule}\n"
    return text


def calibration_warning(result: CalibrationResult) -> str:
    """Return a line where the threshold is too uncertain to trust; "" where it is not."""
    target = result.calibration.fmr_target
    total = result.comparisons.non_mated_total
    caution = None if target is None else caution_few_matches(target, total)
    return caution_sentence(caution) if caution else ""


def _cutoff_table(result: CalibrationResult) -> str:
    interval = f"{100 * result.confidence:g} % interval"
    rows = [["accept up to", "percentile", "quality", "accepted", "FNMR of accepted", interval]]
    for row in result.cutoffs:
        low, high = row.interval
        cells = [f"{row.uncertainty:.6g}", f"{row.percentile:.1f}", str(row.iso_quality)]
        rows.append([*cells, f"{row.accepted:.1%}", str(row.misses), f"[{low:.4g}, {high:.4g}]"])
    return "\n".join(aligned(rows, left=0)) + "\n"
