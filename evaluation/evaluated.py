"""One scored set under the protocols that were asked for: as text, and as numbers for JSON.

With what goes beyond a protocol: intervals, the cut-off that keeps a risk, and IJB's TAR at FAR.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from evaluation.confidence.bootstrap import Bootstrap, bootstrap
from evaluation.confidence.risk_control import RiskControl, control_risk
from evaluation.inputs import Scored
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.protocols import Protocol
from evaluation.metrics.side_by_side import SideBySide, side_by_side
from evaluation.pipeline import Result, evaluate, require_pairs
from evaluation.sets.ijb import IjbSet, compare_fusions
from report.tables import ijb_table, side_by_side_text
from report.text import facts

REPLICATES = 1000


@dataclass(frozen=True)
class Block:
    """One uncertainty of a set.

    Attributes:
        label: "" when there is only one.
        method: where the uncertainty comes from, the label with it.
        comparisons: of the set, with this uncertainty.
        table: the protocols, one below the other.
        draws: FMR target of a curve -> bootstrap of the first protocol; empty without.
        risk: the cut-off for a target risk; None where none was asked for.
    """

    label: str
    method: str
    comparisons: Comparisons
    table: SideBySide
    draws: dict[float, Bootstrap]
    risk: RiskControl | None


@dataclass(frozen=True)
class Evaluated:
    """A set and what was found.

    Attributes:
        scored: the set.
        protocols: that were asked for.
        result: the original's block; None under other protocols, or where there are no pairs.
        blocks: one per uncertainty; none where the original's table is all that was asked for.
        templates: TAR at FAR of an IJB set under every fusion; "" for any other.
    """

    scored: Scored
    protocols: tuple[Protocol, ...]
    result: Result | None
    blocks: tuple[Block, ...]
    templates: str

    @property
    def text(self) -> str:
        """What the scripts print."""
        parts = []
        if self.result is not None:
            parts.append(f"---{self.scored.name}\n{self.result.text}{facts(self.result)}")
        else:
            parts += [_titled(side_by_side_text(block.table), block.label) for block in self.blocks]
        return "".join([*parts, *self.beside])

    @property
    def beside(self) -> list[str]:
        """What goes beyond the protocols: intervals, the cut-off for a risk, TAR at FAR."""
        parts = []
        for block in self.blocks:
            parts += [_intervals(draws, block.label) for draws in block.draws.values()]
            if block.risk is not None:
                parts.append(f"{block.risk.describe()}\n")
        return [*parts, self.templates]

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line each, for people."""
        lines = list(self.result.warnings) if self.result else []
        for block in self.blocks:
            lines += [] if self.result else block.table.warnings
            lines += [line for draws in block.draws.values() for line in draws.warnings]
        return tuple(dict.fromkeys(lines))

    def to_dict(self) -> dict[str, Any]:
        """Every number, for JSON."""
        base = self.result.to_dict() if self.result else {"name": self.scored.name}
        return {**base, "blocks": [_block_dict(block) for block in self.blocks]}


def evaluate_set(
    scored: Scored, protocols: Sequence[Protocol], args: argparse.Namespace, method: str
) -> Evaluated:
    """Evaluate under each protocol, at each FMR target of the flags.

    Args:
        scored: the set.
        protocols: the first is the one of intervals and report.
        args: flags of `evaluation.cli`.
        method: where the uncertainties come from.

    Raises:
        ValueError: no protocol can be applied, or a flag that does not go with the set.
    """
    result = None
    if scored.features is not None and len(protocols) == 1 and protocols[0].prints_original:
        result = evaluate(scored.features, protocols[0], scored.sizes, scored.name)
        if not (args.report or args.json or args.replicates or args.target_risk):
            return Evaluated(scored, tuple(protocols), result, (), "")
    require_pairs(scored.name, scored.blocks[0][1].mated)
    blocks = tuple(_block(label, one, protocols, args, method) for label, one in scored.blocks)
    return Evaluated(scored, tuple(protocols), result, blocks, _templates(scored))


def _block(
    label: str,
    comparisons: Comparisons,
    protocols: Sequence[Protocol],
    args: argparse.Namespace,
    method: str,
) -> Block:
    method = f"{method}, {label}" if label else method
    replicates = args.replicates
    if replicates is None:
        replicates = REPLICATES if args.report else 0
    draws = [
        bootstrap(
            comparisons,
            {method: comparisons.uncertainty},
            protocols[0],
            fmr,
            unit=args.unit,
            replicates=replicates,
            confidence=args.confidence,
            seed=args.seed,
            progress=lambda turns: tqdm(turns, desc="bootstrap", leave=False, disable=None),
        )
        for fmr in (_targets(protocols[0], args.fmr) if replicates else ())
    ]
    risk = None
    if args.target_risk is not None:
        risk = control_risk(
            comparisons,
            target_risk=args.target_risk,
            risk=args.risk,
            confidence=args.confidence,
            fmr_target=args.fmr[0] if args.score_threshold is None else None,
            score_threshold=args.score_threshold,
            unit=args.unit,
            fuse=protocols[0].fuse,
            seed=args.seed,
        )
    table = side_by_side(comparisons, protocols, args.fmr)
    by_target = {one.curves[method].edc.fmr_target: one for one in draws}
    return Block(label, method, comparisons, table, by_target, risk)


def _targets(protocol: Protocol, targets: Sequence[float]) -> Sequence[float]:
    """Return the FMR targets; a starting error has its own and needs no more than one."""
    return targets[:1] if protocol.rule == "starting_error" else targets


def _templates(scored: Scored) -> str:
    if not isinstance(scored.opened, IjbSet) or scored.estimate is None:
        return ""
    mu, sigma_sq = scored.estimate
    return ijb_table(scored.name, compare_fusions(scored.opened, mu, sigma_sq)) + "\n"


def _titled(text: str, label: str) -> str:
    return f"({label})\n{text}" if label else text


def _intervals(draws: Bootstrap, label: str) -> str:
    (name,) = draws.curves
    curve = draws.curves[name]
    bands = draws.bands(name)
    (area, area_interval), (relative, interval) = draws.area(name), draws.relative(name)
    protocol = curve.protocol
    where = f"FMR {curve.edc.fmr_target:g}"
    if protocol.rule == "starting_error":
        where = f"a starting FNMR of {protocol.start_fnmr:g}"
    return (
        f"{draws.confidence:.0%} intervals at {where}"
        f"{f' ({label})' if label else ''}, {draws.replicates} bootstrap draws of "
        f"{draws.drawn}: FNMR {curve.edc.fnmr[0]:.4f} [{bands.low[0]:.4f}, {bands.high[0]:.4f}]; "
        f"AUERC30 {area:.5f} [{area_interval.low:.5f}, {area_interval.high:.5f}], of random "
        f"{relative:.3f} [{interval.low:.3f}, {interval.high:.3f}]\n"
    )


def _block_dict(block: Block) -> dict[str, Any]:
    return {
        "label": block.label,
        "protocols": block.table.to_dict()["rows"],
        "intervals": [_draws_dict(draws) for draws in block.draws.values()],
        "risk": block.risk.to_dict() if block.risk else None,
    }


def _draws_dict(draws: Bootstrap) -> dict[str, Any]:
    (name,) = draws.curves
    bands = draws.bands(name)
    (area, area_interval), (relative, interval) = draws.area(name), draws.relative(name)
    return {
        "fmr_target": draws.curves[name].edc.fmr_target,
        "unit": draws.unit,
        "units": draws.units,
        "replicates": draws.replicates,
        "confidence": draws.confidence,
        "fnmr": [_number(bands.low[0]), _number(bands.high[0])],
        "auerc30": area,
        "auerc30_interval": list(map(_number, area_interval)),
        "relative": _number(relative),
        "relative_interval": list(map(_number, interval)),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
