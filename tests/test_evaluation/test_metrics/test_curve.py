"""Every combination of switches against a slow version of the definitions, one pair at a time."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.curve import protocol_curve
from evaluation.metrics.protocols import PROTOCOLS, SWITCHES, Protocol
from tests.test_evaluation.factories import apart, one_each, truncated

FUSE = {"max": max, "mean": lambda a, b: (a + b) / 2, "sum": sum, "product": np.prod}


def small_set(seed, pairs=24, rows=12, levels=5):
    """Scores and uncertainties of few values, so that both tie; rows 2k and 2k + 1 are an image."""
    rng = np.random.default_rng(seed)
    mated = rng.permutation(np.arange(pairs) % 2 == 0)
    scores = (rng.integers(0, 14, pairs) + 4 * mated).astype(np.float32) / 16
    return Comparisons(
        "small",
        scores,
        mated,
        rng.integers(0, rows, (pairs, 2)).astype(np.int32),
        rng.integers(1, 1 + levels, rows).astype(np.float32),
        image=np.arange(rows) // 2,
    )


def slow_threshold(own, others, rule, target):
    candidates = sorted({*own, *others})
    top = float(np.nextafter(max(others), np.float32(np.inf))) if others else None
    fmr = {t: sum(s >= t for s in others) / max(len(others), 1) for t in candidates}
    if rule == "starting_error":
        top = max(own)
        distance = {t: abs(sum(s < t for s in own) / len(own) - target) for t in set(own)}
        return max(t for t, value in distance.items() if value == min(distance.values()))
    if not others:
        return min(own)
    if rule == "nearest":
        return min(candidates, key=lambda t: (abs(fmr[t] - target), t))
    distinct = sorted(set(others), reverse=True)
    if rule == "conservative":
        return min(
            float(np.nextafter(t, np.float32(np.inf)))
            for t in distinct
            if sum(s > t for s in others) / len(others) <= target
        )
    if fmr[distinct[0]] > target:
        return top
    return float(np.interp(target, [fmr[t] for t in distinct], distinct))


def slow_cut(values, ties, fraction):
    """Threshold of uncertainty at one discard fraction."""
    if ties == "keep":
        return np.percentile(values, (1 - fraction) * 100)
    left = sorted(values)
    while True:
        without = [value for value in left if value < max(left)]
        if len(values) - len(without) > fraction * len(values) + 1e-9 or not without:
            return max(left)
        left = without


def slow_groups(c, protocol):
    """(values of the group that sets the fractions, function fraction -> mask of kept pairs)."""
    image_value = [max(c.uncertainty[c.image == i]) for i in c.image]
    sides = c.uncertainty if protocol.discard_over != "images" else np.array(image_value)
    pair = np.array(
        [
            FUSE[protocol.fuse]((a, b))
            if protocol.fuse in ("sum", "product")
            else FUSE[protocol.fuse](a, b)
            for a, b in sides[c.pairs]
        ],
        np.float32,
    )
    driver = {
        "all": pair,
        "mated": pair[c.mated],
        "each_kind": pair[c.mated],
        "images": np.array([max(c.uncertainty[c.image == i]) for i in np.unique(c.image)]),
    }[protocol.discard_over]

    def kept(fraction):
        inside = pair <= slow_cut(driver, protocol.ties, fraction)
        if protocol.discard_over == "mated":
            return inside | ~c.mated
        if protocol.discard_over == "each_kind":
            outer = pair <= slow_cut(pair[~c.mated], protocol.ties, fraction)
            return np.where(c.mated, inside, outer)
        return inside

    return driver, kept


def slow_curve(c, protocol, target):
    driver, kept = slow_groups(c, protocol)
    if protocol.grid == "exact":
        shares = [sum(driver > value) / len(driver) for value in sorted(set(driver), reverse=True)]
    else:
        shares = [np.arange(0, 1, 0.01), np.arange(20) / 20][protocol.grid == "by_5"]
    aim = protocol.start_fnmr if protocol.rule == "starting_error" else target

    def threshold(mask):
        own, others = c.scores[mask & c.mated].tolist(), c.scores[mask & ~c.mated].tolist()
        return slow_threshold(own, others, protocol.rule, aim) if own else None

    everything, held, rows = threshold(np.ones(len(c.mated), bool)), None, []
    for share in shares:
        mask = kept(share)
        own, others = c.scores[mask & c.mated].tolist(), c.scores[mask & ~c.mated].tolist()
        at, strict = everything, protocol.read_at == "above_threshold"
        if protocol.threshold == "per_subset":
            at = threshold(mask)
            strict = strict and others
        elif protocol.read_at == "kept_score":
            at = min(own + others, key=lambda s: (abs(s - everything), s)) if own + others else at
        wrong = sum(s <= at if strict else s < at for s in own)
        matches = sum(s >= at for s in others) if own or protocol.threshold == "fixed" else 0
        held = wrong / len(own) if own else held
        rows.append((share, held, wrong, len(own), matches, len(others)))
    return [np.array(column) for column in zip(*rows, strict=True)]


def slow_area(x, y, limit, protocol):
    x, y = list(x), list(y)
    if protocol.area_ends == "before_limit":
        limit = max(one for one in x if one < limit - 1e-9)
    area = 0.0
    for place, (left, value) in enumerate(zip(x, y, strict=True)):
        right = x[place + 1] if place + 1 < len(x) else 1.0
        following = y[place + 1] if place + 1 < len(x) else value
        end = min(right, limit)
        if end <= left:
            break
        if protocol.area == "step":
            area += value * (end - left)
        else:
            at_end = value + (following - value) * (end - left) / (right - left)
            area += (value + at_end) / 2 * (end - left)
    return area, limit


def combinations():
    """Every allowed combination; fuse, area and limits take turns, as they do not interact."""
    turning = (SWITCHES[name] for name in ("fuse", "area", "area_ends"))
    turns = itertools.cycle(itertools.product(*turning))
    names = ("threshold", "rule", "read_at", "discard_over", "ties", "grid")
    for values in itertools.product(*(SWITCHES[name] for name in names)):
        fuse, area, ends = next(turns)
        switches = dict(zip(names, values, strict=True))
        if switches["discard_over"] == "images":
            fuse = "max"
        try:
            yield Protocol(
                name="p",
                fuse=fuse,
                area=area,
                area_ends=ends,
                limits=(0.2, 0.33, 1.0),
                start_fnmr=0.2,
                **switches,
            )
        except ValueError:
            assert switches["grid"] == "exact" or switches["rule"] == "starting_error"


@pytest.mark.parametrize("rule", SWITCHES["rule"])
@pytest.mark.parametrize("discard_over", SWITCHES["discard_over"])
def test_every_combination_of_switches_counts_as_the_definition_says(rule, discard_over):
    chosen = [p for p in combinations() if (p.rule, p.discard_over) == (rule, discard_over)]
    for seed, protocol in enumerate(chosen):
        c, target = small_set(seed), (0.1, 0.25, 0.26)[seed % 3]
        x, fnmr, wrong, mated, matches, non_mated = slow_curve(c, protocol, target)
        found = protocol_curve(c, protocol, target)
        np.testing.assert_allclose(found.edc.fractions, x, atol=1e-12)
        for column, expected in (
            ("false_non_matches", wrong),
            ("mated", mated),
            ("non_mated", non_mated),
            ("false_matches", matches),
            ("fnmr", fnmr),
        ):
            actual = getattr(found.edc, column)
            np.testing.assert_array_equal(actual, expected, f"{column}: {protocol}")
        for limit in protocol.limits:
            area, width = slow_area(x, fnmr, limit, protocol)
            assert found.areas[limit] == pytest.approx(area, abs=1e-12), protocol
            random = fnmr[0] * width
            expected = area / random if random else np.nan
            assert found.relative[limit] == pytest.approx(expected, nan_ok=True)


def test_crfiqa_is_what_its_released_code_does():
    """Drop int(x N) of lowest quality, nearest FMR of the rest, mated scores > threshold match."""
    rng = np.random.default_rng(4)
    mated = np.arange(400) % 2 == 0
    scores = (rng.normal(size=400) + 2 * mated).astype(np.float32)
    quality = rng.permutation(400)
    expected = []
    for share in np.arange(0, 0.98, 0.05):
        rows = np.argsort(quality)[int(share * 400) :]
        own, others = scores[rows][mated[rows]], scores[rows][~mated[rows]]
        candidates = np.sort(scores[rows])
        fmr = np.array([(others >= t).mean() for t in candidates])
        threshold = candidates[np.argmin(np.abs(fmr - 0.01))]
        expected.append((own <= threshold).mean())
    found = protocol_curve(apart(scores, mated, np.repeat(-quality, 2)), "crfiqa", 0.01)
    np.testing.assert_allclose(found.edc.fnmr, expected)
    assert found.areas[0.95] == pytest.approx(np.trapezoid(expected, np.arange(20) / 20))


@pytest.mark.parametrize("fmr", [1e-2, 1e-3])
def test_iso29794_discards_mated_pairs_one_by_one(fmr):
    rng = np.random.default_rng(1)
    mated = np.arange(2500) < 801
    scores = (rng.normal(size=2500) + 3 * mated).astype(np.float32)
    uncertainty = (rng.permutation(2500) - 100 * scores).astype(np.float32)
    found = protocol_curve(one_each(scores, mated, uncertainty), "iso29794", fmr)
    others = np.sort(scores[~mated])[::-1]
    threshold = min(score for score in scores if (others >= score).mean() <= fmr)
    wrong = (scores[mated] < threshold)[np.argsort(-uncertainty[mated], kind="stable")]
    known = [wrong[gone:].mean() for gone in range(801)]
    widths = [min(0.3, (gone + 1) / 801) - min(0.3, gone / 801) for gone in range(801)]
    assert (others >= found.edc.score_threshold[0]).mean() <= fmr
    assert found.edc.score_threshold[0] <= threshold
    assert found.relative[0.3] == pytest.approx(np.dot(known, widths) / (0.3 * wrong.mean()))
    at = [found.edc.fnmr[found.index_at(share)] for share in (0, 0.05, 0.1, 0.2, 0.3)]
    assert at == pytest.approx([known[int(801 * share)] for share in (0, 0.05, 0.1, 0.2, 0.3)])


def area_of_steps(mated_scores, qualities, threshold, limit):
    """fiqat's partial area, one rectangle after the other: qualities (N, 2) of the two images."""
    quality = qualities.min(axis=1)
    area, gone, total = 0.0, 0, len(quality)
    for level in np.unique(quality):
        kept = quality >= level
        left, right = gone / total, (gone + (quality == level).sum()) / total
        area += (mated_scores[kept] < threshold).mean() * (min(right, limit) - min(left, limit))
        gone += (quality == level).sum()
    return area


@pytest.mark.parametrize("levels", [10, 1000])
def test_pauc_is_the_area_of_fiqat_over_that_of_the_starting_error(levels):
    rng = np.random.default_rng(levels)
    mated = np.arange(3000) < 1200
    scores = (rng.normal(size=3000) + 3 * mated).astype(np.float32)
    quality = np.round(rng.normal(size=(3000, 2)) + scores[:, None], 1 if levels == 10 else 6)
    found = protocol_curve(apart(scores, mated, -quality.ravel()), "pauc", 0.01)
    threshold = min(score for score in scores if (scores[~mated] >= score).mean() <= 0.01)
    start = (scores[mated] < threshold).mean()
    for limit in (0.2, 0.3):
        area = area_of_steps(scores[mated], quality[mated], threshold, limit)
        assert found.areas[limit] == pytest.approx(area / (start * limit))
        assert found.areas[limit] == found.relative[limit] < 1


def test_closed_forms_of_pauc_and_efficiency():
    e, count = 0.05, 20_000
    best = perfect_order(count, int(e * count), 10)
    pauc = protocol_curve(best, "pauc", 0.05)
    for limit, area in pauc.areas.items():
        assert area == pytest.approx((e + (1 - e) * np.log(1 - e)) / (e * limit), abs=1e-3)
    assert pauc.efficiencies((0.1,)) == {}
    nist = protocol_curve(best, dataclasses.replace(PROTOCOLS["nist"], start_fnmr=e))
    half = 1 - (0.025 / 0.975) / e
    expected = {0.025: half / 0.025, 0.05: 1 / 0.05, 0.2: 1 / 0.2}
    assert nist.efficiencies((0, *expected)) == pytest.approx(expected)
    worst = protocol_curve(best.with_uncertainty(-best.uncertainty), nist.protocol)
    assert worst.efficiencies((0.2,)) == pytest.approx({0.2: (1 - 1 / 0.8) / 0.2}, rel=1e-3)
    same = protocol_curve(best.with_uncertainty(np.ones_like(best.uncertainty)), nist.protocol)
    assert same.efficiencies((0.2,)) == {0.2: 0}


EXACT = Protocol(
    name="exact",
    rule="conservative",
    read_at="threshold",
    discard_over="mated",
    ties="together",
    grid="exact",
    area="step",
    area_ends="at_limit",
    limits=(0.02, 0.3, 1.0),
)


def perfect_order(mated_count, wrong_count, others):
    """Every false non-match is more uncertain than any other pair; one non-mated score on top."""
    wrong = np.arange(mated_count + others) < wrong_count
    mated = np.arange(mated_count + others) < mated_count
    scores = np.where(wrong, 0.1, np.where(mated, 0.9, 0.2))
    return one_each(scores, mated, 2 * wrong + np.linspace(0, 0.5, len(wrong)))


def test_areas_of_the_best_order_have_their_closed_forms():
    e, count = 0.05, 20_000
    found = protocol_curve(perfect_order(count, int(e * count), 10), EXACT, 0.05)
    raw = {limit: ratio * e * limit for limit, ratio in found.relative.items()}
    assert raw[1.0] == pytest.approx(e + (1 - e) * np.log(1 - e), abs=1 / count)
    assert raw[0.02] == pytest.approx(0.02 + (1 - e) * np.log(1 - 0.02), abs=1 / count)
    np.testing.assert_allclose(found.optimum, found.edc.fnmr, atol=1e-12)
    assert found.best_relative == pytest.approx(found.relative, rel=1e-9)
    half = dataclasses.replace(EXACT, subtract="half_square")
    areas = protocol_curve(perfect_order(count, int(e * count), 10), half, 0.05).areas
    assert areas[0.02] == pytest.approx(raw[0.02] - e * 0.02 / 2)
    area = areas[1.0]
    assert area == pytest.approx(e + (1 - e) * np.log(1 - e) - e * e / 2, abs=1 / count)
    assert 0 < abs(area) < e**3


def test_area_of_the_best_order_of_mixed_pairs():
    e, count, others = 0.1, 8_000, 12_000
    protocol = dataclasses.replace(EXACT, discard_over="all", limits=(1.0,))
    found = protocol_curve(perfect_order(count, int(e * count), others), protocol, 0.05)
    share = count / (count + others)
    raw = found.relative[1.0] * e
    assert raw == pytest.approx(share * (e + (1 - e) * np.log(1 - e)), abs=1 / count)
    zero = found.optimum_at(np.array([0.0, share * e - 0.001, share * e, 0.5]))
    assert zero[0] == e
    assert zero[1] > 0
    assert zero[2] == pytest.approx(0, abs=1e-9)
    assert zero[3] == 0


@pytest.mark.parametrize("over", ["all", "mated", "each_kind"])
@pytest.mark.parametrize("grid", ["percent", "by_5", "exact"])
@pytest.mark.parametrize("divide", ["nothing", "start", "random"])
def test_nothing_is_left_of_the_best_order_less_the_optimum(over, grid, divide):
    switches = {"discard_over": over, "grid": grid, "subtract": "optimum", "divide": divide}
    protocol = dataclasses.replace(EXACT, **switches)
    kwargs = {"mated_count": 200, "wrong_count": 30, "others": 200}
    found = protocol_curve(perfect_order(**kwargs), protocol, 0.05)
    assert found.areas == pytest.approx(dict.fromkeys(protocol.limits, 0.0), abs=1e-12)


def test_random_discard_keeps_fnmr():
    """Over all orders of five mated pairs the mean FNMR is e at every step, and relative is 1."""
    scores = [0.1, 0.1, 0.9, 0.9, 0.9, 0.5]
    curves = [
        protocol_curve(one_each(scores, np.arange(6) < 5, [*order, 0]), EXACT, 0.5)
        for order in itertools.permutations(range(5))
    ]
    np.testing.assert_allclose(np.mean([one.edc.fnmr for one in curves], axis=0), 0.4)
    for limit in EXACT.limits:
        assert np.mean([one.relative[limit] for one in curves]) == pytest.approx(1)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_all_uncertainties_equal_is_random_discard(name):
    c = small_set(0, pairs=200)
    c = c.with_uncertainty(np.ones_like(c.uncertainty))
    found = protocol_curve(c, name, 0.1)
    assert found.relative == pytest.approx(dict.fromkeys(PROTOCOLS[name].limits, 1.0))
    assert (found.edc.mated == 100).all()


def test_division():
    c = small_set(1)
    plain = protocol_curve(c, EXACT, 0.25)
    by_start = protocol_curve(c, dataclasses.replace(EXACT, divide="start"), 0.25)
    by_random = protocol_curve(c, dataclasses.replace(EXACT, divide="random"), 0.25)
    start = plain.edc.fnmr[0]
    assert start > 0
    for limit in EXACT.limits:
        assert by_start.areas[limit] == pytest.approx(plain.areas[limit] / start)
        assert by_random.areas[limit] == pytest.approx(plain.relative[limit])
        assert by_start.relative == plain.relative


def test_no_false_non_match_at_all():
    c = one_each([0.9, 0.8, 0.1, 0.2], [True, True, False, False], [1, 2, 3, 4])
    found = protocol_curve(c, EXACT, 0.5)
    assert all(np.isnan(value) for value in found.relative.values())
    assert set(found.areas.values()) == {0.0}
    assert "no_errors" in [caution.kind for caution in found.cautions]
    divided = protocol_curve(c, dataclasses.replace(EXACT, divide="start"), 0.5)
    assert all(np.isnan(value) for value in divided.areas.values())


def test_one_kind_missing():
    mated = one_each([0.9, 0.8], [True, True], [1, 2])
    others = one_each([0.9, 0.8], [False, False], [1, 2])
    with pytest.raises(ValueError, match=r"^own: no non-mated pair: there is no FMR to aim at$"):
        protocol_curve(mated, "iso29794")
    with pytest.raises(ValueError, match=r"^own: no mated pair: there is no FNMR to measure$"):
        protocol_curve(others, "iso29794")
    alone = protocol_curve(mated, dataclasses.replace(PROTOCOLS["nist"], start_fnmr=0.5))
    assert alone.edc.fnmr[0] == 0.5
    assert alone.edc.non_mated[0] == 0


@pytest.mark.parametrize("threshold", ["fixed", "per_subset"])
def test_one_kind_is_discarded_first(threshold):
    protocol = Protocol(name="p", threshold=threshold, read_at="threshold")
    scores, mated = [0.1, 0.9, 0.8, 0.5, 0.4, 0.3], [True, True, True, False, False, False]
    found = protocol_curve(one_each(scores, mated, [9, 8, 7, 1, 2, 3]), protocol, 0.3)
    last = found.edc.fnmr[np.flatnonzero(found.edc.mated)[-1]]
    assert found.edc.mated[-1] == 0
    assert found.edc.fnmr[-1] == last
    assert "no_mated_kept" in [caution.kind for caution in found.cautions]
    found = protocol_curve(one_each(scores, mated, [1, 2, 3, 9, 8, 7]), protocol, 0.3)
    assert found.edc.non_mated[-1] == 0
    assert "no_non_mated_kept" in [caution.kind for caution in found.cautions]
    assert threshold == "fixed" or found.edc.fnmr[-1] == 0


def test_few_expected_errors_are_cautioned_about():
    c = small_set(0, pairs=80)
    (caution,) = protocol_curve(c, "iso29794", 0.1).cautions
    assert caution == ("few_false_matches", {"fmr": 0.1, "non_mated": 40, "expected": 4})
    cautions = protocol_curve(c, "nist").cautions
    assert cautions[0] == ("few_starting_errors", {"fnmr": 0.01, "mated": 40, "expected": 0.4})
    assert "few_false_matches" not in dict(protocol_curve(c, "crfiqa", 0.125).cautions)


@pytest.mark.parametrize("rule", SWITCHES["rule"])
@pytest.mark.parametrize("read_at", SWITCHES["read_at"])
def test_the_listed_end_of_the_non_mated_scores_is_enough(rule, read_at):
    protocol = dataclasses.replace(EXACT, rule=rule, read_at=read_at, start_fnmr=0.3)
    for seed in range(5):
        c = small_set(seed, pairs=300)
        high = truncated(c, 0.3)
        assert 30 < high.unlisted < 120
        assert high.non_mated_total == c.non_mated_total
        whole, found = (protocol_curve(one, protocol, 0.1) for one in (c, high))
        for field in dataclasses.fields(whole.edc):
            actual, expected = getattr(found.edc, field.name), getattr(whole.edc, field.name)
            np.testing.assert_array_equal(actual, expected, field.name)


def test_what_needs_unlisted_pairs_is_refused():
    high = truncated(small_set(0, pairs=300), 0.5)
    for name in ("original", "crfiqa", "lightqnet"):
        with pytest.raises(ValueError, match="small: protocol .* has discard_over 'all', which "):
            protocol_curve(high, name, 0.05)
    subset = dataclasses.replace(EXACT, grid="percent", threshold="per_subset")
    with pytest.raises(ValueError, match=r"has threshold 'per_subset'.*--non_mated COUNT"):
        protocol_curve(high, subset, 0.05)
    for rule in ("nearest", "conservative", "interpolated"):
        with pytest.raises(ValueError, match=r"^small: the threshold for FMR 0.9 lies below 0.50"):
            protocol_curve(high, dataclasses.replace(EXACT, rule=rule), 0.9)
    start = dataclasses.replace(PROTOCOLS["nist"], start_fnmr=0.02)
    with pytest.raises(ValueError, match=r"threshold for FNMR 0.02 lies below .*--non_mated COUNT"):
        protocol_curve(high, start)


def test_images_must_be_known_to_be_discarded():
    c = dataclasses.replace(small_set(0), image=None)
    protocol = Protocol(name="p", discard_over="images")
    with pytest.raises(ValueError, match=r"^small: it is not known which comparisons share an im"):
        protocol_curve(c, protocol, 0.1)
    with_images = protocol_curve(small_set(0), protocol, 0.1)
    assert with_images.start.units == 6
    assert np.isnan(with_images.optimum).all()
    assert np.isnan(with_images.optimum_at(np.zeros(2))).all()


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0])
def test_targets_outside_0_to_1(target):
    with pytest.raises(ValueError, match=rf"^small: target rate {target} is not between 0 and 1"):
        protocol_curve(small_set(0), "iso29794", target)


def same_rates(first, second):
    np.testing.assert_allclose(first.edc.fractions, second.edc.fractions, atol=1e-12)
    np.testing.assert_allclose(first.edc.fnmr, second.edc.fnmr, atol=1e-12)
    assert first.areas == pytest.approx(second.areas, abs=1e-12)


def shuffled(c, rng):
    order, sides = rng.permutation(60), np.where(rng.random(60) < 0.5, 1, -1)
    pairs = np.array([pair[::side] for pair, side in zip(c.pairs, sides, strict=True)])
    return dataclasses.replace(c, scores=c.scores[order], mated=c.mated[order], pairs=pairs[order])


def monotone(c, rng):
    return dataclasses.replace(c.with_uncertainty(c.uncertainty**3 - 7), scores=c.scores**3)


def scaled(c, rng):
    # powers of two: any other scale moves the last bit of a percentile, and a pair with it
    return dataclasses.replace(c.with_uncertainty(c.uncertainty * 4), scores=c.scores * 2)


def three_times(c, rng):
    columns = {name: getattr(c, name).repeat(3, axis=0) for name in ("scores", "mated", "pairs")}
    return dataclasses.replace(c, **columns)


STEPS = ["crfiqa", "iso29794", "pauc", "nist"]  # ties leave together: only ranks matter


@pytest.mark.parametrize(
    ("change", "names"),
    [(shuffled, PROTOCOLS), (scaled, PROTOCOLS), (monotone, STEPS), (three_times, STEPS)],
)
@settings(max_examples=40)
@given(st.integers(0, 10_000), st.data())
def test_changes_that_leave_the_rates_alone(change, names, seed, data):
    name, c = data.draw(st.sampled_from([*names])), small_set(seed, pairs=60)
    changed = change(c, np.random.default_rng(seed))
    same_rates(protocol_curve(c, name, 0.1), protocol_curve(changed, name, 0.1))
