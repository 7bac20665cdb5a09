"""The audit of a gallery: planted faults, effects by brute force, what it refuses to tell."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import expon

from benchmarks.audit import measure, plant
from data.features import Embeddings, unit_rows
from data.synthetic import SyntheticFaces
from evaluation import audit as script
from report.audit import COLUMNS, audit_page
from scoring.gallery import open_gallery
from search import audit as module
from search.audit import KINDS, AuditOptions, Tail, audit, missed_from
from search.gallery import Gallery
from tests.helpers import write_people
from tests.test_report.conftest import Page


def sides(people=400, size=64, seed=0):
    """People with one to eight images, clean and degraded: noise grows with the uncertainty."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(people), rng.integers(1, 9, people))
    person = unit_rows(rng.normal(size=(people, size)).astype(np.float32))[label]
    galleries = []
    for low, high in ((0.2, 0.7), (1.8, 3.0)):
        uncertainty = rng.uniform(low, high, len(label)).astype(np.float32)
        noise = rng.normal(size=person.shape).astype(np.float32) * np.float32(size**-0.5)
        unit = unit_rows(person + uncertainty[:, None] * 1.3 * noise)
        names = [f"p{who:03d}/{row}.jpg" for row, who in enumerate(label.tolist())]
        galleries.append(Gallery("made", unit, uncertainty, label, names))
    return galleries


def brute_force(gallery, gone, person, probes, mated, threshold):
    """(missed, falsely found) of each probe, from the whole matrix of cosines."""
    scores = (gallery.unit.astype(np.float64) @ gallery.unit.T.astype(np.float64)).round(6)
    scores[:, gone] = -2
    np.fill_diagonal(scores, -2)
    scores[(gallery.unit[:, None, :4] == gallery.unit[None, :, :4]).all(axis=2)] = -2
    same = person[:, None] == person[None]
    own = np.where(same, scores, -2).max(axis=1)[probes]
    other = np.where(same, -2, scores).max(axis=1)[probes]
    return mated & ((own < threshold) | (own <= other)), other >= threshold


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_faults_are_found_and_little_else(seed):
    gallery, truth = plant(*sides(), seed)
    for kind, (planted, hits, found, right) in measure(audit(gallery), truth).items():
        assert planted >= 15, kind
        assert hits >= 0.9 * planted, kind
        assert right >= 0.9 * found, kind


def test_a_gallery_without_faults_has_next_to_no_findings():
    clean, _ = sides()
    result = audit(clean)
    assert len(result.findings) <= 3
    assert result.effects["nothing"].fpir.total >= len(clean.person) - 6
    assert {caution.kind for caution in result.cautions} == {"audit_no_limit", "audit_alone"}


def test_effects_are_those_of_brute_force(monkeypatch):
    monkeypatch.setattr(module, "NEIGHBOURS", 3)  # so that all remembered ones are often gone
    gallery, _ = plant(*sides(people=120), 3)
    result = audit(gallery, AuditOptions(fpir=0.05))
    kinds = [kind for kind in KINDS if result.of(kind)]
    assert len(kinds) == 5
    faulty = np.zeros(len(gallery.person), bool)
    joined = gallery.person.copy()
    for finding in result.findings:
        if finding.kind == "duplicate":
            joined[joined == joined[finding.rows[0]]] = joined[finding.other]
        else:
            faulty[list(finding.rows)] = True
    probes = np.flatnonzero(~faulty)
    mates = (joined[probes][:, None] == joined[probes][None]).sum(axis=1) > 1

    def errors(gone, person):
        return brute_force(gallery, gone, person, probes, mates, result.threshold)

    nobody = np.zeros_like(faulty)
    cases = {"nothing": (nobody, gallery.person), "all": (faulty, joined)}
    cases["duplicate"] = nobody, joined
    for kind in set(kinds) - {"duplicate"}:
        rows = [row for finding in result.of(kind) for row in finding.rows]
        cases[kind] = np.isin(np.arange(len(faulty)), rows), gallery.person
    for name, case in cases.items():
        missed, wrong = errors(*case)
        effect = result.effects[name]
        assert (effect.fnir.errors, effect.fpir.errors) == (missed.sum(), wrong.sum()), name
        assert (effect.fnir.total, effect.fpir.total) == (mates.sum(), len(probes))
    assert result.effects["all"].fpir.errors <= 0.05 * len(probes)
    before = [part.sum() for part in errors(nobody, gallery.person)]
    for finding in result.findings[::5]:
        gone, person = nobody.copy(), gallery.person
        if finding.kind == "duplicate":
            person = np.where(person == person[finding.rows[0]], person[finding.other], person)
        else:
            gone[list(finding.rows)] = True
        after = [part.sum() for part in errors(gone, person)]
        assert [finding.misses, finding.false_positives] == list(np.subtract(before, after))


def test_what_cannot_be_told_is_said_by_name():
    clean, _ = sides(people=60)
    noise = np.random.default_rng(0).normal(size=clean.unit.shape).astype(np.float32)
    blind = audit(replace(clean, unit=unit_rows(noise)))
    assert "audit_blind" in {caution.kind for caution in blind.cautions}
    assert not blind.of("wrong_label")
    assert len(blind.findings) <= 3
    one_each = audit(replace(clean, person=np.arange(len(clean.person))))
    assert one_each.cautions[-1] == (
        "audit_alone",
        {"count": int(one_each.cautions[-1].facts["count"])},
    )
    assert not one_each.of("wrong_label") + one_each.of("nearer_to_another")
    with pytest.raises(ValueError, match="made: 1 person"):
        audit(replace(clean, person=np.zeros_like(clean.person)))
    with pytest.raises(ValueError, match="fpir"):
        AuditOptions(fpir=0)


def test_a_tail_is_that_of_an_exponential():
    drawn = expon(scale=0.1).rvs(200_000, random_state=0).astype(np.float32)
    tail = Tail(drawn, 1e-3, 10)
    beyond = tail.beyond(np.float32([0.8, 1.2]))
    assert beyond == pytest.approx(expon(scale=0.1).sf([0.8, 1.2]), rel=0.5)
    assert tail.score(float(beyond[1])) == pytest.approx(1.2, abs=1e-5)
    assert tail.any_beyond(np.float32([1.2]), 100)[0] == pytest.approx(100 * beyond[1], rel=1e-3)


def test_the_limit_of_quality_is_where_more_than_half_are_missed():
    uncertainty = np.arange(1000.0)
    rng = np.random.default_rng(0)
    chance = np.where(uncertainty < 900, 0.1, 0.9)  # a tenth has a wrong name
    limit = missed_from(uncertainty, rng.random(1000) < chance)
    assert 880 <= limit <= 920
    assert np.isnan(missed_from(uncertainty, rng.random(1000) < 0.1))
    assert np.isnan(missed_from(uncertainty, np.zeros(1000, bool)))
    assert np.isnan(missed_from(uncertainty[:2], np.array([False, True])))


@pytest.mark.parametrize("owner", [0, 5])
def test_the_copy_that_does_not_fit_its_person_is_named(owner):
    clean, _ = sides(people=80)
    row = int(
        np.flatnonzero(clean.person == np.flatnonzero(np.bincount(clean.person) == 4)[owner])[0]
    )
    host = int(clean.person[0])
    copied = Gallery(
        "made",
        np.concatenate([clean.unit[[row]], clean.unit]),
        np.append(clean.uncertainty[row], clean.uncertainty),
        np.append(host, clean.person),
        ["p/copy.jpg", *clean.names],
    )
    (copy,) = audit(copied).of("copy")
    assert (copy.rows, copy.other) == ((0,), row + 1)


def test_page_and_table_name_what_was_found(tmp_path):
    gallery, _ = plant(*sides(people=120), 0)
    hostile = [f"<b>p{who}/\u202e{row}.jpg" for row, who in enumerate(gallery.person.tolist())]
    picture = np.zeros((112, 112, 3), np.uint8)
    result = audit(replace(gallery, names=hostile, picture=lambda row: picture))
    html = audit_page(result)
    page = Page(html)
    assert "<b>p" not in html
    assert "\u202e" not in html
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) >= len(result.findings)
    assert all("<b>p" in image["alt"] and image["src"].startswith("data:") for image in images)
    assert "no picture" in audit_page(audit(gallery))


def test_the_script_reads_stored_embeddings_and_faces(tmp_path, capsys, refused):
    faces = SyntheticFaces(identities=8, images=3)
    write_people(tmp_path / "faces", faces)
    out = tmp_path / "out"
    where = ["--model", "demo", "--device", "cpu", "--out", str(out)]
    assert script.main([str(tmp_path / "faces"), *where, "--parts", str(tmp_path / "parts")]) == 0
    printed = capsys.readouterr().out
    assert "24 images of 8 people" in printed
    assert "audit.html" in printed
    gallery, _ = plant(*sides(people=120), 0)
    names = np.array([f"p{who}/{row}.jpg" for row, who in enumerate(gallery.person.tolist())])
    stored = Embeddings(gallery.unit, gallery.uncertainty, gallery.person, names)
    file = tmp_path / "made.npz"
    stored.save(file)
    assert script.main([str(file), "--out", str(out)]) == 0
    result = audit(open_gallery(file))
    with (out / "audit.csv").open(newline="") as lines:
        header, *rows = csv.reader(lines)
    assert tuple(header) == COLUMNS
    assert [row[2] for row in rows] == [str(names[row]) for f in result.findings for row in f.rows]
    assert {row[1] for row in rows} == set(KINDS)
    refused(lambda: script.main([str(file), *where]), "no model goes with it")
    refused(
        lambda: script.main([str(tmp_path / "faces"), "--out", str(out)]), "photos need a --model"
    )
    other = ["--images", str(tmp_path / "faces"), "--out", str(out)]
    refused(lambda: script.main([str(file), *other]), "no image p0/0.jpg")
