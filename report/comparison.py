"""A comparison of methods as people read it: printed, and as tables, JSON and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.run import DISCARDS
from report.facts import Json, number, plain
from report.results import protocol_dict
from report.text import FORMATS, group_table, method_table
from report.words import caution_sentences, drawn_sentence, verdict_sentence
from utils.files import file_name, write_text

if TYPE_CHECKING:
    from evaluation.comparison import GroupRow, MethodComparison, MethodRow
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.metrics.protocols import Protocol


def comparison_text(comparison: MethodComparison) -> str:
    """Return what is printed of one set at one FMR target."""
    text = f"{method_table(comparison.rows, 'txt')}{comparison_notes(comparison.draws)}\n"
    means = comparison.group_rows
    return text + (f"{group_table(means, 'txt')}\n" if means else "")


def comparison_notes(draws: Bootstrap) -> str:
    """What stands behind the numbers of a comparison, in lines."""
    curve = next(iter(draws.curves.values()))
    edc = curve.edc
    lines = [
        f"threshold {edc.score_threshold[0]:.4f}, realised FMR {edc.false_matches[0]}/"
        f"{edc.non_mated[0]}, FNMR {edc.false_non_matches[0]}/{edc.mated[0]}; the ideal order "
        f"has AUERC30/random {curve.best_relative[draws.limit]:.3f}",
        f"{draws.confidence:.0%} intervals from {draws.replicates} bootstrap draws over "
        f"{drawn_sentence(draws)}; AUERC30/random is relative to random discard, the verdicts "
        "compare the area itself",
    ]
    lines += [f"warning: {line}" for line in caution_sentences((*curve.cautions, *draws.cautions))]
    return "\n".join(lines) + "\n"


def draw_comparison(folder: Path, comparison: MethodComparison, *, with_fmr: bool) -> Path:
    """Draw the curves of one set, and return the file; `with_fmr` puts the target into its name."""
    from report.figures import compare_figure  # matplotlib

    name, fmr = comparison.name, comparison.fmr
    ending = f"-fmr{fmr:g}" if with_fmr else ""
    path = folder / f"{file_name(name)}{ending}.png"
    return compare_figure(comparison.draws, path, name, fmr, comparison.groups)


def write_comparisons(
    folder: Path, comparisons: Sequence[MethodComparison], protocol: Protocol
) -> Iterator[Path]:
    """Write the tables in every notation and the JSON, and yield their paths.

    Means over seeds stand below the other rows, but in a CSV file of their own.
    """
    rows = [row for comparison in comparisons for row in comparison.rows]
    means = [row for comparison in comparisons for row in comparison.group_rows]
    texts = {f"compare.{notation}": method_table(rows, notation) for notation in FORMATS}
    if means:
        for notation in FORMATS:
            table = group_table(means, notation)
            if notation == "csv":
                texts["compare-seeds.csv"] = table
            else:
                texts[f"compare.{notation}"] += f"\n{table}"
    numbers = {
        "protocol": protocol_dict(protocol),
        "sets": [_facts(comparison) for comparison in comparisons],
        "rows": list(map(method_dict, rows)),
        "groups": list(map(group_dict, means)),
    }
    texts["compare.json"] = json.dumps(numbers, indent=1)
    for name, text in texts.items():
        write_text(folder / name, text.rstrip() + "\n")
        yield folder / name


def row_dict(row: MethodRow | GroupRow) -> dict[str, Json]:
    """Return a row in plain types; NaN becomes None."""
    entry = {field.name: plain(getattr(row, field.name)) for field in fields(row)}
    rates = dict(zip(map(str, DISCARDS), row.fnmr, strict=True))
    return {**entry, "fnmr": plain(rates), "verdict": verdict_sentence(row.verdict)}


def method_dict(row: MethodRow) -> dict[str, Json]:
    """Return the row of a method in plain types, with the difference behind its verdict."""
    verdict = row.verdict
    return {
        **row_dict(row),
        "difference": verdict and verdict.difference,
        "difference_interval": verdict and list(verdict.interval),
    }


def group_dict(row: GroupRow) -> dict[str, Json]:
    """Return a row of seeds in plain types, with what its columns are computed from."""
    spread = {"mean": row.mean, "sd": row.deviation}
    ends = {"smallest": min(row.relatives), "largest": max(row.relatives)}
    return {**row_dict(row), **{name: number(value) for name, value in (spread | ends).items()}}


def _facts(comparison: MethodComparison) -> Json:
    """Return what stands behind the numbers of a set."""
    draws = comparison.draws
    curve = next(iter(draws.curves.values()))
    return {
        "set": comparison.name,
        "fmr": comparison.fmr,
        "score_threshold": float(curve.edc.score_threshold[0]),
        "false_non_matches": int(curve.edc.false_non_matches[0]),
        "mated": int(curve.edc.mated[0]),
        "unit": draws.unit,
        "units": draws.units,
        "replicates": draws.replicates,
        "confidence": draws.confidence,
        "warnings": list(caution_sentences((*curve.cautions, *draws.cautions))),
    }
