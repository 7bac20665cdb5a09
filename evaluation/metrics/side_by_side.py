"""One stored score set under every protocol.

The spread between the rows is what a change of protocol alone does to the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.protocol_curve import ProtocolCurve, protocol_curve
from evaluation.metrics.protocols import PROTOCOLS, Protocol

DISCARDS = (0.0, 0.05, 0.1, 0.2, 0.3)
FMR_TARGETS = (1e-2, 1e-3)


@dataclass(frozen=True)
class Row:
    """One protocol at one target.

    Attributes:
        protocol: its switches.
        fmr_target: None where the threshold comes from a starting error.
        curve: None where the protocol cannot be applied to this set.
        reason: why it cannot; "" where it can.
    """

    protocol: Protocol
    fmr_target: float | None
    curve: ProtocolCurve | None
    reason: str = ""

    @property
    def target(self) -> str:
        """The target in words."""
        if self.fmr_target is None:
            return f"FNMR {self.protocol.start_fnmr:g}"
        return f"FMR {self.fmr_target:g}"


@dataclass(frozen=True)
class SideBySide:
    """A set under several protocols.

    Attributes:
        name: of the set.
        rows: protocol by protocol, for each target.
    """

    name: str
    rows: tuple[Row, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line each, with the protocols that it concerns."""
        concerned: dict[str, list[str]] = {}
        for row in self.rows:
            for line in row.curve.warnings if row.curve else ():
                concerned.setdefault(line, []).append(row.protocol.name)
        return tuple(
            f"{', '.join(dict.fromkeys(names))}: {line}" for line, names in concerned.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Every number of the table, for JSON; NaN becomes None."""
        return {"name": self.name, "rows": [_row_dict(row) for row in self.rows]}


def side_by_side(
    comparisons: Comparisons,
    protocols: Iterable[Protocol] = tuple(PROTOCOLS.values()),
    fmr_targets: Sequence[float] = FMR_TARGETS,
) -> SideBySide:
    """Evaluate one set of scored comparisons under every protocol.

    A protocol that cannot be applied keeps its row, which says why.

    Args:
        comparisons: scored, of both kinds.
        protocols: all presets, or some switches of one's own.
        fmr_targets: of the thresholds; protocols with a starting error have one row.

    Raises:
        ValueError: no protocol or no target is given, or none can be applied.
    """
    rows: list[Row] = []
    for protocol in protocols:
        starting = protocol.rule == "starting_error"
        for target in (None,) if starting else fmr_targets:
            rows.append(_row(comparisons, protocol, target))
    if not rows:
        raise ValueError(f"{comparisons.name}: give one protocol and one FMR target at least")
    if all(row.curve is None for row in rows):
        raise ValueError(rows[0].reason)
    return SideBySide(comparisons.name, tuple(rows))


def _row(comparisons: Comparisons, protocol: Protocol, target: float | None) -> Row:
    try:
        curve = protocol_curve(comparisons, protocol, 1e-3 if target is None else target)
    except ValueError as error:  # said in the row, and raised if no protocol can be applied
        return Row(protocol, target, None, str(error))
    return Row(protocol, target, curve)


def _row_dict(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "protocol": row.protocol.switches(),
        "fmr_target": row.fmr_target,
        "reason": row.reason or None,
    }
    if row.curve is None:
        return found
    edc = row.curve.edc
    matches, others = int(edc.false_matches[0]), int(edc.non_mated[0])
    return {
        **found,
        "score_threshold": float(edc.score_threshold[0]),
        "false_matches": matches,
        "non_mated": others,
        "fmr": matches / others if others else None,
        "discards": [_point_dict(row.curve, share) for share in DISCARDS],
        "areas": _by_limit(row.curve.areas),
        "relative": _by_limit(row.curve.relative),
        "best_relative": _by_limit(row.curve.best_relative),
        "warnings": list(row.curve.warnings),
    }


def _point_dict(curve: ProtocolCurve, share: float) -> dict[str, Any]:
    index = curve.index_at(share)
    return {
        "discard_fraction": share,
        "step_from": float(curve.edc.fractions[index]),
        "false_non_matches": int(curve.edc.false_non_matches[index]),
        "mated": int(curve.edc.mated[index]),
        "fnmr": float(curve.edc.fnmr[index]),
        "false_matches": int(curve.edc.false_matches[index]),
        "non_mated": int(curve.edc.non_mated[index]),
    }


def _by_limit(values: dict[float, float]) -> dict[str, float | None]:
    return {f"{limit:g}": None if math.isnan(one) else one for limit, one in values.items()}
