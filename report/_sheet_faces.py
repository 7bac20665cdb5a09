"""The faces of a contact sheet as HTML: cards, the filter above them, the images without a face.

For report.sheet. Every name and note goes through `plain` and is escaped.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Sequence

from evaluation.face_score import NOT_COMPUTED
from report import _words as words
from report._markup import Markup, join, section, tag
from report._sheet_picks import Groups, Shown
from report._sheet_tally import VERDICTS, Tally

_LONGEST = 24  # characters of a file name on a card
_ENDING = 12  # of them from its end, where the number often is


def plain(text: str) -> str:
    r"""Text on one line in which everything invisible can be seen, as in \n or \u202e.

    Bytes of a file name that are no text come as \udc80 to \udcff.
    """
    return "".join(
        one
        if one.isprintable() or unicodedata.category(one) == "Zs"
        else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def shortened(name: str, longest: int = _LONGEST) -> str:
    """A name that fits on a card: outer folders go first, then the middle of the file's name."""
    if len(name) <= longest:
        return name
    fits = re.search(rf"(?<=[/\\]).{{1,{longest - 1}}}$", name)
    if fits:
        return f"\u2026{fits[0]}"
    base = re.split(r"[/\\]", name)[-1]
    return f"{base[: longest - _ENDING - 1]}\u2026{base[-_ENDING:]}"


def slug(word: str) -> str:
    """A verdict or a reason as a CSS class."""
    return "is-" + "".join(one if one.isalnum() else "-" for one in word.lower())


def faces(groups: Groups, count: int) -> Markup:
    """All cards from worst to best; headings tell the groups apart where not all are shown."""
    few = not (groups.between or groups.best)
    if few:
        parts = [_cards(groups.worst)]
    else:
        parts = []
        for kind, found in zip(("worst", "between", "best"), groups, strict=True):
            if found:
                parts += [tag("h3", _heading(kind, len(found), count)), _cards(found)]
    return section(
        "faces", "From worst to best", filters([*groups[0], *groups[1], *groups[2]]), *parts
    )


def filters(shown: Sequence[Shown]) -> Markup:
    """Choices that hide cards, by verdict and by reason; where there is something to choose."""
    verdicts = {one.score.verdict for one in shown}
    reasons = {reason for one in shown for reason in one.score.reasons}
    parts = []
    if len(verdicts) > 1:
        known = [one for one in VERDICTS if one in verdicts]
        parts.append(_choices("verdict", "Verdict", known))
    if reasons:
        parts.append(_choices("reason", "What can be seen", sorted(reasons)))
    return tag("form", *parts, class_="filters") if parts else Markup("")


def filter_css(shown: Sequence[Shown]) -> str:
    """The rules that make `filters` work without a script."""
    used = {word for one in shown for word in (one.score.verdict, *one.score.reasons) if word}
    rules = []
    for one in map(slug, sorted(used)):
        chosen = f"body:has(#only-{one}:checked) .cards"
        rules.append(f"{chosen} > li:not(.{one}) {{ display: none; }}")
        rules.append(f'{chosen}:not(:has(> .{one}))::after {{ content: "None here."; }}')
    return "\n".join(rules)


def failures(tally: Tally, status: str, heading: str) -> Markup:
    """Images that gave no face: what happened to each of the first ones."""
    total, found = tally.statuses[status], tally.failures[status]
    if not total:
        return Markup("")
    rows = [
        tag("li", tag("code", plain(name)), tag("span", plain(note) or "no reason was given"))
        for name, note in found
    ]
    many = f"{words.count(total)} {'image' if total == 1 else 'images'}"
    if len(rows) < total:
        many += f"; the first {words.count(len(rows))} are listed"
    return section(slug(status), heading, tag("p", f"{many}."), tag("ul", *rows, class_="failed"))


def _heading(kind: str, shown: int, count: int) -> str:
    if kind == "between":
        return f"Between them: {words.count(shown)} at even steps"
    return f"The {words.count(shown)} {kind} of {words.count(count)}"


def _choices(name: str, legend: str, values: Sequence[str]) -> Markup:
    labels = [_choice(name, "all", f"only-any-{name}", checked="")]
    labels += [_choice(name, value, f"only-{slug(value)}") for value in values]
    return tag("fieldset", tag("legend", legend), *labels)


def _choice(group: str, text: str, anchor: str, **more: str) -> Markup:
    field = tag("input", type="radio", name_=group, id=anchor, **more).removesuffix("</input>")
    return tag("label", Markup(field), tag("span", text))


def _cards(shown: Sequence[Shown]) -> Markup:
    return tag("ul", join(map(_card, shown)), class_="cards")


def _card(shown: Shown) -> Markup:
    score = shown.score
    classes = [slug(one) for one in (score.verdict, *score.reasons) if one]
    face = f" face {score.face}" if score.face > 0 else ""
    name, why = plain(shown.name), ", ".join(map(plain, score.reasons))
    raw = f"uncertainty {words.number(score.uncertainty)}"
    said = [f"Face in {name}{face}", raw, score.verdict, why]
    if score.quality == NOT_COMPUTED:
        top = [tag("b", words.number(score.uncertainty)), tag("span", "uncertainty")]
    else:
        said[1] = f"quality {score.quality}"
        top = [tag("b", str(score.quality), title="quality, 0 to 100")]
    if score.verdict:
        top.append(tag("span", score.verdict, class_=f"verdict {slug(score.verdict)}"))
    return tag(
        "li",
        _picture(shown, ", ".join(filter(None, said))),
        tag("p", *top, class_="top"),
        tag("p", why, class_="why") if why else "",
        tag("p", shortened(name, _LONGEST - len(face)) + face, class_="name", title=name + face),
        tag("p", raw, class_="raw") if score.quality != NOT_COMPUTED else "",
        class_=" ".join(classes),
    )


def _picture(shown: Shown, text: str) -> Markup:
    if not shown.jpeg:
        return tag(
            "div", tag("span", "no picture kept"), class_="blank", role="img", aria_label=text
        )
    uri = "data:image/jpeg;base64," + base64.b64encode(shown.jpeg).decode("ascii")
    return Markup(tag("img", src=uri, alt=text, width="112", height="112").removesuffix("</img>"))
