"""The sections of the HTML report with faces and errors, and the one on how it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from report import _words as words
from report._faces import data_uri
from report._markup import Markup, definitions, join, section, tag
from report.data import ImageAccess

Facts = dict[str, Any]


def faces(facts: Facts, images: ImageAccess | None) -> Markup:
    """The most and the least uncertain faces; nothing without images."""
    if images is None:
        return Markup("")
    parts = []
    for kind in ("most_uncertain", "least_uncertain"):
        label = kind.replace("_", " ")
        items = [_face_item(one, images, label) for one in facts["faces"][kind]]
        parts += [tag("h3", label.capitalize()), tag("ul", *items, class_="faces")]
    note = f"Uncertainty of {facts['method']} below each face; larger means less reliable."
    return section("faces", "Most and least uncertain faces", tag("p", note), *parts)


def errors(facts: Facts, images: ImageAccess | None) -> Markup:
    """The worst errors, each pair side by side."""
    found = facts["worst_errors"]
    parts: list[Markup] = []
    for kind, heading in (
        ("false_non_matches", "False non-matches with the lowest scores"),
        ("false_matches", "False matches with the highest scores"),
    ):
        items = [_pair_item(one, images) for one in found[kind]]
        shown = tag("ul", *items, class_="errors") if items else tag("p", "None.")
        parts += [tag("h3", heading), shown]
    note = (
        f"At the score threshold {words.number(found['score_threshold'])}. Refused: uncertainty "
        f"above {words.number(found['uncertainty_threshold'])}, the most uncertain 10\u00a0%."
    )
    return section("errors", "The worst errors", tag("p", note), *parts)


def method(facts: Facts) -> Markup:
    """All switches, versions, settings and data."""
    known = facts["provenance"] or {}
    environment = known.get("environment", {})
    packages = environment.get("packages", {})
    rows = [
        ("protocol", facts["protocol"]["in_words"]),
        ("date", facts["date"]),
        ("Python", environment.get("python", "")),
        ("packages", ", ".join(f"{name} {one}" for name, one in packages.items() if one)),
        ("code revision", environment.get("revision") or ""),
        ("platform", environment.get("platform", "")),
    ]
    parts = [definitions((term, value) for term, value in rows if value)]
    if known.get("command"):
        parts.append(tag("p", "Command line:"))
        parts.append(tag("pre", " ".join(known["command"])))
    if known.get("files"):
        parts.append(tag("p", "SHA-256 of the files read:"))
        parts.append(
            definitions((tag("code", a), tag("code", b)) for a, b in known["files"].items())
        )
    if known.get("config"):
        parts.append(_settings("Settings of the run", known["config"]))
    if facts["calibration"]:
        parts.append(_calibration(facts["calibration"]))
    details = tag("details", tag("summary", "Protocol, versions, settings, data"), join(parts))
    note = "Every number of this page is also in the JSON file of the same name beside it."
    return section("method", "How this was measured", tag("p", note, class_="note"), details)


def _calibration(found: Facts) -> Markup:
    errors = found["false_non_matches"]
    return tag(
        "p",
        f"Calibration: fitted on {found['name']} at the score threshold "
        f"{words.number(found['score_threshold'])} with {words.of(errors)} false non-matches; "
        f"SHA-256 of its input {found['inputs']}.",
    )


def _settings(heading: str, values: Mapping[str, Any]) -> Markup:
    text = json.dumps(values, indent=1, ensure_ascii=False)
    return tag("details", tag("summary", heading), tag("pre", text))


def _face_item(face: Facts, images: ImageAccess, label: str) -> Markup:
    return tag(
        "li",
        _image(face, images, f"{label} face {face['name']}"),
        words.number(face["uncertainty"]),
        tag("span", face["name"], class_="name", title=face["name"]),
    )


def _pair_item(pair: Facts, images: ImageAccess | None) -> Markup:
    sides = []
    for side in pair["sides"]:
        shown = _image(side, images, f"face {side['name']}") if images else Markup("")
        name = side["name"] or f"row {side['row']}"
        under = tag("span", name, class_="name", title=name)
        sides.append(tag("div", shown, under, words.number(side["uncertainty"])))
    verdict = "kept at 10\u00a0%" if pair["kept"] else "refused at 10\u00a0%"
    return tag(
        "li",
        tag("div", *sides, class_="sides"),
        tag(
            "p",
            tag("span", f"score {words.number(pair['score'])}"),
            tag("span", f"uncertainty {words.number(pair['uncertainty'])}"),
            tag("span", verdict, class_="kept" if pair["kept"] else "refused"),
        ),
    )


def _image(face: Facts, images: ImageAccess, text: str) -> Markup:
    uri = data_uri(images, face["row"])
    return Markup(tag("img", src=uri, alt=text, width="112", height="112").removesuffix("</img>"))
