import json

import numpy as np
import pytest

from data.features import Features
from evaluation.original import original_table
from report.results import original_dict
from report.text import original_text
from report.words import caution_sentences
from tests.test_evaluation.factories import ORIGINALS


def sentences(table):
    return caution_sentences(table.cautions)


@pytest.mark.parametrize("variant", ORIGINALS)
@pytest.mark.parametrize("name", ["C", "D", "H", "J"])
def test_text_equals_the_original(name, variant, golden_features, golden_texts):
    table = original_table(golden_features[name], ORIGINALS[variant])
    assert original_text(table) == golden_texts[name][variant]


def test_text_does_not_depend_on_the_callers_print_options(golden_features, golden_texts):
    with np.printoptions(precision=2, linewidth=30, suppress=True, sign="+"):
        table = original_table(golden_features["H"])
        assert original_text(table) == golden_texts["H"]["fnmr_fixed"]


def test_blocks_are_those_of_their_columns_alone(made_up):
    features = made_up(columns=9)
    both = original_table(features, sigma_sizes=(8, 1))
    for block, columns in zip(both.blocks, (slice(0, 8), slice(8, 9)), strict=True):
        alone = Features(features.mu, features.sigma_sq[:, columns], features.issame)
        np.testing.assert_array_equal(
            block.curves[-1].fnmr, original_table(alone).blocks[0].curves[-1].fnmr
        )
    first, second = original_text(both).split("\n\n")
    assert first.startswith("sigma_sq [")
    assert second.startswith("reject_factor 0.0000")


def sorted_by_class(made_up, mated_first):
    """Pairs of one class are all more uncertain than those of the other."""
    features = made_up(pairs=40)
    order = features.issame if mated_first else ~features.issame
    sigma_sq = np.repeat(np.where(order, 2.0, 1.0) + np.linspace(0, 0.5, 40), 2)
    return Features(features.mu, sigma_sq, features.issame)


@pytest.mark.parametrize(
    ("pairs", "labels", "options", "message"),
    [
        (9, None, {}, "9 pairs; at least 10 are needed"),
        (20, True, {}, "no non-mated pair among 20"),
        (20, False, {}, "no mated pair among 20"),
        (20, None, {"sigma_sizes": (8, 1)}, "sigma_sizes 8,1 must be .* the 3 columns"),
        (20, None, {"protocol": "iso29794"}, "protocol iso29794 does not make the original's"),
    ],
)
def test_what_has_no_table(made_up, pairs, labels, options, message):
    features = made_up(pairs=pairs, columns=3)
    issame = features.issame if labels is None else np.full(pairs, labels)
    with pytest.raises(ValueError, match=f"^lfw: {message}"):
        original_table(Features(features.mu, features.sigma_sq, issame), name="lfw", **options)


@pytest.mark.parametrize("protocol", ["original", "original-mcdropout"])
@pytest.mark.parametrize("kind", ["mated", "non-mated"])
def test_a_kind_that_is_used_up_is_one_caution(made_up, kind, protocol):
    table = original_table(sorted_by_class(made_up, mated_first=kind == "mated"), protocol)
    curve = table.blocks[0].curves[-1]
    held = 0.0
    if kind == "mated":
        held = curve.fnmr[np.flatnonzero(curve.mated)[-1]]
        assert (curve.fnmr[curve.mated == 0] == held).all()
    elif protocol == "original-mcdropout":
        assert (curve.fnmr[60:] == 0).all()
    (line,) = [line for line in sentences(table) if f"no {kind} pair is kept" in line]
    assert ("FNMR is 0" in line) == (kind == "non-mated" and protocol == "original-mcdropout")
    assert "nan" not in original_text(table)
    json.dumps(original_dict(table), allow_nan=False)
