"""The table of seeds: one row per group of methods that differ in their seeds alone.

It stands under the table of the methods themselves, in the same four notations.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.confidence.intervals import Interval
from report._notation import AREA, aligned, by_set, latex_table, markdown_table
from report.compare_table import DISCARDS

SHOWN = (0.0, 0.1, 0.3)  # discard fractions in the text; files have all of them
HEADER = ("group", "seeds", *(f"FNMR at {share:.0%}" for share in SHOWN))
HEADER += (AREA, "interval", "sd", "smallest", "largest", "rank")


@dataclass(frozen=True)
class Spread:
    """One group on one set at one FMR target.

    Attributes:
        set: name of the set.
        fmr: target.
        group: its name.
        members: its methods.
        orders: how many different batches and augmentations they were trained on.
        fnmr: means over the members, at `DISCARDS`.
        relatives: area under the curve / area of random discard, of each member.
        interval: of the mean of `relatives`, over the draws of the set.
        rank: 1 = smallest mean of this set and FMR.
        verdict: on the means, against the group that all are compared with; "" for that one.
    """

    set: str
    fmr: float
    group: str
    members: tuple[str, ...]
    orders: int
    fnmr: tuple[float, ...]
    relatives: tuple[float, ...]
    interval: Interval
    rank: int
    verdict: str

    @property
    def mean(self) -> float:
        """Of the relative areas."""
        return float(np.mean(self.relatives))

    @property
    def deviation(self) -> float:
        """Standard deviation of the relative areas, as of a sample (n - 1)."""
        return float(np.std(self.relatives, ddof=1))

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; NaN becomes None."""
        found = asdict(self)
        found["members"] = list(self.members)
        found["fnmr"] = dict(zip(map(str, DISCARDS), self.fnmr, strict=True))
        found["relatives"] = list(map(_number, self.relatives))
        found["interval"] = list(map(_number, self.interval))
        found |= {"mean": _number(self.mean), "sd": _number(self.deviation)}
        found |= {"smallest": _number(min(self.relatives)), "largest": _number(max(self.relatives))}
        return found


def spread_text(rows: Sequence[Spread]) -> str:
    """Aligned columns, one block per set and FMR, then verdicts and what the spread is of."""
    blocks = []
    for (name, fmr), group in by_set(rows):
        lines = [f"{name}, FMR {fmr:g}, means over seeds", *aligned([HEADER, *map(_cells, group)])]
        blocks.append("\n".join([*lines, *_remarks(group)]))
    return "\n\n".join(blocks) + "\n"


def spread_markdown(rows: Sequence[Spread]) -> str:
    """GitHub tables, one per set and FMR."""
    return (
        "\n\n".join(
            markdown_table(
                f"{name}, FMR {fmr:g}, means over seeds",
                [HEADER, *map(_cells, group)],
                _remarks(group),
            )
            for (name, fmr), group in by_set(rows)
        )
        + "\n"
    )


def spread_latex(rows: Sequence[Spread]) -> str:
    r"""One `tabular` (package booktabs) per set and FMR; the smallest mean of each is bold."""
    return (
        "\n\n".join(
            latex_table(
                f"{name}, FMR {fmr:g}, means over seeds",
                [HEADER, *map(_cells, group)],
                [row.rank == 1 for row in group],
            )
            for (name, fmr), group in by_set(rows)
        )
        + "\n"
    )


def spread_csv(rows: Sequence[Spread]) -> str:
    """One line per group, full precision, with a heading; members are separated by spaces."""
    buffer = io.StringIO()
    heads = [f"mean_fnmr_at_{share:g}" for share in DISCARDS]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["set", "fmr", "group", "seeds", "orders", *heads, "mean_auerc_relative", "low", "high"]
        + ["sd", "smallest", "largest", "rank", "verdict", "members"]
    )
    for row in rows:
        writer.writerow(
            [row.set, row.fmr, row.group, len(row.members), row.orders, *row.fnmr, row.mean]
            + [*row.interval, row.deviation, min(row.relatives), max(row.relatives), row.rank]
            + [row.verdict, " ".join(row.members)]
        )
    return buffer.getvalue()


SPREAD_NOTATIONS: dict[str, Callable[[Sequence[Spread]], str]] = {
    "txt": spread_text,
    "csv": spread_csv,
    "tex": spread_latex,
    "md": spread_markdown,
}


def _cells(row: Spread) -> tuple[str, ...]:
    rates = [f"{row.fnmr[DISCARDS.index(share)]:.4f}" for share in SHOWN]
    ends = f"[{row.interval.low:.3f}, {row.interval.high:.3f}]"
    numbers = [row.deviation, min(row.relatives), max(row.relatives)]
    spread = [f"{number:.3f}" for number in numbers]
    seeds = str(len(row.members))
    return (row.group, seeds, *rates, f"{row.mean:.3f}", ends, *spread, str(row.rank))


def _remarks(rows: Sequence[Spread]) -> list[str]:
    """Verdicts, and what the spread is a spread of."""
    lines = [row.verdict for row in rows if row.verdict]
    lines.append(
        "each row is the mean of its seeds; intervals are over the draws of this set, sd, smallest "
        "and largest over the seeds"
    )
    shared = [row.group for row in rows if row.orders < len(row.members)]
    if shared:
        lines.append(
            f"{', '.join(shared)}: seeds that share batches and augmentation, so the spread is "
            "that of initial weights and dropout alone; independent runs may differ by more"
        )
    return lines


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
