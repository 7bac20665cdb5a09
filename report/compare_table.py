"""The table of a comparison of methods: one row per set, FMR and method, in four notations.

Numbers come in finished; here they are only ordered and written.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.confidence.intervals import Interval
from report._notation import AREA, aligned, by_set, latex_table, markdown_table

DISCARDS = (0.0, 0.05, 0.1, 0.2, 0.3)


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
    return (
        "\n\n".join(
            markdown_table(
                f"{name}, FMR {fmr:g}",
                [_header(), *map(_cells, group)],
                [row.verdict for row in group if row.verdict],
            )
            for (name, fmr), group in by_set(rows)
        )
        + "\n"
    )


def as_latex(rows: Sequence[Row]) -> str:
    r"""One `tabular` (package booktabs) per set and FMR; the best area of each is bold."""
    return (
        "\n\n".join(
            latex_table(
                f"{name}, FMR {fmr:g}",
                [_header(), *map(_cells, group)],
                [row.rank == 1 for row in group],
            )
            for (name, fmr), group in by_set(rows)
        )
        + "\n"
    )


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


def _header() -> list[str]:
    shares = [f"FNMR at {share:.0%}" for share in DISCARDS]
    return ["method", *shares, AREA, "interval", "rank", "best in"]


def _cells(row: Row) -> list[str]:
    interval = f"[{row.interval.low:.3f}, {row.interval.high:.3f}]"
    rates = [f"{rate:.4f}" for rate in row.fnmr]
    share = f"{row.best_share:.0%}"
    return [row.method, *rates, f"{row.relative:.3f}", interval, str(row.rank), share]
