"""Pictures of a `Result`: the error-versus-discard curve and a contact sheet of faces.

The only module that needs matplotlib; drawn without a display.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from evaluation.metrics.edc import optimum
from report.text import operating_point
from utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evaluation._decode_ahead import Decodes
    from evaluation.metrics.edc import Edc
    from evaluation.pipeline import Block, Result

COLOURS = ("#0b6e99", "#c8553d", "#4f772d", "#7b4b94")  # told apart in grey and when colour-blind
RANDOM, OPTIMUM = "#6b7280", "#9aa3ad"
FEW_ERRORS = 10
SHEET_COLUMNS, SHEET_ROWS = 12, 2
LABEL, HEADING, MARGIN = 18, 30, 10  # pixels, as the next line
CELL = (112 + LABEL + 6, 112 + MARGIN)  # height and width of a face with its number


def edc_figure(result: Result, path: Path) -> Path:
    """Draw FNMR against the discard fraction for every uncertainty, and write a PNG.

    The line is dashed where fewer than ten false non-matches are left. The y axis is linear: a
    curve that reaches zero errors, as the optimum does, has no place on a logarithmic one.

    Returns:
        The path.
    """
    figure = Figure(figsize=(6.4, 4.6), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    curve = result.blocks[0].curves[-1]
    axes.axvspan(0, 0.3, color="#eef3f6", zorder=0, linewidth=0)
    axes.axhline(curve.fnmr[0], color=RANDOM, linestyle=(0, (1, 1.5)), label="random discard")
    fine = np.linspace(0, 0.99, 991)
    axes.plot(fine, optimum(curve, fine), color=OPTIMUM, linewidth=1.2, label="exact optimum")
    for block, colour in zip(result.blocks, COLOURS * len(result.blocks), strict=False):
        _draw_curve(axes, block, colour)
    _dress(axes, result, curve)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return path


def contact_sheet(
    images: Decodes, uncertainty: NDArray[np.float32], path: Path, title: str
) -> Path:
    """Write a PNG of the least and the most uncertain faces with their uncertainties.

    An image that occurs in several pairs is shown once.

    Args:
        images: the set.
        uncertainty: (M,) one number per image.
        path: of the PNG.
        title: of the sheet.

    Returns:
        The path.
    """
    order = np.argsort(uncertainty, kind="stable")
    wanted = min(SHEET_COLUMNS * SHEET_ROWS, len(order) // 2)
    halves = {
        "least uncertain": _distinct(images, order, wanted),
        "most uncertain": _distinct(images, order[::-1], wanted),
    }
    rows = max(-(-len(faces) // SHEET_COLUMNS) for faces in halves.values())
    width, half_height = SHEET_COLUMNS * CELL[1] + MARGIN, HEADING + rows * CELL[0]
    canvas = np.full((HEADING + 2 * half_height + MARGIN, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / 100, canvas.shape[0] / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(MARGIN, HEADING / 2, title, fontsize=13, va="center")
    for place, (heading, faces) in enumerate(halves.items()):
        top = HEADING + place * half_height
        axes.text(MARGIN, top + HEADING / 2, heading, fontsize=11, fontweight="bold", va="center")
        _paste(canvas, axes, faces, uncertainty, top + HEADING)
    axes.imshow(canvas, interpolation="none")
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return path


def _draw_curve(axes: Axes, block: Block, colour: str) -> None:
    curve = block.curves[-1]
    solid = curve.false_non_matches >= FEW_ERRORS
    last = int(np.flatnonzero(solid)[-1]) + 1 if solid.any() else 1
    name = block.label or "most uncertain first"
    axes.plot(
        curve.fractions[:last],
        curve.fnmr[:last],
        color=colour,
        linewidth=2,
        label=f"{name}: AUERC30 {block.areas.auerc30:.4f}",
    )
    axes.plot(
        curve.fractions[last - 1 :],
        curve.fnmr[last - 1 :],
        color=colour,
        linewidth=1.3,
        linestyle=(0, (3, 1.5)),
    )
    if last < len(curve.fractions):
        axes.plot(
            curve.fractions[last - 1], curve.fnmr[last - 1], "o", color=colour, markersize=3.5
        )


def _dress(axes: Axes, result: Result, curve: Edc) -> None:
    certain = [block.curves[-1] for block in result.blocks]
    shown = [one.fnmr[one.false_non_matches >= FEW_ERRORS].max(initial=0) for one in certain]
    top = max(
        *shown, float(curve.fnmr[0])
    )  # a spike that rests on few errors must not set the scale
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.1 * top if top > 0 else 1e-3)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(
        PercentFormatter(1, decimals=0 if top > 0.05 else 1 if top > 0.005 else 2)
    )
    axes.set_xlabel("pairs discarded, most uncertain first")
    axes.set_ylabel(f"FNMR at FMR {curve.fmr_target:g}")
    axes.grid(axis="y", color="#d5dae0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{result.name}: error versus discard", loc="left", fontsize=11)
    axes.legend(
        fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False
    )
    note = (
        f"{operating_point(curve)}.\nprotocol {result.protocol.name}; shaded: range of AUERC30; "
        f"dashed: fewer than {FEW_ERRORS} false non-matches left."
    )
    axes.figure.supxlabel(note, fontsize=7.5, color="#374151", x=0.01, ha="left")


def _distinct(
    images: Decodes, order: NDArray[np.intp], wanted: int
) -> list[tuple[int, NDArray[np.uint8]]]:
    seen: dict[bytes, tuple[int, NDArray[np.uint8]]] = {}
    for row in map(int, order):
        if len(seen) == wanted:
            break
        image = images.decode(row, row + 1)[0]
        seen.setdefault(image.tobytes(), (row, image))
    return list(seen.values())


def _paste(
    canvas: NDArray[np.uint8],
    axes: Axes,
    faces: list[tuple[int, NDArray[np.uint8]]],
    uncertainty: NDArray[np.float32],
    top: int,
) -> None:
    for place, (row, image) in enumerate(faces):
        y = top + place // SHEET_COLUMNS * CELL[0] + LABEL
        x = MARGIN + place % SHEET_COLUMNS * CELL[1]
        canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
        middle = x + image.shape[1] / 2
        label = f"{uncertainty[row]:.3g}"
        axes.text(middle, y - 4, label, fontsize=8, ha="center", va="bottom", color="#374151")
