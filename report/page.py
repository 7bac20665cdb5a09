"""Write the report that people read: one HTML page without any outside reference, and its JSON.

The page needs no network, no script and no file beside it; docs/evaluate.md describes both files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report import _gallery as gallery
from report import _sections as sections
from report._facts import facts as facts_of
from report._markup import Markup, document, tag
from report._style import CSS
from report._thresholds import thresholds
from report.data import ImageAccess, ReportData
from utils.files import write_text


def write_report(folder: str | Path, data: ReportData, stem: str = "report") -> list[Path]:
    """Write `report.html` and `report.json` into a folder, which is made where it is missing.

    Equal input gives equal files, byte for byte, under equal versions of the libraries.

    Args:
        folder: of the report.
        data: what it shows; every optional part may be missing.
        stem: of the two names, where it is not `report`.

    Returns:
        The paths written.

    Raises:
        ValueError: the folder is a file, or a curve does not fit its comparisons.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder}: a report needs a folder, but a file is there")
    facts = facts_of(data)
    texts = {
        f"{stem}.html": page(facts, data.images),
        f"{stem}.json": json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def page(facts: dict[str, Any], images: ImageAccess | None) -> str:
    """The whole page from the content of `report.json`; faces are read from `images`."""
    title = f"{facts['name']}: {facts['method']}"
    body = [
        _header(facts),
        tag("main", sections.summary(facts), *_sections(facts, images)),
        tag("footer", tag("p", "face-uncertainty", class_="note")),
    ]
    return document(title, CSS, body)


def _header(facts: dict[str, Any]) -> Markup:
    made = f", {facts['date'].replace('T', ' ')}" if facts["date"] else ""
    over = tag("p", f"Error-versus-discard report{made}", class_="over")
    under = tag("p", f"Uncertainty: {facts['method']}", class_="over")
    return tag("header", over, tag("h1", facts["name"]), under)


def _sections(facts: dict[str, Any], images: ImageAccess | None) -> list[Markup]:
    return [
        sections.curves(facts),
        thresholds(facts),
        sections.scores(facts),
        sections.det(facts),
        sections.reliability(facts),
        sections.presets(facts),
        gallery.faces(facts, images),
        gallery.errors(facts, images),
        gallery.method(facts),
    ]
