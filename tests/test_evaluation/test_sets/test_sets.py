from itertools import combinations

import cv2
import numpy as np
import pytest

from data.faces import FaceImages, open_faces
from data.features import Features
from data.images import first_rows
from data.recordio import RecordWriter
from data.verification import VerificationSet, write_bin, write_bin_from_pairs
from estimators.base import harmonic_mean
from evaluation.metrics.comparisons import cosine_of_pairs
from evaluation.sets.open_set import VerificationPairs, open_set
from evaluation.sets.stored import comparisons_of
from report.words import caution_sentence
from tests.helpers import SHARED

FACES = SHARED / "faces" / "lfw_dev"


def png(value):
    return cv2.imencode(".png", np.full((112, 112, 3), value, np.uint8))[1].tobytes()


def estimates(images, columns=1, seed=0):
    """Embeddings and uncertainties that depend on the pixels alone."""
    pixels = images.decode(0, len(images)).reshape(len(images), -1)[:, :3].astype(np.float32)
    rng = np.random.default_rng(seed)
    mu = np.cos(pixels @ rng.normal(size=(3, 6)) / 9).astype(np.float32)
    return mu, 1 + pixels[:, :1] + np.arange(columns, dtype=np.float32)


@pytest.fixture
def folder(tmp_path):
    """Four people with 1, 2, 3 and 4 images; every image has a grey of its own."""
    value = 0
    for count, person in enumerate(["ann", "bob", "cleo", "dan"], start=1):
        (tmp_path / "faces" / person).mkdir(parents=True)
        for number in range(count):
            value += 7
            (tmp_path / "faces" / person / f"{person}_{number + 1:04d}.png").write_bytes(png(value))
    return tmp_path / "faces"


PEOPLE = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]


def assert_all_pairs(found, mu):
    """Every pair of the ten images once, with its label and cosine."""
    seen = {}
    for (a, b), mated, score in zip(
        found.pairs.tolist(), found.mated.tolist(), found.scores, strict=True
    ):
        seen[a, b] = mated
        cosine = mu[a] @ mu[b] / np.linalg.norm(mu[a]) / np.linalg.norm(mu[b])
        assert score == pytest.approx(cosine, abs=1e-6)
    expected = {(a, b): PEOPLE[a] == PEOPLE[b] for a, b in combinations(range(10), 2)}
    assert seen == expected


@pytest.mark.parametrize("kind", ["folder", "list", "rec"])
def test_faces_with_identities(folder, tmp_path, kind):
    target = folder
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    if kind == "list":
        target = folder / "some.txt"
        target.write_text("".join(f"{n} {p}\n" for n, p in zip(names, PEOPLE, strict=True)))
    if kind == "rec":
        target = tmp_path / "pack.rec"
        with RecordWriter(tmp_path / "pack") as writer:
            for name, person in zip(names, PEOPLE, strict=True):
                writer.write_image(person, (folder / name).read_bytes())
        names = [str(key) for key in range(1, 11)]
    chosen = open_set(f"faces:{target}")
    assert chosen.name == {"folder": "faces", "list": "some", "rec": "pack"}[kind]
    assert [chosen.images.image_name(row) for row in range(len(chosen.images))] == names
    assert chosen.images.decode(4, 99)[:, 0, 0, 0].tolist() == [35, 42, 49, 56, 63, 70]
    mu, sigma_sq = estimates(chosen.images, columns=3)
    found = chosen.comparisons(mu, sigma_sq)
    assert_all_pairs(found, mu)
    assert found.identity.tolist() == PEOPLE
    np.testing.assert_array_equal(found.uncertainty, harmonic_mean(sigma_sq))


@pytest.mark.parametrize("kind", ["folder", "rec", "bin", "pairs", "joined"])
def test_copies_of_an_image_are_found_without_decoding(tmp_path, kind):
    """Images 0, 2 and 3 are equal, and not even images."""
    contents = [b"same", b"other", b"same", b"same"]
    for row, content in enumerate(contents):
        (tmp_path / "faces" / f"p{row}").mkdir(parents=True)
        (tmp_path / "faces" / f"p{row}" / "a.jpg").write_bytes(content)
    with RecordWriter(tmp_path / "pack") as writer:
        for row, content in enumerate(contents):
            writer.write_image(row, content)
    (tmp_path / "pairs.csv").write_text("p0/a.jpg,p1/a.jpg,1\np2/a.jpg,p3/a.jpg,0\n")
    faces, pack = str(tmp_path / "faces"), str(tmp_path / "pack.rec")
    images = {
        "folder": lambda: FaceImages(open_faces(faces)),
        "rec": lambda: FaceImages(open_faces(pack)),
        "joined": lambda: FaceImages(open_faces([faces, "synthetic:identities=1,images=2", pack])),
        "bin": lambda: VerificationSet("", contents, np.array([True, False])),
        "pairs": lambda: open_set(f"pairs:{tmp_path}/pairs.csv", tmp_path / "faces").images,
    }[kind]()
    count = 10 if kind == "joined" else 4
    first = first_rows(np.array([images.fingerprint(row) for row in range(count)], np.uint64))
    assert first.tolist() == [0, 1, 0, 0, 4, 5, 0, 1, 0, 0][:count]


def test_copies_among_faces_with_identities_are_counted(folder):
    (folder / "ann" / "copy.png").write_bytes((folder / "ann" / "ann_0001.png").read_bytes())
    (folder / "bob" / "copy.png").write_bytes((folder / "dan" / "dan_0001.png").read_bytes())
    chosen = open_set(f"faces:{folder}")
    (caution,) = chosen.comparisons(*estimates(chosen.images)).notes
    assert "2 of 12 images are copies of another image, 1 of them under" in caution_sentence(
        caution
    )


def test_faces_are_drawn_as_asked(folder):
    options = {"non_mated": 12, "cap": 1, "seed": 3}
    chosen = open_set(f"faces:{folder}", **options)
    mu, sigma_sq = estimates(chosen.images)
    found = chosen.comparisons(mu, sigma_sq)
    assert (found.mated.sum(), found.non_mated_total) == (3, 12)
    again = open_set(f"faces:{folder}", **options).comparisons(mu, sigma_sq[:, 0])
    np.testing.assert_array_equal(again.pairs, found.pairs)
    other = open_set(f"faces:{folder}", **options | {"seed": 4}).comparisons(mu, sigma_sq)
    assert (other.pairs != found.pairs).any()
    assert_all_pairs(open_set(f"faces:{folder}", non_mated="all").comparisons(mu, sigma_sq), mu)


def test_bin_set_scores_as_the_scripts_do_and_knows_repeated_images(tmp_path):
    images = [png(value) for value in (3, 90, 3, 200, 90, 40)]
    write_bin(tmp_path / "mine.bin", images, [True, False, True])
    chosen = open_set("mine", tmp_path)
    assert (chosen.name, len(chosen.images), chosen.images.image_name(4)) == ("mine", 6, "4")
    mu, sigma_sq = estimates(chosen.images)
    found = chosen.comparisons(mu, sigma_sq)
    np.testing.assert_array_equal(found.scores, cosine_of_pairs(mu))
    assert found.pairs.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert found.image.tolist() == [0, 1, 0, 2, 1, 3]
    assert found.identity.tolist() == [0, 0, 0, 1, 0, 0]  # joined by the mated pairs
    assert found.best_unit == "identity"
    [(_, stored)] = comparisons_of(Features(mu, sigma_sq, found.mated))
    for name in ("scores", "mated", "pairs", "uncertainty"):
        np.testing.assert_array_equal(getattr(found, name), getattr(stored, name))
    same = [found.image[:, None] == found.image, stored.image[:, None] == stored.image]
    np.testing.assert_array_equal(*same)
    with pytest.raises(ValueError, match=r"mine: shapes do not fit: mu \(5, 6\)"):
        chosen.comparisons(mu[1:], sigma_sq[1:])


def test_bin_set_of_pixels():
    pixels = np.zeros((112, 112, 3), np.uint8)
    chosen = VerificationPairs(VerificationSet("p", [pixels, pixels], np.array([True])))
    found = chosen.comparisons(np.ones((2, 3), np.float32), np.ones((2, 1), np.float32))
    assert found.image.tolist() == [0, 0]


def pairs_csv(folder, text):
    path = folder / "pairs.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("beside", [True, False])
def test_pairs_of_a_csv_decode_each_image_once(folder, tmp_path, beside):
    lines = "a,b,same\nbob/bob_0001.png,bob/bob_0002.png,1\nbob/bob_0001.png,ann/ann_0001.png,0\n"
    path = pairs_csv(folder if beside else tmp_path, lines)
    chosen = open_set(f"pairs:{path}", None if beside else folder)
    names = [chosen.images.image_name(row) for row in range(len(chosen.images))]
    assert names == ["bob/bob_0001.png", "bob/bob_0002.png", "ann/ann_0001.png"]
    assert chosen.images.decode(0, 3)[:, 0, 0, 0].tolist() == [14, 21, 7]
    mu, sigma_sq = estimates(chosen.images, columns=2)
    found = chosen.comparisons(mu, sigma_sq)
    assert found.pairs.tolist() == [[0, 1], [0, 2]]
    assert found.mated.tolist() == [True, False]
    assert found.scores[1] == pytest.approx(cosine_of_pairs(mu[[0, 2]])[0])
    assert (found.name, found.best_unit) == ("pairs", "identity")
    assert found.identity.tolist() == [0, 0, 1]  # the mated pair says so
    with pytest.raises(ValueError, match="pairs: 2 embeddings and 2 uncertainties for 3 images"):
        chosen.comparisons(mu[1:], sigma_sq[1:])
    with pytest.raises(ValueError, match="pairs: mu has 3 embeddings of length zero"):
        chosen.comparisons(mu * 0, sigma_sq)


def test_lfws_list_tells_who_is_who(folder):
    path = folder / "pairs.txt"
    path.write_text("1\t1\nbob\t1\t2\nbob\t1\tann\t1\n")
    chosen = open_set(f"pairs:{path}")
    found = chosen.comparisons(*estimates(chosen.images))
    assert found.pairs.tolist() == [[0, 1], [0, 2]]
    assert found.identity.tolist() == [0, 0, 1]


def test_absolute_paths_in_a_list(folder):
    first, second = folder / "bob" / "bob_0001.png", folder / "bob" / "bob_0002.png"
    path = pairs_csv(folder.parent, f"{first},{second},1\n{first},ann/ann_0001.png,0\n")
    chosen = open_set(f"pairs:{path}", folder)
    assert chosen.images.image_name(1) == "bob/bob_0002.png"
    assert chosen.images.decode(0, 9).shape == (3, 112, 112, 3)


BASE = "bob/bob_0001.png,bob/bob_0002.png,1\nbob/bob_0001.png,ann/ann_0001.png,0\n"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("dan/dan_0001.png,dan/dan_0001.png,1\n", "1 comparisons of an image with itself"),
        ("bob/bob_0002.png,bob/bob_0001.png,1\n" * 2, "2 comparisons repeat a pair"),
    ],
)
def test_pairs_of_a_list_that_are_none_are_left_out_and_counted(folder, caplog, extra, message):
    path = pairs_csv(folder, BASE + extra)
    chosen = open_set(f"pairs:{path}")
    (caution,) = chosen.comparisons(*estimates(chosen.images)).notes
    assert message in caution_sentence(caution)
    assert f"(the first is in {path}:3)" in caution_sentence(caution)
    assert (chosen.pairs.tolist(), len(chosen.images)) == ([[0, 1], [0, 2]], 3)
    assert write_bin_from_pairs(path, folder, folder / "own.bin") == 2
    assert f"left out (the first is in {path}:3)" in caplog.text


def test_pairs_of_a_list_that_contradict_each_other_are_refused(folder):
    path = pairs_csv(folder, BASE + "ann/ann_0001.png,bob/bob_0001.png,1\n")
    message = r"bob_0001.png' and .*ann_0001.png' are mated = 0 in .*csv:2 and 1 in .*csv:3"
    for use in (
        lambda: open_set(f"pairs:{path}"),
        lambda: write_bin_from_pairs(path, folder, folder / "own.bin"),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    alone = pairs_csv(folder, "bob/bob_0001.png,bob/bob_0001.png,1\n")
    with pytest.raises(ValueError, match="each of its 1 pairs is an image and itself"):
        open_set(f"pairs:{alone}")


def test_a_bin_set_and_its_features_stay_as_they_are_and_are_warned_of(tmp_path):
    a, b, c = (png(value) for value in (10, 90, 170))
    images = [a, a, a, b, b, a, a, b, a, c]
    write_bin(tmp_path / "own.bin", images, [True, True, True, False, False])
    chosen = open_set("own", tmp_path)
    message = "of 5 pairs 1 compare an image with itself, 1 repeat a pair and 1 are of the other"
    mu, sigma_sq = estimates(chosen.images)
    expected = chosen.comparisons(mu, sigma_sq)
    assert len(expected.scores) == 5
    assert message in caution_sentence(expected.cautions[0])
    ((_, found),) = comparisons_of(Features(mu, sigma_sq, chosen.images.mated))
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.cautions == expected.cautions


def test_mistakes_are_found_before_anything_is_embedded(folder, tmp_path):
    lone = tmp_path / "lone.txt"
    lone.write_text("faces/ann/ann_0001.png 1\nfaces/bob/bob_0001.png 2\n")
    one = tmp_path / "one.txt"
    one.write_text("faces/ann/ann_0001.png 1\nfaces/bob/bob_0001.png 1\n")
    for target, message in {
        "faces:none": "no faces at none: faces:PATH takes a folder with one folder per identity",
        "faces:": r"no faces at \(nothing\)",
        f"faces:{lone}": r"lone\.txt: no mated pair: none of 2 images shares its identity",
        f"faces:{one}": r"one\.txt: no non-mated pair: all 2 images are of one identity",
        "pairs:none.csv": r"no pairs file none\.csv",
        "video:x": "unknown kind of set 'video:x': name a .bin file .* synthetic:, faces:, pairs:,",
        "lfw": "target 'lfw' needs a dataset_path",
        str(folder): f"is a path: give faces:{folder} for labelled faces$",
        str(lone): f"give faces:{lone} for labelled faces, or pairs:{lone}",
        "sets/lfw.bin": "as in --dataset_path sets --target lfw",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_set(target)
    with pytest.raises(ValueError, match="non_mated = 0: must be 1 or more, or all"):
        open_set(f"faces:{folder}", non_mated=0)
    path = pairs_csv(folder, "bob/bob_0001.png,bob/bob_0002.png,1\n")
    with pytest.raises(ValueError, match=r"pairs\.csv: no non-mated pair among 1"):
        open_set(f"pairs:{path}")
    path = pairs_csv(folder, "a.png,bob/bob_0002.png,1\nb.png,bob/bob_0002.png,0\n")
    with pytest.raises(ValueError, match=r"pairs\.csv:1: no image .*a\.png; paths start at"):
        open_set(f"pairs:{path}")


def test_a_pack_given_for_bin_sets_is_told_how_to_name_it(tmp_path):
    (tmp_path / "train.rec").touch()
    with pytest.raises(ValueError, match=f"no lfw.bin, but a pack .* faces:{tmp_path}"):
        open_set("lfw", tmp_path)
    write_bin(tmp_path / "cfp_fp.bin", [png(3), png(9)], [True])
    with pytest.raises(ValueError, match=r"sets in this folder: cfp_fp"):
        open_set("lfw", tmp_path)
    with pytest.raises(ValueError, match=f"faces:{tmp_path} .* --target cfp_fp for its"):
        open_set(str(tmp_path))


@pytest.mark.skipif(not FACES.exists(), reason="needs ../shared/faces")
def test_lfw_dev_has_the_keys_of_the_scores_beside_it():
    chosen = open_set(f"faces:{FACES}")
    with np.load(FACES / "lightqnet_dm100.npz") as archive:
        keys = {str(key) for key in archive["key"]}
    assert {chosen.images.image_name(row) for row in range(len(chosen.images))} == keys
    assert len(chosen.images) == 3842


def test_people_stay_unknown_where_a_non_mated_pair_contradicts_them(tmp_path):
    images = [png(value) for value in (3, 90, 90, 200, 3, 200)]
    write_bin(tmp_path / "odd.bin", images, [True, True, False])
    chosen = open_set("odd", tmp_path)
    found = chosen.comparisons(*estimates(chosen.images))
    assert found.identity is None
    assert found.best_unit == "image"
