import json

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from estimators.fusion import (
    FusionModel,
    RankTable,
    fit_monotone,
    fit_rank_mean,
    load_fusion,
    rank_table,
    save_fusion,
)

NAMES = ("first", "second", "third")


def columns_of(count, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(count, 3)) * [1, 50, 1e-4] + [0, -300, 1]
    steps = np.array([1, 100, 1e-4])
    return np.round(columns / steps) * steps if ties else columns


def brute_force_rank(value, reference):
    below = sum(1 for other in reference if other < value)
    equal = sum(1 for other in reference if other == value)
    return (below + equal / 2) / len(reference)


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_of_the_reference_are_those_of_scipy(ties):
    columns = columns_of(200, ties=ties)
    expected = (rankdata(columns, axis=0) - 0.5) / 200
    ranks = fit_rank_mean(columns, NAMES)(columns)
    np.testing.assert_allclose(ranks, expected.mean(axis=1), atol=1e-12)
    assert not ties or len(np.unique(columns[:, 0])) < 10


def test_a_table_of_many_images_is_short_and_close_to_their_ranks():
    reference = np.random.default_rng(1).exponential(size=6_000)
    table = rank_table(reference)
    assert len(table.values) <= 257
    values = np.random.default_rng(2).exponential(size=60)
    expected = [brute_force_rank(value, reference) for value in values]
    np.testing.assert_allclose(table(values), expected, atol=0.004)


def test_beyond_the_reference_ranks_go_on_in_order():
    table = rank_table(np.arange(10.0))
    ranks = table(np.array([-18.0, -9, 0, 9, 18, 27]))
    np.testing.assert_allclose(ranks, [-1.95, -0.95, 0.05, 0.95, 1.95, 2.95])


@pytest.mark.parametrize("seed", range(4))
def test_more_uncertainty_of_a_member_never_lowers_the_fusion(seed):
    rng = np.random.default_rng(seed)
    columns = columns_of(300, seed)
    pairs = rng.integers(300, size=(500, 2))
    worse = rankdata(columns, axis=0)[pairs].max(axis=1) @ rng.random(3)
    model = fit_monotone(columns, NAMES, pairs, np.exp(-worse / 100))
    assert min(model.weights) >= 0
    assert sum(model.weights) == pytest.approx(1)
    values = columns_of(200, seed + 10) * rng.uniform(0.5, 1.5, 3)
    raised = values + rng.exponential(size=values.shape) * columns.std(axis=0)
    for member in range(3):
        one = values.copy()
        one[:, member] = raised[:, member]
        assert (model(one) >= model(values) - 1e-12).all()
        if model.weights[member] > 1e-3:
            assert (model(one) > model(values)).all()


def made_up_pairs(seed, images=600, count=4000):
    """Pairs whose target is a logistic of the worse image's truth; members see it with noise."""
    rng = np.random.default_rng(seed)
    truth = rng.random(images)
    columns = np.stack(
        [truth + 0.1 * rng.normal(size=images), truth + rng.normal(size=images)]
        + [rng.random(images)],
        axis=1,
    )
    pairs = rng.integers(images, size=(count, 2))
    lower_quality = truth[pairs].max(axis=1)
    return truth, columns, pairs, 1 / (1 + np.exp(-(3 - 6 * lower_quality)))


def test_the_fit_trusts_members_that_know_and_finds_the_best_weights():
    truth, columns, pairs, target = made_up_pairs(0)
    model = fit_monotone(columns, NAMES, pairs, target, shrink=0.0)
    assert model.weights[0] > 0.7
    assert model.weights[2] < 0.05
    fused = spearmanr(model(columns), truth)[0]
    equal = spearmanr(fit_rank_mean(columns, NAMES)(columns), truth)[0]
    assert fused > equal + 0.05


def test_the_fit_is_the_minimum_of_its_loss():
    _, columns, pairs, target = made_up_pairs(1, images=150, count=300)
    model = fit_monotone(columns[:, :2], NAMES[:2], pairs, target, shrink=0.0)
    ranks = (rankdata(columns[:, :2], axis=0) - 0.5) / len(columns)

    def lowest(weight):  # over slope and offset, on a grid, for given weights
        worse = (ranks @ [weight, 1 - weight])[pairs].max(axis=1)
        logit = np.linspace(1, 5, 33)[:, None, None] - np.linspace(3, 9, 49)[:, None] * worse
        return (np.logaddexp(0, logit) - target * logit).mean(axis=-1).min()

    grid = np.linspace(0, 1, 41)
    best = grid[np.argmin([lowest(weight) for weight in grid])]
    assert model.weights[0] == pytest.approx(best, abs=0.03)


def test_shrinking_pulls_towards_equal_weights():
    _, columns, pairs, target = made_up_pairs(2)
    model = fit_monotone(columns, NAMES, pairs, target, shrink=1e4)
    np.testing.assert_allclose(model.weights, 1 / 3, atol=0.01)


def test_a_fusion_is_read_back_to_the_same_numbers(tmp_path):
    columns = columns_of(1000)
    model = fit_rank_mean(columns, NAMES, {"backbone": "ab12"})
    save_fusion(model, tmp_path / "new" / "fusion.json")
    again = load_fusion(tmp_path / "new" / "fusion.json")
    assert (again.members, again.weights, again.images) == (NAMES, model.weights, 1000)
    assert again.files == {"backbone": "ab12"}
    np.testing.assert_array_equal(again(columns), model(columns))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored.update(version=2), "version 2; this program reads"),
        (lambda stored: stored.update(format="x"), "format 'x'"),
        (
            lambda stored: stored.pop("members"),
            r"is damaged, or of another kind \(KeyError: 'members'\)",
        ),
        (lambda stored: stored["members"][0].update(weight=float("nan")), "weights .*nan"),
        (lambda stored: stored["members"][0].update(weight=-1), "must be at least 0 and add up"),
        (lambda stored: stored["members"][1]["values"].reverse(), "member second: .* ascend"),
        (
            lambda stored: stored["members"][1]["ranks"].__setitem__(3, float("inf")),
            "member second: .* finite",
        ),
        (lambda stored: stored.update(members=[]), "at least one member"),
    ],
    ids=["version", "format", "missing", "nan", "negative", "order", "infinite", "empty"],
)
def test_a_file_that_is_no_fusion_is_refused(tmp_path, change, message):
    path = tmp_path / "fusion.json"
    save_fusion(fit_rank_mean(columns_of(50), NAMES), path)
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=message) as found:
        load_fusion(path)
    assert str(path) in str(found.value)


def test_other_mistakes_are_refused(tmp_path):
    columns, pairs = columns_of(20), np.array([[0, 1], [2, 3]])
    with pytest.raises(ValueError, match="no fusion file .*none.json: make one with"):
        load_fusion(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ValueError, match=r"text\.json is damaged"):
        load_fusion(tmp_path / "text.json")
    with pytest.raises(ValueError, match="first: 1 of 20 reference values are NaN"):
        fit_rank_mean(np.where(columns == columns[0, 0], np.nan, columns), NAMES)
    with pytest.raises(ValueError, match="second: its 20 reference values are all the same"):
        fit_rank_mean(columns * [1, 0, 1], NAMES)
    with pytest.raises(ValueError, match="target: every value must lie in 0..1"):
        fit_monotone(columns, NAMES, pairs, np.array([0.5, 1.5]))
    with pytest.raises(ValueError, match=r"columns of shape \(20, 2\): expected \(N, 3\)"):
        fit_rank_mean(columns, NAMES)(columns[:, :2])
    table = RankTable(np.arange(2.0), np.array([0.25, 0.75]))
    with pytest.raises(ValueError, match="2 tables and 3 weights"):
        FusionModel(members=NAMES, tables=(table,) * 2, weights=(0.5, 0.25, 0.25), images=2)


def test_members_that_mislead_are_not_fused():
    truth, _, pairs, target = made_up_pairs(3)
    with pytest.raises(ValueError, match="none of wrong tells which of 4000 mated pairs match"):
        fit_monotone(-truth[:, None], ("wrong",), pairs, target)
