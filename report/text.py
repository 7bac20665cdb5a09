"""Results as text for people: what the scripts print, and the tables of protocols and methods.

The original's table is written to the last digit; a table of methods also as GitHub's Markdown,
LaTeX or CSV of full precision. Numbers here are formatted, never computed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from evaluation.original import PERCENTILES, SHOWN
from evaluation.run import DISCARDS
from report.words import (
    ACCEPTED,
    RATES,
    UNITS,
    cap_sentence,
    caution_sentence,
    caution_sentences,
    drawn_sentence,
    group_sentences,
    protocol_sentence,
    risk_sentences,
    verdict_rule,
    verdict_sentence,
)
from utils.tables import write_csv

if TYPE_CHECKING:
    from evaluation.calibration_run import CalibrationResult
    from evaluation.comparison import GroupRow, MethodComparison, MethodRow
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.confidence.differentials import (
        Differential,
        GroupRates,
        GroupResult,
        Kind,
    )
    from evaluation.confidence.intervals import Interval
    from evaluation.metrics.comparisons import Cap
    from evaluation.metrics.curve import Edc
    from evaluation.metrics.thresholds import TarAtFar
    from evaluation.original import OriginalBlock, OriginalTable
    from evaluation.run import EvaluationResult, ProtocolRow
    from evaluation.same_person_run import SamePersonResult

Row = TypeVar("Row", "MethodRow", "GroupRow")
FORMATS = ("txt", "csv", "md", "tex")
AREA = "AUERC30/random"  # the column whose best cell is bold in LaTeX
GROUP_DISCARDS = (0.0, 0.1, 0.3)  # in the table of seeds; its CSV has all of `DISCARDS`
SAME_PERSON_HEADER = (
    "", "log loss", "Cllr", "min Cllr", "calibration error", "by chance", "p", "vs score alone"
)  # fmt: skip
METHOD_HEADER = (
    "method", *(f"FNMR at {share:.0%}" for share in DISCARDS), AREA, "interval", "rank", "best in",
)  # fmt: skip
GROUP_HEADER = (
    "group", "seeds", *(f"FNMR at {share:.0%}" for share in GROUP_DISCARDS),
    AREA, "interval", "sd", "smallest", "largest", "rank",
)  # fmt: skip


def result_text(result: EvaluationResult) -> str:
    """Return what the scripts print of one set."""
    parts = []
    if table := result.original:
        parts.append(f"---{table.name}\n{original_text(table)}{original_notes(table)}")
    else:
        for part in result.uncertainties:
            title = f"({part.label})\n" if part.label else ""
            parts.append(
                f"{title}{protocol_table(result.name, part.rows)}{capped(part.comparisons.cap)}"
            )
    return "".join([*parts, *extra_sections(result)])


def extra_sections(result: EvaluationResult) -> list[str]:
    """Return what goes beyond the protocols: intervals, the cut-off for a risk, TAR at FAR."""
    parts = []
    for part in result.uncertainties:
        parts += [_intervals(draws, part.label) for draws in part.draws.values()]
        if part.risk is not None:
            parts.append(f"{risk_sentences(part.risk)}\n")
        parts += [differential_text(groups, part.label) for groups in part.groups]
    if result.templates:
        parts.append(f"{ijb_table(result.name, result.templates)}\n")
    return parts


def capped(cap: Cap | None) -> str:
    """Return a line about the cap on the mated comparisons of one person, where it took effect."""
    line = cap_sentence(cap)
    return f"{line}\n" if line else ""


def result_warnings(result: EvaluationResult) -> list[str]:
    """Return one line each of what makes numbers uncertain, with the protocols it concerns."""
    lines = [*caution_sentences(result.cautions)]
    lines += caution_sentences(result.original.cautions) if result.original else []
    for part in result.uncertainties:
        lines += [] if result.original else row_warnings(part.rows)
        for draws in part.draws.values():
            lines += caution_sentences(draws.cautions)
        for groups in part.groups:
            lines += caution_sentences(groups.grouping.cautions)
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
        return result_text(result) + "".join(
            f"warning: {line}\n" for line in result_warnings(result)
        )
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
        f"{capped(comparisons.cap)}"
        f"score threshold {fitted.score_threshold:.6g}, {goal}: FMR {fitted.false_matches}, "
        f"FNMR {fitted.false_non_matches} [{low:.4g}, {high:.4g}]\n\n"
        f"{_cutoff_table(result)}\n"
        "Quality is 100 for an uncertainty below all of this set, and 0 for one above all of it.\n"
        f"Intervals take comparisons as independent; {people}.\n\n"
        f"calibration error on people that the map was not fitted on: "
        f"{checked.calibration_error:.4f} (a perfect map would show {checked.chance:.4f} by "
        "chance)\n"
    )
    if result.same_person is not None:
        text += f"\n{same_person_text(result.same_person)}"
    if result.risk is not None and fitted.decision is not None:
        text += f"\n{risk_sentences(result.risk)}\nstored for scorers: {fitted.decision.rule}\n"
    return text if ACCEPTED in text else f"{text}{ACCEPTED}\n"


def _cutoff_table(result: CalibrationResult) -> str:
    interval = f"{100 * result.confidence:g} % interval"
    rows = [["accept up to", "percentile", "quality", "accepted", "FNMR of accepted", interval]]
    for row in result.cutoffs:
        low, high = row.interval
        cells = [f"{row.uncertainty:.6g}", f"{row.percentile:.1f}", str(row.iso_quality)]
        rows.append([*cells, f"{row.accepted:.1%}", str(row.misses), f"[{low:.4g}, {high:.4g}]"])
    return "\n".join(aligned(rows, left=0)) + "\n"


def comparison_text(comparison: MethodComparison) -> str:
    """Return what is printed of one set at one FMR target."""
    text = f"{method_table(comparison.rows, 'txt')}{comparison_notes(comparison)}\n"
    means = comparison.group_rows
    text += f"{group_table(means, 'txt')}\n" if means else ""
    same = comparison.same_person
    return text + (f"{same_person_text(same)}\n" if same else "")


def same_person_text(result: SamePersonResult) -> str:
    """How good P(same person) is by each method, and what that adds to the score."""
    rows = [[*SAME_PERSON_HEADER, f"{100 * result.confidence:g} % interval"]]
    for check in result.checks:
        losses = (check.log_loss, check.cllr, check.min_cllr, check.calibration_error, check.chance)
        cells = [check.method, *map("{:.5f}".format, losses), f"{check.p_value:.3g}"]
        low, high = check.interval
        alone = check is result.checks[0]
        rows.append(
            [*cells, "" if alone else f"{check.difference:+.5f}"]
            + ["" if alone else f"[{low:.5f}, {high:.5f}]"]
        )
    table = "\n".join(aligned(rows))
    return (
        f"P(same person) at prior {result.prior:g}, on people that it was not fitted on: "
        f"{result.mated} mated and {result.non_mated} non-mated comparisons\n{table}\n"
        "log loss and Cllr in bits; by chance: the error if every P were right; chance, p and "
        f"intervals from {result.replicates} draws of {UNITS[result.unit]}\n"
    )


def comparison_notes(comparison: MethodComparison) -> str:
    """What stands behind the numbers of a comparison, in lines."""
    curve, draws = comparison.curve, comparison.draws
    edc = curve.edc
    lines = [
        f"threshold {edc.score_threshold[0]:.4f}, realised FMR {edc.false_matches[0]}/"
        f"{edc.non_mated[0]}, FNMR {edc.false_non_matches[0]}/{edc.mated[0]}; the ideal order "
        f"has AUERC30/random {curve.best_relative[draws.limit]:.3f}",
        f"{draws.confidence:.0%} intervals from {draws.replicates} bootstrap draws over "
        f"{drawn_sentence(draws)}; AUERC30/random is relative to random discard, the verdicts "
        "compare the area itself",
    ]
    lines += [f"warning: {line}" for line in caution_sentences(comparison.cautions)]
    return "\n".join(lines) + f"\n{capped(comparison.cap)}"


@dataclass(frozen=True)
class Table:
    """What people read of one set at one FMR target; `best`: rows whose area is bold in LaTeX."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    remarks: Sequence[str]
    best: Sequence[bool]


def method_table(rows: Sequence[MethodRow], notation: str) -> str:
    """One row per method, a table for each set and FMR, in one of `FORMATS`; verdicts below."""
    if notation == "csv":
        return _csv(
            ["set", "fmr", "method", "false_matches", "non_mated"]
            + [f"fnmr_at_{share:g}" for share in DISCARDS]
            + ["auerc_relative", "low", "high", "rank", "best_share", "verdict"]
            + _further_columns(rows),
            (
                [row.set, row.fmr, row.method, *row.realised, *row.fnmr, row.relative]
                + [*row.interval, row.rank, row.best_share, verdict_sentence(row.verdict)]
                + _further_values(row, rows)
                for row in rows
            ),
        )
    return _WRITERS[notation](
        Table(
            title=title,
            header=[*METHOD_HEADER, *_efficiency_header(group)],
            rows=[_method_cells(row) for row in group],
            remarks=_verdicts(group),
            best=[row.rank == 1 for row in group],
        )
        for title, group in _by_title(rows)
    )


def group_table(rows: Sequence[GroupRow], notation: str) -> str:
    """One row per group of seeds, as `method_table`; remarks say what the spread is of."""
    if notation == "csv":
        return _csv(
            ["set", "fmr", "group", "seeds", "orders"]
            + [f"mean_fnmr_at_{share:g}" for share in DISCARDS]
            + ["mean_auerc_relative", "low", "high", "sd", "smallest", "largest", "rank"]
            + ["verdict", "members", *_further_columns(rows)],
            (
                [row.set, row.fmr, row.group, len(row.members), row.orders, *row.fnmr, row.mean]
                + [*row.interval, row.deviation, min(row.relatives), max(row.relatives), row.rank]
                + [verdict_sentence(row.verdict), " ".join(row.members)]
                + _further_values(row, rows)
                for row in rows
            ),
        )
    return _WRITERS[notation](
        Table(
            title=f"{title}, means over seeds",
            header=[*GROUP_HEADER, *_efficiency_header(group)],
            rows=[_group_cells(row) for row in group],
            remarks=[*_verdicts(group), *_seed_remarks(group)],
            best=[row.rank == 1 for row in group],
        )
        for title, group in _by_title(rows)
    )


def protocol_table(name: str, rows: Sequence[ProtocolRow]) -> str:
    """Three blocks: counts, areas, and the switches of every protocol in words.

    Counts take two lines per row: FNMR, and below it the realised FMR, at each discard fraction;
    with a third for NIST's efficiency where the protocol reports it.
    """
    shares = (f"discard {share:g}" for share in DISCARDS)
    counts: list[list[str]] = [["protocol", "target", "threshold", "rate", *shares]]
    areas = [["protocol", "target", "up to", "area", "of random", "ideal"]]
    for row in rows:
        counts += _count_lines(row)
        if row.curve is not None:
            for limit, area in row.curve.areas.items():
                ratios = row.curve.relative[limit], row.curve.best_relative[limit]
                shown = ("-" if math.isnan(ratio) else f"{ratio:.4f}" for ratio in ratios)
                cells = [row.protocol.name, _target(row), f"{limit:g}", f"{area:.6f}", *shown]
                areas.append(cells)
    protocols = {row.protocol.name: f"{protocol_sentence(row.protocol)}." for row in rows}
    lines = [f"---{name}", *aligned(counts), *aligned(areas), *protocols.values()]
    return "\n".join(lines) + "\n"


def differential_text(result: GroupResult, label: str = "") -> str:
    """Groups side by side, a line each, and below them how far apart they are."""
    shares = f"{result.refused:.0%}"
    lines = [["group", "people", "FNMR", "", "FMR", "", f"refused of {shares}", "", "FNMR then"]]
    lines[0].append("images refused")
    for row in result.rows:
        cells = [cell for kind in RATES for cell in _rate_cells(row, kind)]
        lines.append([row.group, str(row.people), *cells, str(row.after), str(row.refused_images)])
    title = (
        f"groups by {result.grouping.name}{_suffix(label)} at FMR {result.fmr_target:.3g}: score "
        f"threshold {result.score_threshold:.4f}, found on all pairs; the most uncertain {shares} "
        f"of all, above {result.uncertainty_threshold:.4g}, are refused"
    )
    return "\n".join([title, *aligned(lines), *group_sentences(result)]) + "\n"


def _rate_cells(row: GroupRates, kind: Kind) -> list[str]:
    low, high = row.intervals.get(kind, (math.nan, math.nan))
    return [str(row.counts[kind]), f"[{low:.3g}, {high:.3g}]" if math.isfinite(low) else ""]


def groups_csv(result: EvaluationResult) -> str:
    """One row per uncertainty, grouping, FMR target and group, with full precision."""
    header = [
        *("set", "uncertainty", "grouping", "fmr_target", "score_threshold"),
        *("uncertainty_threshold", "group", "people", "images", "refused_images"),
    ]
    for kind in RATES:
        header += [f"{kind}{end}" for end in ("_errors", "_total", "", "_low", "_high")]
        header += [f"{kind}_relative{end}" for end in ("", "_low", "_high")]
        header.append(f"{kind}_too_small")
    rows = [
        [
            *(result.name, part.label, groups.grouping.name, groups.fmr_target),
            *(groups.score_threshold, groups.uncertainty_threshold),
            *(row.group, row.people, row.refused_images.total, row.refused_images.errors),
            *(cell for each in groups.differentials for cell in _group_values(row, each)),
        ]
        for part in result.uncertainties
        for groups in part.groups
        for row in groups.rows
    ]
    return _csv(header, rows)


def _group_values(row: GroupRates, differential: Differential) -> list[object]:
    kind, count = differential.kind, row.counts[differential.kind]
    relative = differential.relative.get(row.group)
    return [
        *count,
        count.errors / count.total if count.total else "",
        *row.intervals.get(kind, ("", "")),
        *((relative[0], *relative[1]) if relative else ("", "", "")),
        int(kind in row.too_small),
    ]


def ijb_table(name: str, results: Mapping[str, Sequence[TarAtFar]]) -> str:
    """TAR at FAR of an IJB set by fusion, all for the same targets: a block of lines for each."""
    lines = [["FMR", "fusion", "TAR", "matches", "realised FMR", "threshold"]]
    for rows in zip(*results.values(), strict=True):
        for fusion, row in zip(results, rows, strict=True):
            point = row.point
            matches = f"{row.matches} / {point.mated}"
            realised = f"{point.fmr:.3e} ({point.false_matches} / {point.non_mated})"
            numbers = [f"{row.tar:.4f}", matches, realised, f"{point.threshold:.4f}"]
            lines.append([f"{row.target:g}", fusion, *numbers])
    cautions = (row.caution for rows in results.values() for row in rows if row.caution)
    notes = [f"warning: {line}" for line in dict.fromkeys(map(caution_sentence, cautions))]
    title = f"{name}: 1:1 verification of templates"
    return "\n".join([title, *aligned(lines, left=2), *notes]) + "\n"


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table in plain text: the first `left` columns to the left, others to the right.

    The last cell of a row with fewer cells than the first row may be of any length.
    """
    padded = [row if len(row) == len(rows[0]) else row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*padded, fillvalue="")]
    alignments = ["<"] * left + [">"] * (len(widths) - left)
    return ["  ".join(map("{:{}{}}".format, row, alignments, widths)).rstrip() for row in rows]


def _text(tables: Iterable[Table]) -> str:
    blocks = [[t.title, *aligned([t.header, *t.rows]), *t.remarks] for t in tables]
    return "\n\n".join(map("\n".join, blocks)) + "\n"


def _markdown(tables: Iterable[Table]) -> str:
    blocks = []
    for table in tables:
        lines = [f"**{_for_markdown(table.title)}**", "", "| " + " | ".join(table.header) + " |"]
        lines.append("| --- |" + " ---: |" * (len(table.header) - 1))
        lines += ["| " + " | ".join(map(_for_markdown, row)) + " |" for row in table.rows]
        lines += ["", *(f"- {_for_markdown(remark)}" for remark in table.remarks)]
        blocks.append("\n".join(lines).rstrip())
    return "\n\n".join(blocks) + "\n"


def _latex(tables: Iterable[Table]) -> str:
    """One `tabular` (package booktabs) per table."""
    blocks = []
    for table in tables:
        header, *body = ([_for_latex(cell) for cell in row] for row in (table.header, *table.rows))
        place = table.header.index(AREA)
        for row, is_best in zip(body, table.best, strict=True):
            if is_best:
                row[place] = rf"\textbf{{{row[place]}}}"
        lines = [
            f"% {table.title}".replace("\n", " "),
            r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in body),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


_WRITERS: dict[str, Callable[[Iterable[Table]], str]] = {
    "txt": _text,
    "md": _markdown,
    "tex": _latex,
}


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    write_csv(buffer, [header, *rows])
    return buffer.getvalue()


def _for_markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def _for_latex(text: str) -> str:
    escapes = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(escapes.get(char, f"\\{char}" if char in "&%$#_{}" else char) for char in text)


def _by_title(rows: Iterable[Row]) -> Iterable[tuple[str, list[Row]]]:
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(f"{row.set}, FMR {row.fmr:g}", []).append(row)
    return tables.items()


def _verdicts(rows: Iterable[MethodRow | GroupRow]) -> list[str]:
    verdicts = [row.verdict for row in rows if row.verdict]
    rule = verdict_rule(verdicts)
    return [*map(verdict_sentence, verdicts), *([rule] if rule else [])]


def _ends(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _further_columns(rows: Sequence[MethodRow | GroupRow]) -> list[str]:
    """Of a CSV: NIST's efficiency under its protocol, p-values where there are several verdicts."""
    efficiency = [f"efficiency_at_{share:g}" for share in (rows[0].efficiency if rows else ())]
    return efficiency + (["p_value", "p_holm"] if _are_corrected(rows) else [])


def _further_values(
    row: MethodRow | GroupRow, rows: Sequence[MethodRow | GroupRow]
) -> list[object]:
    p_values = [row.verdict.p_value, row.verdict.adjusted] if row.verdict else ["", ""]
    return [*row.efficiency.values(), *(p_values if _are_corrected(rows) else [])]


def _are_corrected(rows: Sequence[MethodRow | GroupRow]) -> bool:
    return any(row.verdict and row.verdict.family > 1 for row in rows)


def _efficiency_header(rows: Sequence[MethodRow | GroupRow]) -> list[str]:
    return [f"efficiency at {share:.0%}" for share in rows[0].efficiency]


def _efficiency_cells(row: MethodRow | GroupRow) -> list[str]:
    return [f"{value:.2f}" for value in row.efficiency.values()]


def _method_cells(row: MethodRow) -> list[str]:
    rates = [f"{rate:.4f}" for rate in row.fnmr]
    area = [f"{row.relative:.3f}", _ends(row.interval), str(row.rank), f"{row.best_share:.0%}"]
    return [row.method, *rates, *area, *_efficiency_cells(row)]


def _group_cells(row: GroupRow) -> list[str]:
    rates = [f"{row.fnmr[DISCARDS.index(share)]:.4f}" for share in GROUP_DISCARDS]
    spread = [row.deviation, min(row.relatives), max(row.relatives)]
    return [
        *(row.group, str(len(row.members)), *rates, f"{row.mean:.3f}", _ends(row.interval)),
        *(f"{number:.3f}" for number in spread),
        str(row.rank),
        *_efficiency_cells(row),
    ]


def _seed_remarks(rows: Sequence[GroupRow]) -> list[str]:
    lines = [
        "each row is the mean of its seeds; intervals are over the draws of this set, sd, smallest "
        "and largest over the seeds"
    ]
    shared = [row.group for row in rows if row.orders < len(row.members)]
    if shared:
        lines.append(
            f"{', '.join(shared)}: seeds that share batches and augmentation, so the spread is "
            "that of initial weights and dropout alone; independent runs may differ by more"
        )
    return lines


def _target(row: ProtocolRow) -> str:
    if row.fmr_target is None:
        return f"FNMR {row.protocol.start_fnmr:g}"
    return f"FMR {row.fmr_target:g}"


def _count_lines(row: ProtocolRow) -> list[list[str]]:
    head = [row.protocol.name, _target(row)]
    if row.curve is None:
        return [[*head, f"not applicable: {row.reason}"]]
    edc = row.curve.edc
    at = [row.curve.index_at(share) for share in DISCARDS]
    misses = [f"{edc.false_non_matches[i]}/{edc.mated[i]}" for i in at]
    matches = [f"{edc.false_matches[i]}/{edc.non_mated[i]}" for i in at]
    threshold = f"{edc.score_threshold[0]:.4f}"
    lines = [[*head, threshold, "FNMR", *misses], ["", "", "", "FMR", *matches]]
    efficiency = row.curve.efficiencies(DISCARDS)
    if efficiency:
        cells = (f"{efficiency[share]:.2f}" if share else "-" for share in DISCARDS)
        lines.append(["", "", "", "efficiency", *cells])
    return lines
