"""Figures, drawn by matplotlib without a display; import this module only where one is drawn.

As PNG files: error versus discard of a set or of methods, faces, curves of a training run. As SVG:
the pictures of the report page, each drawn from a part of its facts. These are small on purpose:
text of 9.5 points in 344 points of width is readable on a phone. Their colours are named by their
part in the picture (`COLOUR["curve"]`), each name a CSS variable of the page, so that they follow
its light or dark setting.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.special import ndtri

from evaluation.metrics.curve import Start, best_fnmr
from report.facts import (
    FEW_ERRORS,
    CurveFacts,
    Det,
    GroupingFacts,
    GroupRate,
    Histograms,
    Numbers,
    ReliabilityFacts,
    first_distinct,
)
from report.text import operating_point
from report.words import GROUP_RATES, fmr, shortened
from utils.files import atomic_path

if TYPE_CHECKING:
    from data.faces import Images
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.original import OriginalTable
    from models.seeds import Group
    from search.run import IdentificationResult

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
PARTS = (
    *("ink", "soft", "line", "curve", "other", "third", "random", "shade", "surface"),
    *("good", "bad", "warn"),
)
# a stand-in for each part, replaced by its CSS variable in the finished SVG
COLOUR = {part: f"#0a0b{place:02x}" for place, part in enumerate(PARTS, start=16)}
_RATES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
_DET_STYLE = (("curve", "-"), ("other", (0, (6, 1.5))), ("third", (0, (2, 1.2))))
# of up to 20 groups: a line's part in the picture, and its dashes as the page's key has them
GROUP_STYLES: tuple[tuple[str, tuple[int, tuple[float, ...]]], ...] = tuple(
    (part, (0, dash))
    for dash in ((), (6, 2), (2, 1.5), (6, 2, 1.5, 2))
    for part in ("curve", "other", "third", "good", "bad")
)
_DOTTED = (0, (1, 1.6))
_WITHOUT_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


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


def identification_figure(result: IdentificationResult, path: Path) -> Path:
    """Draw DET, and FNIR and FPIR against the share of discarded probes, and write a PNG."""
    figure = Figure(figsize=(9.6, 4.2), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2)
    assert result.det is not None
    inside = ((result.det.fmr > 0) & (result.det.fnmr > 0)) & (result.det.fnmr < 1)
    left.plot(result.det.fmr[inside], result.det.fnmr[inside], color=METHOD_COLOURS[0])
    for point in result.points:
        if point.fpir and point.fnir:
            rates = [rate.counts.errors / rate.counts.total for rate in (point.fpir, point.fnir)]
            left.plot(*rates, "o", color=RANDOM)
    left.set(xscale="log", yscale="log" if inside.any() else "linear", xlabel="FPIR", ylabel="FNIR")
    left.grid(color=GRID)
    left.set_title("detection error tradeoff", loc="left", fontsize=10)
    point = result.points[0]
    for (name, curve), colour in zip(point.curves.items(), METHOD_COLOURS, strict=False):
        shown = curve.edc.fractions <= COMPARED_TO
        x, edc = curve.edc.fractions[shown], curve.edc
        right.step(x, edc.fnmr[shown], where="post", color=colour, label=name)
        fpir = edc.false_matches[shown] / np.maximum(edc.non_mated[shown], 1)
        right.step(x, fpir, where="post", color=colour, linestyle=DASHES[1], linewidth=1)
    right.set(xlim=(0, COMPARED_TO), xlabel="probes discarded, most uncertain first")
    right.set_ylabel("FNIR (solid), FPIR (dashed) of the rest")
    right.set_ylim(bottom=0)
    right.grid(color=GRID)
    title = "error versus discard"
    if point.fpir_target is not None:
        title += f" at FPIR {point.fpir_target:g}"
        right.legend(fontsize=8, frameon=False)
    right.set_title(title, loc="left", fontsize=10)
    figure.suptitle(result.searches.name, fontsize=11, x=0.01, ha="left")
    return _save(figure, path)


def contact_sheet(images: Images, uncertainty: NDArray[np.float32], path: Path, title: str) -> Path:
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
    for line in metrics.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
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


def edc_picture(curve: CurveFacts, prefix: str, limit: float) -> Markup:
    """FNMR against the discard fraction, with its band, the random line and the optimum.

    Shaded up to `limit`, the right end of the area; `prefix` is put before the ids.
    """
    x, y = _array(curve.discard_fraction), _array(curve.fnmr)
    errors = np.array(curve.false_non_matches)
    right = curve.shown_to
    style: Literal["default", "steps-post"] = "steps-post" if curve.steps else "default"
    title = (
        f"FNMR at FMR {fmr(curve.fmr_target)} against the share of refused comparisons: "
        f"{_percent(float(y[0]))} when none is refused, {_percent(_at(x, y, 0.1))} at 10 %, "
        f"{_percent(_at(x, y, 0.3))} at 30 %"
    )

    def draw(axes: Axes) -> None:
        axes.axvspan(0, min(limit, right), color=COLOUR["shade"], zorder=0)
        axes.axhline(y[0], color=COLOUR["random"], linestyle=_DOTTED, linewidth=1.6)
        optimum = _array(curve.optimum)
        (line,) = axes.plot(x, optimum, color=COLOUR["soft"], lw=1, linestyle=(0, (6, 2, 1, 2)))
        line.set_drawstyle(style)
        top = max(float(y[0]), float(y[(x <= right) & (errors >= FEW_ERRORS)].max(initial=0)))
        if curve.bootstrap:
            low, high = _array(curve.bootstrap.fnmr_low), _array(curve.bootstrap.fnmr_high)
            at = _array(curve.bootstrap.discard_fraction)
            axes.fill_between(at, low, high, color=COLOUR["curve"], alpha=0.22)
            top = max(top, min(float(np.nanmax(high[at <= right], initial=0)), 2 * top))
        solid_then_dashed(axes, x, y, errors, COLOUR["curve"], drawstyle=style)
        axes.set_ylim(0, 1.12 * top if top > 0 else 1e-3)
        axes.set_xlim(0, right)
        axes.grid(axis="y")
        axes.set_xlabel("refused, most uncertain first")
        axes.set_ylabel(f"FNMR at FMR {fmr(curve.fmr_target)}")
        _as_percent(axes)
        axes.locator_params(axis="y", nbins=6)

    return _svg(prefix, title, draw)


def score_picture(scores: Histograms, threshold: float | None) -> Markup:
    """Histograms of both kinds, each with area 1, and the score threshold."""
    edges = np.array(scores.edges)

    def draw(axes: Axes) -> None:
        for values, part in ((scores.non_mated, "other"), (scores.mated, "curve")):
            counts = np.array(values, float)
            density = counts / max(counts.sum() * (edges[1] - edges[0]), 1e-300)
            axes.stairs(density, edges, color=COLOUR[part], fill=True, alpha=0.28)
            axes.stairs(density, edges, color=COLOUR[part], linewidth=1.3)
        _threshold_line(axes, threshold)
        axes.set_xlabel("score")
        axes.set_ylabel("share per score")
        axes.yaxis.set_major_locator(NullLocator())
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0)

    return _svg("scores", "Score histograms of mated and non-mated comparisons", draw)


def decile_picture(scores: Histograms, threshold: float | None) -> Markup:
    """One row per uncertainty decile: the mated scores slide down as uncertainty grows."""
    edges, total = np.array(scores.edges), len(scores.deciles)

    def draw(axes: Axes) -> None:
        for row, decile in enumerate(scores.deciles):
            floor = -float(row)
            for values, part in ((decile.non_mated, "other"), (decile.mated, "curve")):
                counts = np.array(values, float)
                if not counts.any():
                    continue
                height = floor + 0.92 * counts / counts.max()
                axes.stairs(
                    height, edges, baseline=floor, color=COLOUR[part], fill=True, alpha=0.28
                )
                axes.stairs(height, edges, baseline=None, color=COLOUR[part], linewidth=0.9)
            if decile.mated_median is not None:
                axes.plot([decile.mated_median] * 2, [floor, floor + 0.5], color=COLOUR["ink"])
        _threshold_line(axes, threshold)
        names = ["least 1", *map(str, range(2, total)), f"most {total}"]
        axes.set_yticks([-row + 0.2 for row in range(total)])
        axes.set_yticklabels(names)
        axes.tick_params(axis="y", length=0, colors=COLOUR["ink"])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("score")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(1 - total - 0.05, 1)

    title = "Score histograms by uncertainty: ten rows, the least uncertain tenth on top"
    return _svg("deciles", title, draw, (344, 330))


def det_picture(det: Sequence[Det], curves: Sequence[CurveFacts]) -> Markup | None:
    """FNMR against FMR on normal-deviate axes, with the curves' points without discard marked.

    None where no threshold has errors of both kinds: axes of normal deviates have no zero.
    """
    lines = []
    for part in det:
        rates = np.array([part.fmr, part.fnmr]).reshape(2, -1)
        lines.append(rates[:, ((rates > 0) & (rates < 1)).all(axis=0)])
    if not any(rates.size for rates in lines):
        return None

    def draw(axes: Axes) -> None:
        for (x, y), (part, dash) in zip(lines, _DET_STYLE, strict=False):
            axes.plot(ndtri(x), ndtri(y), color=COLOUR[part], linestyle=dash, linewidth=1.7)
        for curve in curves:
            fmr, fnmr = curve.fmr_without_discard.rate, curve.fnmr_without_discard.rate
            if fmr and fnmr and 0 < fmr < 1 and 0 < fnmr < 1:
                axes.plot(ndtri(fmr), ndtri(fnmr), "o", color=COLOUR["ink"], markersize=5)
        lowest = [
            min(float(side.min(initial=0.5)) for side in sides)
            for sides in zip(*lines, strict=True)
        ]
        for axis, low in zip((axes.xaxis, axes.yaxis), lowest, strict=True):
            ticks = [rate for rate in _RATES if rate >= low * 0.5]
            axis.set_major_locator(FixedLocator(list(ndtri(ticks))))
            axis.set_major_formatter(FuncFormatter(lambda z, _: _percent(_nearest_rate(z))))
        axes.set_xlim(ndtri(max(lowest[0] * 0.7, 1e-9)), ndtri(0.55))
        highest = max(float(y.max(initial=0)) for _, y in lines)
        axes.set_ylim(ndtri(max(lowest[1] * 0.7, 1e-9)), ndtri(min(0.55, max(0.02, 1.6 * highest))))
        axes.grid()
        axes.set_xlabel("FMR")
        axes.set_ylabel("FNMR")
        axes.tick_params(axis="x", labelrotation=45)

    title = "DET curves of all comparisons and of those that are kept"
    return _svg("det", title, draw, (344, 290))


def reliability_picture(reliability: ReliabilityFacts) -> Markup:
    """Observed against predicted rate per bin, with intervals, and the diagonal."""
    bins = [part for part in reliability.bins if part.count]
    predicted = np.array([part.predicted for part in bins])
    observed = np.array([part.observed for part in bins])
    ends = np.array([[part.low, part.high] for part in bins]).reshape(-1, 2).T
    top = max(float(predicted.max(initial=0)), float(observed.max(initial=0)), 1e-4) * 1.15

    def draw(axes: Axes) -> None:
        axes.plot([0, top], [0, top], color=COLOUR["random"], linestyle=_DOTTED)
        away = np.abs(ends - observed)
        axes.errorbar(predicted, observed, away, fmt="none", ecolor=COLOUR["curve"], elinewidth=1.4)
        axes.plot(predicted, observed, "o-", color=COLOUR["curve"], markersize=4, linewidth=1)
        axes.set_xlim(0, top)
        axes.set_ylim(0, max(top, min(1.05 * float(ends.max(initial=0)), 2 * top)))
        axes.grid()
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed rate")
        axes.locator_params(nbins=5)
        _as_percent(axes)

    return _svg("reliability", "Observed against predicted probability of an error", draw)


def group_pictures(grouping: GroupingFacts, prefix: str) -> list[Markup]:
    """Of each rate, a dot with its interval for each group; then the groups' curves."""
    names = [row.group for row in grouping.groups]
    places = np.arange(len(names))

    def rates(kind: str, axes: Axes) -> None:
        found: list[GroupRate] = [getattr(row, kind) for row in grouping.groups]
        for place, rate, style in zip(places, found, GROUP_STYLES, strict=False):
            if rate.rate is not None:
                low, high = rate.low or 0.0, rate.rate if rate.high is None else rate.high
                axes.plot([low, high], [place] * 2, color=COLOUR[style[0]], alpha=0.6)
                face = COLOUR["surface" if rate.too_small else style[0]]
                axes.plot(rate.rate, place, "o", color=COLOUR[style[0]], markerfacecolor=face)
        axes.set_yticks(places, [shortened(name, 16) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=COLOUR["ink"])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(axis="x")
        axes.set_xlabel(GROUP_RATES[kind])
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))
        axes.locator_params(axis="x", nbins=5)

    def curves(axes: Axes) -> None:
        x = np.array(grouping.discard_fraction)
        for row, (part, dash) in zip(grouping.groups, GROUP_STYLES, strict=False):
            mated = np.array(row.mated)
            fnmr = np.array(row.false_non_matches) / np.where(mated > 0, mated, np.nan)
            axes.plot(x, fnmr, color=COLOUR[part], linestyle=dash, linewidth=1.7)
        axes.set_xlim(0, x[-1])
        axes.set_ylim(0)
        axes.grid(axis="y")
        axes.set_xlabel("refused of all, most uncertain first")
        axes.set_ylabel("FNMR of the group")
        _as_percent(axes)

    size = 344, 70 + 22 * len(names)
    pictures = [
        _svg(f"{prefix}{kind}", f"{label}: each group", partial(rates, kind), size)
        for kind, label in GROUP_RATES.items()
    ]
    title = "FNMR of each group against the share of all comparisons that is refused"
    return [*pictures, _svg(f"{prefix}curves", title, curves)]


def _svg(
    prefix: str,
    title: str,
    draw: Callable[[Axes], None],
    size: tuple[float, float] = (344, 250),
) -> Markup:
    """What `draw` puts on the axes, of so many points, for a page.

    The prefix of every id keeps pictures of one page apart; a screen reader says the title.
    """
    with rc_context():
        rcdefaults()  # a user's own matplotlib settings must not change the report
        rcParams.update(
            {
                "svg.fonttype": "none",
                "font.size": 9.5,
                "axes.edgecolor": COLOUR["soft"],
                "axes.labelcolor": COLOUR["ink"],
                "text.color": COLOUR["ink"],
                "xtick.color": COLOUR["soft"],
                "ytick.color": COLOUR["soft"],
                "axes.linewidth": 0.8,
                "grid.color": COLOUR["line"],
                "grid.linewidth": 0.7,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.axisbelow": True,
                "patch.linewidth": 0,
                "path.simplify": False,
                "text.parse_math": False,
                "svg.hashsalt": prefix,
            }
        )
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=_WITHOUT_METADATA)
    return Markup(_for_a_page(buffer.getvalue(), prefix, escape(title)))


def _for_a_page(svg: str, prefix: str, title: str) -> str:
    body = svg[svg.index("<svg") :]
    unwanted = r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>"
    body = re.sub(unwanted, "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' * (m[1] in used), body)
    body = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", body)
    body = re.sub(r"font-family: [^;\"]+;?", "", body)
    for name, colour in COLOUR.items():
        body = body.replace(colour, f"var(--{name})")
    view = re.search(r'viewBox="[^"]+"', body)
    assert view is not None
    head = f'<svg {view[0]} role="img" aria-label="{title}"><title>{title}</title>'
    lines = (line.strip() for line in body[body.index(">") + 1 :].splitlines())
    return head + "\n".join(filter(None, lines))


def solid_then_dashed(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: NDArray[np.int64],
    colour: str,
    *,
    label: str | None = None,
    drawstyle: Literal["default", "steps-post"] = "default",
) -> None:
    """Draw a curve: dashed, from a dot on, where fewer than `FEW_ERRORS` errors are left."""
    enough = np.flatnonzero(errors >= FEW_ERRORS)
    last = int(enough[-1]) + 1 if enough.size else 1
    lines = axes.plot(x[:last], y[:last], linewidth=2.2, label=label)
    lines += axes.plot(x[last - 1 :], y[last - 1 :], linewidth=1.4, linestyle=(0, (2.5, 1.5)))
    for line in lines:
        line.set(color=colour, drawstyle=drawstyle)
    if last < len(x):
        axes.plot(x[last - 1], y[last - 1], "o", color=colour, markersize=4)


def _threshold_line(axes: Axes, threshold: float | None) -> None:
    if threshold is not None:
        axes.axvline(threshold, color=COLOUR["ink"], linewidth=1.1, linestyle=(0, (3, 2)))


def _as_percent(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:.6g} %"


def _nearest_rate(z: float) -> float:
    return min(_RATES, key=lambda rate: abs(float(ndtri(rate)) - z))


def _at(x: NDArray[np.float64], y: NDArray[np.float64], share: float) -> float:
    return float(y[int(np.searchsorted(x, share + 1e-9, side="right")) - 1])


def _array(values: Numbers) -> NDArray[np.float64]:
    return np.array(values, np.float64)
