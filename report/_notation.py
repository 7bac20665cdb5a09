"""Tables in plain text, GitHub's Markdown and LaTeX: what the tables of a comparison share.

Used by compare_table and spread_table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

AREA = "AUERC30/random"  # the column whose best cell is bold in LaTeX


class OnSet(Protocol):
    """A row of any table here."""

    @property
    def set(self) -> str:
        """Name of the set."""

    @property
    def fmr(self) -> float:
        """Target."""


AnyRow = TypeVar("AnyRow", bound=OnSet)


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


def markdown_table(title: str, cells: Sequence[Sequence[str]], remarks: Sequence[str]) -> str:
    """Lay out a GitHub table under its title, with remarks below.

    Args:
        title: of the table.
        cells: the header, then the rows; escaped here, as all texts.
        remarks: one line each.
    """
    header, *body = cells
    lines = [f"**{markdown(title)}**", ""]
    lines += ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    lines += ["| " + " | ".join(map(markdown, row)) + " |" for row in body]
    lines += ["", *(f"- {markdown(remark)}" for remark in remarks)]
    return "\n".join(lines).rstrip()


def latex_table(title: str, cells: Sequence[Sequence[str]], best: Sequence[bool]) -> str:
    r"""Lay out a `tabular` (package booktabs).

    Args:
        title: a comment above it.
        cells: the header, then the rows; escaped here.
        best: of each row, whether its area is bold.
    """
    header, *body = ([latex(cell) for cell in row] for row in cells)
    place = cells[0].index(AREA)
    for row, is_best in zip(body, best, strict=True):
        if is_best:
            row[place] = rf"\textbf{{{row[place]}}}"
    lines = [
        f"% {title}".replace("\n", " "),
        r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def markdown(text: str) -> str:
    """Escape text for a GitHub table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def latex(text: str) -> str:
    """Escape text for LaTeX."""
    escapes = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(escapes.get(one, f"\\{one}" if one in "&%$#_{}" else one) for one in text)
