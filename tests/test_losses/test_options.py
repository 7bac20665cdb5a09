"""Options: how the log names them, which are refused, and which heads."""

import math

import pytest
import torch

from losses.base import Centres
from utils.config import Method
from utils.methods import build


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (Method("idq", scale=16.0, margin=0.45), "IDQ_loss soft 16 0.45"),
        (Method("idq", target="hard"), "IDQ_loss hard 16 0.45"),
        (Method("pcnet"), "PC_loss"),
        (Method("mls", reduce="sum"), "MLS_loss sum"),
        (Method("fast_mls"), "Fast_MLS_loss"),
        (
            Method("fast_mls", output_constraint=1e-3, triplet=1e-4),
            "Fast_MLS_loss constraint l1 0.001 triplet 0.0001 margin 3",
        ),
        (Method("distill"), "IDQ_loss soft 16 0.45 distill 10 T 1"),
        (Method("cr_fiqa"), "CR_FIQA_loss 0.5"),
        (Method("sdd_fiqa", scale=1.5, beta=0.1), "SDD_FIQA_loss 1.5 0.1"),
    ],
)
def test_the_log_names_the_loss_and_its_options(method, text):
    assert build("losses", method).summary == text


@pytest.mark.parametrize(
    ("name", "option", "value", "limit"),
    [
        ("idq", "scale", 0.0, "above 0"),
        ("idq", "scale", math.inf, "a finite number"),
        ("idq", "margin", 1.5, "a cosine"),
        ("idq", "target", "firm", "'soft' or 'hard'"),
        ("fast_mls", "output_constraint", -1.0, "at least 0"),
        ("fast_mls", "triplet", math.nan, "a finite number"),
        ("fast_mls", "constraint", "L1", "'l1' or 'l2'"),
        ("fast_mls", "triplet_margin", 0.0, "above 0"),
        ("mls", "reduce", "max", "'mean' or 'sum'"),
        ("distill", "weight", 0, "above 0"),
        ("cr_fiqa", "beta", 0.0, "above 0"),
        ("sdd_fiqa", "scale", -1.0, "above 0"),
        ("distill", "temperature", -1.0, "above 0"),
    ],
)
def test_refused_options(name, option, value, limit):
    text = f"losses.{name}: {option} = {value!r}: (must be|expected) {limit}"
    with pytest.raises(ValueError, match=text.replace(".", r"\.")):
        build("losses", Method(name, **{option: value}))


@pytest.mark.parametrize(
    ("name", "columns", "text"),
    [
        ("mls", 1, "each of the 8 embedding dimensions, the head gives 1: set dim=8 in the head"),
        ("fast_mls", 4, "head gives 4: set dim=1 .* use the loss 'mls'"),
        ("distill", 2, "one logit per image, the head gives 2"),
        ("scf", 2, "one log variance per image, the head gives 2: set dim=1"),
        ("dul", 2, "one log variance or 8, .* the head gives 2"),
    ],
)
def test_a_head_of_another_width_is_refused(name, columns, text):
    with pytest.raises(ValueError, match=text):
        build("losses", Method(name))(
            torch.zeros(2, 8),
            torch.zeros(2, columns),
            torch.zeros(2),
            teacher=torch.zeros(2),
            centres=Centres(torch.zeros(2, 8), torch.zeros(2, 8)),
        )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("distill", r"takes a teacher's logit of each image, \(B,\)"),
        ("scf", r"takes the centre of each identity, \(B, D\)"),
    ],
)
def test_a_loss_that_needs_a_teacher_or_centres_does_not_do_without(name, text):
    with pytest.raises(ValueError, match=text):
        build("losses", Method(name))(torch.zeros(2, 8), torch.zeros(2, 1), torch.zeros(2))
