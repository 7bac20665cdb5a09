"""A contact sheet: scored faces from worst to best on one HTML page, with what can be seen in them.

score_images writes it; `SheetBuilder` takes any number of rows in little memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from evaluation.face_score import FaceScore
from report import _sheet_faces as parts
from report._markup import Markup, document, tag
from report._sheet_picks import Picks, Pixels
from report._sheet_style import SHEET_CSS
from report._sheet_summary import head, summary
from report._sheet_tally import Tally
from report._style import CSS
from utils.files import write_text

__all__ = ["Pixels", "SheetBuilder", "write_sheet"]


class SheetBuilder:
    """Takes rows one by one and keeps what the page shows of them.

    That is the worst and the best faces, a random sample for the even steps between, counts, and
    the first images without a face. Equal rows in equal order give equal pages.

    Args:
        worst: faces with the largest uncertainty to show.
        between: faces to show at even steps of rank between those and the best.
        best: faces with the smallest uncertainty to show.
        failures: images without a face, and unreadable ones, to list of each kind.

    Raises:
        ValueError: a negative number.
    """

    def __init__(
        self, *, worst: int = 120, between: int = 60, best: int = 60, failures: int = 200
    ) -> None:
        self._picks = Picks(worst, between, best)
        self._tally = Tally(failures)

    def add(self, score: FaceScore, name: str) -> None:
        """Add a row.

        Args:
            score: of a face, or why there is none. Its pixels (`aligned`) are encoded at once if it
                is kept, so they may be overwritten afterwards; they may be missing.
            name: of the photo, as people know it; any text.
        """
        self._tally.add(score, name)
        if score.status == "scored":
            self._picks.add(score, name)

    def write(
        self, path: str | Path, header: str, *, title: str = "", pixels: Pixels | None = None
    ) -> Path:
        """Write the page, whole or not at all; more rows may be added afterwards.

        Args:
            path: of the HTML file; its folder is made where it is missing.
            header: model, direction and thresholds, parted by semicolons. Where it says DEMO, the
                page warns.
            title: its heading; by default the number of faces.
            pixels: asked for the faces shown that came without pixels, as after a resumed run.

        Returns:
            The path.

        Raises:
            ValueError: `path` is a folder, or no row was added.
        """
        path = Path(path)
        if path.is_dir():
            raise ValueError(f"{path}: a contact sheet is a file (.html), but a folder is there")
        if not self._tally.statuses:
            raise ValueError(f"{path}: no row was scored, so there is nothing to show")
        text = self._page(header, title, pixels)
        write_text(path, text)
        return path

    def _page(self, header: str, title: str, pixels: Pixels | None) -> str:
        tally, groups = self._tally, self._picks.groups(pixels)
        shown = [*groups.worst, *groups.between, *groups.best]
        body = tag(
            "main",
            summary(tally, self._picks.sampled()),
            parts.faces(groups, tally.faces) if shown else Markup(""),
            parts.failures(tally, "no face", "Images without a face"),
            parts.failures(tally, "unreadable", "Images that could not be read"),
        )
        note = "face-uncertainty. This page holds faces: mind the people before you pass it on."
        foot = tag("footer", tag("p", note, class_="note"))
        css = CSS + SHEET_CSS + parts.filter_css(shown)
        return document("Contact sheet", css, [head(header, title, tally), body, foot])


def write_sheet(
    rows: Iterable[tuple[FaceScore, str]], header: str, path: str | Path, *, title: str = ""
) -> Path:
    """Write a contact sheet of rows with their photos' names; see `SheetBuilder.write`."""
    builder = SheetBuilder()
    for score, name in rows:
        builder.add(score, name)
    return builder.write(path, header, title=title)
