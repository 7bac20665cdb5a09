"""docs/methods.md names every score that needs no training, with its options and defaults."""

import inspect
import re
from pathlib import Path

import pytest

from utils.methods import available, find

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
PAGE = PAGE.partition("\n## Training-free scores\n")[2].partition("\n## ")[0]
TRAINED_OR_STORED = {"onnx", "trained_head", "from_file", "fusion", "mc_dropout"}  # on other pages
NAMES = sorted(set(available("estimators")) - TRAINED_OR_STORED)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_it_with_its_options(name):
    assert re.search(rf"^(#+ |\| )`{name}`", PAGE, re.MULTILINE)
    options = dict(inspect.signature(find("estimators", name)).parameters)
    del options["frozen"]
    for option, parameter in options.items():
        default = str(parameter.default).removeprefix("0").removesuffix(".0") or "0"
        assert re.search(rf"`{option}`[\s(`\"]+{re.escape(default)}\b", PAGE), (option, default)
