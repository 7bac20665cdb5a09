"""The HTML page and the JSON of a report: what is in them, and what must never be."""

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from matplotlib import rc_context

from evaluation.confidence.calibration import Calibration
from evaluation.confidence.intervals import Interval, clopper_pearson
from evaluation.confidence.reliability import held_out_reliability
from evaluation.confidence.risk_control import control_risk
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.error_rates import error_rates
from evaluation.metrics.protocol_curve import protocol_curve
from evaluation.metrics.protocols import PROTOCOLS
from report import words
from report.collect import collect
from report.data import Provenance, ReportData
from report.facts import Rate
from report.page import write_report

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
EVIL = '<script>alert("x")</script>&\'"'
VOID = {"meta", "img", "br", "link", "input", "hr"}


def make_comparisons(count=4000, seed=0, name="set", people=300):
    """Mated scores fall with the uncertainty of the poorer image."""
    rng = np.random.default_rng(seed)
    images = 2 * people
    uncertainty = rng.random(images).astype(np.float32)
    mated = np.arange(count) % 4 == 0
    first = rng.integers(images, size=count)
    other = (first + 2 * rng.integers(1, people, count)) % images
    pairs = np.stack([first, np.where(mated, first ^ 1, other)], axis=1).astype(np.int32)
    worse = uncertainty[pairs].max(axis=1)
    scores = rng.normal(0, 0.1, count) + mated * (0.6 - 0.45 * worse**4)
    identity = np.arange(images) // 2
    return Comparisons(
        name, scores.astype(np.float32), mated, pairs, uncertainty, identity, np.arange(images)
    )


def facts(data):
    return collect(data).to_dict()


class Faces:
    """Flat images with a pattern of their own, and names that must be escaped."""

    def decode(self, start, stop):
        images = np.zeros((stop - start, 112, 112, 3), np.uint8)
        for place, row in enumerate(range(start, stop)):
            images[place] = (row % 251, row // 251, 90)
        return images

    def image_name(self, row):
        return f"<b>{row}</b>.jpg"


class Bands:
    """Stand-in for the intervals of a bootstrap."""

    unit, replicates, confidence, limit, warnings = "identity", 50, 0.95, 0.3, ("few draws",)

    def __init__(self, curve, names=("",)):
        self.curve, self.fractions = curve, curve.edc.fractions
        self.curves = dict.fromkeys(names, curve)

    def bands(self, name):
        assert name in self.curves
        return SimpleNamespace(low=self.curve.edc.fnmr * 0.5, high=self.curve.edc.fnmr * 2)

    def area(self, name):
        return 0.01, Interval(0.005, 0.02)

    def relative(self, name):
        return 0.4321, Interval(0.3456, float("nan"))


def make_data(comparisons=None, *, full=True, protocol="original", **changes):
    comparisons = comparisons or make_comparisons()
    curves = [protocol_curve(comparisons, protocol, target) for target in (1e-2, 1e-3)]
    data = ReportData(name=comparisons.name, method="head", comparisons=comparisons, curves=curves)
    if full:
        calibration = Calibration.fit(comparisons, fmr_target=1e-2, method="head")
        data = dataclasses.replace(
            data,
            presets=[protocol_curve(comparisons, one, 1e-2) for one in PROTOCOLS],
            bootstrap={1e-2: Bands(curves[0])},
            risk=control_risk(comparisons, target_risk=0.2, fmr_target=1e-2),
            calibration=calibration,
            reliability=held_out_reliability(
                comparisons, score_threshold=calibration.score_threshold
            ),
            images=Faces(),
            provenance=Provenance(
                date="2026-01-31",
                command=["python", "x.py", "--name", EVIL],
                environment={"python": "3.11", "packages": {"numpy": "2"}, "revision": None},
                config={"loss": EVIL},
                files={"weights.pth": "ab" * 32},
            ),
            warnings=[EVIL],
        )
    return dataclasses.replace(data, **changes)


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        assert len({key for key, _ in attrs}) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "new" / "folder"
    paths = write_report(folder, make_data(make_comparisons(name=EVIL)))
    assert [path.name for path in paths] == ["report.html", "report.json"]
    text, facts = (path.read_text(encoding="utf-8") for path in paths)
    return SimpleNamespace(text=text, page=Page(text), facts=json.loads(facts))


@pytest.mark.parametrize("protocol", ["original", "crfiqa", "iso29794", "nist"])
@pytest.mark.parametrize("full", [True, False])
def test_json_fits_its_schema(protocol, full):
    VALIDATOR.validate(facts(make_data(full=full, protocol=protocol)))


def test_everything_from_outside_is_escaped(full):
    assert "<script" not in full.text
    assert "script" not in full.page.tags
    assert full.page.tags.count("b") == 4  # the summary's own
    assert EVIL in "".join(full.page.texts)
    assert any(value and value.startswith("face <b>") for value in full.page.values("alt"))
    assert full.facts["name"] == EVIL


def test_a_method_of_any_name_is_escaped(tmp_path):
    html, _ = write_report(tmp_path, make_data(full=False, method=EVIL))
    page = Page(html.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "".join(page.texts).count(EVIL) > 5


def test_nothing_is_loaded_from_elsewhere(full):
    for key in ("src", "href", "srcset", "action", "data", "poster", "background"):
        for value in full.page.values(key):
            assert value.startswith(("#", "data:image/jpeg;base64,")), (key, value)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(full.page.tags)
    assert not re.search(r"@import|url\((?!#)|https?:", full.text)
    assert not [key for _, key, _ in full.page.attributes if key.startswith("on")]
    (policy,) = [value for value in full.page.values("content") if "default-src" in value]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe-eval" not in policy


def test_ids_are_unique_and_references_resolve(full):
    ids = full.page.values("id")
    assert len(set(ids)) == len(ids)
    referred = {value[1:] for value in full.page.values("href") if value.startswith("#")}
    referred |= set(re.findall(r"url\(#([^)]+)\)", full.text))
    referred |= set(full.page.values("aria-labelledby"))
    assert referred <= set(ids)
    assert any(one.startswith("edc0-") for one in referred)
    assert any(one.startswith("edc1-") for one in referred)


def test_page_is_accessible(full):
    page = full.page
    assert page.attributes[0] == ("html", "lang", "en")
    images = page.tags.count("img")
    assert images == 24 + 2 * 16
    assert len([value for value in page.values("alt") if value]) == images
    pictures = [value for tag, key, value in page.attributes if (tag, key) == ("svg", "role")]
    assert pictures == ["img"] * 6
    headings = [tag for tag in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    scopes = [value for tag, key, value in page.attributes if (tag, key) == ("th", "scope")]
    assert len(scopes) == page.tags.count("th")
    assert page.tags.count("caption") == page.tags.count("table") == 3


def test_page_is_made_for_phone_paper_and_dark(full):
    assert ("meta", "content", "width=device-width, initial-scale=1") in full.page.attributes
    style = full.text[full.text.index("<style>") : full.text.index("</style>")]
    assert "@media print" in style
    assert "break-inside: avoid" in style
    assert "@media screen and (prefers-color-scheme: dark)" in style
    assert "overflow-x: auto" in style
    used = set(re.findall(r"var\(--([\w-]+)\)", full.text))
    light, dark = (set(re.findall(r"--([\w-]+):", part)) for part in style.split("@media")[:2])
    assert used <= light
    assert light == dark
    svg = "".join(re.findall(r"<svg.*?</svg>", full.text, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that does not follow the theme"


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_contrast_on_its_ground(full, theme):
    style = full.text[full.text.index("<style>") : full.text.index("</style>")]
    colour = dict(re.findall(r"--([\w-]+): (#\w{6})", style.split("@media")[theme]))
    for ink in ("ink", "soft", "good", "bad", "warn"):
        for ground in ("surface", "raised"):
            assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    assert contrast(colour["warn"], colour["warn-back"]) >= 4.5
    for line in ("curve", "other", "third", "random"):
        assert contrast(colour[line], colour["surface"]) >= 3, line


def test_numbers_of_the_page_are_those_of_the_json(full):
    head, text = full.facts["headline"], full.page.text
    before, after = head["fnmr_before"], head["fnmr_after"]
    for rate in (before, after, head["fmr_before"]):
        assert rate["errors"] / rate["total"] == rate["rate"]
        shown = words.counted(Rate(**rate))
        assert " ".join(shown.split()) in text
    assert head["relative_area"] == 0.4321
    assert "AUERC30 (the area under the curve) is 0.432 of that of refusing at random" in text
    assert "interval 0.346 to \u2013 by bootstrap over identities" in text
    for curve in full.facts["curves"]:
        for row in curve["operating_points"]:
            for rate in (row["fnmr"], row["fmr"]):
                assert " ".join(words.of(Rate(**rate)).split()) in text
                assert (
                    " ".join(f"{words.share(rate['low'])} to {words.share(rate['high'])}".split())
                    in text
                )
            assert words.number(row["uncertainty_threshold"]) in text
    for one in full.facts["presets"]:
        assert one["in_words"] in text
        assert f"to 0.3: {words.number(one['areas'].get('0.3', 0), 3)}" in text or (
            "0.3" not in one["areas"]
        )
    assert "few draws" in text
    for line in full.facts["risk_control"]["in_words"].splitlines()[1:]:
        assert line in text
    for error in full.facts["worst_errors"]["false_non_matches"]:
        assert f"score {words.number(error['score'])}" in text


def test_facts_are_those_of_the_comparisons():
    data = make_data()
    found, given = facts(data), data.comparisons
    assert (found["set"]["mated"], found["set"]["non_mated"]) == (1000, 3000)
    assert (found["set"]["images"], found["set"]["identities"]) == (600, 300)
    curve = found["curves"][0]
    row = next(one for one in curve["operating_points"] if one["discard"] == 0.1)
    kept = given.pair_uncertainty() <= row["uncertainty_threshold"]
    assert row["kept_mated"] == (kept & given.mated).sum()
    assert row["kept_non_mated"] == (kept & ~given.mated).sum()
    below = given.scores < np.float32(row["score_threshold"])
    assert row["fnmr"]["errors"] == (kept & given.mated & below).sum()
    assert row["fmr"]["errors"] == (kept & ~given.mated & ~below).sum()
    low, high = clopper_pearson(row["fnmr"]["errors"], row["fnmr"]["total"])
    assert (row["fnmr"]["low"], row["fnmr"]["high"]) == (low, high)
    alone = error_rates(given.scores[kept], given.mated[kept]).equal_error_rate()
    assert row["eer"] == alone.value
    worst = found["worst_errors"]["false_non_matches"]
    own = np.sort(given.scores[given.mated])[: len(worst)]
    np.testing.assert_array_equal([one["score"] for one in worst], own)
    assert all(one["kept"] == (one["uncertainty"] <= row["uncertainty_threshold"]) for one in worst)
    sides = worst[0]["sides"]
    assert worst[0]["uncertainty"] == max(side["uncertainty"] for side in sides)
    assert found["faces"]["most_uncertain"][0]["uncertainty"] == given.uncertainty.max()
    assert found["faces"]["least_uncertain"][0]["row"] == given.uncertainty.argmin()


def test_histograms_and_det_count_every_comparison():
    data = make_data(full=False)
    found, given = facts(data), data.comparisons
    scores = found["scores"]
    for kind, chosen in (("mated", given.mated), ("non_mated", ~given.mated)):
        expected, _ = np.histogram(given.scores[chosen].astype(np.float64), scores["edges"])
        assert np.abs(np.array(scores[kind]) - expected).sum() <= 2  # rounding at a bin's edge
        assert sum(scores[kind]) == chosen.sum()
        parts = np.sum([one[kind] for one in scores["deciles"]], axis=0)
        assert parts.tolist() == scores[kind]
    assert [one["mated_total"] for one in scores["deciles"]] == pytest.approx([100] * 10, abs=6)
    medians = [one["mated_median"] for one in scores["deciles"]]
    assert medians[0] > medians[-1] + 0.2
    everything = error_rates(given.scores, given.mated)
    det = found["det"][0]
    assert [one["kept"] for one in found["det"]] == [1.0, 0.9, 0.7]
    points = set(zip(everything.fmr.tolist(), everything.fnmr.tolist(), strict=True))
    assert set(zip(det["fmr"], det["fnmr"], strict=True)) <= points
    assert det["fmr"] == sorted(det["fmr"])
    assert det["fmr"][0] == 1 / 3000


def test_pictures_of_faces_are_those_asked_for(full):
    first = full.facts["faces"]["most_uncertain"][0]
    uris = [value for tag, key, value in full.page.attributes if (tag, key) == ("img", "src")]
    code = base64.b64decode(uris[0].partition(",")[2])
    image = cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR_RGB)
    row = first["row"]
    assert np.abs(image[56, 56].astype(int) - [row % 251, row // 251, 90]).max() <= 4


def test_report_of_nothing_but_scores(tmp_path):
    given = make_comparisons()
    alone = dataclasses.replace(given, identity=None, image=None)
    html, stored = write_report(tmp_path, make_data(alone, full=False))
    text = Page(html.read_text(encoding="utf-8")).text
    found = json.loads(stored.read_text(encoding="utf-8"))
    for name in ("risk_control", "reliability", "calibration", "provenance"):
        assert found[name] is None
    assert found["set"]["identities"] is None
    assert "No interval was computed" in text
    for heading in ("Can the probability", "under every protocol", "Most and least", "Warning"):
        assert (heading in text) == (heading == "Warning"), heading
    assert f"row {found['worst_errors']['false_non_matches'][0]['sides'][0]['row']}" in text


def test_report_without_any_error(tmp_path):
    given = make_comparisons()
    sure = dataclasses.replace(given, scores=np.where(given.mated, 0.9, 0.1).astype(np.float32))
    html, stored = write_report(tmp_path, make_data(sure, full=False))
    text = Page(html.read_text(encoding="utf-8")).text
    assert json.loads(stored.read_text(encoding="utf-8"))["headline"]["relative_area"] is None
    assert "AUERC30 relative to random is undefined: there is no false non-match" in text
    assert "no false non-match without discard" in text
    assert "No threshold has errors of both kinds" in text
    assert "NaN" not in stored.read_text(encoding="utf-8")


def test_unlisted_comparisons_are_counted_and_eer_left_out():
    given = make_comparisons()
    high = given.mated | (given.scores > 0.05)
    part = dataclasses.replace(
        given,
        scores=given.scores[high],
        mated=given.mated[high],
        pairs=given.pairs[high],
        unlisted=int((~high).sum()),
        listed_from=0.05,
    )
    few = facts(make_data(part, full=False, protocol="iso29794"))
    everything = facts(make_data(given, full=False, protocol="iso29794"))
    assert few["set"]["non_mated"] == 3000
    rows = zip(*(one["curves"][0]["operating_points"] for one in (few, everything)), strict=True)
    for row, other in rows:
        assert row["eer"] is None
        assert other["eer"] is not None
        assert {**row, "eer": 0} == {**other, "eer": 0}
    shared = [one for one in few["det"][0]["fmr"] if one in everything["det"][0]["fmr"]]
    assert len(shared) > 50


def test_equal_input_gives_equal_files(tmp_path):
    first = write_report(tmp_path / "a", make_data())
    with rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        second = write_report(tmp_path / "b", make_data())
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_million_comparisons_stay_small(tmp_path):
    given = make_comparisons(count=1_000_000, people=4000)
    curves = [protocol_curve(given, "iso29794", 1e-3)]
    data = ReportData(name="large", method="head", comparisons=given, curves=curves)
    html, stored = write_report(tmp_path, data)
    assert html.stat().st_size < 700_000
    assert stored.stat().st_size < 700_000
    curve = json.loads(stored.read_text(encoding="utf-8"))["curves"][0]
    assert len(curves[0].edc.fractions) > 3000
    assert len(curve["fnmr"]) <= 1001
    at = curve["discard_fraction"].index(max(x for x in curve["discard_fraction"] if x <= 0.25))
    assert curve["fnmr"][at] == curves[0].edc.fnmr[curves[0].index_at(0.25)]


def test_mistakes_are_said(tmp_path):
    data = make_data(full=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file: a report needs a folder, but a file is there"):
        write_report(tmp_path / "file", data)
    with pytest.raises(ValueError, match="set: a report needs the curve of at least one FMR"):
        dataclasses.replace(data, curves=[])
    mixed = [data.curves[0], protocol_curve(data.comparisons, "nist", 1e-2)]
    with pytest.raises(ValueError, match=r"curves of several protocols \(nist, original\)"):
        dataclasses.replace(data, curves=mixed)
    with pytest.raises(TypeError, match="a report cannot hold a set"):
        write_report(tmp_path, make_data(provenance=Provenance(config={"x": {1}})))


def test_bootstrap_of_several_methods_is_read_by_name():
    data = make_data(full=False)
    curve = data.curves[0]
    several = dataclasses.replace(data, bootstrap={1e-2: Bands(curve, ["other", "head"])})
    assert several.draws(curve) == (several.bootstrap[1e-2], "head")
    assert several.draws(data.curves[1]) is None
    assert make_data().draws(curve)[1] == ""


def test_file_names_can_be_chosen(tmp_path):
    paths = write_report(tmp_path, make_data(full=False), "lfw")
    assert [path.name for path in paths] == ["lfw.html", "lfw.json"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\u2013"), (0.0, "0\u00a0%"), (1.0, "100\u00a0%"), (0.01828, "1.83\u00a0%"),
     (0.5, "50.0\u00a0%"), (0.0000123, "0.00123\u00a0%"), (0.09996, "10.0\u00a0%")],
)  # fmt: skip
def test_shares(value, text):
    assert words.share(value) == text
