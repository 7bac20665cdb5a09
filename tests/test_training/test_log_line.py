import re

import pytest
import torch

from training.log import format_line, format_stat, stats_as_numbers


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("cos", [0.6, 0.88, 0.26], " cos 0.58 0.88 0.26"),
        ("sigma", [0.001, 0.002, 0.003], " sigma 2.0e-03 3.0e-03 1.0e-03"),
        ("sigma", [0.01, 0.01], " sigma 1.0e-02 1.0e-02 1.0e-02"),
        ("uloss", 0.5616, " uloss 0.562"),
        ("uloss", -1.7366, " uloss -1.737"),
    ],
)
def test_the_original_rounding(name, values, text):
    assert format_stat(name, torch.tensor(values, dtype=torch.float64)) == text


def test_a_line_has_the_form_of_the_original():
    stats = {"cos": torch.tensor([0.55, 1.0, 0.18]), "uloss": torch.tensor(0.535)}
    line = format_line(0, 100, 0.535, 1e-2, stats, 3.14)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[0-100\] \| loss 0\.535 lr0\.01 "
        r"cos 0\.58 1\.00 0\.18 uloss 0\.535 mem 3\.1 G",
        line,
    )


def test_numbers_are_unrounded():
    numbers = stats_as_numbers({"cos": torch.tensor([0.25, 0.75]), "uloss": torch.tensor(0.125)})
    assert numbers == {"cos": [0.5, 0.75, 0.25], "uloss": 0.125}
