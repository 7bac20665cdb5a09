"""A `Result` as text for people, as the original's block, and as a dictionary for JSON.

Numbers here are formatted, never computed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.metrics.kept import SHOWN

if TYPE_CHECKING:
    from evaluation.metrics.edc import Edc
    from evaluation.pipeline import Block, Result

PERCENTILES = (0, 10, 30, 50, 70, 90, 100)


def original_text(result: Result) -> str:
    """Return the text of the original scripts, to the last digit, line breaks included."""
    # NumPy's own layout is part of the text, so its settings must not come from the caller
    with np.printoptions(
        precision=8, threshold=1000, linewidth=75, suppress=False, floatmode="maxprec", sign="-"
    ):
        sigma = str(result.sigma_percentiles)
    return f"sigma_sq {sigma} percentile {list(PERCENTILES)}\n" + "\n".join(
        _original_block(block, result.pairs) for block in result.blocks
    )


def facts(result: Result) -> str:
    """Return the lines below the block: the switches in words and the counts behind the rates."""
    lines = [f"{result.protocol.describe('cosine scores')}."]
    lines += [operating_point(curve) for curve in result.blocks[0].curves]
    for block in result.blocks:
        lines.append(f"errors / comparisons behind the rates{_of(block)}:")
        lines.append(_counts_table(block))
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


def text_report(result: Result) -> str:
    """Return the whole report: block, switches, and a table with counts and accuracies."""
    lines = [f"---{result.name}", result.text, facts(result)]
    for block in result.blocks:
        lines += [f"EER and ten-fold accuracy{_of(block)}:", _table(block)]
    lines += [f"warning: {line}" for line in result.warnings]
    return "\n".join(lines)


def to_dict(result: Result) -> dict[str, Any]:
    """Return every number of a result in plain Python types; NaN becomes None."""
    return {
        "name": result.name,
        "protocol": result.protocol.switches(),
        "pairs": result.pairs,
        "mated": result.mated,
        "non_mated": result.pairs - result.mated,
        "sigma_percentiles": dict(
            zip(map(str, PERCENTILES), result.sigma_percentiles.tolist(), strict=True)
        ),
        "uncertainties": [_block_dict(block) for block in result.blocks],
        "warnings": list(result.warnings),
        "text": result.text,
    }


def _original_block(block: Block, pairs: int) -> str:
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


def _counts_table(block: Block) -> str:
    head = [f"{'discard':>7} {'kept':>9}"]
    for curve in block.curves:
        head.append(f"{f'FNMR at FMR {curve.fmr_target:g}':>20} {'realised FMR':>16}")
    lines = ["  ".join(head)]
    for index in SHOWN:
        kept = block.curves[0].mated[index] + block.curves[0].non_mated[index]
        cells = [f"{block.kept.fractions[index]:7.2f} {kept:9d}"]
        for curve in block.curves:
            misses = f"{curve.false_non_matches[index]}/{curve.mated[index]}"
            matches = f"{curve.false_matches[index]}/{curve.non_mated[index]}"
            cells.append(f"{misses:>20} {matches:>16}")
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _table(block: Block) -> str:
    lines = [f"{'discard':>7} {'uncertainty <=':>15} {'EER':>9} {'accuracy':>9} {'threshold':>9}"]
    for index, eer, accuracy in zip(SHOWN, block.eer, block.accuracy, strict=True):
        lines.append(
            f"{block.kept.fractions[index]:7.2f} {block.kept.thresholds[index]:15.6g} "
            f"{eer.value:9.6f} {accuracy.value:9.6f} {accuracy.threshold:9.6f}"
        )
    return "\n".join(lines) + "\n"


def _of(block: Block) -> str:
    return f" ({block.label})" if block.label else ""


def _block_dict(block: Block) -> dict[str, Any]:
    kept = block.curves[0].mated + block.curves[0].non_mated
    rows = [
        {
            "discard_fraction": float(block.kept.fractions[index]),
            "eer": eer.value,
            "eer_low": eer.low,
            "eer_high": eer.high,
            "eer_threshold": eer.threshold,
            "accuracy": _number(accuracy.value),
            "accuracy_threshold": _number(accuracy.threshold),
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


def _curve_dict(curve: Edc) -> dict[str, Any]:
    return {
        "fmr_target": curve.fmr_target,
        "fnmr": curve.fnmr.tolist(),
        "score_threshold": curve.score_threshold.tolist(),
        "false_non_matches": curve.false_non_matches.tolist(),
        "mated": curve.mated.tolist(),
        "false_matches": curve.false_matches.tolist(),
        "non_mated": curve.non_mated.tolist(),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
