import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from data.faces import open_faces
from data.images import decode, encode_jpeg
from data.synthetic import (
    DEGRADATIONS,
    Identity,
    SyntheticFaces,
    Variation,
    contact_sheet,
    degradation_sweep,
    main,
    render,
    synthetic_verification,
)
from data.verification import open_verification, read_bin


def distance(first, second):
    return np.abs(first.astype(float) - second).mean()


# --- one face ---------------------------------------------------------------------------------


def test_a_face_is_fixed_by_seed_identity_and_image():
    def again(seed, identity, image):
        return render(Identity.draw(seed, identity), Variation.draw(seed, identity, image))

    first = again(3, 4, 5)
    assert first.shape == (112, 112, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again(3, 4, 5))
    for other in ((4, 4, 5), (3, 5, 5), (3, 4, 6)):
        assert distance(first, again(*other)) > 3


def test_identities_differ_from_each_other_and_their_fields_stay_in_range():
    people = [Identity.draw(0, index) for index in range(40)]
    faces = [render(person, Variation()) for person in people]
    assert min(distance(a, b) for a, b in itertools.combinations(faces, 2)) > 2
    for field in dataclasses.fields(Identity):
        values = [getattr(person, field.name) for person in people]
        assert len(set(values)) > 1, field.name
        if "low" in field.metadata:
            assert field.metadata["low"] <= min(values)
            assert max(values) <= field.metadata["high"]


@pytest.mark.parametrize("yaw", [-25, 0, 25])
def test_eyes_are_where_alignment_puts_them(yaw):
    for index in range(6):
        person = dataclasses.replace(Identity.draw(1, index), glasses=0, skin_tone=1.0)
        opened = render(person, Variation(yaw=yaw, eye_open=1.2)).astype(int)
        closed = render(person, Variation(yaw=yaw, eye_open=0.12)).astype(int)
        change = np.abs(opened - closed).sum(axis=2) > 60
        rows, columns = np.nonzero(change)
        assert abs(rows.mean() - 52) < 4
        assert abs(columns[columns < 56].mean() - 38) < 6
        assert abs(columns[columns >= 56].mean() - 74) < 6


def test_light_comes_from_its_side():
    person = Identity.draw(2, 0)
    even = render(person, Variation()).astype(float)
    lit = render(person, Variation(light_angle=0.0, light_strength=1.0)).astype(float)
    change = lit.mean(axis=2) - even.mean(axis=2)
    assert change[:, 80:].mean() > change[:, :32].mean() + 20


# --- degradations -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_more_of_a_degradation_moves_an_image_further_from_the_clean_one(kind):
    images = degradation_sweep(kind, (0, 0.2, 0.4, 0.6, 0.8, 1), identities=8)
    assert images.shape == (6, 8, 112, 112, 3)
    moved = [distance(images[0], level) for level in images]
    assert moved[0] == 0
    assert all(np.diff(moved) > 0.2), moved


def test_noise_has_the_stated_spread_and_no_bias():
    grey = np.full((112, 112, 3), 128, dtype=np.uint8)
    from data.rendered_person import NOISE_SIGMA, degrade

    noisy = degrade(grey, Variation(noise=0.25, seed=3)).astype(float) - 128
    assert noisy.std() == pytest.approx(0.25 * NOISE_SIGMA, rel=0.03)
    assert abs(noisy.mean()) < 0.5


def test_occlusion_covers_the_stated_share_whatever_its_kind():
    from data.rendered_person import COVERED, occlude

    for seed in range(20):
        canvas = np.zeros((224, 224, 3), dtype=np.uint8)
        occlude(canvas, Variation(occlusion=0.5, seed=seed))
        share = canvas.any(axis=2).mean()
        assert 0.8 * COVERED / 2 < share < 1.5 * COVERED / 2


def test_drawn_strengths_have_clean_images_and_scale_with_severity():
    full = SyntheticFaces(40, 25, seed=3)
    half = SyntheticFaces(40, 25, seed=3, severity=0.5)
    strengths = np.array(
        [[getattr(full.variation(row), kind) for kind in DEGRADATIONS] for row in range(1000)]
    )
    clean = (strengths == 0).all(axis=1)
    assert clean.mean() == pytest.approx(0.4, abs=0.06)
    assert ((strengths > 0).sum(axis=1) <= 2).all()
    assert ((strengths > 0).mean(axis=0) > 0.1).all()
    assert strengths.max() > 0.9
    for row in range(1000):
        assert full.degradation(row) == pytest.approx(1 - np.prod(1 - strengths[row]))
    for row in np.flatnonzero(~clean)[:20].tolist():
        for kind in DEGRADATIONS:
            want = 0.5 * getattr(full.variation(row), kind)
            assert getattr(half.variation(row), kind) == pytest.approx(want)


# --- a population -----------------------------------------------------------------------------


def test_faces_are_labelled_named_and_cached(monkeypatch):
    faces = open_faces("synthetic:identities=3,images=2,seed=7")
    assert faces.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (len(faces), faces.num_classes) == (6, 3)
    assert faces.name(3) == "synthetic:7/00001/001"
    image = faces.read(3)
    assert np.array_equal(image, render(Identity.draw(7, 1), Variation.draw(7, 1, 1)))
    assert np.shares_memory(image, faces.read(3))
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0
    monkeypatch.setattr("data.rendered.CACHE_BYTES", 3 * 112 * 112 * 3)
    small = SyntheticFaces(3, 2, seed=7)
    assert np.array_equal(small.read(3), image)
    assert not np.shares_memory(small.read(3), small.read(3))


def test_other_mistakes():
    with pytest.raises(ValueError, match=r"blur = 1\.5: a degradation's strength is in \[0, 1\]"):
        Variation(blur=1.5)
    with pytest.raises(ValueError, match="no degradation 'fog' .known: blur, resolution, noise"):
        degradation_sweep("fog", (0, 1), 2)
    with pytest.raises(ValueError, match="identities = 1: a non-mated pair needs at least 2"):
        synthetic_verification(pairs=4, identities=1)


def test_a_verification_set_is_half_mated_and_never_repeats_an_image():
    made = synthetic_verification(pairs=40, seed=9, identities=6)
    assert made.mated.sum() == 20
    images = made.decode(0, 80)
    assert len({image.tobytes() for image in images}) == 80
    again = synthetic_verification(pairs=40, seed=9, identities=6)
    assert again.images == made.images
    assert open_verification("synthetic:pairs=1,seed=9", None).mated.tolist() == [True]


def test_mated_pairs_show_one_person_and_others_two():
    clean = synthetic_verification(pairs=80, seed=4, severity=0.0)
    small = [
        cv2.resize(image, (14, 14), interpolation=cv2.INTER_AREA)[2:, 3:-3]
        for image in clean.decode(0, 160)
    ]
    gap = np.array([distance(a, b) for a, b in zip(small[::2], small[1::2], strict=True)])
    assert gap[clean.mated].mean() < 0.75 * gap[~clean.mated].mean()


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "rec"])
def test_written_faces_are_read_back_as_real_ones(tmp_path, kind):
    arguments = ["--out", str(tmp_path / "f"), "--identities", "3", "--images", "2", "--seed", "5"]
    assert main([*arguments, "--format", kind]) == 0
    found, made = open_faces(str(tmp_path / "f")), SyntheticFaces(3, 2, seed=5)
    assert found.labels.tolist() == made.labels.tolist()
    for row in range(6):
        assert np.array_equal(found.read(row), decode(encode_jpeg(made.read(row))))


def test_raw_photos_are_of_the_same_people_and_none_like_another(tmp_path):
    for name in "ab":
        arguments = ["--out", str(tmp_path / name), "--identities", "2", "--images", "3"]
        assert main([*arguments, "--format", "photos"]) == 0
    paths = sorted(tmp_path.glob("a/*/*.jpg"))
    photos = [path.read_bytes() for path in paths]
    assert photos == [path.read_bytes() for path in sorted(tmp_path.glob("b/*/*.jpg"))]
    assert len(set(photos)) == 6
    for row, photo in enumerate(photos):
        face = SyntheticFaces(2, 3).read(row)[30:90, 30:82]
        sizes = [
            cv2.resize(face, None, fx=side / 112, fy=side / 112) for side in range(100, 220, 4)
        ]
        found = [cv2.matchTemplate(decode(photo), size, cv2.TM_CCOEFF_NORMED) for size in sizes]
        assert max(scores.max() for scores in found) > 0.7


def test_a_written_set_is_the_rendered_one(tmp_path):
    assert main(["--out", str(tmp_path), "--format", "bin", "--pairs", "6", "--seed", "9"]) == 0
    found, made = read_bin(tmp_path / "synthetic.bin"), synthetic_verification(6, seed=9)
    assert found.images == made.images
    assert found.mated.tolist() == made.mated.tolist()


def test_the_sheet_shows_identities_images_and_each_degradation(tmp_path):
    assert main(["--sheet", str(tmp_path / "new" / "sheet.png")]) == 0
    sheet = decode((tmp_path / "new" / "sheet.png").read_bytes())
    assert sheet.shape == ((4 + 4 + len(DEGRADATIONS)) * 112, 12 * 112, 3)
    assert np.array_equal(sheet, contact_sheet(0))


def test_the_script_says_what_is_wrong(capsys):
    assert main(["--out", "f", "--identities", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: identities = 0: must be a whole number")
    with pytest.raises(SystemExit):
        main([])
