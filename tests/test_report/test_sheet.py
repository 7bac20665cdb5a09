"""The contact sheet: what it shows of many rows, in which order, and what it must never hold."""

import base64
import dataclasses
import re
import tracemalloc

import numpy as np
import pytest

from data.images import decode
from data.synthetic import degradation_sweep
from report.sheet import FaceScore, SheetBuilder
from report.words import shortened
from utils.files import visible

HEADER = "model student; larger = less reliable; accept uncertainty <= 0.8, refuse > 0.95"
FACES = degradation_sweep("blur", [0.0], 4)[0]
EVIL = '<script>alert("x")</script>&\'"\n\t\u202egpj.exe\udcff'


def face(uncertainty, **more):
    """A scored face, with the verdict and quality of an invented calibration."""
    quality = round(100 * (1 - uncertainty))
    verdict = "accept" if uncertainty <= 0.8 else "refuse" if uncertainty > 0.95 else "ask again"
    known = {"image": 0, "face": 0, "quality": quality, "verdict": verdict, "aligned": FACES[0]}
    return FaceScore(uncertainty=uncertainty, **{**known, **more})


def bare(uncertainty, **more):
    """A face scored without calibration."""
    return FaceScore(image=0, face=0, uncertainty=uncertainty, aligned=FACES[1], **more)


def built(rows, **sizes):
    builder = SheetBuilder(**sizes)
    for score, name in rows:
        builder.add(score, name)
    return builder


@pytest.fixture
def page_of(tmp_path, parse):
    """Return a function that writes and reads the page of rows."""
    return lambda rows, header=HEADER, **sizes: parse(
        built(rows, **sizes).write(tmp_path / "sheet.html", header)
    )


def numbered(uncertainties, make=face):
    return [(make(float(one)), f"{place}.jpg") for place, one in enumerate(uncertainties)]


def names(page):
    return [card["title"] for card in page.cards]


@pytest.mark.parametrize("count", [1, 9, 240])
def test_few_faces_are_all_shown_from_worst_to_best(page_of, count):
    values = np.random.default_rng(0).random(count)
    page = page_of(numbered(values))
    assert names(page) == [f"{row}.jpg" for row in np.argsort(-values)]
    assert not page.all("h3")


@pytest.mark.parametrize("arrive", ["mixed", "worst last"])
def test_of_many_the_extremes_are_exact_and_the_steps_between_even(page_of, arrive):
    values = np.random.default_rng(1).random(6000)
    values = values if arrive == "mixed" else np.sort(values)
    page = page_of(numbered(values), worst=30, between=20, best=10)
    order = [f"{row}.jpg" for row in np.argsort(-values)]
    shown = names(page)
    assert shown[:30] == order[:30]
    assert shown[-10:] == order[-10:]
    ranks = np.array([order.index(name) for name in shown[30:-10]])
    assert len(ranks) == 20
    assert (np.diff(ranks) > 0).all()
    assert np.abs(ranks - np.linspace(30, 5990, 20)).max() < 0.08 * 6000
    for heading in ("The 30 worst of 6\u202f000", "Between them: 20 at even steps", "The 10 best"):
        assert heading in "".join(page.texts)


def test_equal_faces_come_in_the_order_given_and_none_twice(page_of):
    rows = numbered([0.5] * 300)
    shown = names(page_of(rows, worst=5, between=4, best=3))
    places = [int(name.removesuffix(".jpg")) for name in shown]
    assert places[:5] == [0, 1, 2, 3, 4]
    assert places[-3:] == [297, 298, 299]
    assert places == sorted(set(places))
    assert len(places) == 12


def test_a_face_without_a_number_is_the_worst(page_of):
    rows = [*numbered([0.9, 0.1]), (bare(float("nan")), "nan.jpg"), (face(1.0), "one.jpg")]
    assert names(page_of(rows)) == ["nan.jpg", "one.jpg", "0.jpg", "1.jpg"]


def test_a_card_says_all(page_of):
    one = face(0.9712, face=2, reasons=("blurred", "turned away"))
    page = page_of([(one, "folder/photo.jpg")])
    (card,) = page.cards
    assert card["text"][:3] == ["3", "refuse", "blurred, turned away"]
    assert card["text"][3:] == ["folder/photo.jpg face 2", "uncertainty 0.9712"]
    assert card["class"] == ["is-refuse", "is-blurred", "is-turned-away"]
    alt = "Face in folder/photo.jpg face 2, quality 3, refuse, blurred, turned away"
    assert card["picture"]["alt"] == alt
    kind, _, code = card["picture"]["src"].partition(",")
    assert kind == "data:image/jpeg;base64"
    pixels = decode(base64.b64decode(code)).astype(int)
    assert np.abs(pixels - FACES[0]).mean() < 4


def test_without_calibration_uncertainty_is_the_number(page_of):
    page = page_of(numbered(np.linspace(0.1, 0.9, 30), bare))
    assert page.cards[0]["text"] == ["0.9", "uncertainty", "29.jpg"]
    assert page.cards[0]["picture"]["alt"] == "Face in 29.jpg, uncertainty 0.9"
    text = "".join(page.texts)
    assert "Uncertainty of all faces" in text
    assert "refuse," not in text
    assert "calibration set" not in text


def test_the_histogram_of_uncertainty_counts_a_sample(page_of):
    values = np.random.default_rng(2).normal(0, 1, 3000)
    page = page_of(numbered(values, bare), worst=4, between=10, best=4)
    assert "Uncertainty of 160 faces drawn at random" in "".join(page.texts)
    titles = re.findall(r"uncertainty \S+ to \S+: (\d+) faces?", "\n".join(page.texts))
    assert sum(map(int, titles)) == 160
    assert len(titles) == 20


def test_the_histogram_of_quality_has_the_heights_of_its_counts(page_of):
    values = np.repeat([0.99, 0.9, 0.4], [30, 60, 10])
    page = page_of(numbered(values))
    bars = [(one["fill"], float(one["height"]), float(one["x"])) for one in page.all("rect")]
    assert [fill for fill, *_ in bars] == ["var(--bad)", "var(--warn)", "var(--good)"]
    heights = np.array([height for _, height, _ in bars])
    np.testing.assert_allclose(heights / heights[1], [0.5, 1, 1 / 6], atol=0.01)
    assert [x for *_, x in bars] == [0, 2 * 30, 12 * 30]  # quality 1, 10 and 60, five in each bin
    assert "quality 10 to 14: 60 faces (ask again 60)" in page.texts
    rows = numbered([0.5] * 20)
    rows[:5] = [(dataclasses.replace(score, verdict="refuse"), name) for score, name in rows[:5]]
    low, high = page_of(rows).all("rect")  # stand on each other
    assert (low["fill"], high["fill"]) == ("var(--bad)", "var(--good)")
    assert low["x"] == high["x"]
    assert float(high["y"]) + float(high["height"]) == pytest.approx(float(low["y"]), abs=0.11)
    assert float(low["y"]) + float(low["height"]) == pytest.approx(120, abs=0.11)


def test_counts_are_of_all_rows_and_shares_are_of_each_verdict(page_of):
    rows = numbered([0.99] * 5 + [0.9] * 20 + [0.1] * 75)
    rows = [
        (dataclasses.replace(score, reasons=("dark",) if place < 8 else ()), name)
        for place, (score, name) in enumerate(rows)
    ]
    failed = (FaceScore(image=0, status="no face", note="none found"), "sea.jpg")
    page = page_of([*rows, failed, failed], worst=1, between=1, best=1)
    text = "|".join(one for one in page.texts if one.strip()).replace("\u00a0", " ")
    for tile in ("100|faces scored", "5|refuse, 5.0 %", "20|ask again, 20 %", "75|accept, 75 %"):
        assert tile in text
    assert "2|without a face" in text
    assert "dark|8.0 %|8|100 %|5|15 %|3|0 %|0" in text
    assert "none of the above|92 %|92|0 %|0|85 %|17|100 %|75" in text
    assert len(page.cards) == 3


def test_failures_are_told_first_ones_and_total(page_of):
    rows = [
        (FaceScore(image=one, status="unreadable", note=f"damaged {one}"), f"bad{one}.png")
        for one in range(7)
    ]
    page = page_of(rows, failures=3)
    text = "|".join(one for one in page.texts if one.strip())
    assert "Images that could not be read|7 images; the first 3 are listed." in text
    assert "bad0.png|damaged 0|" in text
    assert "bad2.png" in text
    assert "bad3.png" not in text
    assert page.cards == []


@pytest.mark.parametrize("label", ["DEMO model: rendered faces only", ""])
def test_the_header_is_shown_part_by_part_and_a_demo_model_warns(page_of, label):
    parts = ["model my-demo", "larger = worse", "refuse > 2 (accept P <= .1; refuse above .5)"]
    page = page_of(numbered([0.5]), "; ".join([*parts, label]))
    assert [text for text in page.texts if text in parts] == parts
    warnings = [div["role"] for div in page.all("div") if "demo" in div.get("class", "")]
    assert warnings == (["note"] if label else [])
    assert not label or page.texts.count(label) == 1


@pytest.mark.parametrize("where", ["name", "note", "header", "title"])
def test_hostile_text_is_shown_and_does_nothing(tmp_path, parse, where):
    texts = {"name": "a.jpg", "note": "damaged", "header": HEADER, "title": ""} | {where: EVIL}
    unreadable = FaceScore(image=1, status="unreadable", note=texts["note"])
    builder = built([(face(0.5), texts["name"]), (unreadable, texts["name"])])
    page = parse(builder.write(tmp_path / "s.html", texts["header"], title=texts["title"]))
    page.check_closed()
    shown = "".join(page.texts)
    assert '<script>alert("x")</script>&\'"\\n\\t\\u202egpj.exe\\udcff' in shown
    assert not set("\u202e\udcff") & set(page.html)


def test_every_choice_has_its_rule_and_every_rule_its_choice(page_of):
    rows = numbered([0.99, 0.9, 0.1])
    rows.append((face(0.2, reasons=("too bright", "low contrast")), "x.jpg"))
    page = page_of(rows)
    inputs = [one for one in page.all("input") if one["type"] == "radio"]
    checked = [one["id"] for one in inputs if "checked" in one]
    assert checked == ["only-any-verdict", "only-any-reason"]
    assert {one["name"] for one in inputs} == {"verdict", "reason"}
    ruled = set(re.findall(r"#(only-[\w-]+):checked", page.html))
    assert ruled == {one["id"] for one in inputs if "checked" not in one}
    slugs = ("refuse", "ask-again", "accept", "too-bright", "low-contrast")
    assert ruled == {f"only-is-{slug}" for slug in slugs}
    classes = {one for card in page.cards for one in card["class"]}
    assert {one.removeprefix("only-") for one in ruled} == classes


def test_pixels_are_asked_for_where_they_are_missing_and_shown(tmp_path, parse):
    rows = [(face(one / 100, aligned=None, image=one), f"{one}.jpg") for one in range(100)]
    rows[99] = (face(0.99), "99.jpg")
    asked = []

    def pixels(score, name):
        asked.append(name)
        assert name == f"{score.image}.jpg"
        return None if name == "97.jpg" else FACES[2]

    builder = built(rows, worst=3, between=0, best=2)
    path = builder.write(tmp_path / "s.html", HEADER, pixels=pixels)
    assert asked == ["98.jpg", "97.jpg", "1.jpg", "0.jpg"]
    pictures = [card["picture"] for card in parse(path).cards]
    assert ["src" in one for one in pictures] == [True, True, False, True, True]
    assert pictures[2]["aria-label"] == "Face in 97.jpg, quality 3, refuse"
    without = parse(builder.write(tmp_path / "s.html", HEADER)).cards
    assert sum("src" in card["picture"] for card in without) == 1


def test_equal_rows_give_equal_pages_whatever_becomes_of_the_pixels(tmp_path):
    values = np.random.default_rng(3).random(500)
    first = built(numbered(values)).write(tmp_path / "new" / "a.html", HEADER).read_bytes()
    builder, buffer = SheetBuilder(), np.empty_like(FACES[0])
    for score, name in numbered(values):
        buffer[...] = FACES[0]
        builder.add(dataclasses.replace(score, aligned=buffer), name)
    buffer[...] = 0
    assert builder.write(tmp_path / "b.html", HEADER).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.html", "new"]


def test_memory_does_not_grow_with_the_rows():
    values = np.random.default_rng(4).random(100_000).tolist()
    failed = FaceScore(image=0, status="no face", note="none")
    builder = SheetBuilder(worst=10, between=10, best=10, failures=10)
    embedding, pixels = np.zeros(512, np.float32), FACES[0]
    tracemalloc.start()
    try:
        for place, one in enumerate(values):
            if place == 20_000:
                early, _ = tracemalloc.get_traced_memory()
            score = face(one, embedding=embedding.copy(), aligned=pixels.copy())
            builder.add(score, f"photo {place}.jpg")
            if place % 10 == 0:
                builder.add(failed, f"sea {place}.jpg")
        late, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert late - early < 200_000
    assert peak < 4_000_000


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"s\.html: no row was scored, so there is nothing"):
        SheetBuilder().write(tmp_path / "s.html", HEADER)
    with pytest.raises(ValueError, match=r"a contact sheet is a file \(\.html\), but a folder"):
        built(numbered([0.5])).write(tmp_path, HEADER)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a-long-folder/and-another/IMG_2041.jpg", "\u2026IMG_2041.jpg"),
        ("C:\\a-long-folder\\and another\\IMG_2041.jpg", "\u2026IMG_2041.jpg"),
        ("people/0012/another/003.jpg", "\u20260012/another/003.jpg"),
        ("folder/" + "y" * 40, "yyyyyyyyyyy\u2026yyyyyyyyyyyy"),
        ("x" * 300 + "-0041.jpg", "xxxxxxxxxxx\u2026xxx-0041.jpg"),
    ],
)
def test_names_stay_whole_where_they_are_short_and_keep_their_end_elsewhere(name, short):
    assert shortened(name) == short


def test_what_cannot_be_seen_is_spelled_out():
    assert visible("Sch\u00f6n \u4eba 1.jpg") == "Sch\u00f6n \u4eba 1.jpg"
    assert visible("a\u202f1\u00a0PM.png") == "a\u202f1\u00a0PM.png"  # as macOS names screenshots
    assert visible("\x00\x1b[31m\r\n\u200b\ud800") == "\\x00\\x1b[31m\\r\\n\\u200b\\ud800"
