"""OFIQ's table: scales against pairs that OFIQ itself printed, raw values against brute force."""

import csv
import math

import cv2
import numpy as np
import pytest

from data.images import encode_png
from data.rendered import SyntheticFaces, raw_photo
from report.sheet import FaceScore, Measures
from scoring import score_images
from scoring.measures import FACE_REGION
from scoring.ofiq import COMPONENTS, SCALES, raw_values, scale

# Raw value and scale as in data/tests/expected_results of BSI-OFIQ/OFIQ-Project.
PRINTED = [
    *(("HeadPoseRoll", -16.291553, 92), ("HeadPoseRoll", 27.373343, 79)),
    *(("HeadPoseYaw", 7.966364, 98), ("HeadPoseYaw", -0.636195, 100)),
    *(("UnderExposurePrevention", 0.351960, 100), ("OverExposurePrevention", 0.000022, 100)),
    *(("DynamicRange", 6.912061, 86.400761), ("DynamicRange", 5.560847, 69.510584)),
    *(("LuminanceMean", 0.296339, 87), ("LuminanceMean", 0.103973, 13)),
    *(("LuminanceMean", 0.498524, 100), ("LuminanceMean", 0.189643, 45)),
    *(("LuminanceVariance", 0.059640, 63), ("LuminanceVariance", 0.007321, 82)),
    *(("SingleFacePresent", 0.720493, 28), ("SingleFacePresent", 0.0, 100)),
    *(("InterEyeDistance", 352.585483, 100), ("LeftwardCropOfTheFaceImage", 2.561339, 100)),
]


@pytest.mark.parametrize(("component", "raw", "wanted"), PRINTED)
def test_scales_are_those_of_ofiq(component, raw, wanted):
    assert scale(component, raw) == pytest.approx(wanted, abs=1e-4)


def test_scales_keep_within_0_and_100_for_any_number():
    assert set(SCALES) <= set(COMPONENTS)
    assert len(set(COMPONENTS)) == 28
    for component in SCALES:
        for raw in (0.0, 0.5, 1.0, 90.0, 1e4, -1e4 if "Crop" in component else 1.0):
            assert 0 <= scale(component, raw) <= 100
    assert scale("InterEyeDistance", 70) == 50  # the middle of its sigmoid
    assert scale("UnderExposurePrevention", 1.0) == 0
    assert scale("OverExposurePrevention", 0.19) == 5


def linear(level):
    """One sRGB value of 0..255 in proportion to light."""
    share = level / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def test_light_is_counted_pixel_by_pixel():
    face = SyntheticFaces(1, 1, seed=4).read(0)
    levels = []
    for y, x in zip(*np.nonzero(FACE_REGION), strict=True):
        red, green, blue = (linear(int(value)) for value in face[y, x])
        levels.append(math.floor(255 * (0.2126 * red + 0.7152 * green + 0.0722 * blue) + 0.5))
    levels = np.array(levels)
    _, counts = np.unique(levels, return_counts=True)
    shares = counts / counts.sum()
    raw = raw_values(FaceScore(image=0, aligned=face))
    assert raw == {
        "LuminanceMean": pytest.approx((levels / 255).mean(), abs=1e-4),
        "LuminanceVariance": pytest.approx((levels / 255).var(), abs=1e-4),
        "UnderExposurePrevention": pytest.approx((levels <= 25).mean(), abs=1e-3),
        "OverExposurePrevention": pytest.approx((levels >= 247).mean(), abs=1e-3),
        "DynamicRange": pytest.approx(-(shares * np.log2(shares)).sum(), abs=0.01),
    }


def test_the_place_in_the_photo():
    points = np.array([(100, 50), (160, 50), (130, 85), (110, 120), (150, 120)], np.float32)
    measures = Measures(
        sharpness=1, brightness=1, contrast=1, eye_distance=60.0, yaw=60.0, roll=-5.0
    )
    face = FaceScore(image=0, landmarks=points, photo_size=(400, 300), measures=measures)
    assert raw_values(face) == {
        "InterEyeDistance": pytest.approx(120),
        "HeadPoseYaw": 60.0,
        "HeadPoseRoll": -5.0,
        "LeftwardCropOfTheFaceImage": pytest.approx(100 / 60),
        "RightwardCropOfTheFaceImage": pytest.approx(240 / 60),
    }


def test_a_table_as_ofiq_writes_it(tmp_path, refused, capsys):
    faces = SyntheticFaces(4, 1, seed=6, severity=0.0)
    two = np.hstack([raw_photo(faces, 0), cv2.resize(raw_photo(faces, 2), (200, 300))])
    photos = {"a.png": raw_photo(faces, 2), "b;=1.png": two, "c.png": np.zeros((90, 90, 3))}
    for name, photo in photos.items():
        (tmp_path / name).write_bytes(encode_png(np.uint8(photo)))
    out = tmp_path / "table.csv"
    words = [str(tmp_path), "--model", "demo", "--columns", "ofiq", "--out"]
    assert score_images.main([*words, str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert text.startswith("Filename;UnifiedQualityScore;BackgroundUniformity;")
    heading, *lines = csv.reader(text.splitlines(), delimiter=";")
    assert heading == ["Filename", *COMPONENTS, *(f"{name}.scalar" for name in COMPONENTS), ""]
    table = {line[0].rpartition("/")[2]: dict(zip(heading, line, strict=False)) for line in lines}
    assert sorted(table) == sorted(photos)
    assert {len(line) for line in lines} == {57}
    alone, both, empty = table["a.png"], table["b;=1.png"], table["c.png"]
    assert alone["SingleFacePresent.scalar"] == "100"
    assert float(both["SingleFacePresent"]) > 0
    assert 0 <= int(alone["UnifiedQualityScore.scalar"]) <= 100
    assert float(alone["InterEyeDistance"]) > 20
    assert (alone["EyesVisible"], alone["EyesVisible.scalar"]) == ("0", "-1")
    assert {empty[name] for name in COMPONENTS} == {"0"}
    assert {empty[f"{name}.scalar"] for name in COMPONENTS} == {"-1"}
    capsys.readouterr()
    refused(score_images.main([*words, str(tmp_path / "x.json")]), "give --out NAME.csv")
