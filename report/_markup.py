"""HTML building blocks of the report: every string that comes in is escaped here.

A `Markup` is a string that is HTML already; anything else is text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
_DASHES = {"solid": "", "dotted": "2 3", "dashed": "6 3", "chain": "8 3 2 3"}


class Markup(str):
    """A string that is HTML: not escaped again."""

    __slots__ = ()


def html(value: object) -> str:
    """A value as HTML; only a `Markup` passes as it is."""
    return value if isinstance(value, Markup) else escape(str(value), quote=True)


def tag(name: str, *content: object, **attributes: str) -> Markup:
    """An element; `class_` stands for class, and an underscore for a hyphen."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value, quote=True)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{''.join(map(html, content))}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Parts in a row."""
    return Markup("\n".join(map(html, parts)))


def table(
    caption: str, head: Sequence[object], rows: Sequence[Sequence[object]], marked: int = -1
) -> Markup:
    """A table that scrolls inside when it is too wide; the first cell of a row is its header.

    Args:
        caption: what it shows, also the name of the scrolling region.
        head: one cell per column.
        rows: cells.
        marked: row to set off; -1 for none.
    """
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = []
    for place, (first, *rest) in enumerate(rows):
        cells = tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)
        body.append(tag("tr", *cells, class_="mark") if place == marked else tag("tr", *cells))
    inner = tag(
        "table", tag("caption", tag("span", caption)), tag("thead", top), tag("tbody", join(body))
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def with_small(main: object, small: object) -> Markup:
    """A cell with a second, smaller line."""
    return Markup(html(main) + tag("small", small))


def figure(picture: str, keys: Sequence[Markup], caption: object, *, alone: bool = False) -> Markup:
    """A picture (SVG of `_report_svg`) with its key and its caption.

    Args:
        picture: markup.
        keys: of `key`.
        caption: text.
        alone: nothing stands beside it, so on a wide screen its caption does.
    """
    words = tag("figcaption", tag("ul", *keys, class_="key"), tag("p", caption))
    shown = (Markup(picture), words)
    return tag("figure", *shown, class_="alone") if alone else tag("figure", *shown)


def key(part: str, label: str, dash: str = "solid", *, area: bool = False) -> Markup:
    """One entry of a picture's key: a line (or a filled area) in the part's colour."""
    stroke = f"var(--{part})"
    if area:
        shape = f'<rect width="36" height="16" fill="{stroke}" fill-opacity=".22"/>'
    else:
        dashes = f' stroke-dasharray="{_DASHES[dash]}"' if _DASHES[dash] else ""
        shape = f'<path d="M0 9H36" stroke="{stroke}" stroke-width="3"{dashes}/>'
    swatch = Markup(f'<svg viewBox="0 0 36 16" aria-hidden="true">{shape}</svg>')
    return tag("li", swatch, label)


def section(anchor: str, heading: str, *content: object) -> Markup:
    """A section with its heading."""
    name = f"{anchor}-heading"
    return tag(
        "section",
        tag("h2", heading, id=name),
        *content,
        id=anchor,
        aria_labelledby=name,
    )


def definitions(pairs: Iterable[tuple[object, object]]) -> Markup:
    """A list of terms and values."""
    return tag("dl", *(Markup(tag("dt", a) + tag("dd", b)) for a, b in pairs))


def document(title: str, css: str, body: Iterable[Markup]) -> str:
    """A whole page that may load nothing: no script, no font, no file but pictures inside it.

    Args:
        title: text.
        css: its style sheet.
        body: what it shows.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY, quote=True)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{css}</style>\n</head>\n<body>\n"
        f"{join(body)}\n</body>\n</html>\n"
    )
