"""Results as plain values, with sentences such as warnings: `--json` and a comparison's files.

NaN becomes None.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.original import PERCENTILES, SHOWN
from evaluation.run import DISCARDS
from report.facts import by_limit, grouping_facts, number, plain
from report.text import FORMATS, group_table, method_table, original_text, result_warnings
from report.words import caution_sentences, protocol_sentence, verdict_sentence
from utils.files import Json, file_name, visible, write_text

if TYPE_CHECKING:
    from evaluation.comparison import GroupRow, MethodComparison, MethodRow
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.metrics.comparisons import Cap
    from evaluation.metrics.curve import Edc, ProtocolCurve
    from evaluation.metrics.protocols import Protocol
    from evaluation.original import OriginalBlock, OriginalTable
    from evaluation.run import EvaluationResult, ProtocolRow, UncertaintyResult


def result_dict(result: EvaluationResult) -> dict[str, Json]:
    """Return every number of a result in plain Python types; NaN becomes None."""
    if result.original:
        base = original_dict(result.original)
        warnings = (*result.original.cautions, *result.cautions)  # intervals have their own
        base["warnings"] = [*caution_sentences(warnings)]
    else:
        base = {"name": result.name, "warnings": [*result_warnings(result)]}
    for part in result.uncertainties[:1]:
        base |= _cap_dict(part.comparisons.cap)
    return {**base, "blocks": [_uncertainty_dict(part) for part in result.uncertainties]}


def _cap_dict(cap: Cap | None) -> dict[str, Json]:
    """The cap on the mated comparisons of one person, for sets that have one."""
    return {"cap": cap.limit, "mated_left_out": cap.left_out} if cap else {}


def original_dict(table: OriginalTable) -> dict[str, Json]:
    """Return the numbers and the text of the original's table."""
    return {
        "name": table.name,
        "protocol": protocol_dict(table.protocol),
        "pairs": table.pairs,
        "mated": table.mated,
        "non_mated": table.pairs - table.mated,
        "sigma_percentiles": dict(
            zip(map(str, PERCENTILES), table.sigma_percentiles.tolist(), strict=True)
        ),
        "uncertainties": [_block_dict(block) for block in table.blocks],
        "warnings": list(caution_sentences(table.cautions)),
        "text": original_text(table),
    }


def protocol_dict(protocol: Protocol) -> dict[str, Json]:
    """Return every switch by name, and the same in words."""
    switches = {name: plain(value) for name, value in protocol.switches().items()}
    return {**switches, "in_words": protocol_sentence(protocol)}


def row_dict(row: ProtocolRow) -> dict[str, Json]:
    """Return one protocol at one FMR target."""
    facts: dict[str, Json] = {
        "protocol": protocol_dict(row.protocol),
        "fmr_target": row.fmr_target,
        "reason": row.reason or None,
    }
    if row.curve is None:
        return facts
    edc, efficiency = row.curve.edc, row.curve.efficiencies(DISCARDS)
    matches, others = int(edc.false_matches[0]), int(edc.non_mated[0])
    return {
        **facts,
        "score_threshold": float(edc.score_threshold[0]),
        "false_matches": matches,
        "non_mated": others,
        "fmr": matches / others if others else None,
        "discards": [_point_dict(row.curve, share) for share in DISCARDS],
        "areas": plain(by_limit(row.curve.areas)),
        "relative": plain(by_limit(row.curve.relative)),
        "best_relative": plain(by_limit(row.curve.best_relative)),
        **({"efficiency": plain(by_limit(efficiency))} if efficiency else {}),
        "warnings": list(caution_sentences(row.curve.cautions)),
    }


def _point_dict(curve: ProtocolCurve, share: float) -> Json:
    index, edc = curve.index_at(share), curve.edc
    names = ("false_non_matches", "mated", "fnmr", "false_matches", "non_mated")
    counts = {name: getattr(edc, name)[index].item() for name in names}
    return {"discard_fraction": share, "step_from": float(edc.fractions[index]), **counts}


def _uncertainty_dict(part: UncertaintyResult) -> Json:
    return {
        "label": part.label,
        "protocols": [row_dict(row) for row in part.rows],
        "intervals": [_draws_dict(draws) for draws in part.draws.values()],
        "risk": plain(part.risk.to_dict()) if part.risk else None,
        **({"groups": plain([*map(grouping_facts, part.groups)])} if part.groups else {}),
    }


def _draws_dict(draws: Bootstrap) -> Json:
    (name,) = draws.curves
    bands = draws.bands(name)
    (area, area_interval), (relative, interval) = draws.area(name), draws.relative(name)
    return {
        "fmr_target": draws.curves[name].edc.fmr_target,
        **_drawn(draws),
        "fnmr": [number(bands.low[0]), number(bands.high[0])],
        "auerc30": area,
        "auerc30_interval": list(map(number, area_interval)),
        "relative": number(relative),
        "relative_interval": list(map(number, interval)),
    }


def _drawn(draws: Bootstrap) -> dict[str, Json]:
    names = ("unit", "units", "replicates", "confidence")
    return {name: getattr(draws, name) for name in names}


def _block_dict(block: OriginalBlock) -> Json:
    kept = block.curves[0].mated + block.curves[0].non_mated
    rows = [
        {
            "discard_fraction": float(block.kept.fractions[index]),
            "eer": eer.value,
            "eer_low": eer.low,
            "eer_high": eer.high,
            "eer_threshold": eer.threshold,
            "accuracy": number(accuracy.value),
            "accuracy_threshold": number(accuracy.threshold),
        }
        for index, eer, accuracy in zip(SHOWN, block.eer, block.accuracy, strict=True)
    ]
    return {
        "label": block.label,
        "auerc": block.areas.auerc,
        "auerc30": block.areas.auerc30,
        "auc_original": block.areas.auc,
        "auc30_original": block.areas.auc30,
        "mean_fnmr": block.areas.mean,
        "discard_fraction": block.kept.fractions.tolist(),
        "uncertainty_threshold": block.kept.thresholds.tolist(),
        "kept": kept.tolist(),
        "curves": [_curve_dict(curve) for curve in block.curves],
        "rows": rows,
    }


def _curve_dict(curve: Edc) -> Json:
    counts = ("false_non_matches", "mated", "false_matches", "non_mated")
    arrays = {name: getattr(curve, name).tolist() for name in ("fnmr", "score_threshold", *counts)}
    return {"fmr_target": curve.fmr_target, **arrays}


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
        "sets": [_comparison_dict(comparison) for comparison in comparisons],
        "rows": list(map(method_row_dict, rows)),
        "groups": list(map(group_row_dict, means)),
    }
    texts["compare.json"] = json.dumps(numbers, indent=1)
    for name, text in texts.items():
        write_text(folder / name, visible(text.rstrip(), "\n") + "\n")
        yield folder / name


def method_row_dict(row: MethodRow) -> Json:
    """One method, with the difference behind its verdict."""
    verdict = row.verdict
    return {
        **_shared_columns(row),
        "difference": verdict and verdict.difference,
        "difference_interval": verdict and list(verdict.interval),
    }


def group_row_dict(row: GroupRow) -> Json:
    """Seeds of one method, with what its columns are computed from."""
    spread = {"mean": row.mean, "sd": row.deviation}
    ends = {"smallest": min(row.relatives), "largest": max(row.relatives)}
    return {**_shared_columns(row), **{name: number(v) for name, v in (spread | ends).items()}}


def _shared_columns(row: MethodRow | GroupRow) -> dict[str, Json]:
    entry = {field.name: plain(getattr(row, field.name)) for field in fields(row)}
    entry["fnmr"] = plain(dict(zip(map(str, DISCARDS), row.fnmr, strict=True)))
    if efficiency := entry.pop("efficiency"):
        entry["efficiency"] = efficiency
    verdict = row.verdict
    if verdict and verdict.family > 1:
        entry |= {"p_value": verdict.p_value, "p_holm": verdict.adjusted}
    return {**entry, "verdict": verdict_sentence(verdict)}


def _comparison_dict(comparison: MethodComparison) -> Json:
    """Return what stands behind the numbers of a set."""
    curve, draws = comparison.curve, comparison.draws
    return {
        "set": comparison.name,
        "fmr": comparison.fmr,
        "score_threshold": float(curve.edc.score_threshold[0]),
        "false_non_matches": int(curve.edc.false_non_matches[0]),
        "mated": int(curve.edc.mated[0]),
        **_drawn(draws),
        **_cap_dict(comparison.cap),
        "warnings": list(caution_sentences(comparison.cautions)),
        **({"same_person": plain(comparison.same_person)} if comparison.same_person else {}),
    }
