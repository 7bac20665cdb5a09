"""Sentences say the switches, counts and intervals that they are made from."""

import dataclasses

import numpy as np
import pytest

from evaluation.comparison import Verdict
from evaluation.confidence.bootstrap import bootstrap
from evaluation.confidence.intervals import Interval
from evaluation.confidence.risk_control import control_risk
from evaluation.metrics.curve import protocol_curve
from evaluation.metrics.protocols import PROTOCOLS, SWITCHES, Protocol, find_protocol
from evaluation.metrics.thresholds import Caution
from report.words import (
    CAUTIONS,
    caution_sentence,
    protocol_sentence,
    risk_sentences,
    signed,
    verdict_sentence,
)
from tests.test_evaluation.factories import disjoint_pairs


def test_protocols_in_words_differ():
    words = [protocol_sentence(protocol) for protocol in PROTOCOLS.values()]
    assert len(set(words)) == len(words)
    nist = protocol_sentence(find_protocol("nist"))
    assert "FNMR without discard is nearest to 0.01 (the FMR target is not used)" in nist
    assert "up to 0.2, 0.3" in nist


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_value_of_every_switch_changes_the_words(switch):
    plain = Protocol(name="plain", ties="together", read_at="threshold")
    changed = {
        protocol_sentence(dataclasses.replace(plain, **{switch: value}))
        for value in SWITCHES[switch]
    }
    assert len(changed) == len(SWITCHES[switch])


def test_every_caution_has_a_sentence():
    comparisons = disjoint_pairs(200)
    curves = [protocol_curve(comparisons, name, 1e-3) for name in ("iso29794", "nist")]
    methods = {"made": comparisons.uncertainty}
    draws = bootstrap(comparisons, methods, PROTOCOLS["iso29794"], 0.01, replicates=5)
    cautions = [caution for result in (*curves, draws) for caution in result.cautions]
    assert len(cautions) > 1
    for caution in cautions:
        assert "{" not in caution_sentence(caution)
    for kind in ("no_mated_kept", "no_non_mated_kept"):
        caution = Caution(kind, {"fraction": 0.5, "threshold": "per_subset"})
        assert "from discard fraction 0.50 on" in caution_sentence(caution)
    few = Caution("few_units", {"units_drawn": 6, "unit": "identity"})
    assert "only 6 identities to draw from" in caution_sentence(few)
    beyond = Caution("beyond_list", {"draws": 2, "total": 9, "listed_from": 0.25})
    assert "in 2 of 9 draws" in caution_sentence(beyond)
    assert all(line == line.strip() for line in CAUTIONS.values())


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (-0.0123, (-0.0201, -0.0049), "-.012 [-.020, -.005]"),
        (-0.00123, (-0.00201, -0.00049), "-.0012 [-.0020, -.0005]"),
        (0.5, (-1.25, 10.5), "+.500 [-1.250, +10.500]"),
    ],
)
def test_differences_have_the_digits_they_deserve(value, interval, text):
    assert signed(value, Interval(*interval)) == text


def test_verdicts_say_the_same_from_either_side():
    better = verdict_sentence(Verdict("A", "B", 0.3, -0.2, Interval(-0.3, -0.1)))
    assert better == verdict_sentence(Verdict("B", "A", 0.3, 0.2, Interval(0.1, 0.3)))
    assert better == "A is better than B at AUERC30: -.200 [-.300, -.100]"
    equal = verdict_sentence(Verdict("A", "B", 1, 0.01, Interval(-0.1, 0.1), ahead=3, pairs=4))
    assert equal.startswith("A and B cannot be told apart on this set: mean AUERC differs by +.010")
    assert equal.endswith("; B is ahead in 3 of 4 pairs")


@pytest.mark.parametrize(
    ("target", "threshold", "words"),
    [
        (0.15, 0.5, "accept uncertainty <= "),
        (1e-4, 0.5, "cannot be reached: there are"),
        (0.02, 2.0, "cannot be reached: even the most certain"),
    ],
)
def test_a_risk_in_words(target, threshold, words):
    control = control_risk(disjoint_pairs(), target_risk=target, score_threshold=threshold)
    text = risk_sentences(control)
    assert text.startswith(f"made-up: FNMR of at most {target:g} among accepted comparisons, conf")
    assert words in text
    assert f"{control.left_out} comparisons between the parts were left out" in text
    if control.uncertainty_threshold is not None:
        assert str(np.float32(control.uncertainty_threshold)) in text
