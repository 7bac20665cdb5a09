"""Sides, searches and what becomes of odd ones, against the definitions written out."""

import numpy as np
import pytest

from data.faces import people_of
from data.features import Embeddings, unit_rows
from report.identification import identification_text
from search.run import IdentificationOptions, identify
from search.searches import read_matrix, search
from search.sides import divide, open_side, templates
from tests.test_search.worlds import faces, side


def by_definition(gallery, probes, threshold, rank):
    """ISO/IEC 19795-1: (misses, enrolled probes, false positives, other probes)."""
    centre = {
        who: unit_rows(gallery.mu[gallery.person == who]).astype(np.float64).mean(axis=0)
        for who in set(gallery.person.tolist())
    }
    counts = [0, 0, 0, 0]
    for mu, who in zip(unit_rows(probes.mu), probes.person.tolist(), strict=True):
        scores = {name: mu @ c / np.linalg.norm(c) for name, c in centre.items()}
        if who in scores:
            first = sorted(scores, key=scores.get, reverse=True)[:rank]
            counts[0] += not (who in first and scores[who] >= threshold)
            counts[1] += 1
        else:
            counts[2] += max(scores.values()) >= threshold
            counts[3] += 1
    return counts


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("fpir", [0.05, 0.3])
def test_rates_are_those_of_the_definition(fpir, rank):
    rng = np.random.default_rng(8)
    mu, person = faces(rng, people=30, each=4, noise=0.9)
    gallery, probes = divide(side("all", mu, person), 2, 0.4, seed=3)
    result = identify(
        search(gallery, probes, 5), IdentificationOptions(fpir=(fpir,), rank=rank, replicates=50)
    )
    (point,) = result.points
    misses, enrolled, positives, others = by_definition(gallery, probes, point.threshold, rank)
    assert point.fnir.counts == (misses, enrolled)
    assert point.fpir.counts == (positives, others)
    assert positives <= fpir * others < positives + 1
    assert misses > 0
    hits = by_definition(gallery, probes, -2, 1)
    assert result.ranks[1].counts == (hits[1] - hits[0], hits[1])
    for name, curve in point.curves.items():
        assert (curve.edc.false_non_matches[0], curve.edc.false_matches[0]) == (misses, positives)
        assert curve.edc.mated[-1] + curve.edc.non_mated[-1] <= len(probes), name
    assert result.det.false_non_matches[-1] >= misses


def test_divided_sets_share_no_photo_and_keep_every_one():
    mu, person = faces(np.random.default_rng(1), people=20, each=3)
    everything = side("all", mu, [*person[:-2], 50, 51])
    gallery, probes = divide(everything, 1, 0.25, seed=0)
    assert sorted([*gallery.images, *probes.images]) == sorted(everything.images)
    assert len(gallery) == len(set(gallery.person)) == 14  # of 19 people with more than one photo
    with pytest.raises(ValueError, match="nobody has more than 3"):
        divide(everything, 3, 0.5, seed=0)


def test_a_matrix_of_scores_gives_what_the_embeddings_give(tmp_path):
    mu, person = faces(np.random.default_rng(2), people=16, each=3)
    u = np.random.default_rng(0).random(48)
    gallery, probes = divide(side("all", mu, person, u), 1, 0.5, seed=0)
    ordered = templates(gallery)
    scores = (unit_rows(probes.mu) @ unit_rows(ordered.mu).T).astype(np.float64)
    scores = np.concatenate([scores, scores - 1], axis=1)  # a second, worse column of each person
    np.savez(
        tmp_path / "m.npz",
        scores=scores,
        probe=probes.person,
        gallery=np.tile(ordered.person, 2),
        probe_uncertainty=probes.uncertainty,
    )
    options = IdentificationOptions(fpir=(0.2,), replicates=0)
    matrix, direct = read_matrix(tmp_path / "m.npz", 8), search(gallery, probes, 8)
    np.testing.assert_array_equal(matrix.candidates.rows, direct.candidates.rows)
    first, second = (identify(each, options).points[0] for each in (matrix, direct))
    assert (first.fnir, first.fpir) == (second.fnir, second.fpir)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"scores": np.ones((2, 2))}, "scores .2, 2. for 2 probes and 3"),
        ({"scores": np.full((2, 3), np.nan)}, "NaN"),
        ({"probe_uncertainty": [1]}, "probe_uncertainty"),
        ({"gallery": []}, "for 2 probes and 0"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(tmp_path, change, key):
    arrays = {"scores": np.ones((2, 3)), "probe": ["a", "b"], "gallery": ["a", "c", "d"]}
    np.savez(tmp_path / "m.npz", **{**arrays, **change})
    with pytest.raises(ValueError, match=f"m.npz: .*{key}"):
        read_matrix(tmp_path / "m.npz", 3)


def test_people_are_matched_by_folder_name_or_number(tmp_path):
    labels = np.array([0, 0, 1])
    assert people_of(labels, ["a/1.jpg", "a/2.jpg", "b/1.jpg"], labels).tolist() == ["a", "a", "b"]
    assert people_of(labels, ["a/1.jpg", "b/2.jpg", "b/1.jpg"], np.array([7, 9])).tolist() == [
        *("#7", "#7", "#9")
    ]
    mu = np.eye(3, dtype=np.float32)
    for name, identity in (("numbers", [4, 4, 9]), ("names", np.array(["x", "x", "y"]))):
        np.savez(tmp_path / f"{name}.npz", mu=mu, sigma_sq=np.ones(3), identity=identity)
    numbers, names = (open_side(str(tmp_path / f"{n}.npz"), None) for n in ("numbers", "names"))
    assert (numbers.person.tolist(), names.person.tolist()) == (["#4", "#4", "#9"], ["x", "x", "y"])
    with pytest.raises(ValueError, match="matched by folders"):
        search(numbers, names, 2)
    with pytest.raises(ValueError, match="of one model|one model"):
        search(numbers, side("other", np.eye(2), ["#4", "#9"]), 2)
    with pytest.raises(ValueError, match="keep its own numbers"):
        search(numbers, side("lost", np.eye(3), ["?0", "?1", "?2"]), 2)
    with pytest.raises(ValueError, match="need a --model"):
        open_side("synthetic:identities=2,images=2,seed=0", None)
    Embeddings.load(tmp_path / "names.npz")


def test_odd_sets_are_said_and_never_a_result():
    rng = np.random.default_rng(4)
    mu, person = faces(rng, people=6, each=3)
    everything = side("all", mu, person)
    photos = np.arange(18)
    gallery = everything.take(photos[::3], "gallery")
    known = everything.take(photos[1::3], "known")
    closed = identify(search(gallery, known, 3), IdentificationOptions(replicates=0))
    text = identification_text(closed)
    assert (closed.points, closed.rule, closed.det) == ((), None, None)
    assert closed.ranks[1].counts.total == 6
    assert "FPIR, and FNIR at it, are undefined" in text
    at = IdentificationOptions(score_threshold=0.2, replicates=0)
    assert identify(search(gallery, known, 3), at).points[0].fpir is None

    strangers = side("strangers", rng.standard_normal((9, 6)), [f"s{row}" for row in range(9)])
    result = identify(search(gallery, strangers, 3), IdentificationOptions(replicates=0))
    assert "none of the 9 probes is of an enrolled person" in identification_text(result)
    assert (result.ranks, result.points[0].fnir, result.rule) == ({}, None, None)
    assert result.points[0].fpir.counts.total == 9

    single = gallery.take(np.arange(1), "one person")
    mixed = search(single, everything.take(photos[1:], "rest"), 5)
    assert mixed.candidates.scores.shape == (17, 1)
    assert identify(mixed, IdentificationOptions(replicates=0)).rule is not None

    with pytest.raises(ValueError, match="empty: no image"):
        search(everything.take(photos[:0], "empty"), known, 3)
    with pytest.raises(ValueError, match="rank 4: the search kept 3"):
        search(gallery, known, 3).comparisons(4)
    copied = identify(search(gallery, gallery, 3), IdentificationOptions(replicates=0))
    assert "6 of 6 probes are a photo that is enrolled" in identification_text(copied)
    unused = search(gallery, strangers, 3)
    assert "6 of 6 people of the gallery have no probe" in identification_text(
        identify(unused, IdentificationOptions(replicates=0))
    )
