import dataclasses

import pytest

from evaluation.metrics.protocols import PROTOCOLS, SWITCHES, Protocol, find_protocol
from tests.test_evaluation.factories import ORIGINALS


def test_presets_and_their_switches():
    switches = {
        name: (one.threshold, one.rule, one.discard_over, one.fuse, one.ties, one.grid)
        for name, one in PROTOCOLS.items()
    }
    assert switches == {
        "original": ("fixed", "nearest", "all", "max", "keep", "percent"),
        "original-mcdropout": ("per_subset", "nearest", "all", "max", "keep", "percent"),
        "original-mcdropout-sum": ("per_subset", "nearest", "all", "sum", "keep", "percent"),
        "lightqnet": ("fixed", "nearest", "all", "max", "keep", "percent"),
        "crfiqa": ("per_subset", "nearest", "all", "max", "together", "by_5"),
        "iso29794": ("fixed", "conservative", "mated", "max", "together", "exact"),
        "pauc": ("fixed", "conservative", "mated", "max", "together", "exact"),
        "nist": ("fixed", "starting_error", "mated", "max", "together", "exact"),
    }
    originals = [name for name, one in PROTOCOLS.items() if one.prints_original]
    assert originals == list(ORIGINALS.values())


def test_every_switch_has_a_name_and_all_its_values():
    named = {one.name for one in dataclasses.fields(Protocol)}
    assert named - set(SWITCHES) == {"name", "start_fnmr", "limits"}
    assert SWITCHES["fuse"] == ("max", "mean", "sum", "product")


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"rule": "closest"}, "protocol p: unknown rule 'closest' (known: nearest, conservative, "),
        ({"start_fnmr": 1.0}, "protocol p: start_fnmr 1.0 is not between 0 and 1"),
        ({"limits": ()}, "protocol p: limits () must be one or more discard fractions"),
        ({"limits": (0.3, 1.2)}, "protocol p: limits (0.3, 1.2) must be"),
        ({"grid": "exact"}, "grid 'exact' does not go with ties 'keep'"),
        (
            {"grid": "exact", "ties": "together", "threshold": "per_subset"},
            "grid 'exact' does not go with threshold 'per_subset': a threshold per step costs",
        ),
        (
            {"rule": "starting_error", "threshold": "per_subset"},
            "rule 'starting_error' does not go with threshold 'per_subset'",
        ),
        (
            {"discard_over": "images", "subtract": "optimum"},
            "discard_over 'images' does not go with subtract 'optimum'",
        ),
        ({"discard_over": "images", "fuse": "sum"}, "only 'max' has a meaning"),
    ],
)
def test_switches_that_cannot_be(switches, message):
    with pytest.raises(ValueError, match="protocol p") as caught:
        Protocol(name="p", **switches)
    assert message in str(caught.value)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown protocol 'orignal'; did you mean 'original'\?"):
        find_protocol("orignal")
    with pytest.raises(ValueError, match=r"known: original, original-mcdropout, original-mcdrop"):
        find_protocol("xyz")
