"""A matplotlib figure as SVG that can stand in a page: its colours follow the page's light or dark.

Colours are named by their part in the picture (`COLOUR["curve"]`); each name is a CSS variable.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PARTS = (
    "ink",
    "soft",
    "line",
    "curve",
    "other",
    "third",
    "random",
    "shade",
    "surface",
)
# a stand-in for each part, replaced by its CSS variable in the finished SVG
COLOUR = {part: f"#0a0b{place:02x}" for place, part in enumerate(PARTS, start=16)}
_STYLE: dict[Any, Any] = {
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
}
_WITHOUT_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


class Picture:
    """A figure with the report's style, in points; `with Picture(...) as axes` draws on it.

    Attributes:
        svg: the markup, once the block has ended.
    """

    def __init__(self, prefix: str, title: str, size: tuple[float, float] = (344, 250)) -> None:
        """Prepare an empty picture.

        Args:
            prefix: put before every id, so that two pictures of one page cannot clash.
            title: what a screen reader says.
            size: width and height in points; text of 9.5 points stays readable on a phone.
        """
        self.prefix, self.title, self.size = prefix, title, size
        self.svg = ""

    def __enter__(self) -> Axes:
        """Return axes to draw on."""
        self._style = rc_context()
        self._style.__enter__()
        rcdefaults()  # a user's own matplotlib settings must not change the report
        rcParams.update({**_STYLE, "svg.hashsalt": self.prefix})
        width, height = self.size
        self._figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(self._figure)
        self._figure.patch.set_visible(False)
        axes = self._figure.add_subplot()
        axes.patch.set_visible(False)
        return axes

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Turn the figure into markup."""
        try:
            if kind is None:
                buffer = io.StringIO()
                self._figure.savefig(buffer, format="svg", metadata=_WITHOUT_METADATA)
                self.svg = _for_a_page(buffer.getvalue(), self.prefix, self.title)
        finally:
            self._style.__exit__(None, None, None)


def _for_a_page(svg: str, prefix: str, title: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda m: _id(m[1], used, prefix), body)
    body = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", body)
    body = re.sub(r"font-family: [^;\"]+;?", "", body)
    for part, colour in COLOUR.items():
        body = body.replace(colour, f"var(--{part})")
    name = escape(title)
    view = re.search(r'viewBox="[^"]+"', body)
    assert view is not None
    head = f'<svg {view[0]} role="img" aria-label="{name}"><title>{name}</title>'
    lines = (line.strip() for line in body[body.index(">") + 1 :].splitlines())
    return head + "\n".join(filter(None, lines))


def _id(name: str, used: set[str], prefix: str) -> str:
    return f' id="{prefix}-{name}"' if name in used else ""
