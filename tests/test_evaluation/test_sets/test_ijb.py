import re

import numpy as np
import pytest

import data.ijb_files as files
from data.images import encode_png
from data.synthetic import SyntheticFaces
from estimators.base import Estimate, harmonic_mean
from evaluation.embed import embed_images
from evaluation.metrics.thresholds import tar_at_far
from evaluation.sets.ijb import FUSIONS, compare_fusions, open_ijb, possible_fusions
from evaluation.sets.score_files import read_scores
from evaluation.verification_risk_fnmr import main
from photos.align import REFERENCE, LooseCrops
from report.text import ijb_table
from tests.helpers import ROOT
from tests.test_docs.test_docs import examples, execute, section

PEOPLE, PER_PERSON = 6, 9
SHIFT = (23, 11)  # of the face in its loose crop


def written(folder, faces, prefix="ijbc"):
    """Write a set in insightface's layout; three templates per person, of 1, 3 and 5 images."""
    (folder / "meta").mkdir(parents=True)
    (folder / "loose_crop").mkdir()
    rng = np.random.default_rng(0)
    members, places, people = [], [], {}
    for row in range(len(faces)):
        person, image = divmod(row, PER_PERSON)
        crop = np.full((150, 160, 3), 90, np.uint8)
        crop[SHIFT[1] : SHIFT[1] + 112, SHIFT[0] : SHIFT[0] + 112] = faces.read(row)
        (folder / "loose_crop" / f"{row + 1}.png").write_bytes(encode_png(crop))
        template = 100 + 7 * (3 * person + (image > 0) + (image > 3))
        people[template] = person
        members.append(f"{row + 1}.png {template} {500 + image // 2}")
        points = " ".join(f"{value:.4f}" for value in (REFERENCE + SHIFT).ravel())
        places.append(f"{row + 1}.png {points} {rng.uniform(0.6, 1):.5f}")
    ids = sorted(people)
    pairs = [
        f"{a} {b} {int(people[a] == people[b])}" for i, a in enumerate(ids) for b in ids[i + 1 :]
    ]
    for name, lines in (
        ("face_tid_mid", members), ("name_5pts_score", places), ("template_pair_label", pairs),
    ):  # fmt: skip
        text = "\n".join(lines) + "\n"
        (folder / "meta" / f"{prefix}_{name}.txt").write_text(text)
    return people


@pytest.fixture(scope="module")
def faces():
    return SyntheticFaces(PEOPLE, PER_PERSON, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, faces):
    folder = tmp_path_factory.mktemp("sets") / "IJBC"
    written(folder, faces)
    return folder


@pytest.fixture
def copy(tmp_path, folder):
    """A set whose text files may be spoiled."""
    (tmp_path / "meta").mkdir()
    for path in (folder / "meta").iterdir():
        (tmp_path / "meta" / path.name).write_text(path.read_text())
    (tmp_path / "loose_crop").symlink_to(folder / "loose_crop")
    return tmp_path


class GridColours:
    """Mean colours of a 4 x 4 grid as an embedding, darkness as an uncertainty in (0, 1)."""

    name = "grid_colours"

    def __call__(self, batch):
        images = batch.images
        pixels = images.astype(np.float32)
        grid = pixels.reshape(-1, 4, 28, 4, 28, 3).mean(axis=(2, 4)).reshape(-1, 48)
        return Estimate(grid - 110, 1 - pixels.mean(axis=(1, 2, 3))[:, None] / 256)


def estimated(images):
    return embed_images(GridColours(), images, 7, name="test")


def test_faces_come_back_aligned_and_in_order(folder, faces):
    opened = open_ijb(folder)
    assert (opened.name, len(opened.images)) == ("ijbc", PEOPLE * PER_PERSON)
    assert opened.images.image_name(4) == "5.png"
    decoded = opened.images.decode(2, 6)
    assert decoded.dtype == np.uint8
    for place, row in enumerate(range(2, 6)):
        # landmarks have four decimals, so a weight of bilinear interpolation may be 1/32 off
        gap = np.abs(decoded[place].astype(int) - faces.read(row))
        assert gap.max() <= 8
        assert gap.mean() < 0.5
    last = opened.images.decode(50, 99)
    assert len(last) == 4
    np.testing.assert_array_equal(last, opened.images.decode(0, 54)[50:])
    landmarks = np.concatenate(
        [opened.images._landmarks[[4, 4]], opened.images._landmarks[[4]] + 1]
    )
    crops = LooseCrops(opened.images.folder, np.array([b"5.png"] * 3), landmarks)
    equal, same, other = map(crops.fingerprint, range(3))  # of one file, with other landmarks
    assert equal == same != other


def test_protocol_as_written(folder):
    opened = open_ijb(folder)
    assert opened.template_ids.tolist() == [100 + 7 * n for n in range(3 * PEOPLE)]
    assert opened.template[:10].tolist() == [100, 107, 107, 107, 114, 114, 114, 114, 114, 121]
    assert opened.media[:5].tolist() == [500, 500, 501, 501, 502]
    assert opened.pairs.dtype == np.int32
    assert opened.pairs.tolist() == [[a, b] for a in range(18) for b in range(a + 1, 18)]
    np.testing.assert_array_equal(opened.mated, np.diff(opened.pairs // 3).ravel() == 0)
    assert 0.6 <= opened.detector_score.min() < opened.detector_score.max() <= 1


def brute_force(opened, mu, weight):
    """Scores, and TAR at some FARs, of templates as weighted means of media, in plain loops."""
    unit = mu / np.linalg.norm(mu, axis=1, keepdims=True)
    fused = []
    for template in opened.template_ids:
        total = 0
        for medium in np.unique(opened.media[opened.template == template]):
            rows = (opened.template == template) & (opened.media == medium)
            total = total + (weight[rows, None] * unit[rows]).mean(axis=0)
        fused.append(total / np.linalg.norm(total))
    scores = [float(fused[a] @ fused[b]) for a, b in opened.pairs]
    mated = [s for s, same in zip(scores, opened.mated, strict=True) if same]
    non_mated = sorted((s for s, same in zip(scores, opened.mated, strict=True) if not same))
    found = {}
    for k in range(1, 20):
        refused = non_mated[-k - 1]  # the threshold lies just above it
        found[k / len(non_mated)] = sum(score > refused for score in mated) / len(mated)
    return scores, found


def test_tar_of_an_estimator_equals_brute_force(folder):
    opened = open_ijb(folder)
    mu, sigma_sq = estimated(opened.images)
    norm = np.linalg.norm(mu, axis=1)
    weights = {
        "mean": np.ones(len(mu)),
        "quality": 1 - sigma_sq[:, 0],
        "norm": norm,
        "detector": opened.detector_score,
        "norm_detector": opened.detector_score * norm,
    }
    for fusion, weight in weights.items():
        scores, expected = brute_force(opened, mu.astype(np.float64), weight)
        found = opened.comparisons(mu, sigma_sq, fusion)
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)
        results = compare_fusions(opened, mu, sigma_sq, [fusion], list(expected))[fusion]
        for row, (fmr, tar) in zip(results, expected.items(), strict=True):
            assert row.point.fmr == pytest.approx(fmr)
            assert row.tar == pytest.approx(tar)
    assert 0 < min(expected.values()) < max(expected.values())


def test_comparisons_are_of_templates(folder):
    mu, sigma_sq = estimated(open_ijb(folder).images)
    opened = open_ijb(folder, weights="inverse_variance")
    found = opened.comparisons(mu, sigma_sq)
    fused = opened.fuse(mu, sigma_sq, "inverse_variance")
    np.testing.assert_array_equal(found.uncertainty, fused.sigma_sq[:, 0])
    np.testing.assert_array_equal(found.image, np.arange(18))
    np.testing.assert_array_equal(found.identity, np.repeat(np.arange(PEOPLE), 3))
    assert found.best_unit == "identity"
    single = np.flatnonzero(np.bincount(opened.template)[opened.template_ids] == 1)
    assert (found.uncertainty[single] == sigma_sq[::PER_PERSON, 0]).all()
    wide = np.repeat(sigma_sq, 48, axis=1)
    found = opened.comparisons(mu, wide)
    expected = harmonic_mean(opened.fuse(mu, wide).sigma_sq)
    np.testing.assert_array_equal(found.uncertainty, expected)


def test_scored_by_mutual_likelihood(folder):
    opened = open_ijb(folder, score="mls")
    mu, sigma_sq = estimated(opened.images)
    found = opened.comparisons(mu, sigma_sq)
    plain = open_ijb(folder).comparisons(mu, sigma_sq)
    total = plain.uncertainty[found.pairs].sum(axis=1)
    expected = -24 * (2 * (1 - plain.scores) / total + np.log(total) + np.log(2 * np.pi))
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4)


def test_table_shows_fusions_side_by_side(folder):
    opened = open_ijb(folder)
    mu, sigma_sq = estimated(opened.images)
    results = compare_fusions(opened, mu, sigma_sq, targets=[1e-2, 0.1])
    assert list(results) == list(FUSIONS)
    table = ijb_table(opened.name, results)
    lines = table.splitlines()
    assert lines[0] == "ijbc: 1:1 verification of templates"
    assert [line.split()[:2] for line in lines[2:-1]] == [
        [target, fusion] for target in ("0.01", "0.1") for fusion in FUSIONS
    ]
    row = results["quality"][1]
    assert f"{row.tar:.4f}" in lines[2 + 6 + 2]
    assert f"{row.matches} / 18 " in lines[10]
    assert f"({row.point.false_matches} / 135)" in lines[10]
    assert lines[-1].startswith("warning: FMR 0.01 of 135 non-mated comparisons is 1.4 false")


def test_only_fusions_that_the_values_allow_are_compared():
    mu = np.eye(4, dtype=np.float32)
    assert possible_fusions(mu, np.full((4, 4), 2)) == ["mean", "inverse_variance", "detector"]
    assert possible_fusions(mu * [[1], [2], [3], [4]], np.full((4, 1), -1)) == [
        "mean", "norm", "detector", "norm_detector",
    ]  # fmt: skip


def test_identity_is_unknown_where_labels_contradict_each_other(copy):
    pairs = copy / "meta" / "ijbc_template_pair_label.txt"
    pairs.write_text("100 107 1\n107 114 1\n100 121 0\n")
    values = estimated(open_ijb(copy).images)
    assert open_ijb(copy).comparisons(*values).identity.tolist()[:4] == [0, 0, 0, 1]
    pairs.write_text("100 107 1\n107 114 1\n100 114 0\n")
    found = open_ijb(copy).comparisons(*values)
    assert found.identity is None
    assert found.best_unit == "image"


@pytest.mark.parametrize("size", [1, 40, 1 << 20])
def test_block_size_of_reading_does_not_matter(copy, monkeypatch, size):
    pairs = copy / "meta" / "ijbc_template_pair_label.txt"
    expected = open_ijb(copy)
    pairs.write_text("\n" + pairs.read_text().replace("\n", "\r\n\n", 3).rstrip())
    monkeypatch.setattr(files, "CHUNK_BYTES", size)
    found = open_ijb(copy)
    for name in ("template", "media", "detector_score", "pairs", "mated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


MEMBERS, PLACES, PAIRS = (
    f"ijbc_{name}.txt" for name in ("face_tid_mid", "name_5pts_score", "template_pair_label")
)


@pytest.mark.parametrize(
    ("file", "line", "content", "words"),
    [
        (PAIRS, 3, "100 5 0", rf"{PAIRS}:3: template 5 has no images"),
        (PAIRS, 3, "100 99999 0", rf"{PAIRS}:3: template 99999 has no images"),
        (PAIRS, 2, "100 107 2", rf"{PAIRS}:2: label 2 is not 0 or 1"),
        (PAIRS, 2, "100 107", rf"{PAIRS}:2: expected `template template label`, got '100 107'"),
        (PAIRS, 2, "100 1.5 0", rf"{PAIRS}:2: expected `template template label`, got '100 1.5 0'"),
        (PAIRS, 2, "100 x 0", rf"{PAIRS}:2: expected"),
        (MEMBERS, 4, "4.png 107", rf"{MEMBERS}:4: expected `image template medium`, got '4.png 1"),
        (MEMBERS, 4, "4.png a 1", rf"{MEMBERS}:4: expected"),
        (MEMBERS, 4, "9.png 107 1", rf"image 4 is '9.png' in .*{MEMBERS}, but '4.png' in"),
        (MEMBERS, 4, "", rf"{MEMBERS} has 53 images, .*{PLACES} has 54"),
        (PLACES, 4, "4.png 1 2 3", rf"{PLACES}:4: expected `image x1 y1 .* y5 score`, got"),
        (PLACES, 4, "4.png" + 10 * " 1" + " nan", rf"{PLACES}:4: expected"),
        (MEMBERS, 1, "1.png 900000000 1", "from 107 to 900000000 are too far apart"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be(copy, file, line, content, words):
    path = copy / "meta" / file
    lines = path.read_text().splitlines()
    lines[line - 1] = content
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=words):
        open_ijb(copy)


@pytest.mark.parametrize(
    ("file", "words"), [(PAIRS, "no comparisons"), (MEMBERS, "no images"), (PLACES, "no images")]
)
def test_empty_files(copy, file, words):
    (copy / "meta" / file).write_text("\n")
    with pytest.raises(ValueError, match=f"{file}: {words}"):
        open_ijb(copy)


def test_parts_that_are_missing_are_named(copy, tmp_path):
    (copy / "meta" / PAIRS).unlink()
    (copy / "loose_crop").unlink()
    words = rf"no meta/{PAIRS}, no loose_crop/ \(the images\); it holds: ijbc_face.*, meta"
    with pytest.raises(ValueError, match=words):
        open_ijb(copy)
    (copy / "meta" / MEMBERS).unlink()
    with pytest.raises(ValueError, match=f"expected one set, .* found 0; meta holds: {PLACES}"):
        open_ijb(copy)
    with pytest.raises(ValueError, match="found 0; the folder holds: nothing, or does not exist"):
        open_ijb(tmp_path / "absent")


def test_images_that_are_missing_or_damaged(copy, folder):
    opened = open_ijb(copy)
    (copy / "loose_crop").unlink()
    (copy / "loose_crop").mkdir()
    with pytest.raises(ValueError, match=r"loose_crop/3\.png: No such file or directory"):
        opened.images.decode(2, 3)
    (copy / "loose_crop" / "3.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"loose_crop/3\.png: not an image"):
        opened.images.decode(2, 3)


def test_options_that_do_not_exist(folder):
    with pytest.raises(ValueError, match=r"unknown weights 'best' \(known: mean, .*detector\)"):
        open_ijb(folder, weights="best")
    with pytest.raises(ValueError, match=r"unknown score 'dot' \(known: cosine, mls\)"):
        open_ijb(folder, score="dot")


def test_values_of_another_set(folder):
    opened = open_ijb(folder)
    with pytest.raises(ValueError, match="ijbc: 3 embeddings for 54 images"):
        opened.comparisons(np.ones((3, 2)), np.ones((3, 1)))
    mu, sigma_sq = estimated(opened.images)
    with pytest.raises(ValueError, match="ijbc: fusion by inverse variance needs variances above"):
        opened.comparisons(mu, -sigma_sq, "inverse_variance")


def test_example_of_the_page_runs(folder, capsys):
    page = section("evaluate.md", "Templates, IJB-B and IJB-C")
    (example,) = examples(page)
    execute(example, {"folder": folder, "estimator": GridColours()})
    table = capsys.readouterr().out
    for fusion in FUSIONS:
        assert f"1e-06   {fusion} " in table
        assert f"| `{fusion}` |" in page


def test_the_script_prints_tar_at_far_under_every_fusion(folder, tmp_path, capsys):
    weights = ROOT / "demo" / "backbone.pth"
    small = "iresnet:layers=(1,1,1,1),widths=(8,16,32,64),embedding_size=64"
    argv = ["--backbone_name", small, "--backbone_weights", str(weights)]
    argv += ["--estimator", "embedding_norm", "--fmr", "0.1", "--save_scores"]
    scores = tmp_path / "scores.csv"
    assert main([*argv, str(scores), "--target", f"ijb:{folder}", "--fusion", "norm"]) == 0
    out = capsys.readouterr().out
    assert "1:1 verification of templates" in out
    stored = read_scores(scores)
    (row,) = tar_at_far(stored.scores, stored.mated, [0.1])
    assert re.search(rf"0\.1 +norm +{row.tar:.4f} +{row.matches} / {stored.mated.sum()} ", out)
