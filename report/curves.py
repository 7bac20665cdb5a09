"""The curves of a training run as one picture, from its `metrics.jsonl`.

Drawn by matplotlib without a display; import this module only where a picture is drawn.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from utils.files import atomic_path

_LINE, _BAND, _GREY = "#0b6e99", "#bcd7e2", "#d5dae0"
_SPREADS = {"pconf": "quality of the images (pconf)", "sigma": "uncertainty of the images (sigma)"}


def draw_training_curves(metrics: Path, out: Path, title: str, steps_per_epoch: int) -> bool:
    """Draw loss, cosine, spread of the uncertainty and AUERC30 against the epoch, as a PNG.

    Args:
        metrics: `metrics.jsonl` of a run; a line cut short by a crash is left out.
        out: the picture, replaced as a whole.
        title: of the picture.
        steps_per_epoch: of the run.

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
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    loss, cosine, spread, area = figure.subplots(2, 2).ravel()
    loss.plot(epochs, [record["loss"] for _, record in records], color=_LINE)
    loss.set_title("loss")
    _draw_range(cosine, epochs, np.array([record["cos"] for _, record in records]))
    cosine.set_title("cosine of the genuine pairs (cos)")
    name = next((name for name in _SPREADS if name in records[-1][1]), "")
    if name:
        _draw_range(spread, epochs, np.array([record[name] for _, record in records]))
    spread.set_title(_SPREADS.get(name, "uncertainty: not logged by this loss"))
    for target, points in areas.items():
        area.plot(*zip(*points, strict=True), marker="o", label=target)
    area.set_title("AUERC30 of the verification sets" if areas else "no verification sets")
    if areas:
        area.legend()
        area.set_ylim(0, 1.2 * max(value for points in areas.values() for _, value in points))
    for axes in (loss, cosine, spread, area):
        axes.grid(color=_GREY, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, max(epochs[-1], 1e-9))
        axes.set_xlabel("epoch")
    with atomic_path(out) as path:
        figure.savefig(path, format="png")
    return True


def _draw_range(axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Draw the means of batches as a line and their ranges as a band; values: (n, 3) or (n,)."""
    if values.ndim == 2:
        axes.fill_between(
            epochs, values[:, 2], values[:, 1], color=_BAND, linewidth=0, label="range of a batch"
        )
    axes.plot(epochs, values if values.ndim == 1 else values[:, 0], color=_LINE, label="mean")
    axes.legend()
