"""One set has one error rate in every command, and one person who decides it is named."""

import dataclasses
import json
import re

import numpy as np
import pytest

from data.features import Embeddings
from data.images import encode_png
from data.labelled_pairs import CAP
from data.synthetic import SyntheticFaces
from evaluation import calibrate, compare, verification_risk_fnmr
from evaluation.metrics.comparisons import Comparisons
from evaluation.run import DRAWS, EvaluationOptions, evaluate
from evaluation.sets.stored import open_stored
from report.text import result_text, result_warnings
from report.words import ACCEPTED, caution_sentence
from tests import helpers

SIZES = [40] + [4] * 60  # images of each person
MATED = 20 + 60 * 6


def write_people(path, sizes):
    """Embeddings of people with so many images; the first one's resemble each other most."""
    rng = np.random.default_rng(3)
    identity = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.where(identity == 0, 0.2, rng.uniform(0.3, 1.2, len(identity)))[:, None]
    mu = rng.normal(size=(len(sizes), 16))[identity] + rng.normal(size=(len(noise), 16)) * noise
    names = np.array([f"p{who}/{row}.png" for row, who in enumerate(identity)])
    Embeddings(mu, noise, identity, names).save(path)
    return str(path)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people") / "people.npz", SIZES)


def printed(capsys, script, *argv):
    assert script.main([*map(str, argv)]) == 0
    return capsys.readouterr()


@pytest.mark.parametrize("cap", [None, 0, 5])
def test_every_command_prints_one_rate(people, tmp_path, capsys, cap):
    given = ["--features", people, "--fmr", "0.01", *([] if cap is None else ["--cap", cap])]
    calibrated = ["--out", tmp_path / "c.json"]
    rates = [
        re.search(pattern, printed(capsys, script, *given, *more).out)[1]
        for script, more, pattern in (
            (verification_risk_fnmr, [], r"FNMR +(\d+/\d+)"),
            (compare, ["--replicates", 5], r"FNMR (\d+/\d+)"),
            (calibrate, calibrated, r"FNMR (\d+/\d+)"),
        )
    ]
    mated = {None: MATED, 0: 40 * 39 // 2 + 60 * 6, 5: 61 * 5}[cap]
    assert set(rates) == {rates[0]}
    assert rates[0].endswith(f"/{mated}")


def test_what_the_cap_left_out_and_who_decides_are_said(people, tmp_path, capsys):
    left_out = f"at most {CAP} mated pairs of one person: 760 of {MATED + 760} are left out"
    decides = "one person of 61 (p0/0.png) has 25% of the non-mated pairs: FMR"
    outputs = ["--json", tmp_path / "r.json", "--report", tmp_path / "r", "--replicates", 20]
    evaluated = printed(capsys, verification_risk_fnmr, "--features", people, *outputs)
    compared = printed(capsys, compare, "--features", people, "--replicates", 5)
    calibrated = printed(capsys, calibrate, "--features", people, "--out", tmp_path / "c.json")
    for out in (evaluated, compared, calibrated):
        assert left_out in out.out
        assert (out.out + out.err).count(decides) == 1
    assert ACCEPTED in calibrated.out
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    page = json.loads((tmp_path / "r" / "people.json").read_text())
    for facts, warnings in ((result, result["warnings"]), (page["set"], page["warnings"])):
        assert (facts["cap"], facts["mated_left_out"]) == (CAP, 760)
        assert sum(decides in line for line in warnings) == 1
    html = (tmp_path / "r" / "people.html").read_text()
    assert left_out in html
    assert ACCEPTED[1:] in html.replace("&#39;", "'")
    everyone = printed(capsys, verification_risk_fnmr, "--features", people, "--cap", 0)
    assert "one person of 61 (p0/0.png) has 68% of the mated pairs: FNMR" in everyone.err
    assert "left out" not in everyone.out


def test_intervals_are_there_unless_declined(people, made_up, tmp_path):
    result = evaluate(open_stored(people))
    assert f"95% intervals at FMR 0.001, {DRAWS} bootstrap draws of 61" in result_text(result)
    assert any("25% of the non-mated" in line for line in result_warnings(result))
    for options in ({"replicates": 0}, {"protocols": ("original-mcdropout",)}):
        result = evaluate(open_stored(people), options=EvaluationOptions(**options))
        assert not result.uncertainties[0].draws
    made_up(pairs=100).save(tmp_path / "pairs.npz")
    assert not evaluate(open_stored(tmp_path / "pairs.npz")).uncertainties[0].draws


def comparisons(sizes):
    identity = np.repeat(np.arange(len(sizes)), sizes)
    pairs = np.stack(np.triu_indices(len(identity), 1), axis=1).astype(np.int32)
    mated = identity[pairs[:, 0]] == identity[pairs[:, 1]]
    scores, rows = np.zeros(len(pairs), np.float32), np.zeros(len(identity), np.float32)
    return Comparisons("c", scores, mated, pairs, rows, identity)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([4] * 40, []),
        ([1] * 40 + [2] * 12, []),
        ([1] * 90 + [2] * 9, ["one person of 9 (row 90) has 11% of the mated pairs: FNMR"]),
        (
            [9] + [2] * 40,
            ["one person of 41 (row 0) has 47% of the mated pairs: FNMR", "has 19%"],
        ),
        ([3] * 5, ["only 5 people, one of whom (row 0) has 20% of the mated pairs: the rates"]),
    ],
)
def test_the_person_who_decides(sizes, expected):
    said = [*map(caution_sentence, comparisons(sizes).cautions)]
    assert len(said) == len(expected)
    for line, part in zip(said, expected, strict=True):
        assert part in line
    assert not dataclasses.replace(comparisons(sizes), identity=None).cautions


def test_what_is_warned_of_in_the_log_is_in_json_and_page(tmp_path, capsys):
    """Photos that are not aligned are told by the room that reads them."""
    faces = SyntheticFaces(identities=6, images=3, seed=3)
    helpers.write_people(tmp_path / "faces", faces, lambda face: encode_png(face.repeat(2, axis=0)))
    argv = ["--device", "cpu", "--target", f"faces:{tmp_path / 'faces'}", "--fmr", "0.1"]
    argv += ["--replicates", 5]
    outputs = ["--json", tmp_path / "r.json", "--report", tmp_path / "r"]
    printed(capsys, verification_risk_fnmr, *argv, "--model", "demo", *outputs)
    printed(capsys, compare, *argv, "--methods", "demo", "--out", tmp_path / "c")
    (compared,) = json.loads((tmp_path / "c" / "compare.json").read_text())["sets"]
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    page = json.loads((tmp_path / "r" / "faces.json").read_text())
    for warnings in (result["warnings"], page["warnings"], compared["warnings"]):
        assert sum("18 of 18 images (100 %) are not aligned" in line for line in warnings) == 1
        assert sum("only 6 people, one of whom (p00/00.png)" in line for line in warnings) == 1


@pytest.mark.parametrize(("seed", "warned"), [(1, True), (2, False)])
def test_faces_that_a_head_was_trained_on_are_named(run, tmp_path, caplog, seed, warned):
    target = ["--target", f"faces:synthetic:identities=4,images=2,seed={seed}", "--fmr", "0.1"]
    model = ["--model_dir", str(run), "--device", "cpu"]
    assert verification_risk_fnmr.main([*model, *target, "--json", str(tmp_path / "o.json")]) == 0
    assert calibrate.main([*model, *target, "--out", str(tmp_path / "c.json")]) == 0
    assert compare.main([*target, "--methods", f"tiny={run}", "--device", "cpu"]) == 0
    said = "tiny was trained on these faces"
    assert caplog.text.count(said) == 3 * warned
    assert ((tmp_path / "o.json").read_text().count(said) > 0) == warned
