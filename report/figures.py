"""Figures as PNG: error versus discard of a set or of methods, faces, curves of a training run.

Drawn by matplotlib without a display; import this module only where a figure is drawn.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from evaluation.metrics.areas import Start, best_fnmr
from report.collect import first_distinct
from report.facts import FEW_ERRORS
from report.pictures import solid_then_dashed
from report.text import operating_point
from utils.files import atomic_path

if TYPE_CHECKING:
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.original import OriginalTable
    from models.seeds import Group
    from report.data import ImageAccess

COLOURS = ("#0b6e99", "#c8553d", "#4f772d", "#7b4b94")  # told apart in grey and when colour-blind
# Okabe and Ito's colours, which are told apart by colour-blind readers; then again, dashed.
METHOD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ((0, ()), (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))
RANDOM, OPTIMUM, GRID, BAND = "#6b7280", "#9aa3ad", "#d5dae0", "#bcd7e2"
SPREADS = {"pconf": "quality of the images (pconf)", "sigma": "uncertainty of the images (sigma)"}
COMPARED_TO = 0.4  # discard fraction up to which the curves of methods are drawn
SHEET_COLUMNS, SHEET_ROWS = 12, 2
LABEL, HEADING, MARGIN = 18, 30, 10  # pixels, as the next line
CELL = (112 + LABEL + 6, 112 + MARGIN)  # height and width of a face with its number


def edc_figure(table: OriginalTable, path: Path) -> Path:
    """Draw FNMR against the discard fraction for every uncertainty, and write a PNG.

    The line is dashed where fewer than ten false non-matches are left. The y axis is linear: a
    curve that reaches zero errors, as the optimum does, has no place on a logarithmic one.
    """
    figure = Figure(figsize=(6.4, 4.6), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    curve = table.blocks[0].curves[-1]
    axes.axvspan(0, 0.3, color="#eef3f6", zorder=0, linewidth=0)
    axes.axhline(curve.fnmr[0], color=RANDOM, linestyle=(0, (1, 1.5)), label="random discard")
    fine = np.linspace(0, 0.99, 991)
    mated, pairs = int(curve.mated[0]), int(curve.mated[0] + curve.non_mated[0])
    best = best_fnmr(Start(int(curve.false_non_matches[0]), mated, pairs), fine)
    axes.plot(fine, best, color=OPTIMUM, linewidth=1.2, label="exact optimum")
    for block, colour in zip(table.blocks, COLOURS * len(table.blocks), strict=False):
        errors, fnmr = block.curves[-1].false_non_matches, block.curves[-1].fnmr
        label = f"{block.label or 'most uncertain first'}: AUERC30 {block.areas.auerc30:.4f}"
        solid_then_dashed(axes, block.curves[-1].fractions, fnmr, errors, colour, label=label)
    # a spike of a few errors must not set the scale
    firm = [
        block.curves[-1].fnmr[block.curves[-1].false_non_matches >= FEW_ERRORS].max(initial=0)
        for block in table.blocks
    ]
    top = max(*firm, float(curve.fnmr[0]))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.1 * top if top > 0 else 1e-3)
    _style(axes, decimals=0 if top > 0.05 else 1 if top > 0.005 else 2)
    axes.set_xlabel("pairs discarded, most uncertain first")
    axes.set_ylabel(f"FNMR at FMR {curve.fmr_target:g}")
    axes.set_axisbelow(True)
    axes.set_title(f"{table.name}: error versus discard", loc="left", fontsize=11)
    axes.legend(
        fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False
    )
    note = (
        f"{operating_point(curve)}.\nprotocol {table.protocol.name}; shaded: range of AUERC30; "
        f"dashed: fewer than {FEW_ERRORS} false non-matches left."
    )
    figure.supxlabel(note, fontsize=7.5, color="#374151", x=0.01, ha="left")
    return _save(figure, path)


def compare_figure(
    draws: Bootstrap, path: Path, name: str, fmr: float, groups: Sequence[Group] = ()
) -> Path:
    """Draw every method's FNMR against the discard fraction, and write a PNG.

    The legend is in order of rank; the best method has its interval drawn as a band. Methods that
    differ in their seeds alone (`groups`) share a colour and a line of the legend.
    """
    group_of = {method: group for group in groups for method in group.members}
    methods = _ordered(draws, group_of)
    figure = Figure(figsize=(8.6, 4.8), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    best = draws.bands(methods[0])
    shown = draws.fractions <= COMPARED_TO
    axes.fill_between(
        draws.fractions[shown],
        best.low[shown],
        best.high[shown],
        color=METHOD_COLOURS[0],
        alpha=0.15,
        linewidth=0,
        label=f"{draws.confidence:.0%} interval of {methods[0]}",
    )
    places: dict[str, int] = {}  # of the lines of the legend
    for method in methods:
        group = group_of.get(method)
        line = group.name if group else method
        label = None if line in places else _label(draws, method, group)
        place = places.setdefault(line, len(places))
        edc = draws.curves[method].edc
        inside = edc.fractions <= COMPARED_TO
        axes.step(
            edc.fractions[inside],
            edc.fnmr[inside],
            where="post",
            color=METHOD_COLOURS[place % len(METHOD_COLOURS)],
            linestyle=DASHES[place // len(METHOD_COLOURS) % len(DASHES)],
            linewidth=0.9 if group else 1.6,
            label=label,
        )
    curve = draws.curves[methods[0]]
    fine = np.linspace(0, COMPARED_TO, 401)
    axes.axhline(curve.edc.fnmr[0], color=RANDOM, linewidth=1, linestyle=DASHES[2], label="random")
    axes.plot(fine, curve.optimum_at(fine), color=RANDOM, linewidth=1, label="exact optimum")
    axes.axvline(draws.limit, color=RANDOM, linewidth=0.6)
    axes.set_xlim(0, COMPARED_TO)
    top = 1.15 * float(curve.edc.fnmr[0]) or 1e-3
    axes.set_ylim(0, top)
    kind = "mated pairs" if curve.protocol.discard_over == "mated" else "discarded"
    axes.set_xlabel(f"{kind}, most uncertain first; areas up to {draws.limit:.0%} in the legend")
    axes.set_ylabel("FNMR")
    _style(axes, decimals=2 if top < 0.05 else 0)
    axes.set_title(f"{name}: error versus discard at FMR {fmr:g}", loc="left", fontsize=11)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _save(figure, path)


def contact_sheet(
    images: ImageAccess, uncertainty: NDArray[np.float32], path: Path, title: str
) -> Path:
    """Write a PNG of the least and the most uncertain faces with their (M,) uncertainties.

    An image that occurs in several pairs is shown once.
    """

    def pixels(row: int) -> NDArray[np.uint8]:
        return images.decode(row, row + 1)[0]

    order = np.argsort(uncertainty, kind="stable")
    count = min(SHEET_COLUMNS * SHEET_ROWS, len(order) // 2)
    halves = {
        heading: first_distinct(rows, count, lambda row: pixels(row).tobytes())
        for heading, rows in (("least uncertain", order), ("most uncertain", order[::-1]))
    }
    lines = max(-(-len(rows) // SHEET_COLUMNS) for rows in halves.values())
    width, half_height = SHEET_COLUMNS * CELL[1] + MARGIN, HEADING + lines * CELL[0]
    canvas = np.full((HEADING + 2 * half_height + MARGIN, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / 100, canvas.shape[0] / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(MARGIN, HEADING / 2, title, fontsize=13, va="center")
    for half, (heading, rows) in enumerate(halves.items()):
        top = HEADING + half * half_height
        axes.text(MARGIN, top + HEADING / 2, heading, fontsize=11, fontweight="bold", va="center")
        for place, row in enumerate(rows):
            image = pixels(row)
            y = top + HEADING + place // SHEET_COLUMNS * CELL[0] + LABEL
            x = MARGIN + place % SHEET_COLUMNS * CELL[1]
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
            number = f"{uncertainty[row]:.3g}"
            middle = x + image.shape[1] / 2
            axes.text(middle, y - 4, number, fontsize=8, ha="center", va="bottom", color="#374151")
    axes.imshow(canvas, interpolation="none")
    return _save(figure, path)


def draw_training_curves(metrics: Path, out: Path, title: str, steps_per_epoch: int) -> bool:
    """Draw loss, cosine, spread of the uncertainty and AUERC30 against the epoch, as a PNG.

    A line of `metrics` (`metrics.jsonl` of a run) that was cut short by a crash is left out.

    Returns:
        Whether there was anything to draw.
    """
    records = []
    areas: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        epoch = record["global_step"] / steps_per_epoch
        if "evaluation" in record:
            evaluation = record["evaluation"]
            points = areas[evaluation["name"]]
            points.append((epoch, evaluation["uncertainties"][0]["auerc30"]))
        else:
            records.append((epoch, record))
    if not records:
        return False
    epochs = np.array([epoch for epoch, _ in records])
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    figure.suptitle(title)
    loss, cosine, spread, area = figure.subplots(2, 2).ravel()
    loss.plot(epochs, [record["loss"] for _, record in records], color=COLOURS[0])
    loss.set_title("loss")
    _draw_range(cosine, epochs, np.array([record["cos"] for _, record in records]))
    cosine.set_title("cosine of the genuine pairs (cos)")
    name = next((name for name in SPREADS if name in records[-1][1]), "")
    if name:
        _draw_range(spread, epochs, np.array([record[name] for _, record in records]))
    spread.set_title(SPREADS.get(name, "uncertainty: not logged by this loss"))
    for target, points in areas.items():
        area.plot(*zip(*points, strict=True), marker="o", label=target)
    area.set_title("AUERC30 of the verification sets" if areas else "no verification sets")
    if areas:
        area.legend()
        area.set_ylim(0, 1.2 * max(value for points in areas.values() for _, value in points))
    for axes in (loss, cosine, spread, area):
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, max(epochs[-1], 1e-9))
        axes.set_xlabel("epoch")
    _save(figure, out)
    return True


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def _style(axes: Axes, decimals: int) -> None:
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=decimals))
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _ordered(draws: Bootstrap, group_of: Mapping[str, Group]) -> list[str]:
    """Methods by the area of their line in the legend: their own, or the mean of their group."""

    def area(method: str) -> tuple[float, float]:
        members = group_of[method].members if method in group_of else (method,)
        areas = [draws.relative(member)[0] for member in members]
        own = draws.relative(method)[0]
        return float(np.nan_to_num(np.mean(areas), nan=9.0)), float(np.nan_to_num(own, nan=9.0))

    return sorted(draws.curves, key=area)


def _label(draws: Bootstrap, method: str, group: Group | None) -> str:
    if group is None:
        value, interval = draws.relative(method)
        return f"{method}  {value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    values = [draws.relative(member)[0] for member in group.members]
    ends = f"{min(values):.3f} to {max(values):.3f}"
    return f"{group.name}, {len(values)} seeds  {np.mean(values):.3f}, {ends}"


def _draw_range(axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Draw the means of batches as a line and their ranges as a band; values: (n, 3) or (n,)."""
    if values.ndim == 2:
        axes.fill_between(
            epochs, values[:, 2], values[:, 1], color=BAND, linewidth=0, label="range of a batch"
        )
    axes.plot(epochs, values if values.ndim == 1 else values[:, 0], color=COLOURS[0], label="mean")
    axes.legend()
