"""The findings of a gallery's audit: printed text, table (audit.csv) and page (audit.html)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.images import encode_jpeg
from report.page import JPEG_QUALITY, render
from report.text import aligned
from report.words import caution_sentences, plural
from search.audit import KINDS, AuditResult, Finding, Kind
from search.gallery import Gallery
from utils.files import atomic_file, write_text
from utils.tables import write_csv

MOST_SHOWN = 60  # findings of each kind on the page
COLUMNS = (
    "finding", "kind", "image", "person", "own_image", "own_score", "resembles_image",
    "resembles_person", "resembles_score", "uncertainty", "chance", "misses_avoided",
    "false_positives_avoided", "action",
)  # fmt: skip
HEADINGS: dict[Kind, str] = {
    "copy": "Copies",
    "poor_quality": "Poor quality",
    "duplicate": "One person under two names",
    "nearer_to_another": "Nearer to another person",
    "wrong_label": "Far from the others of the person",
}
RULES: dict[Kind, str] = {
    "copy": "The same image again. Under another name, one of the two names is wrong.",
    "poor_quality": "Images of such uncertainty do not match their own person more often than not.",
    "duplicate": "The mean embeddings of two people are too alike for chance, and most images of "
    "either match one of the other.",
    "nearer_to_another": "The image matches another person better than its own, and too well for "
    "chance.",
    "wrong_label": "The image is as far from all others of its person as a stranger's would be, "
    "and resembles nobody here.",
}


def audit_text(result: AuditResult) -> str:
    """Return what the script prints: findings of each kind, and errors without them."""
    gallery = result.gallery
    rows = [["removed", "findings", "images", "FNIR", "FPIR"]]
    for name, effect in result.effects.items():
        found = [finding for finding in result.findings if name in (finding.kind, "all")]
        images = len({row for finding in found for row in finding.rows})
        rows.append([name.replace("_", " "), str(len(found)), str(images), *map(str, effect)])
    limit = result.max_uncertainty
    lines = [
        f"---{gallery.name}",
        f"{len(gallery.names)} images of {result.people} people; at most "
        f"{result.options.false_discoveries:g} of the findings of a kind are expected to be wrong",
        *aligned(rows),
        f"score threshold {result.threshold:.4f}, for FPIR {result.options.fpir:g} once all "
        "findings are removed; images without a finding are searched; duplicates are joined, not "
        "removed",
    ]
    if not math.isnan(limit):
        lines.append(f"poor quality: uncertainty of {limit:.6g} or more")
    return "\n".join(lines) + "\n"


def audit_warnings(result: AuditResult) -> tuple[str, ...]:
    """What is missing, and what cannot be told, one line each."""
    return caution_sentences((*result.gallery.cautions, *result.cautions))


def action_of(finding: Finding, gallery: Gallery) -> str:
    """What to do about a finding, in words."""
    other = _person(gallery, finding.other)
    is_own = other == _person(gallery, finding.rows[0])
    if finding.kind == "copy":
        return "remove it" if is_own else f"find out whether this is {other}, and remove one"
    if finding.kind == "poor_quality":
        return "replace it by a better photo" + ("" if finding.own < 0 else ", or remove it")
    if finding.kind == "duplicate":
        return f"if it is {other}, give both one name; else check for twins or a wrong photo"
    if finding.kind == "nearer_to_another":
        return f"if it is {other}, move it there; else remove it"
    if len(finding.rows) > 1:
        return "one of the two is somebody else: find out which, and remove it"
    return "if it is somebody else, remove it"


def write_audit(result: AuditResult, folder: str | Path) -> list[Path]:
    """Write `audit.csv` and `audit.html` into a folder, which is made; return their paths."""
    table, page = Path(folder) / "audit.csv", Path(folder) / "audit.html"
    table.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(table, "w") as file:
        write_csv(file, [COLUMNS])
        write_csv(file, _rows(result))
    write_text(page, audit_page(result))
    return [table, page]


def _rows(result: AuditResult) -> Iterator[Sequence[object]]:
    """One row for each image of each finding."""
    gallery = result.gallery
    for number, finding in enumerate(result.findings, start=1):
        for row in finding.rows:
            yield (
                *(number, finding.kind, gallery.names[row], _person(gallery, row)),
                *(_name(gallery, finding.own), _cell(finding.own_score)),
                *(
                    _name(gallery, finding.other),
                    _person(gallery, finding.other),
                ),
                *map(_cell, (finding.other_score, finding.uncertainty, finding.chance)),
                *(finding.misses, finding.false_positives, action_of(finding, gallery)),
            )


class Picture(NamedTuple):
    """One face of a finding."""

    role: str
    name: str
    person: str
    jpeg: bytes


class Card(NamedTuple):
    """One finding on the page."""

    pictures: Sequence[Picture]
    facts: str
    effect: str
    action: str


class Group(NamedTuple):
    """The findings of one kind, of which the first are shown."""

    kind: Kind
    heading: str
    rule: str
    total: int
    cards: Sequence[Card]


def audit_page(result: AuditResult) -> str:
    """Return the page."""
    groups = [
        Group(
            *(kind, HEADINGS[kind], RULES[kind], len(result.of(kind))),
            [_card(finding, result.gallery) for finding in result.of(kind)[:MOST_SHOWN]],
        )
        for kind in KINDS
        if result.of(kind)
    ]
    gallery = result.gallery
    return render(
        "audit.html",
        name=gallery.name,
        images=len(gallery.names),
        result=result,
        groups=groups,
        effects=[
            (HEADINGS.get(name, f"{name.capitalize()} removed"), effect)  # type: ignore[call-overload]
            for name, effect in result.effects.items()
        ],
        warnings=audit_warnings(result),
    )


def _card(finding: Finding, gallery: Gallery) -> Card:
    sides = [("in the gallery", row) for row in finding.rows[:2]]
    if finding.kind != "copy" and finding.own >= 0 and finding.own not in finding.rows:
        sides.append(("same person", finding.own))
    if finding.kind != "poor_quality" and finding.other >= 0:
        sides.append(("original" if finding.kind == "copy" else "resembles", finding.other))
    facts = [
        f"{finding.own_score:.2f} with its person" if finding.own >= 0 else "the only image",
        f"{finding.other_score:.2f} with another" if finding.other >= 0 else "",
        f"uncertainty {finding.uncertainty:.3g}",
        "" if math.isnan(finding.chance) else f"chance {finding.chance:.2g}",
    ]
    changes = [
        f"{word} {plural(abs(number), noun)}"
        for number, nouns in ((finding.misses, "miss"), (finding.false_positives, "false positive"))
        for word, noun in [("avoids" if number > 0 else "adds", nouns)]
        if number
    ]
    return Card(
        [_picture(role, row, gallery) for role, row in sides],
        ", ".join(filter(None, facts)),
        " and ".join(changes).replace("misss", "misses"),
        action_of(finding, gallery),
    )


def _picture(role: str, row: int, gallery: Gallery) -> Picture:
    jpeg = b"" if gallery.picture is None else encode_jpeg(gallery.picture(row), JPEG_QUALITY)
    return Picture(role, gallery.names[row], _person(gallery, row), jpeg)


def _person(gallery: Gallery, row: int) -> str:
    return str(gallery.person[row]) if row >= 0 else ""


def _name(gallery: Gallery, row: int) -> str:
    return gallery.names[row] if row >= 0 else ""


def _cell(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.6g}"
