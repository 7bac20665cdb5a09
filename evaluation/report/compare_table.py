"""The table of a comparison of methods: one row per set, FMR and method, in four notations.

Numbers come in finished; here they are only ordered and written.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from evaluation.confidence.intervals import Interval

AnyRow = TypeVar("AnyRow", bound="OnSet")
DISCARDS = (0.0, 0.05, 0.1, 0.2, 0.3)


class OnSet(Protocol):
    """A row of any table here."""

    @property
    def set(self) -> str:
        """Name of the set."""

    @property
    def fmr(self) -> float:
        """Target."""


@dataclass(frozen=True)
class Row:
    """One method on one set at one FMR target.

    Attributes:
        set: name of the set.
        fmr: target.
        method: name of the method.
        realised: false matches and non-mated comparisons behind the threshold, before any discard.
        fnmr: at `DISCARDS`.
        relative: area under the curve / area of random discard; NaN without any error.
        interval: of `relative`.
        rank: 1 = smallest area of this set and FMR.
        best_share: share of bootstrap draws in which it had the smallest area.
        verdict: against the method that all are compared with; "" for that one.
        difference: of the areas to that method's; None for that one.
        difference_interval: of the difference.
    """

    set: str
    fmr: float
    method: str
    realised: tuple[int, int]
    fnmr: tuple[float, ...]
    relative: float
    interval: Interval
    rank: int
    best_share: float
    verdict: str
    difference: float | None = None
    difference_interval: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; NaN becomes None."""
        found = asdict(self)
        found["interval"] = list(self.interval)
        if self.difference_interval is not None:
            found["difference_interval"] = list(self.difference_interval)
        found["fnmr"] = dict(zip(map(str, DISCARDS), self.fnmr, strict=True))
        found["relative"] = None if math.isnan(self.relative) else self.relative
        return found


def ranks(areas: Sequence[float]) -> list[int]:
    """Rank 1 for the smallest; equal areas share the better rank, NaN comes last."""
    ordered = [math.inf if math.isnan(area) else area for area in areas]
    return [1 + sum(other < area for other in ordered) for area in ordered]


def as_text(rows: Sequence[Row]) -> str:
    """Aligned columns, one block per set and FMR, then the verdicts."""
    blocks = []
    for (name, fmr), group in by_set(rows):
        lines = [f"{name}, FMR {fmr:g}", *aligned([_header(), *map(_cells, group)])]
        lines += [row.verdict for row in group if row.verdict]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def as_markdown(rows: Sequence[Row]) -> str:
    """GitHub tables, one per set and FMR."""
    blocks = []
    for (name, fmr), group in by_set(rows):
        lines = [f"**{markdown(name)}, FMR {fmr:g}**", ""]
        lines.append("| " + " | ".join(_header()) + " |")
        lines.append("| --- |" + " ---: |" * (len(_header()) - 1))
        lines += ["| " + " | ".join(map(markdown, _cells(row))) + " |" for row in group]
        lines += ["", *(f"- {markdown(row.verdict)}" for row in group if row.verdict)]
        blocks.append("\n".join(lines).rstrip())
    return "\n\n".join(blocks) + "\n"


def as_latex(rows: Sequence[Row]) -> str:
    r"""One `tabular` (package booktabs) per set and FMR; the best area of each is bold."""
    blocks = []
    for (name, fmr), group in by_set(rows):
        body = []
        for row in group:
            cells = [latex(cell) for cell in _cells(row)]
            if row.rank == 1:
                place = 1 + len(DISCARDS)
                cells[place] = rf"\textbf{{{cells[place]}}}"
            body.append(cells)
        blocks.append(tabular(f"{name}, FMR {fmr:g}", _header(), body))
    return "\n\n".join(blocks) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """One line per row, full precision, with a heading."""
    buffer = io.StringIO()
    heads = [f"fnmr_at_{share:g}" for share in DISCARDS]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            "set",
            "fmr",
            "method",
            "false_matches",
            "non_mated",
            *heads,
            "auerc_relative",
            "low",
            "high",
            "rank",
            "best_share",
        ]
        + ["verdict"]
    )
    for row in rows:
        writer.writerow(
            [
                row.set,
                row.fmr,
                row.method,
                *row.realised,
                *row.fnmr,
                row.relative,
                *row.interval,
                row.rank,
            ]
            + [row.best_share, row.verdict]
        )
    return buffer.getvalue()


NOTATIONS: dict[str, Callable[[Sequence[Row]], str]] = {
    "txt": as_text,
    "csv": as_csv,
    "tex": as_latex,
    "md": as_markdown,
}


def by_set(rows: Iterable[AnyRow]) -> list[tuple[tuple[str, float], list[AnyRow]]]:
    """Rows of each set and FMR, in order of appearance."""
    groups: dict[tuple[str, float], list[AnyRow]] = {}
    for row in rows:
        groups.setdefault((row.set, row.fmr), []).append(row)
    return list(groups.items())


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in plain text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


def tabular(title: str, header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Lay out a LaTeX table; the body's cells are LaTeX already."""
    lines = [
        f"% {title}".replace("\n", " "),
        r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
        r"\toprule",
        " & ".join(map(latex, header)) + r" \\",
        r"\midrule",
        *(" & ".join(cells) + r" \\" for cells in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _header() -> list[str]:
    shares = [f"FNMR at {share:.0%}" for share in DISCARDS]
    return ["method", *shares, "AUERC30/random", "interval", "rank", "best in"]


def _cells(row: Row) -> list[str]:
    interval = f"[{row.interval.low:.3f}, {row.interval.high:.3f}]"
    rates = [f"{rate:.4f}" for rate in row.fnmr]
    share = f"{row.best_share:.0%}"
    return [row.method, *rates, f"{row.relative:.3f}", interval, str(row.rank), share]


def markdown(text: str) -> str:
    """Escape text for a GitHub table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def latex(text: str) -> str:
    """Escape text for LaTeX."""
    escapes = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(escapes.get(one, f"\\{one}" if one in "&%$#_{}" else one) for one in text)
