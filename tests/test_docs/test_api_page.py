"""docs/api.md: its examples run as they stand, one after the other, and name what is there."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.images import encode_jpeg
from data.synthetic import SyntheticFaces
from report.sheet import FaceScore
from scoring.scorer import load_scorer
from scoring.templates import Template
from tests.test_docs.test_commands_run import write_people

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Names that the page's examples define, in a folder with the files that they read."""
    folder = tmp_path_factory.mktemp("photos")
    faces = SyntheticFaces(identities=6, images=1, seed=2)
    names = ("anna", "frame1", "frame2", "frame3", "album/a", "album/b")
    (folder / "album").mkdir()
    for row, name in enumerate(names):
        (folder / f"{name}.jpg").write_bytes(encode_jpeg(faces.read(row)))
    write_people(folder / "people")
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal(index % 2)},{index % 2},{rng.random()}" for index in range(2000)]
    (folder / "SCORES.csv").write_text("score,mated,quality\n" + "\n".join(rows) + "\n")
    (folder / "demo").mkdir()
    shutil.copy(ROOT / "demo" / "backbone.pth", folder / "demo")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, example in enumerate(EXAMPLES):
            exec(compile(example, f"example {number}", "exec"), found)
    return found


def test_the_examples_run(ran):
    assert len(EXAMPLES) >= 11
    assert ran["evaluation"].uncertainties[0].draws
    assert {row.method for row in ran["comparison"].rows} == {
        *("demo", "embedding_norm", "light_disagreement")
    }
    assert ran["calibrated"].calibration.fmr_target == 0.05
    assert ran["stored"].uncertainties[0].curves[0].protocol.name == "nist"
    assert [row["file"] for row in ran["rows"]] == ["anna.jpg", "album/a.jpg", "album/b.jpg"]
    assert "DEMO" in ran["scorer"].model.header()
    assert ran["strict"].model.decision.rule.startswith("accept while P(false non-match) is at mo")
    assert 0 <= ran["best"].index < 3
    assert (ran["template"].count, ran["template"].weights) == (3, "quality")
    assert ran["found"].decision in ("match", "no match", "cannot tell")
    assert ran["norm"].model.fusion == "norm"


def test_the_best_frame_is_the_one_with_the_lowest_uncertainty(ran):
    values = ran["best"].scores.uncertainty
    assert ran["best"].index == int(np.argmin(values))


def test_what_the_page_names_exists():
    for name in re.findall(r"face\.(\w+)", "".join(EXAMPLES)):
        assert name in {field.name for field in dataclasses.fields(FaceScore)}
    for name in re.findall(r"template\.(\w+)", "".join(EXAMPLES)):
        assert name in {field.name for field in dataclasses.fields(Template)}
    settings = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.partition("## Settings")[2], re.M)
    options = load_scorer.__kwdefaults__
    named = [name for cell in settings for name in re.findall(r"\w+", cell)]
    assert len(named) >= 6
    assert set(named) <= set(options)
