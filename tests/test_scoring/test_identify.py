"""Who a probe shows, by rules whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from data.synthetic import SyntheticFaces
from scoring.identify import enroll
from scoring.scorer import load_scorer
from search.run import SearchRule

FACES = SyntheticFaces(identities=4, images=3, seed=5)
RULE = SearchRule(0.5, "quality", 1.0, None, "made up")


@pytest.fixture(scope="module")
def scorer():
    return load_scorer("demo")


@pytest.fixture(scope="module")
def people():
    return {f"p{who}": [FACES.read(3 * who + image) for image in (0, 1)] for who in range(3)}


def test_the_rule_decides(scorer, people):
    gallery = enroll(scorer, people, RULE)
    probe = scorer(FACES.read(3))[0]  # enrolled as p1
    answer = gallery.decide(probe)
    templates = {name: scorer.fuse(images) for name, images in people.items()}
    scores = {name: scorer.compare(probe, each).score for name, each in templates.items()}
    assert dict(answer.candidates) == pytest.approx(scores, abs=1e-6)
    assert [score for _, score in answer.candidates] == sorted(scores.values(), reverse=True)
    best, score = answer.candidates[0]
    for threshold, verdict in ((score - 0.01, "identified"), (score + 0.01, "nobody")):
        for cut in (probe.uncertainty, np.nextafter(np.float32(probe.uncertainty), -1), None):
            rule = replace(RULE, score_threshold=threshold, accept_up_to=cut and float(cut))
            own = enroll(scorer, people, rule).decide(probe)
            expected = verdict if cut == probe.uncertainty else "cannot tell"
            assert (own.verdict, own.who) == (
                expected,
                best if expected == "identified" else None,
            )
            assert np.isnan(own.p_error)


def test_what_cannot_be_searched_is_an_error(scorer, people, tmp_path):
    blank = np.zeros((300, 300, 3), np.uint8)
    with pytest.raises(ValueError, match="probe side cannot be compared: no face"):
        enroll(scorer, people, RULE).decide(blank)
    with pytest.raises(ValueError, match="p9: none of the 1 images"):
        enroll(scorer, {**people, "p9": [blank]}, RULE)
    with pytest.raises(ValueError, match="nobody to enroll"):
        enroll(scorer, tmp_path, RULE)
    with pytest.raises(ValueError, match="other weights"):
        enroll(scorer, people, replace(RULE, weights_sha256={"head": "0"}))
