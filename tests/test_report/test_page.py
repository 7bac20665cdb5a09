"""The HTML page and the JSON of a report: what is in them, and what must never be."""

import base64
import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from matplotlib import rc_context

from data.images import decode
from evaluation.calibration_run import held_out_reliability
from evaluation.confidence.calibration import Calibration
from evaluation.confidence.intervals import Interval, clopper_pearson
from evaluation.confidence.risk_control import control_risk
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.curve import protocol_curve
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.metrics.thresholds import Caution, error_rates
from report import words
from report.facts import Provenance, Rate, ReportData, collect
from report.page import TEMPLATES, write_report
from tests.helpers import ROOT
from tests.test_evaluation.factories import truncated

SCHEMA = ROOT / "docs" / "report.schema.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
EVIL = '<script>alert("x")</script>&\'"'


def make_comparisons(count=4000, seed=0, name="set", people=300):
    """Mated scores fall with the uncertainty of the lower-quality image."""
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

    unit, replicates, confidence, limit = "identity", 50, 0.95, 0.3
    cautions = (Caution("no_errors", {"upper": 0.01}),)

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


@pytest.fixture(scope="module")
def full(tmp_path_factory, parse):
    """The page and the JSON of a report with every part, names that must be escaped included."""
    folder = tmp_path_factory.mktemp("full") / "new" / "folder"
    html, stored = write_report(folder, make_data(make_comparisons(name=EVIL), method=EVIL))
    assert [html.name, stored.name] == ["report.html", "report.json"]
    return SimpleNamespace(page=parse(html), facts=json.loads(stored.read_text(encoding="utf-8")))


@pytest.mark.parametrize("protocol", ["original", "crfiqa", "iso29794", "nist"])
@pytest.mark.parametrize("full", [True, False])
def test_json_fits_its_schema(protocol, full):
    VALIDATOR.validate(facts(make_data(full=full, protocol=protocol)))


def test_everything_from_outside_is_escaped_and_nothing_is_loaded(full):
    full.page.check_closed()
    assert full.page.tags.count("b") == 4  # the summary's own
    assert "".join(full.page.texts).count(EVIL) > 8
    assert any(value.startswith("face <b>") for value in full.page.values("alt"))
    assert (full.facts["name"], full.facts["method"]) == (EVIL, EVIL)


def test_ids_are_unique_and_references_resolve(full):
    ids = full.page.values("id")
    assert len(set(ids)) == len(ids)
    referred = {value[1:] for value in full.page.values("href")}
    referred |= set(re.findall(r"url\(#([^)]+)\)", full.page.html))
    referred |= set(full.page.values("aria-labelledby"))
    assert referred <= set(ids)
    assert {name.partition("-")[0] for name in referred} >= {"edc0", "edc1", "scores", "det"}


def test_page_is_accessible(full):
    page = full.page
    assert page.elements[0] == ("html", {"lang": "en"})
    assert page.tags.count("img") == len(list(filter(None, page.values("alt")))) == 24 + 2 * 16
    assert [svg["role"] for svg in page.all("svg") if "role" in svg] == ["img"] * 6
    headings = [tag for tag in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    assert all("scope" in cell for cell in page.all("th"))
    assert page.tags.count("caption") == page.tags.count("table") == 3


def test_page_is_made_for_phone_paper_and_dark(full):
    assert "width=device-width, initial-scale=1" in full.page.values("content")
    style = full.page.html.partition("<style>")[2].partition("</style>")[0]
    used = set(re.findall(r"var\(--([\w-]+)\)", full.page.html))
    light, dark = (set(re.findall(r"--([\w-]+):", part)) for part in style.split("@media")[:2])
    assert used <= light
    assert light == dark
    svg = "".join(re.findall(r"<svg.*?</svg>", full.page.html, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that does not follow the theme"


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_and_lines_stand_out_from_their_ground(theme):
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    colour = dict(re.findall(r"--([\w-]+): (#\w{6})", style.split("@media")[theme]))
    texts = [(ink, ground) for ink in ("ink", "soft", "good", "bad", "warn")
             for ground in ("surface", "raised")]  # fmt: skip
    texts += [("warn", "warn-back"), ("surface", "ink"), ("soft", "shade")]
    for ink, ground in texts:
        assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    for line in ("curve", "other", "third", "random"):
        assert contrast(colour[line], colour["surface"]) >= 3, line


def test_numbers_of_the_page_are_those_of_the_json(full):
    head, text = full.facts["headline"], full.page.text

    def shows(shown):
        return " ".join(shown.split()) in text

    for rate in (head["fnmr_before"], head["fnmr_after"], head["fmr_before"]):
        assert rate["errors"] / rate["total"] == rate["rate"]
        assert shows(words.counted(Rate(**rate)))
    assert head["relative_area"] == 0.4321
    assert "AUERC30 (the area under the curve) is 0.432 of that of refusing at random" in text
    assert "interval 0.346 to \u2013 by bootstrap over identities" in text
    for curve in full.facts["curves"]:
        for row in curve["operating_points"]:
            for rate in (row["fnmr"], row["fmr"]):
                assert shows(words.of(Rate(**rate)))
                assert shows(f"{words.share(rate['low'])} to {words.share(rate['high'])}")
            assert words.number(row["uncertainty_threshold"]) in text
    for one in full.facts["presets"]:
        assert one["in_words"] in text
        for limit, area in one["areas"].items():
            assert shows(f"to {limit}: {words.number(area, 3)}")
        assert bool(one["efficiency"]) == (one["protocol"] == "nist")
        for share, value in one["efficiency"].items():
            assert shows(f"at {share}: {words.number(value, 3)}")
    assert "there is nothing to lower" in text
    for line in full.facts["risk_control"]["in_words"].splitlines()[1:]:
        assert line in text
    for error in full.facts["worst_errors"]["false_non_matches"]:
        assert f"score {words.number(error['score'])}" in text


def test_facts_are_those_of_the_comparisons():
    data = make_data()
    stored, comparisons = facts(data), data.comparisons
    assert (stored["set"]["mated"], stored["set"]["non_mated"]) == (1000, 3000)
    assert (stored["set"]["images"], stored["set"]["identities"]) == (600, 300)
    curve = stored["curves"][0]
    row = next(one for one in curve["operating_points"] if one["discard"] == 0.1)
    kept = comparisons.pair_uncertainty() <= row["uncertainty_threshold"]
    assert row["kept_mated"] == (kept & comparisons.mated).sum()
    assert row["kept_non_mated"] == (kept & ~comparisons.mated).sum()
    below = comparisons.scores < np.float32(row["score_threshold"])
    assert row["fnmr"]["errors"] == (kept & comparisons.mated & below).sum()
    assert row["fmr"]["errors"] == (kept & ~comparisons.mated & ~below).sum()
    low, high = clopper_pearson(row["fnmr"]["errors"], row["fnmr"]["total"])
    assert (row["fnmr"]["low"], row["fnmr"]["high"]) == (low, high)
    alone = error_rates(comparisons.scores[kept], comparisons.mated[kept]).equal_error_rate()
    assert row["eer"] == alone.value
    worst = stored["worst_errors"]["false_non_matches"]
    own = np.sort(comparisons.scores[comparisons.mated])[: len(worst)]
    np.testing.assert_array_equal([one["score"] for one in worst], own)
    assert all(one["kept"] == (one["uncertainty"] <= row["uncertainty_threshold"]) for one in worst)
    sides = worst[0]["sides"]
    assert worst[0]["uncertainty"] == max(side["uncertainty"] for side in sides)
    assert stored["faces"]["most_uncertain"][0]["uncertainty"] == comparisons.uncertainty.max()
    assert stored["faces"]["least_uncertain"][0]["row"] == comparisons.uncertainty.argmin()


def test_histograms_and_det_count_every_comparison():
    data = make_data(full=False)
    stored, comparisons = facts(data), data.comparisons
    scores = stored["scores"]
    for kind, chosen in (("mated", comparisons.mated), ("non_mated", ~comparisons.mated)):
        expected, _ = np.histogram(comparisons.scores[chosen].astype(np.float64), scores["edges"])
        assert np.abs(np.array(scores[kind]) - expected).sum() <= 2  # rounding at a bin's edge
        assert sum(scores[kind]) == chosen.sum()
        parts = np.sum([one[kind] for one in scores["deciles"]], axis=0)
        assert parts.tolist() == scores[kind]
    assert [one["mated_total"] for one in scores["deciles"]] == pytest.approx([100] * 10, abs=6)
    medians = [one["mated_median"] for one in scores["deciles"]]
    assert medians[0] > medians[-1] + 0.2
    everything = error_rates(comparisons.scores, comparisons.mated)
    det = stored["det"][0]
    assert [one["kept"] for one in stored["det"]] == [1.0, 0.9, 0.7]
    points = set(zip(everything.fmr.tolist(), everything.fnmr.tolist(), strict=True))
    assert set(zip(det["fmr"], det["fnmr"], strict=True)) <= points
    assert det["fmr"] == sorted(det["fmr"])
    assert det["fmr"][0] == 1 / 3000


def test_pictures_are_those_of_the_faces(full):
    row = full.facts["faces"]["most_uncertain"][0]["row"]
    image = decode(base64.b64decode(full.page.all("img")[0]["src"].partition(",")[2]))
    assert np.abs(image[56, 56].astype(int) - [row % 251, row // 251, 90]).max() <= 4


def test_report_of_nothing_but_scores(tmp_path, parse):
    comparisons = make_comparisons()
    alone = dataclasses.replace(comparisons, identity=None, image=None)
    html, path = write_report(tmp_path, make_data(alone, full=False))
    text = parse(html).text
    stored = json.loads(path.read_text(encoding="utf-8"))
    for name in ("risk_control", "reliability", "calibration", "provenance"):
        assert stored[name] is None
    assert stored["set"]["identities"] is None
    assert "No interval was computed" in text
    for heading in ("Can the probability", "under every protocol", "Most and least", "Warning"):
        assert (heading in text) == (heading == "Warning"), heading
    assert f"row {stored['worst_errors']['false_non_matches'][0]['sides'][0]['row']}" in text


def test_report_without_any_error(tmp_path, parse):
    comparisons = make_comparisons()
    scores = np.where(comparisons.mated, 0.9, 0.1).astype(np.float32)
    sure = dataclasses.replace(comparisons, scores=scores)
    html, stored = write_report(tmp_path, make_data(sure, full=False))
    text = parse(html).text
    assert json.loads(stored.read_text(encoding="utf-8"))["headline"]["relative_area"] is None
    assert "AUERC30 relative to random is undefined: there is no false non-match" in text
    assert "no false non-match without discard" in text
    assert "No threshold has errors of both kinds" in text
    assert "NaN" not in stored.read_text(encoding="utf-8")


def test_unlisted_comparisons_are_counted_and_eer_left_out():
    comparisons = make_comparisons()
    part = truncated(comparisons, 0.05)
    few = facts(make_data(part, full=False, protocol="iso29794"))
    everything = facts(make_data(comparisons, full=False, protocol="iso29794"))
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
        second = write_report(tmp_path / "b", make_data(), "lfw")
        assert [path.name for path in second] == ["lfw.html", "lfw.json"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_million_comparisons_stay_small(tmp_path):
    comparisons = make_comparisons(count=1_000_000, people=4000)
    curves = [protocol_curve(comparisons, "iso29794", 1e-3)]
    data = ReportData(name="large", method="head", comparisons=comparisons, curves=curves)
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


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\u2013"), (0.0, "0\u00a0%"), (1.0, "100\u00a0%"), (0.01828, "1.83\u00a0%"),
     (0.5, "50.0\u00a0%"), (0.0000123, "0.00123\u00a0%"), (0.09996, "10.0\u00a0%")],
)  # fmt: skip
def test_shares(value, text):
    assert words.share(value) == text
