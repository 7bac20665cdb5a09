"""Groups from a file to what is printed and written: text, JSON, CSV and page say the same."""

import csv
import json

import jsonschema
import numpy as np
import pytest

from evaluation import verification_risk_fnmr
from evaluation.run import EvaluationOptions, evaluate
from evaluation.sets.stored import open_stored
from tests.helpers import ROOT
from tests.test_report.conftest import Page

PEOPLE, IMAGES = 90, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Faces of which every third person's are noisier, and who they are."""
    folder, rng = tmp_path_factory.mktemp("groups"), np.random.default_rng(0)
    identity = np.repeat(np.arange(PEOPLE), IMAGES)
    noise = np.exp(rng.normal(0, 0.3, len(identity))) * np.where(identity % 3 == 0, 0.6, 0.35)
    centre = rng.normal(size=(PEOPLE, 24))[identity]
    names = np.array([f"p{person:02}/{row}.jpg" for row, person in enumerate(identity)])
    np.savez(
        folder / "made.npz",
        mu=np.float32(centre + noise[:, None] * rng.normal(size=centre.shape)),
        sigma_sq=np.float32(noise[:, None]),
        identity=identity,
        name=names,
    )
    people = [
        f"p{p:02},{'<b>' if p % 3 == 0 else 'plain'},{'few' if p < 9 else 'many'}\n"
        for p in range(PEOPLE - 1)
    ]
    (folder / "groups.csv").write_text(f"person,noise,size\n{''.join(people)}zoe,plain,many\n")
    return folder


@pytest.fixture(scope="module")
def written(folder):
    words = ["--features", folder / "made.npz", "--groups", folder / "groups.csv", "--fmr", "1e-2"]
    words += ["--report", folder / "report", "--json", folder / "all.json", "--replicates", "60"]
    assert verification_risk_fnmr.main(list(map(str, words))) == 0
    return folder / "report"


def test_every_output_has_the_same_numbers(folder, written):
    stored = json.loads((folder / "all.json").read_text())["results"][0]
    page = json.loads((written / "made.json").read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text())
    jsonschema.validate(page, schema)
    assert stored["blocks"][0]["groups"] == page["groups"]
    noise, size = page["groups"]
    assert (noise["name"], size["name"]) == ("noise", "size")
    with (written / "made-groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["grouping"], row["group"]) for row in rows] == [
        *(("noise", "<b>"), ("noise", "plain"), ("size", "few"), ("size", "many")),
    ]
    for row, group in zip(rows, [*noise["groups"], *size["groups"]], strict=True):
        for kind in ("fnmr", "fmr", "refused"):
            rate = group[kind]
            assert int(row[f"{kind}_errors"]) == rate["errors"]
            assert float(row[f"{kind}_low"]) == rate["low"]
            relative = rate["relative"]
            assert row[f"{kind}_relative_high"] == (str(relative["high"]) if relative else "")
            assert row[f"{kind}_too_small"] == str(int(rate["too_small"]))
    [fnmr, _, refused] = noise["differentials"]
    assert fnmr["worst"] == refused["worst"] == "<b>"
    assert fnmr["to_geometric_mean"]["low"] > 1


def test_the_text_names_what_differs_and_what_cannot_be_compared(folder, written):
    text = (written / "made.txt").read_text(encoding="utf-8")
    assert "groups by noise at FMR 0.01: score threshold" in text
    assert "FNMR: highest in <b>, " in text
    assert "apart from it at 95%: <b>, plain" in text
    assert "FNMR: fewer than two groups are large enough" in text
    assert "few (FNMR, FMR, refused)" in text
    assert "nothing is corrected for the number of rates and of groupings" in text
    assert "warning: groups.csv: 1 of its 90 people are not in this set" in text
    assert "warning: groups.csv: 4 of 360 images of this set are not in it" in text


def test_the_page_draws_them_side_by_side(written):
    page = Page((written / "made.html").read_text(encoding="utf-8"))
    page.check_closed()
    assert "Does it treat groups alike?" in page.text
    titles = [title for title in page.values("aria-label") if "each group" in title]
    assert len(titles) == 4 * 2
    assert "too small to compare" in page.text
    assert "1 of its 90 people are not in this set" in page.text


def test_one_result_for_each_grouping_and_target(folder):
    options = EvaluationOptions(groups=folder / "groups.csv", fmr=(1e-2, 1e-3), replicates=0)
    found = evaluate(open_stored(folder / "made.npz"), options=options).uncertainties[0].groups
    names = [(groups.grouping.name, groups.fmr_target) for groups in found]
    assert names == [("noise", 0.01), ("size", 0.01), ("noise", 0.001), ("size", 0.001)]
    assert all(not row.intervals for groups in found for row in groups.rows)


def test_pairs_keep_the_original_table(tmp_path, capsys):
    rng = np.random.default_rng(1)
    person = rng.normal(size=(200, 1, 16)) + rng.normal(0, 0.4, (200, 2, 16))
    person[::2, 1] = rng.normal(size=(100, 16))
    same = np.arange(200) % 2 == 1
    np.savez(
        tmp_path / "pairs.npz", mu=np.float32(person.reshape(400, 16)),
        sigma_sq=rng.random((400, 1), np.float32), issame=same,
    )  # fmt: skip
    rows = "".join(f"{row},{'ab'[row // 2 % 4 // 2]}\n" for row in range(400))
    (tmp_path / "g.csv").write_text(f"path,side\n{rows}")
    words = ["--features", str(tmp_path / "pairs.npz")]
    assert verification_risk_fnmr.main(words) == 0
    alone = capsys.readouterr().out
    assert verification_risk_fnmr.main([*words, "--groups", str(tmp_path / "g.csv")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(alone)
    assert "groups by side at FMR 0.001" in printed.removeprefix(alone)
    (tmp_path / "g.csv").write_text("path,side\n400,a\n")
    assert verification_risk_fnmr.main([*words, "--groups", str(tmp_path / "g.csv")]) == 2
    assert "none of its 1 paths is in pairs, whose first is '0'" in capsys.readouterr().err
