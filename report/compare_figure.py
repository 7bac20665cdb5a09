"""The figure of a comparison: the discard curves of all methods on one set.

The legend is in order of rank; the best method has its interval drawn as a band. Methods that
differ in their seeds alone share a colour and a line of the legend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evaluation.confidence.bootstrap import Bootstrap
from evaluation.seeds import Group
from utils.files import atomic_path

# Okabe and Ito's colours, which are told apart by colour-blind readers; then again, dashed.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ((0, ()), (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))
GREY = "#6b7280"
SHOWN = 0.4  # discard fraction up to which curves are drawn


def compare_figure(
    draws: Bootstrap, path: Path, name: str, fmr: float, groups: Sequence[Group] = ()
) -> Path:
    """Draw every method's FNMR against the discard fraction, and write a PNG.

    Args:
        draws: of all methods.
        path: of the file; its folder is made.
        name: of the set.
        fmr: target that fixed the threshold.
        groups: of methods among them.

    Returns:
        The path.
    """
    group_of = {one: group for group in groups for one in group.members}
    methods = _ordered(draws, group_of)
    figure = Figure(figsize=(8.6, 4.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    best = draws.bands(methods[0])
    shown = draws.fractions <= SHOWN
    axes.fill_between(
        draws.fractions[shown],
        best.low[shown],
        best.high[shown],
        color=COLOURS[0],
        alpha=0.15,
        linewidth=0,
        label=f"{draws.confidence:.0%} interval of {methods[0]}",
    )
    places: dict[str, int] = {}
    for method in methods:
        line = group_of[method].name if method in group_of else method
        first = line not in places
        place = places.setdefault(line, len(places))
        label = _label(draws, method, group_of.get(method)) if first else None
        _draw(axes, draws, method, place, label, thin=method in group_of)
    _draw_limits(axes, draws, methods[0])
    axes.set_title(f"{name}: error versus discard at FMR {fmr:g}", loc="left", fontsize=11)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return path


def _ordered(draws: Bootstrap, group_of: Mapping[str, Group]) -> list[str]:
    """Methods by the area of their line in the legend: their own, or the mean of their group."""

    def area(method: str) -> tuple[float, float]:
        members = group_of[method].members if method in group_of else (method,)
        areas = [draws.relative(one)[0] for one in members]
        own = draws.relative(method)[0]
        return float(np.nan_to_num(np.mean(areas), nan=9.0)), float(np.nan_to_num(own, nan=9.0))

    return sorted(draws.curves, key=area)


def _label(draws: Bootstrap, method: str, group: Group | None) -> str:
    if group is None:
        value, interval = draws.relative(method)
        return f"{method}  {value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    values = [draws.relative(one)[0] for one in group.members]
    ends = f"{min(values):.3f} to {max(values):.3f}"
    return f"{group.name}, {len(values)} seeds  {np.mean(values):.3f}, {ends}"


def _draw(
    axes: Axes, draws: Bootstrap, method: str, place: int, label: str | None, *, thin: bool
) -> None:
    edc = draws.curves[method].edc
    inside = edc.fractions <= SHOWN
    axes.step(
        edc.fractions[inside],
        edc.fnmr[inside],
        where="post",
        color=COLOURS[place % len(COLOURS)],
        linestyle=DASHES[place // len(COLOURS) % len(DASHES)],
        linewidth=0.9 if thin else 1.6,
        label=label,
    )


def _draw_limits(axes: Axes, draws: Bootstrap, method: str) -> None:
    curve = draws.curves[method]
    fine = np.linspace(0, SHOWN, 401)
    axes.axhline(curve.edc.fnmr[0], color=GREY, linewidth=1, linestyle=DASHES[2], label="random")
    axes.plot(fine, curve.optimum_at(fine), color=GREY, linewidth=1, label="exact optimum")
    axes.axvline(draws.limit, color=GREY, linewidth=0.6)
    axes.set_xlim(0, SHOWN)
    top = 1.15 * float(curve.edc.fnmr[0]) or 1e-3
    axes.set_ylim(0, top)
    what = "mated pairs" if curve.protocol.discard_over == "mated" else "discarded"
    axes.set_xlabel(f"{what}, most uncertain first; areas up to {draws.limit:.0%} in the legend")
    axes.set_ylabel("FNMR")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=2 if top < 0.05 else 0))
    axes.grid(axis="y", color="#d5dae0", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
