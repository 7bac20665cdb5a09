import pytest

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
    ],
)
def test_the_log_names_the_loss_and_its_options(method, text):
    assert build("losses", method).summary == text
