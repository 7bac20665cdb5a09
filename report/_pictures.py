"""The pictures of the HTML report, each drawn from a part of `report.json`.

Small on purpose: text of 9.5 points in 344 points of width is readable on a phone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray
from scipy.special import ndtri

from report._svg import COLOUR, Picture
from report._words import fmr

FEW_ERRORS = 10
HALF, WHOLE = 0.5, 1.0
_RATES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
_DET_STYLE = (("curve", "-"), ("other", (0, (6, 1.5))), ("third", (0, (2, 1.2))))


def percent(value: float, _: object = None) -> str:
    """A rate as a percentage with as many digits as it needs, as in 0.01 % or 25 %."""
    return f"{100 * value:.6g} %"


def edc_picture(curve: dict[str, Any], prefix: str, limit: float) -> str:
    """FNMR against the discard fraction, with its band, the random line and the optimum.

    Args:
        curve: one of `curves`.
        prefix: of its ids.
        limit: right end of the range of the area, shaded.
    """
    x, y, optimum = (_array(curve[key]) for key in ("discard_fraction", "fnmr", "optimum"))
    errors = np.array(curve["false_non_matches"])
    right = shown_to(curve)
    title = (
        f"FNMR at FMR {fmr(curve['fmr_target'])} against the share of refused comparisons: "
        f"{percent(float(y[0]))} when none is refused, {percent(_at(x, y, 0.1))} at 10 %, "
        f"{percent(_at(x, y, 0.3))} at 30 %"
    )
    picture = Picture(prefix, title)
    with picture as axes:
        axes.axvspan(0, min(limit, right), color=COLOUR["shade"], zorder=0)
        axes.axhline(y[0], color=COLOUR["random"], linestyle=(0, (1, 1.6)), linewidth=1.6)
        style = "steps-post" if curve["steps"] else "default"
        chain = (0, (6, 2, 1, 2))
        axes.plot(x, optimum, color=COLOUR["soft"], lw=1, linestyle=chain, drawstyle=style)
        if curve["bootstrap"]:
            band = curve["bootstrap"]
            low, high = _array(band["fnmr_low"]), _array(band["fnmr_high"])
            at = _array(band["discard_fraction"])
            axes.fill_between(at, low, high, color=COLOUR["curve"], alpha=0.22)
        _solid_then_dashed(axes, x, y, errors, style)
        shown = x <= right
        axes.set_ylim(0, _top(y[shown & (errors >= FEW_ERRORS)], float(y[0]), curve, right))
        axes.set_xlim(0, right)
        axes.grid(axis="y")
        axes.set_xlabel("refused, most uncertain first")
        axes.set_ylabel(f"FNMR at FMR {fmr(curve['fmr_target'])}")
        axes.xaxis.set_major_formatter(FuncFormatter(percent))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.locator_params(axis="y", nbins=6)
    return picture.svg


def shown_to(curve: dict[str, Any]) -> float:
    """Right end of the picture: 0.5 where hardly an error is left beyond it, else 1."""
    x, errors = _array(curve["discard_fraction"]), np.array(curve["false_non_matches"])
    at = min(int(np.searchsorted(x, HALF)), len(x) - 1)
    return WHOLE if errors[at] >= 2 * FEW_ERRORS else HALF


def score_picture(scores: dict[str, Any], threshold: float) -> str:
    """Histograms of both classes, each with area 1, and the score threshold."""
    edges = _array(scores["edges"])
    picture = Picture("scores", "Score histograms of mated and non-mated comparisons", (344, 250))
    with picture as axes:
        for kind, part, fill in (("non_mated", "other", 0.28), ("mated", "curve", 0.28)):
            counts = np.array(scores[kind], float)
            density = counts / max(counts.sum() * (edges[1] - edges[0]), 1e-300)
            axes.stairs(density, edges, color=COLOUR[part], fill=True, alpha=fill)
            axes.stairs(density, edges, color=COLOUR[part], linewidth=1.3)
        _threshold_line(axes, threshold)
        axes.set_xlabel("score")
        axes.set_ylabel("share per score")
        axes.yaxis.set_major_locator(NullLocator())
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0)
    return picture.svg


def decile_picture(scores: dict[str, Any], threshold: float) -> str:
    """One row per uncertainty decile: the mated scores slide down as uncertainty grows."""
    edges = _array(scores["edges"])
    picture = Picture(
        "deciles",
        "Score histograms by uncertainty: ten rows, the least uncertain tenth on top",
        (344, 330),
    )
    with picture as axes:
        for number, decile in enumerate(scores["deciles"]):
            floor = -float(number)
            for kind, part in (("non_mated", "other"), ("mated", "curve")):
                counts = np.array(decile[kind], float)
                if not counts.any():
                    continue
                height = floor + 0.92 * counts / counts.max()
                axes.stairs(
                    height, edges, baseline=floor, color=COLOUR[part], fill=True, alpha=0.28
                )
                axes.stairs(height, edges, baseline=None, color=COLOUR[part], linewidth=0.9)
            if decile["mated_median"] is not None:
                axes.plot([decile["mated_median"]] * 2, [floor, floor + 0.5], color=COLOUR["ink"])
        _threshold_line(axes, threshold)
        axes.set_yticks([-number + 0.2 for number in range(len(scores["deciles"]))])
        axes.set_yticklabels(_decile_names(len(scores["deciles"])))
        axes.tick_params(axis="y", length=0, colors=COLOUR["ink"])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("score")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(1 - len(scores["deciles"]) - 0.05, 1)
    return picture.svg


def has_det(det: list[dict[str, Any]]) -> bool:
    """Whether any threshold has errors of both kinds: axes of normal deviates have no zero."""
    return any(_inside(one)[0].size for one in det)


def det_picture(det: list[dict[str, Any]], points: list[dict[str, Any]]) -> str:
    """FNMR against FMR on normal-deviate axes, of all and of the kept comparisons."""
    picture = Picture("det", "DET curves of all comparisons and of those that are kept", (344, 290))
    curves = [_inside(one) for one in det]
    with picture as axes:
        for (x, y), (part, dash) in zip(curves, _DET_STYLE, strict=False):
            axes.plot(ndtri(x), ndtri(y), color=COLOUR[part], linestyle=dash, linewidth=1.7)
        for point in points:
            _mark(axes, point)
        lowest = [
            min(float(side.min(initial=0.5)) for side in sides)
            for sides in zip(*curves, strict=True)
        ]
        for axis, low in zip((axes.xaxis, axes.yaxis), lowest or [1e-3, 1e-3], strict=True):
            ticks = [rate for rate in _RATES if rate >= low * 0.5]
            axis.set_major_locator(FixedLocator(list(ndtri(ticks))))
            axis.set_major_formatter(FuncFormatter(lambda z, _: percent(_cdf(z))))
        axes.set_xlim(ndtri(max(lowest[0] * 0.7, 1e-9)) if lowest else -3, ndtri(0.55))
        highest = max((float(y.max(initial=0)) for _, y in curves), default=0.5)
        bottom = ndtri(max(lowest[1] * 0.7, 1e-9)) if lowest else -3
        axes.set_ylim(bottom, ndtri(min(0.55, max(0.02, 1.6 * highest))))
        axes.grid()
        axes.set_xlabel("FMR")
        axes.set_ylabel("FNMR")
        axes.tick_params(axis="x", labelrotation=45)
    return picture.svg


def reliability_picture(reliability: dict[str, Any]) -> str:
    """Observed against predicted rate per bin, with intervals, and the diagonal."""
    bins = [one for one in reliability["bins"] if one["count"] and one["observed"] is not None]
    picture = Picture("reliability", "Observed against predicted probability of an error")
    with picture as axes:
        predicted = np.array([one["predicted"] for one in bins])
        observed = np.array([one["observed"] for one in bins])
        ends = np.array([[one["low"], one["high"]] for one in bins]).reshape(-1, 2).T
        top = max(float(predicted.max(initial=0)), float(observed.max(initial=0)), 1e-4) * 1.15
        axes.plot([0, top], [0, top], color=COLOUR["random"], linestyle=(0, (1, 1.6)))
        away = np.abs(ends - observed)
        axes.errorbar(predicted, observed, away, fmt="none", ecolor=COLOUR["curve"], elinewidth=1.4)
        axes.plot(predicted, observed, "o-", color=COLOUR["curve"], markersize=4, linewidth=1)
        axes.set_xlim(0, top)
        axes.set_ylim(0, max(top, min(1.05 * float(ends.max(initial=0)), 2 * top)))
        axes.grid()
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed rate")
        axes.locator_params(nbins=5)
        axes.xaxis.set_major_formatter(FuncFormatter(percent))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
    return picture.svg


def _solid_then_dashed(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: NDArray[np.int64],
    style: str,
) -> None:
    enough = np.flatnonzero(errors >= FEW_ERRORS)
    last = int(enough[-1]) + 1 if enough.size else 1
    colour = COLOUR["curve"]
    axes.plot(x[:last], y[:last], color=colour, linewidth=2.2, drawstyle=style)
    rest = slice(last - 1, None)
    axes.plot(x[rest], y[rest], color=colour, lw=1.4, linestyle=(0, (2.5, 1.5)), drawstyle=style)
    if last < len(x):
        axes.plot(x[last - 1], y[last - 1], "o", color=colour, markersize=4)


def _top(firm: NDArray[np.float64], start: float, curve: dict[str, Any], right: float) -> float:
    """Upper end of the FNMR axis: a spike that rests on few errors must not set the scale."""
    top = max(start, float(firm.max(initial=0)))
    if curve["bootstrap"]:
        band = _array(curve["bootstrap"]["fnmr_high"])
        at = _array(curve["bootstrap"]["discard_fraction"])
        top = max(top, min(float(np.nanmax(band[at <= right], initial=0)), 2 * top))
    return 1.12 * top if top > 0 else 1e-3


def _threshold_line(axes: Axes, threshold: float) -> None:
    axes.axvline(threshold, color=COLOUR["ink"], linewidth=1.1, linestyle=(0, (3, 2)))


def _decile_names(count: int) -> list[str]:
    names = [str(number + 1) for number in range(count)]
    names[0], names[-1] = "least 1", f"most {count}"
    return names


def _inside(one: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = _array(one["fmr"]), _array(one["fnmr"])
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    return x[inside], y[inside]


def _mark(axes: Axes, point: dict[str, Any]) -> None:
    x, y = point["fmr_without_discard"]["rate"], point["fnmr_without_discard"]["rate"]
    if x and y and 0 < x < 1 and 0 < y < 1:
        axes.plot(ndtri(x), ndtri(y), "o", color=COLOUR["ink"], markersize=5)


def _cdf(z: float) -> float:
    return min(_RATES, key=lambda rate: abs(float(ndtri(rate)) - z))


def _at(x: NDArray[np.float64], y: NDArray[np.float64], share: float) -> float:
    return float(y[int(np.searchsorted(x, share + 1e-9, side="right")) - 1])


def _array(values: list[float | None]) -> NDArray[np.float64]:
    return np.array(values, np.float64)
