import dataclasses
from itertools import product

import numpy as np
import pytest

from evaluation.confidence.bootstrap import Measure, Resampling, bootstrap
from evaluation.confidence.intervals import Interval
from evaluation.confidence.risk_control import select
from evaluation.metrics.comparisons import Comparisons, linked_people
from evaluation.metrics.curve import GRID, GRIDS, protocol_curve
from evaluation.metrics.protocols import PROTOCOLS, Protocol
from tests.test_evaluation.factories import all_pairs

MATED_STEPS = dataclasses.replace(PROTOCOLS["iso29794"], limits=(0.3,))


def made(seed, people=14, images=4, decimals=3, uncertainty_decimals=3):
    """Labelled faces with all pairs; images of low quality have low mated scores."""
    rng = np.random.default_rng(seed)
    identity, pairs, mated = all_pairs(people, images)
    trouble = rng.normal(size=len(identity)) + rng.normal(size=people)[identity]
    worst = trouble[pairs].max(axis=1)
    scores = np.where(mated, 0.6 - 0.2 * worst, 0.1) + rng.normal(scale=0.12, size=len(mated))
    return Comparisons(
        "made",
        np.round(scores, decimals).astype(np.float32),
        mated,
        pairs,
        np.round(trouble + rng.normal(size=len(trouble)), uncertainty_decimals).astype(np.float32),
        identity,
        np.arange(len(identity)),
    )


def draw(comparisons, protocol=None, target=0.01, **options):
    methods = methods_of(comparisons)
    return bootstrap(comparisons, methods, protocol or MATED_STEPS, target, **options)


def methods_of(comparisons, seed=0):
    noise = np.random.default_rng(seed).random(comparisons.uncertainty.shape).astype(np.float32)
    return {"head": comparisons.uncertainty, "noise": noise}


NAMES = ("threshold", "discard_over", "read_at", "ties", "grid", "area")
NAMES += ("area_ends", "subtract", "divide", "rule", "fuse")
TRIED = product(
    ("fixed", "per_subset"),
    ("mated", "all", "each_kind"),
    ("threshold", "above_threshold", "kept_score"),
    (("together", "exact", "step"), ("together", "percent", "step"), ("keep", "by_5", "trapezoid")),
    (
        ("at_limit", "nothing", "random", "conservative", "max"),
        ("before_limit", "optimum", "nothing", "nearest", "sum"),
        ("at_limit", "half_square", "start", "interpolated", "mean"),
        ("before_limit", "nothing", "nothing", "starting_error", "max"),
    ),
)
PROTOCOLS_TRIED = [
    Protocol(
        name=" ".join(switches),
        limits=(0.3,),
        start_fnmr=0.08,
        **dict(zip(NAMES, switches, strict=True)),
    )
    for *first, middle, last in TRIED
    for switches in [(*first, *middle, *last)]
    if "fixed" in switches or not {"exact", "starting_error"} & set(switches)
]


def repeated(comparisons, weights):
    rows = np.repeat(np.arange(len(weights)), weights)
    return dataclasses.replace(
        comparisons,
        scores=comparisons.scores[rows],
        mated=comparisons.mated[rows],
        pairs=comparisons.pairs[rows],
    )


@pytest.mark.parametrize("protocol", PROTOCOLS_TRIED, ids=lambda one: one.name.replace(" ", "-"))
def test_weights_give_what_repeated_rows_give(protocol):
    number = PROTOCOLS_TRIED.index(protocol)
    unit = ("identity", "image", "pair")[number % 3]
    decimals = (1, 2, 5)[number // 3 % 3]
    comparisons = made(number, people=9, decimals=decimals, uncertainty_decimals=number // 2 % 3)
    methods = [comparisons.with_uncertainty(one) for one in methods_of(comparisons).values()]
    target = (0.01, 0.05)[number % 2]
    resampling = Resampling(comparisons, unit, target, seed=number)
    measure = Measure(resampling, methods, protocol, target)
    errors = 0
    for replicate in range(3):
        weights = resampling.row_weights(replicate)
        for method, values in zip(methods, measure.draw(replicate), strict=True):
            curve = protocol_curve(repeated(method, weights), protocol, target)
            shares = GRIDS.get(protocol.grid, GRID)
            expected = curve.edc.fnmr[[curve.index_at(share) for share in shares]]
            np.testing.assert_array_equal(values.fnmr, expected)
            areas = curve.areas[0.3], curve.relative[0.3]
            np.testing.assert_allclose(values[1:], areas, rtol=1e-12, atol=1e-15)
            errors += values.fnmr[0] > 0
    assert errors >= 3


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_preset_has_intervals_that_hold_its_own_value(name):
    comparisons = made(1)
    result = draw(comparisons, PROTOCOLS[name], replicates=40, seed=2)
    assert result.unit == "identity"
    assert result.units == 14
    own = protocol_curve(comparisons, dataclasses.replace(PROTOCOLS[name], limits=(0.3,)), 0.01)
    value, interval = result.area("head")
    assert value == own.areas[0.3]
    assert interval.low <= value <= interval.high
    relative, interval = result.relative("head")
    assert relative == own.relative[0.3]
    assert interval.low <= relative <= interval.high
    low, high = result.bands("head")
    assert low.shape == high.shape == result.fractions.shape
    assert (low <= high).all()


def test_without_variation_the_replicates_are_the_set_itself(monkeypatch):
    monkeypatch.setattr(
        "evaluation.confidence.bootstrap._draw",
        lambda rng, places, draws: np.ones(places, np.int64),
    )
    comparisons = made(3)
    for protocol in PROTOCOLS.values():
        result = draw(comparisons, protocol, unit="image", replicates=2)
        value, interval = result.area("noise")
        assert interval == (pytest.approx(value, rel=1e-12), pytest.approx(value, rel=1e-12))


def test_draws_are_seeded_and_the_same_for_every_method():
    comparisons = made(4)
    both = methods_of(comparisons)
    results = [
        bootstrap(comparisons, chosen, MATED_STEPS, 0.01, replicates=30, seed=seed)
        for chosen, seed in ((both, 1), ({"noise": both["noise"]}, 1), (both, 2))
    ]
    np.testing.assert_array_equal(results[0].areas["noise"], results[1].areas["noise"])
    assert (results[0].areas["noise"] != results[2].areas["noise"]).any()


def test_a_method_is_never_better_than_itself():
    comparisons = made(4)
    own = comparisons.uncertainty
    result = bootstrap(comparisons, {"A": own, "B": own}, MATED_STEPS, 0.01, replicates=20)
    paired = result.compare("A", "B")
    assert paired.difference == 0
    assert paired.interval == (0, 0)
    assert result.rank_shares()["A"].tolist() == result.rank_shares()["B"].tolist() == [0.5, 0.5]


def test_differences_are_the_same_from_either_side():
    comparisons = made(5, people=60)
    result = draw(comparisons, replicates=300)
    there, back = result.compare("head", "noise"), result.compare("noise", "head")
    assert there.interval.high < 0
    assert back.interval == pytest.approx((-there.interval.high, -there.interval.low))
    assert there.relative_interval.high < 0
    difference = result.areas["head"] - result.areas["noise"]
    np.testing.assert_allclose(there.interval, np.quantile(difference, (0.025, 0.975)))
    shares = result.rank_shares()
    assert shares["head"][0] == pytest.approx((difference < 0).mean())
    assert sum(shares[name] for name in shares).tolist() == pytest.approx([1, 1])


def test_bands_are_pointwise_quantiles_of_the_replicates():
    comparisons = made(6)
    result = draw(comparisons, replicates=50, confidence=0.8)
    low, high = result.bands("head")
    np.testing.assert_allclose(low, np.quantile(result.fnmr["head"], 0.1, axis=0))
    np.testing.assert_allclose(high, np.quantile(result.fnmr["head"], 0.9, axis=0))


def test_uncertain_intervals_come_with_cautions():
    comparisons = made(7, people=6)
    result = draw(comparisons, replicates=60)
    errors = result.curves["head"].start.errors
    assert 0 < errors < 5
    without = int((result.fnmr["head"][:, 0] == 0).sum())
    assert without
    assert result.cautions == (
        ("few_units", {"units_drawn": 6, "unit": "identity"}),
        ("few_errors", {"errors": errors}),
        ("draws_without_errors", {"draws": without, "total": 60}),
    )
    assert np.isnan(result.relatives["head"]).sum() == without
    assert np.isfinite(result.relative("head")[1]).all()


def test_errors_of_few_people_are_cautioned_about():
    comparisons = made(11, people=30)
    troubled = comparisons.identity[comparisons.pairs[:, 0]] < 2
    scores = np.where(comparisons.mated & ~troubled, 2, comparisons.scores) - 3 * (
        comparisons.mated & troubled
    )
    few = dataclasses.replace(comparisons, scores=scores.astype(np.float32))
    result = draw(few, replicates=10)
    drawn = {"units_drawn": 30, "unit": "identity"}
    assert ("few_sources", {"errors": 12, "sources": 2, **drawn}) in result.cautions


def test_a_set_without_errors_has_no_relative_interval():
    comparisons = made(7, people=25)
    scores = np.where(comparisons.mated, 0.9, comparisons.scores - 1).astype(np.float32)
    sure = dataclasses.replace(comparisons, scores=scores)
    result = draw(sure, replicates=10)
    assert result.area("head") == (0, Interval(0, 0))
    assert np.isnan(result.relative("head")[1]).all()
    assert ("few_errors", {"errors": 0}) in result.cautions


def test_a_worse_unit_than_the_set_knows_is_cautioned_about():
    comparisons = made(8, people=25)
    result = draw(comparisons, target=0.05, unit="pair", replicates=5)
    assert result.cautions[0] == ("coarse_unit", {"unit": "pair", "best": "identity"})


def test_draws_without_a_mated_comparison_are_left_out():
    comparisons = made(9, people=3)
    rows = ~comparisons.mated | (comparisons.identity[comparisons.pairs[:, 0]] == 0)
    few = select(comparisons, np.flatnonzero(rows))
    for protocol in (MATED_STEPS, PROTOCOLS["crfiqa"]):
        result = draw(few, protocol, target=0.1, replicates=60)
        lost = int(np.isnan(result.areas["head"]).sum())
        assert 0 < lost < 60
        assert ("draws_lost", {"draws": lost, "total": 60}) in result.cautions
        assert np.isfinite(result.area("head")[1]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicates": 1}, "bootstrap: 1 replicates: an interval needs 2 or more"),
        ({"confidence": 95}, r"confidence 95 must lie between 0 and 1, as in 0\.95"),
        ({"limit": 0}, "limit 0 must be a discard fraction above 0, up to 1"),
        ({"limit": 1.5}, r"limit 1\.5 must be a discard fraction"),
        ({"uncertainties": {}}, "no method: give at least one name"),
        (
            {"protocol": Protocol(name="by image", discard_over="images")},
            "protocol by image discards images, and no interval is known for that",
        ),
    ],
)
def test_impossible_requests(changes, message):
    comparisons = made(1)
    arguments = {"uncertainties": methods_of(comparisons), "protocol": MATED_STEPS}
    arguments |= {"fmr_target": 0.01} | changes
    with pytest.raises(ValueError, match=message):
        bootstrap(comparisons, **arguments)


def test_people_are_found_by_chains_of_mated_comparisons():
    pairs = np.array([[0, 1], [2, 3], [4, 5], [0, 4], [6, 2]], np.int32)
    mated = np.array([True, True, False, True, False])
    image = np.array([10, 11, 11, 12, 13, 14, 10])
    comparisons = Comparisons(
        "web", np.zeros(5, np.float32), mated, pairs, np.zeros(7, np.float32), image=image
    )
    people = linked_people(comparisons)
    together = people[:, None] == people
    expected = np.zeros((7, 7), bool)
    for group in ((0, 1, 2, 3, 4, 6), (5,)):  # images 10, 11, 12, 13 by 10-11, 11-12 and 10-13
        expected[np.ix_(group, group)] = True
    np.testing.assert_array_equal(together, expected)
    with pytest.raises(ValueError, match="web: it is not known which rows show the same image"):
        linked_people(dataclasses.replace(comparisons, image=None))
