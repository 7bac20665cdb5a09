"""The scorer: any input, several faces per photo, full batches, and what its numbers mean."""

import io
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import encode_png
from data.verification import write_bin
from estimators.base import Batch, Estimate
from estimators.trained_head import TrainedHead
from models.run import load_run
from photos.decode import Photo
from report.sheet import NOT_COMPUTED
from scoring.rows import Source
from scoring.scorer import LoadedImage, load_scorer

PLACES = {
    1: [(10, 20), (150, 100), (280, 5)],
    2: [],
    3: [(2, 1)],
    4: [(5, 5), (130, 6), (260, 7), (5, 150), (130, 150)],
}


def loaded(*photos):
    """Images in memory, as `score_loaded` takes them."""
    photos = [Photo(photo) if isinstance(photo, np.ndarray) else photo for photo in photos]
    return [LoadedImage(Source(), photo) for photo in photos]


def test_three_lines(run, faces):
    scorer = load_scorer(run, device="cpu")
    result = scorer(faces)
    loaded = load_run(run, device="cpu")
    mu, sigma_sq = TrainedHead(frozen=loaded.frozen, head=loaded.head)(Batch(faces))
    np.testing.assert_array_equal(result.embeddings, mu)
    np.testing.assert_array_equal(result.uncertainty, sigma_sq[:, 0])
    assert result.uncertainty.dtype == np.float32
    assert [row.image for row in result] == list(range(7))
    assert [row.quality for row in result] == [NOT_COMPUTED] * 7 == result.quality.tolist()
    assert {row.verdict for row in result} == {""}
    rows = result.to_rows()
    assert [row["uncertainty"] for row in rows] == pytest.approx(sigma_sq[:, 0].tolist())
    assert {(row["file"], row["face"], row["status"]) for row in rows} == {("", 0, "scored")}


class Upload:
    """As FastAPI's: `read` is a coroutine, the file itself is beside it."""

    def __init__(self, file):
        self.file = file

    async def read(self):
        return self.file.read()


class Stream:
    """What can be read once and not rewound, as the answer of a server."""

    def __init__(self, content):
        self.read = io.BytesIO(content).read


class OnDevice(torch.Tensor):
    """A tensor whose memory NumPy cannot reach."""

    def numpy(self, **_):
        raise TypeError("copy the tensor to host memory first")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_every_kind_of_input_is_the_same_face(levels, faces, tmp_path):
    face = faces[0]
    path = tmp_path / "face.png"
    encoded = encode_png(face)
    path.write_bytes(encoded)
    tensor = torch.from_numpy(face)
    with (
        path.open("rb") as file,
        io.BytesIO() as written,
        tempfile.SpooledTemporaryFile() as spooled,
        tempfile.NamedTemporaryFile() as named,
    ):
        for other in (written, spooled, named):
            other.write(encoded)  # and not rewound
        kinds = [
            *(path, str(path), encoded, bytearray(encoded), memoryview(encoded)),
            *(file, iter(file), written, named, spooled, Upload(spooled)),
            *(Image.fromarray(face), Image.open(path), Image.fromarray(face).convert("RGBA")),
            *(face, np.dstack([face, np.full((112, 112), 255, np.uint8)])),
            *(tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1) / 255),
            *(
                (tensor / 255).bfloat16().requires_grad_(),
                tensor.permute(2, 0, 1).as_subclass(OnDevice),
            ),
        ]
        for image in kinds:
            for images in (image, [image], iter([image])):
                result = levels()(images)
                assert [row.status for row in result] == ["scored"], type(image)
                close = np.abs(result[0].aligned.astype(int) - face).max()
                assert close <= (1 if getattr(image, "dtype", None) == torch.bfloat16 else 0)
        mixed = levels()([str(path), face, file])
    assert levels()(Stream(encoded))[0].aligned.tolist() == face.tolist()
    assert [source.file for source in mixed.sources] == [str(path), "", ""]
    assert [row["file"] for row in mixed.to_rows()] == [str(path), "", ""]
    assert mixed.uncertainty.tolist() == pytest.approx([face.mean() / 255] * 3)
    grey = [face[..., 0], torch.from_numpy(face[None, ..., 0]), Image.fromarray(face[..., 0])]
    grey += [Image.fromarray(face[..., 0]).convert(mode) for mode in ("I", "I;16", "F", "LA")]
    for result in levels()(grey):
        assert (result.aligned == face[..., :1]).all()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_colours_of_opencv(levels, faces, kind):
    bgr = faces[..., ::-1].copy()
    scorer = levels()
    for images in (kind(bgr), list(kind(bgr)), np.insert(bgr, 3, 255, axis=3)):
        found = scorer(images, bgr=True)
        assert [row.aligned.tolist() for row in found] == faces.tolist()
    assert scorer.best_shot(kind(bgr), bgr=True).score.aligned.tolist() in faces.tolist()
    assert (scorer(encode_png(faces[0]), bgr=True)[0].aligned == faces[0]).all()


def test_folders_and_packs_give_an_image_for_each_of_theirs(levels, faces, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, face in zip("ab", faces, strict=False):
        (folder / f"{name}.png").write_bytes(encode_png(face))
    write_bin(tmp_path / "pairs.bin", [encode_png(face) for face in faces[:4]], [True, False])
    result = levels()([folder, tmp_path / "pairs.bin"])
    assert [(Path(one.file).name, one.index) for one in result.sources] == [
        ("a.png", None),
        ("b.png", None),
        *(("pairs.bin", index) for index in range(4)),
    ]
    np.testing.assert_allclose(
        result.uncertainty, faces[[0, 1, 0, 1, 2, 3]].mean(axis=(1, 2, 3)) / 255, rtol=1e-6
    )


def test_faces_of_photos_are_found_and_aligned(levels, faces, scene):
    photos = [scene(1, faces[:3], PLACES[1]), scene(2, [], []), scene(3, faces[3:4], PLACES[3])]
    result = levels(places=PLACES)(photos)
    assert [(row.image, row.face, row.status) for row in result] == [
        *((0, face, "scored") for face in range(3)),
        (1, -1, "no face"),
        (2, 0, "scored"),
    ]
    for row, face in zip(result[:3], faces, strict=False):
        np.testing.assert_array_equal(row.aligned, face)
    assert result[1].box == (150, 100, 262, 212)
    np.testing.assert_allclose(result[1].landmarks[0], (150 + 38.2946, 100 + 51.6963))
    assert result[1].detection == pytest.approx(0.7)
    assert result[3].note == "no face found"
    assert result[0].measures.eye_distance == pytest.approx(35.24, abs=0.01)
    assert [row.image for row in result.largest] == [0, 1, 2]
    assert np.isnan(result.uncertainty).tolist() == [False, False, False, True, False]
    assert np.isnan(result.embeddings[3]).all()
    assert levels(places=PLACES, max_faces=2)(photos[0]).uncertainty.shape == (2,)


def test_boxes_and_landmarks_are_those_of_the_original(levels, faces, scene):
    pixels = scene(1, faces[:3], PLACES[1])
    scorer = levels(places=PLACES)
    plain = scorer.score_loaded(loaded(pixels))
    reduced = scorer.score_loaded(loaded(Photo(pixels, "reduced 2.5 times", 2.5)))
    for small, large in zip(plain, reduced, strict=True):
        assert large.box == tuple(2.5 * np.array(small.box))
        np.testing.assert_allclose(large.landmarks, 2.5 * small.landmarks)
        assert large.measures.eye_distance == pytest.approx(2.5 * small.measures.eye_distance)
        np.testing.assert_array_equal(large.aligned, small.aligned)
        assert (small.note, large.note) == ("", "reduced 2.5 times")


def test_batches_are_full_whatever_photos_hold(levels, faces, scene):
    numbers = [1, 2, 4, 3, 4, 1]
    photos = [scene(n, faces[: len(PLACES[n])], PLACES[n]) for n in numbers]
    scorer = levels(places=PLACES, batch_size=4)
    rows = scorer.score_loaded(loaded(*photos, ValueError("cut off")))
    assert scorer.model.estimator.sizes == [4, 4, 4, 4, 1]
    assert [row.image for row in rows] == [0] * 3 + [1] + [2] * 5 + [3] + [4] * 5 + [5] * 3 + [6]
    for row in rows:
        if row.status == "scored":
            assert row.uncertainty == pytest.approx(faces[row.face].mean() / 255)
    assert (rows[-1].status, rows[-1].note, rows[-1].face) == ("unreadable", "cut off", -1)


def test_photos_are_not_kept(levels, faces, scene):
    alive = []

    def photos():
        for _ in range(6):
            assert sum(one() is not None for one in alive) <= 1
            photo = Photo(scene(1, faces[:3], PLACES[1]))
            alive.append(weakref.ref(photo))
            yield LoadedImage(Source(), photo)
            del photo  # the caller may still hold the last one

    assert len(levels(places=PLACES).score_loaded(photos())) == 18


def test_what_a_calibration_says_stands_in_every_row(levels, faces, calibration):
    result = levels(calibrated=True)(faces)
    values = result.uncertainty
    assert result.quality.tolist() == calibration.iso_quality(values).tolist()
    assert [row.percentile for row in result] == calibration.percentile(values).tolist()
    assert [row.p_false_non_match for row in result] == calibration.probability(values).tolist()
    decision = levels(calibrated=True).model.decision
    assert [row.verdict for row in result] == decision.verdict(values)
    assert type(result[0].quality) is int


def test_images_without_a_face_are_refused_where_there_is_a_decision(levels, tmp_path, scene):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no picture")
    images = [str(broken), scene(2, [], []), b""]
    for calibrated, verdict in ((True, "refuse"), (False, "")):
        result = levels(calibrated=calibrated, places=PLACES)(images)
        assert [row.status for row in result] == ["unreadable", "no face", "unreadable"]
        assert [row.verdict for row in result] == [verdict] * 3
        assert result.quality.tolist() == [NOT_COMPUTED] * 3
        assert result[2].note == "empty file"
        assert result.embeddings.shape == (3, 0)


def test_aligned_can_be_said(levels, faces, scene):
    crop = np.ascontiguousarray(np.repeat(np.repeat(faces[0], 2, axis=0), 2, axis=1))
    row = levels()(crop, aligned=True)[0]
    assert (row.note, row.box, row.measures.yaw) == ("resized from 224x224", None, None)
    assert row.uncertainty == pytest.approx(faces[0].mean() / 255, rel=0.02)
    face = faces[0].copy()
    face[0, 0] = 9
    found = levels(places={9: [(0, 0)]})
    assert found(face, aligned=False)[0].box == (0, 0, 112, 112)
    first, second = loaded(face, face)
    rows = found.score_loaded([first._replace(aligned=False), second._replace(aligned=True)])
    assert [row.box for row in rows] == [(0, 0, 112, 112), None]


def test_landmarks_that_span_no_face_are_no_face(levels, scene):
    scorer = levels(places=PLACES)
    find = scorer.detector

    def squeezed(image):
        found = find(image)
        landmarks = found.landmarks.copy()
        landmarks[0], landmarks[1, 2] = 7, np.nan
        return found._replace(landmarks=landmarks)

    scorer._detector = squeezed
    rows = scorer(scene(1, [], []))
    assert [row.box for row in rows] == [(280, 5, 392, 117)]
    scorer.max_faces = 1
    assert len(scorer(scene(1, [], []))) == 1


class Faulty:
    name = "faulty"

    def __call__(self, batch):
        images = batch.images
        sigma_sq = np.ones((len(images), 1), np.float32)
        sigma_sq[2] = np.nan
        return Estimate(np.ones((len(images), 4), np.float32), sigma_sq)


def test_a_model_that_gives_nan_is_an_error_that_names_the_image(levels, faces, tmp_path):
    paths = []
    for name, face in zip("abcd", faces, strict=False):
        paths.append(tmp_path / f"{name}.png")
        paths[-1].write_bytes(encode_png(face))
    with pytest.raises(ValueError, match=r"c\.png, face 0: model levels gives NaN or infinite"):
        levels(estimator=Faulty())(paths)
    with pytest.raises(ValueError, match="^image 2, face 0: model levels gives NaN"):
        levels(estimator=Faulty())(faces[:4])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (7, "int is not an image: give a path, the bytes of an image file"),
        ({"a": 1}, "dict is not an image"),
        ([np.zeros((112, 112, 3), np.uint8), None], "image 1: NoneType is not an image: give a pa"),
        ([["a", "b"]], "image 0: list is not an image"),
        (io.StringIO("text"), r"StringIO.read\(\) gives str, not bytes: open .* 'rb'"),
        (io.TextIOWrapper(io.BytesIO(b"\xff\xd8"), "utf-8"), "TextIOWrapper.* open .* 'rb'"),
    ],
)
def test_what_is_not_an_image_is_named(levels, images, message):
    with pytest.raises(TypeError, match=message):
        levels()(images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([np.zeros((2, 5), "U1")], "image 0: "),
        (np.zeros((4, 4, 7), np.uint8), r"image 0: an array of shape \(4, 4, 7\)"),
        (np.zeros((3, 9, 9), np.uint8), r"for channels first use .transpose\(1, 2, 0\)"),
        (torch.zeros(0, 0, 3), r"shape \(3, 0, 0\)|\(0, 0, 3\) is not an image"),
        (torch.full((3, 9, 9), -1.0), "floating-point pixels from -1 to -1: expected 0..1"),
        (
            iter([b"\x89PNG\r\n", b"\x1a\n"]),
            "image 0: .* lines or parts of one file, give all of its",
        ),
        ("nowhere/photo.jpg", "no such input: nowhere/photo.jpg"),
        ("/9j/" + 2000 * "AAAA", r"no such input: /9j/A.*\(8004 letters\)"),
    ],
)
def test_images_that_cannot_be(levels, images, message):
    with pytest.raises(ValueError, match=message):
        levels()(images)


def test_the_detector_is_opened_when_a_photo_needs_it(run, faces, scene):
    scorer = load_scorer(run, device="cpu", detector="nosuch")
    assert len(scorer(faces)) == 7
    with pytest.raises(ValueError, match="unknown name 'nosuch' in photos.detectors"):
        scorer(scene(2, [], []))


def test_a_risk_of_one_s_own_moves_the_cut_offs(write_run, tmp_path, faces, calibration):
    folder = write_run(tmp_path / "own")
    calibration.save(folder / "calibration.json")
    decision = load_scorer(folder, device="cpu", target_risk=0.02, refuse_risk=0.1).model.decision
    assert calibration.probability(decision.accept_up_to) == pytest.approx(0.02)
    assert calibration.probability(decision.refuse_above) == pytest.approx(0.1)
    (folder / "calibration.json").unlink()
    with pytest.raises(ValueError, match="target_risk and refuse_risk need a calibration: model o"):
        load_scorer(folder, device="cpu", target_risk=0.02)


@pytest.mark.parametrize("name", ["batch_size", "max_faces"])
def test_numbers_below_one(levels, name):
    with pytest.raises(ValueError, match=f"{name} = 0: must be at least 1"):
        levels(**{name: 0})


def test_the_best_shot_is_the_least_uncertain_largest_face(levels, faces, scene):
    dark = (faces[1] // 3).astype(np.uint8)
    frames = [
        scene(2, [], []),
        scene(3, [faces[0]], PLACES[3]),
        scene(1, [faces[2], dark, dark], PLACES[1]),  # the surest, but not the largest ones
        faces[0] // 2,
        faces[0] // 2,
    ]
    scorer = levels(places=PLACES)
    best = scorer.best_shot(frames)
    assert best.index == 3
    assert best.score.uncertainty == pytest.approx((faces[0] // 2).mean() / 255)
    assert len(best.scores) == 7
    assert scorer.best_shot(best.scores).index == 3
    with pytest.raises(ValueError, match="none of the 1 frames has a face; the first: no face fo"):
        scorer.best_shot(frames[:1])
    with pytest.raises(ValueError, match="none of the 0 frames has a face$"):
        scorer.best_shot([])


def test_pictures_of_pil_are_turned_upright(levels, faces):
    kept = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(faces[0][::-1, ::-1]).save(kept, "png", exif=exif)
    for image in (Image.open(io.BytesIO(kept.getvalue())), kept.getvalue()):
        row = levels()(image)[0]
        np.testing.assert_array_equal(row.aligned, faces[0])
        assert "rotated" in row.note
