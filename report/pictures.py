"""The pictures of the report page as SVG, each drawn from a part of its facts.

Small on purpose: text of 9.5 points in 344 points of width is readable on a phone. Colours are
named by their part in the picture (`COLOUR["curve"]`), each name a CSS variable of the page, so
that they follow its light or dark setting.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Literal

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray
from scipy.special import ndtri

from report.facts import FEW_ERRORS, CurveFacts, Det, Histograms, Numbers, ReliabilityFacts
from report.words import fmr

PARTS = ("ink", "soft", "line", "curve", "other", "third", "random", "shade", "surface")
# a stand-in for each part, replaced by its CSS variable in the finished SVG
COLOUR = {part: f"#0a0b{place:02x}" for place, part in enumerate(PARTS, start=16)}
_RATES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
_DET_STYLE = (("curve", "-"), ("other", (0, (6, 1.5))), ("third", (0, (2, 1.2))))
_DOTTED = (0, (1, 1.6))
_WITHOUT_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


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
