"""Fused templates against plain sums, and comparisons with what is known of either side."""

import math
from dataclasses import replace

import numpy as np
import pytest

from estimators.base import Batch, Estimate
from evaluation.confidence.calibration import Decision
from evaluation.confidence.same_person import SamePerson
from evaluation.open_model import LoadedModel, Provenance
from report.sheet import FaceScore
from scoring.scorer import Scorer
from scoring.templates import Template, compare_faces, fuse_faces

RNG = np.random.default_rng(5)
EMBEDDINGS = RNG.normal(size=(5, 6)).astype(np.float32) * 3
UNCERTAINTIES = RNG.uniform(0.1, 0.9, 5).astype(np.float32)


def model(output="probability", calibration=None, decision=None):
    return LoadedModel(
        name="made",
        estimator=None,
        calibration=calibration,
        decision=decision,
        provenance=Provenance(output=output),
    )


def face(row, uncertainty=None, embedding=None, sigma_sq=None):
    return FaceScore(
        image=row,
        face=0,
        uncertainty=float(UNCERTAINTIES[row]) if uncertainty is None else uncertainty,
        embedding=EMBEDDINGS[row] if embedding is None else embedding,
        sigma_sq=sigma_sq,
    )


def by_hand(weights, sigma_sq=UNCERTAINTIES):
    """Weighted sum of unit vectors, one after the other, and the sum of the weights."""
    total = [0.0] * 6
    for row, weight in enumerate(weights):
        length = math.sqrt(sum(float(x) ** 2 for x in EMBEDDINGS[row]))
        for i, x in enumerate(EMBEDDINGS[row]):
            total[i] += float(np.broadcast_to(weight, 6)[i]) * float(x) / length
    length = math.sqrt(sum(x * x for x in total))
    return [x / length for x in total], sum(weights)


@pytest.mark.parametrize(
    ("output", "rule", "weigh"),
    [
        ("variance", "inverse_variance", lambda row: 1 / UNCERTAINTIES[row]),
        ("probability", "quality", lambda row: 1 - UNCERTAINTIES[row]),
        ("embedding_norm", "norm", lambda row: float(np.linalg.norm(EMBEDDINGS[row]))),
        ("other", "mean", lambda row: 1.0),
    ],
    ids=["variance", "probability", "embedding_norm", "other"],
)
def test_each_kind_of_uncertainty_has_its_weights(output, rule, weigh):
    found = fuse_faces(model(output), [face(row) for row in range(5)])
    weights = [weigh(row) for row in range(5)]
    expected, total = by_hand(weights)
    np.testing.assert_allclose(found.embedding, expected, rtol=1e-5)
    posterior = sum(w * u for w, u in zip(weights, UNCERTAINTIES, strict=True)) / total
    if output == "variance":
        posterior = 1 / total
        assert found.uncertainty < UNCERTAINTIES.min()
    assert found.uncertainty == pytest.approx(posterior, rel=1e-5)
    assert (found.count, found.weights) == (5, rule)
    assert np.linalg.norm(found.embedding) == pytest.approx(1, rel=1e-6)


def test_variances_of_each_dimension_weigh_each_dimension():
    sigma_sq = RNG.uniform(0.1, 2, (5, 6)).astype(np.float32)
    faces = [face(row, sigma_sq=sigma_sq[row]) for row in range(5)]
    found = fuse_faces(model("variance"), faces)
    expected, _ = by_hand(list(1 / sigma_sq))
    joint = 1 / (1 / sigma_sq.astype(np.float64)).sum(axis=0)
    # by dimension the sum is a mean: sum(w x) / sum(w)
    mean = np.array(expected) * joint
    np.testing.assert_allclose(found.embedding, mean / np.linalg.norm(mean), rtol=1e-5)
    assert found.uncertainty == pytest.approx(1 / np.mean(1 / (joint + 1e-6)), rel=1e-5)


def test_frames_of_one_video_say_one_thing():
    faces = [face(row) for row in range(5)]
    found = fuse_faces(model("variance"), faces, media=[0, 0, 0, 1, 1])
    least = [UNCERTAINTIES[:3].min(), UNCERTAINTIES[3:].min()]
    assert found.uncertainty == pytest.approx(1 / (1 / least[0] + 1 / least[1]), rel=1e-5)


def test_an_embedding_without_direction_is_refused():
    with pytest.raises(ValueError, match="an embedding of zeros has no direction"):
        fuse_faces(model(), [face(0, embedding=np.zeros(6, np.float32))])


def test_a_scorer_fuses_the_largest_face_of_each_image(levels, faces, scene):
    places = {1: [(10, 20), (150, 100)], 2: []}
    photos = [scene(1, faces[:2], places[1]), scene(2, [], []), faces[2], b"damaged"]
    scorer = levels(places=places)
    found = scorer.fuse(photos)
    plain = scorer.fuse(faces[[0, 2]])
    np.testing.assert_array_equal(found.embedding, plain.embedding)
    assert (found.count, found.uncertainty) == (2, plain.uncertainty)
    scores = scorer(photos)
    for rows in (scores, scores.largest, list(scores.largest)):
        np.testing.assert_array_equal(scorer.fuse(rows).embedding, found.embedding)
    both = scorer.fuse(list(scores))  # faces as given, whatever their image
    assert both.count == 3
    joint = scorer.fuse(photos, media=[0, 1, 0, 2], weights="mean")
    assert joint.weights == "mean"
    with pytest.raises(ValueError, match="3 media for 4 images: give one number for each"):
        scorer.fuse(photos, media=[0, 1, 2])
    with pytest.raises(ValueError, match="none of the 1 images of the template has a face; the fi"):
        scorer.fuse(photos[1])
    with pytest.raises(ValueError, match="none of the 0 images of the template has a face$"):
        scorer.fuse([])


def test_media_follow_their_images_where_one_has_no_face(levels, faces, scene):
    scorer = levels(places={2: []}, output="variance")
    found = scorer.fuse([faces[0], scene(2, [], []), faces[1], faces[2]], media=[0, 1, 1, 0])
    expected = scorer.fuse(faces[:3], media=[0, 1, 0])
    np.testing.assert_array_equal(found.embedding, expected.embedding)
    assert found.uncertainty == expected.uncertainty


@pytest.mark.parametrize(
    ("cosine", "uncertainties", "answer"),
    [
        (0.51, (0.1, 0.2), "match"),
        (0.49, (0.1, 0.2), "no match"),
        (0.99, (0.1, 0.7), "cannot tell"),
        (0.99, (0.9, 0.1), "cannot tell"),
        (-0.5, (0.7, 0.7), "cannot tell"),
    ],
)
def test_comparison(calibration, cosine, uncertainties, answer):
    made = model(calibration=calibration, decision=Decision(0.6, 0.8, "made up"))
    angle = math.acos(cosine)
    sides = [
        face(0, uncertainties[0], np.array([3, 0], np.float32)),
        face(1, uncertainties[1], np.array([math.cos(angle), math.sin(angle)], np.float32) * 7),
    ]
    for pair in (sides, sides[::-1]):
        found = compare_faces(made, *pair)
        assert found.score == pytest.approx(cosine, abs=1e-6)
        assert found.uncertainty == max(uncertainties)
        assert found.decision == answer
        expected = calibration.probability(max(uncertainties))
        assert found.p_false_non_match == pytest.approx(float(expected))


def test_p_same_person_is_that_of_the_map_at_the_prior(calibration):
    same = SamePerson(
        **{"mated": 500, "non_mated": 9000, "prior": 0.25, "certain": 0.1, "uncertain": 0.5},
        **{"bend": 0.3, "offset": (-0.5, 0.5), "below": (28.0, 12.0), "above": (30.0, 9.0)},
        **{"least": -6.2, "most": 9.1},
    )
    made = model(calibration=replace(calibration, same_person=same))
    sides = [face(0, 0.2), face(1, 0.9)]
    for pair in (sides, sides[::-1]):
        for prior in (None, 0.01):
            found = compare_faces(made, *pair, prior)
            assert found.prior == (prior or 0.25)
            expected = same.probability(found.score, 0.2, 0.9, found.prior)
            assert found.p_same_person == pytest.approx(float(expected))
    with pytest.raises(ValueError, match="prior = 1: must be between 0 and 1"):
        compare_faces(made, *sides, 1)
    plain = model(calibration=calibration)
    assert math.isnan(compare_faces(plain, *sides).p_same_person)
    with pytest.raises(
        ValueError, match="made has no P.same person.: calibrate it with .* --of ma"
    ):
        compare_faces(plain, *sides, 0.5)


def test_a_score_at_the_threshold_is_a_match(calibration):
    at = model(calibration=calibration, decision=Decision(1.0, None, ""))
    one = face(0, 0.1, np.array([1, 0], np.float32))
    half = face(0, 0.1, np.array([1, 3**0.5], np.float32))
    score = compare_faces(at, one, half).score
    exact = model(calibration=moved(calibration, score), decision=at.decision)
    assert compare_faces(exact, one, half).decision == "match"
    above = model(calibration=moved(calibration, math.nextafter(score, 1)), decision=at.decision)
    assert compare_faces(above, one, half).decision == "no match"


def moved(calibration, threshold):
    return type(calibration)(**(vars(calibration) | {"score_threshold": threshold}))


def test_without_calibration_there_is_a_score_but_no_decision(levels, faces):
    found = levels().compare(faces[0], faces[0])
    assert found.score == pytest.approx(1)
    assert found.decision is None
    assert math.isnan(found.p_false_non_match)


def test_sides_may_be_images_faces_and_templates(levels, faces, scene):
    places = {1: [(10, 20), (150, 100)], 2: []}
    scorer = levels(calibrated=True, places=places)
    scores = scorer(faces[:2])
    expected = scorer.compare(scores[0], scores[1])
    photo = scene(1, faces[:2], places[1])
    assert scorer.compare(photo, faces[1]) == expected
    assert scorer.compare(scorer(photo), scores[1]) == expected
    template = scorer.fuse([faces[1]])
    assert isinstance(template, Template)
    assert scorer.compare(photo, template).score == pytest.approx(expected.score)
    for side, which in (((photo, scene(2, [], [])), "second"), ((b"", photo), "first")):
        refused = f"the {which} side cannot be compared: (no face; no face f|unreadable; empty f)"
        with pytest.raises(ValueError, match=refused):
            scorer.compare(*side)
    with pytest.raises(ValueError, match="the first side has 7 images: compare takes one, or a te"):
        scorer.compare(faces, photo)


class Alone:
    """A student alone: scores, but no embedding."""

    name = "student"

    def __call__(self, batch):
        images = batch.images
        count = len(images)
        return Estimate(np.empty((count, 0), np.float32), np.full((count, 1), 0.3, np.float32))


def test_a_model_without_embedding_scores_and_says_why_it_cannot_compare(levels, faces):
    scorer = levels(calibrated=True, estimator=Alone())
    result = scorer(faces)
    assert result.embeddings.shape == (7, 0)
    assert result[0].embedding is None
    assert scorer.best_shot(result).index == 0
    for ask in (lambda: scorer.compare(faces[0], faces[1]), lambda: scorer.fuse(faces)):
        with pytest.raises(ValueError, match="model levels scores faces but gives no embedding"):
            ask()


def test_sides_of_two_models_do_not_compare(levels):
    two = (face(0), face(0, embedding=np.ones(4, np.float32)))
    with pytest.raises(ValueError, match="embeddings of 6 and 4 values are not of one model"):
        levels().compare(*two)


class PerDimension:
    name = "per dimension"

    def __call__(self, batch):
        images = batch.images
        light = images.mean(axis=(1, 2, 3))[:, None] / 255
        return Estimate(
            (light - 0.4 + np.arange(3)).astype(np.float32),
            (light + np.arange(3) / 10).astype(np.float32),
        )


def test_a_variance_per_dimension_is_one_uncertainty_and_stays_known(faces):
    made = LoadedModel(name="d", estimator=PerDimension(), provenance=Provenance(output="variance"))
    scorer = Scorer(made)
    rows = scorer(faces[:2])
    sigma_sq = PerDimension()(Batch(faces[:2])).sigma_sq
    np.testing.assert_allclose(
        rows.uncertainty, 1 / (1 / (sigma_sq + 1e-6)).mean(axis=1), rtol=1e-5
    )
    np.testing.assert_array_equal(rows[1].sigma_sq, sigma_sq[1])
    joint = 1 / (1 / sigma_sq).sum(axis=0)
    assert scorer.fuse(rows).uncertainty == pytest.approx(1 / np.mean(1 / joint), rel=1e-4)
