import dataclasses

import pytest

from evaluation.protocols import PROTOCOLS, find_protocol


def test_presets_and_their_switches():
    switches = {name: (one.threshold, one.fuse) for name, one in PROTOCOLS.items()}
    assert switches == {
        "original": ("fixed", "max"),
        "original-mcdropout": ("per_subset", "max"),
        "original-mcdropout-sum": ("per_subset", "sum"),
    }


def test_a_protocol_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_protocol("original").fuse = "sum"


def test_descriptions_say_the_switches_and_differ():
    words = [one.describe() for one in PROTOCOLS.values()]
    assert len(set(words)) == len(words)
    assert "one score threshold for the curve" in find_protocol("original").describe()
    mc_dropout = find_protocol("original-mcdropout-sum").describe()
    assert "found again on the kept pairs" in mc_dropout
    assert "the sum of its two images'" in mc_dropout


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown protocol 'orignal'; did you mean 'original'\?"):
        find_protocol("orignal")
    with pytest.raises(ValueError, match=r"known: original, original-mcdropout, original-mcdrop"):
        find_protocol("xyz")
