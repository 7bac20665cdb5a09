"""docs/api.md: its examples run as they stand, one after the other, and name what is there."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from data.images import encode_jpeg
from data.synthetic import SyntheticFaces
from evaluation.identification import main as identification_main
from report.sheet import FaceScore
from scoring.scorer import load_scorer
from scoring.templates import Template
from tests.helpers import write_people
from tests.test_docs.test_docs import ROOT, examples, execute, text_of

PAGE = text_of(ROOT / "docs" / "api.md")
EXAMPLES = examples(PAGE)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Names that the page's examples define, in a folder with the files that they read."""
    folder = tmp_path_factory.mktemp("photos")
    faces = SyntheticFaces(identities=6, images=1, seed=2)
    names = ("anna", "frame1", "frame2", "frame3", "album/a", "album/b")
    (folder / "album").mkdir()
    for row, name in enumerate(names):
        (folder / f"{name}.jpg").write_bytes(encode_jpeg(faces.read(row)))
    write_people(folder / "people", SyntheticFaces(20, 4, seed=3))
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal(index % 2)},{index % 2},{rng.random()}" for index in range(2000)]
    (folder / "SCORES.csv").write_text("score,mated,quality\n" + "\n".join(rows) + "\n")
    (folder / "demo").mkdir()
    shutil.copy(ROOT / "demo" / "backbone.pth", folder / "demo")
    found = {}
    side = ["--gallery", "people", "--model", "demo", "--fpir", "0.2", "--out", "identified"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert identification_main([*side, "--replicates", "0"]) == 0
        for example in EXAMPLES:
            execute(example, found)
    return found


def test_the_examples_run(ran):
    assert len(EXAMPLES) >= 11
    assert ran["evaluation"].uncertainties[0].draws
    compared = {row.method for row in ran["comparison"].rows}
    assert compared == {"demo", "embedding_norm", "light_disagreement"}
    assert ran["calibrated"].calibration.fmr_target == 0.05
    assert ran["stored"].uncertainties[0].curves[0].protocol.name == "nist"
    assert [row["file"] for row in ran["rows"]] == ["anna.jpg", "album/a.jpg", "album/b.jpg"]
    assert "DEMO" in ran["scorer"].model.header()
    assert ran["strict"].model.decision.rule.startswith("accept while P(false non-match) is at mo")
    assert 0 <= ran["best"].index < 3
    assert (ran["template"].count, ran["template"].weights) == (3, "quality")
    assert ran["found"].decision in ("match", "no match", "cannot tell")
    assert ran["answer"].verdict in ("identified", "nobody", "cannot tell")
    assert len(ran["answer"].candidates) == 20
    assert ran["norm"].model.fusion == "norm"
    assert ran["best"].index == int(np.argmin(ran["best"].scores.uncertainty))


def test_what_the_page_names_exists():
    for word, kind in (("face", FaceScore), ("template", Template)):
        named = re.findall(rf"{word}\.(\w+)", "".join(EXAMPLES))
        assert set(named) <= {field.name for field in dataclasses.fields(kind)}
    settings = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.partition("## Settings")[2], re.M)
    named = [name for cell in settings for name in re.findall(r"\w+", cell)]
    assert len(named) >= 6
    assert set(named) <= set(load_scorer.__kwdefaults__)
