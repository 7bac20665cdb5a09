"""Write the report that people read: one HTML page without any outside reference, and its JSON.

The page needs no network, no script and no other file; docs/evaluate.md describes both files.
`templates/report.html` lays it out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from report import words
from report.collect import collect
from report.data import ImageAccess, ReportData
from report.facts import ReportFacts
from report.render import data_uri, render
from utils.files import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

JPEG_QUALITY = 88


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
    facts = collect(data)
    stored = json.dumps(facts.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    texts = {f"{stem}.html": page(facts, data.images), f"{stem}.json": stored}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def page(facts: ReportFacts, images: ImageAccess | None) -> str:
    """The whole page from the facts; faces are read from `images`."""
    return render(
        "report.html",
        facts=facts,
        summary=[words.tested(facts), words.outcome(facts), words.area(facts)],
        risk=words.risk_lines(facts),
        pictures=_pictures(facts),
        jpeg=None if images is None else lambda row: data_uri(_encoded(images, row)),
    )


def _pictures(facts: ReportFacts) -> dict[str, Markup | list[Markup] | None]:
    """The SVG of each figure; None where there is nothing to draw."""
    from report import pictures  # matplotlib

    limit, threshold = facts.headline.area_limit, facts.headline.score_threshold
    return {
        "curves": [
            pictures.edc_picture(curve, f"edc{place}", limit)
            for place, curve in enumerate(facts.curves)
        ],
        "scores": pictures.score_picture(facts.scores, threshold),
        "deciles": pictures.decile_picture(facts.scores, threshold),
        "det": pictures.det_picture(facts.det, facts.curves),
        "reliability": (
            pictures.reliability_picture(facts.reliability) if facts.reliability else None
        ),
    }


def _encoded(images: ImageAccess, row: int) -> bytes:
    from data.images import encode_jpeg

    return encode_jpeg(images.decode(row, row + 1)[0], JPEG_QUALITY)
