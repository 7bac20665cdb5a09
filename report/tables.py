"""Tables for people: of compared methods and seeds, and of protocols side by side.

One `Table` is written as plain text, GitHub's Markdown or LaTeX; CSV has full precision instead.
Numbers come in finished; here they are only ordered and written.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

from evaluation.run import DISCARDS
from report.sentences import caution_sentence, protocol_sentence, verdict_sentence

if TYPE_CHECKING:
    from evaluation.comparison import GroupRow, MethodRow
    from evaluation.confidence.intervals import Interval
    from evaluation.metrics.thresholds import TarAtFar
    from evaluation.run import ProtocolRow

Row = TypeVar("Row", "MethodRow", "GroupRow")
FORMATS = ("txt", "csv", "md", "tex")
AREA = "AUERC30/random"  # the column whose best cell is bold in LaTeX
GROUP_DISCARDS = (0.0, 0.1, 0.3)  # in the table of seeds; its CSV has all of `DISCARDS`
METHOD_HEADER = (
    "method", *(f"FNMR at {share:.0%}" for share in DISCARDS), AREA, "interval", "rank", "best in",
)  # fmt: skip
GROUP_HEADER = (
    "group", "seeds", *(f"FNMR at {share:.0%}" for share in GROUP_DISCARDS),
    AREA, "interval", "sd", "smallest", "largest", "rank",
)  # fmt: skip


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
            + ["auerc_relative", "low", "high", "rank", "best_share", "verdict"],
            (
                [row.set, row.fmr, row.method, *row.realised, *row.fnmr, row.relative]
                + [*row.interval, row.rank, row.best_share, verdict_sentence(row.verdict)]
                for row in rows
            ),
        )
    return _WRITERS[notation](
        Table(
            title=title,
            header=METHOD_HEADER,
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
            + ["verdict", "members"],
            (
                [row.set, row.fmr, row.group, len(row.members), row.orders, *row.fnmr, row.mean]
                + [*row.interval, row.deviation, min(row.relatives), max(row.relatives), row.rank]
                + [verdict_sentence(row.verdict), " ".join(row.members)]
                for row in rows
            ),
        )
    return _WRITERS[notation](
        Table(
            title=f"{title}, means over seeds",
            header=GROUP_HEADER,
            rows=[_group_cells(row) for row in group],
            remarks=[*_verdicts(group), *_seed_remarks(group)],
            best=[row.rank == 1 for row in group],
        )
        for title, group in _by_title(rows)
    )


def protocol_table(name: str, rows: Sequence[ProtocolRow]) -> str:
    """Three blocks: counts, areas, and the switches of every protocol in words.

    Counts take two lines per row: FNMR, and below it the realised FMR, at each discard fraction.
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
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
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
    return [verdict_sentence(row.verdict) for row in rows if row.verdict]


def _ends(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _method_cells(row: MethodRow) -> list[str]:
    rates = [f"{rate:.4f}" for rate in row.fnmr]
    area = f"{row.relative:.3f}"
    return [row.method, *rates, area, _ends(row.interval), str(row.rank), f"{row.best_share:.0%}"]


def _group_cells(row: GroupRow) -> list[str]:
    rates = [f"{row.fnmr[DISCARDS.index(share)]:.4f}" for share in GROUP_DISCARDS]
    spread = [row.deviation, min(row.relatives), max(row.relatives)]
    return [
        *(row.group, str(len(row.members)), *rates, f"{row.mean:.3f}", _ends(row.interval)),
        *(f"{number:.3f}" for number in spread),
        str(row.rank),
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
    return [[*head, threshold, "FNMR", *misses], ["", "", "", "FMR", *matches]]
