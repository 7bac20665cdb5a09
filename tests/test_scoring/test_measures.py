"""Measures against OpenCV and a turned three-dimensional face; reasons against degraded faces."""

import math
import re
from collections import Counter

import cv2
import numpy as np
import pytest

from data.synthetic import degradation_sweep
from estimators.sharpness import Sharpness
from photos.align import REFERENCE
from report.sheet import Measures
from scoring.measures import FACE_MODEL, LIMITS, head_pose, measure, reasons
from tests.helpers import ROOT

FACES = degradation_sweep("blur", [0.0], 12)[0]
PLAIN = {"sharpness": 150.0, "brightness": 115.0, "contrast": 50.0}
DEGREES = pytest.approx


def turned(yaw, pitch=0.0, roll=0.0, size=60.0, at=(200.0, 150.0), far=math.inf):
    """The model face, turned about its own axes and then seen by a camera: (5, 2) pixels.

    Rotations by Rodrigues vectors, each for itself: pitch, then yaw, then roll.
    """
    points = FACE_MODEL.T
    for axis, angle in (((1, 0, 0), pitch), ((0, 1, 0), -yaw), ((0, 0, 1), roll)):
        vector = np.radians(angle) * np.array(axis, float)
        points = cv2.Rodrigues(vector)[0] @ points
    nearer = 1.0 if math.isinf(far) else far / (far + points[2])
    return (points[:2] * nearer).T * size + at


def named(faces):
    """How many of the faces have each reason, as a share."""
    found = Counter(one for each in measure(faces, [None] * len(faces)) for one in reasons(each))
    return {name: count / len(faces) for name, count in found.items()}


def each(faces, change):
    return np.stack([change(face) for face in faces])


def enlarged_from_24(face):
    return cv2.resize(cv2.resize(face, (24, 24), interpolation=cv2.INTER_AREA), (112, 112))


def test_light_and_sharpness_are_those_of_opencv_and_of_the_estimator():
    found = measure(FACES, [None] * len(FACES))
    wanted = -Sharpness(frozen=None).uncertainty(FACES)
    for face, one, sharp in zip(FACES, found, wanted, strict=True):
        grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(float)
        assert one.brightness == pytest.approx(grey.mean())
        assert one.contrast == pytest.approx(grey.std())
        assert one.sharpness == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var())
        assert one.sharpness == pytest.approx(sharp, rel=0.05, abs=2)  # grey levels not rounded
        assert one.eye_distance is one.yaw is one.roll is None


@pytest.mark.parametrize("yaw", [-80, -45, -10, 0, 20, 60, 85])
@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (25, -15), (-30, 40), (10, 170), (-15, -95)])
def test_pose_of_the_model_is_exact(yaw, pitch, roll):
    yaws, rolls = head_pose(turned(yaw, pitch, roll)[None])
    assert (yaws[0], rolls[0]) == (DEGREES(yaw, abs=1e-6), DEGREES(roll, abs=1e-6))


def test_yaw_is_positive_where_the_nose_points_to_the_viewers_right():
    points = turned(30)
    middle = points[:2, 0].mean()
    assert points[2, 0] > middle
    assert head_pose(points[None])[0][0] == DEGREES(30)


def test_roll_is_clockwise_and_that_of_the_line_between_the_eyes():
    points = turned(0, roll=25)
    (right_x, right_y), (left_x, left_y) = points[1], points[0]
    assert math.degrees(math.atan2(right_y - left_y, right_x - left_x)) == DEGREES(25)
    assert points[1, 1] > points[0, 1]  # the right eye is lower


@pytest.mark.parametrize("yaw", [-50, -25, 0, 25, 50])
def test_pose_bears_a_near_camera_and_rough_landmarks(yaw):
    rng = np.random.default_rng(0)
    rough = np.stack([turned(yaw, 10, 5, far=10) + rng.normal(0, 1.2, (5, 2)) for _ in range(200)])
    yaws, rolls = head_pose(rough)
    assert abs(yaws.mean() - yaw) < 5
    assert abs(rolls.mean() - 5) < 5
    assert yaws.std() < 6


def test_the_template_looks_ahead():
    yaw, roll = head_pose(REFERENCE[None])
    assert abs(yaw[0]) < 2
    assert abs(roll[0]) < 1


def test_place_in_the_photo():
    points = turned(20, 0, -10, size=64.0)
    (alone,) = measure(FACES[:1], [points.astype(np.float32)])
    assert alone.eye_distance == pytest.approx(64 * math.cos(math.radians(20)), rel=1e-4)
    assert (alone.yaw, alone.roll) == (DEGREES(20, abs=0.01), DEGREES(-10, abs=0.01))


def test_faces_with_and_without_landmarks_share_a_batch():
    marks = [None, turned(10), np.full((5, 2), 7.0), np.full((5, 2), np.nan), turned(-30)]
    found = measure(FACES[:5], marks)
    assert [one.yaw is None for one in found] == [True, False, True, True, False]
    assert found[1].yaw == DEGREES(10)
    assert found[4].yaw == DEGREES(-30)
    assert found[3].brightness > 0


def test_landmarks_that_do_not_fit():
    with pytest.raises(ValueError, match="2 faces, but landmarks for 1"):
        measure(FACES[:2], [None])
    with pytest.raises(ValueError, match=r"landmarks of shape \(2, 5\): must be \(5, 2\)"):
        measure(FACES[:1], [np.zeros((2, 5))])


def test_nothing_to_see():
    assert reasons(Measures(**PLAIN)) == ()
    assert reasons(Measures(**PLAIN, eye_distance=80.0, yaw=-10.0, roll=5.0)) == ()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"sharpness": 20.0}, "blurred"),
        ({"eye_distance": 19.0}, "small"),
        ({"yaw": 31.0}, "turned away"),
        ({"yaw": -31.0}, "turned away"),
        ({"roll": -31.0}, "tilted"),
        ({"roll": 175.0}, "tilted"),
        ({"brightness": 69.0}, "dark"),
        ({"brightness": 166.0}, "too bright"),
        ({"contrast": 31.0}, "low contrast"),
    ],
)
def test_each_reason_alone(change, wanted):
    assert reasons(Measures(**{**PLAIN, **change})) == (wanted,)
    assert wanted in LIMITS


def test_the_page_states_the_limits():
    page = (ROOT / "docs" / "score_photos.md").read_text(encoding="utf-8")
    for name, limit in LIMITS.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {name} |"))
        assert re.search(rf"\b{limit:g}\b", row), f"{name}: {limit:g}"


def test_limits_themselves_are_within():
    at = Measures(
        sharpness=(0.14 * 32) ** 2, brightness=70.0, contrast=32.0, eye_distance=20.0, yaw=30.0
    )
    assert reasons(at) == ()


def test_worst_first():
    found = Measures(
        sharpness=900.0, brightness=10.0, contrast=16.0, eye_distance=5.0, yaw=33.0, roll=45.0
    )  # 7, 2, 4, 1.1 and 1.5 times beyond
    assert reasons(found) == ("dark", "small", "low contrast", "tilted", "turned away")


@pytest.mark.parametrize(("level", "light"), [(0, "dark"), (255, "too bright")])
def test_an_even_picture_has_a_reason_and_is_not_called_blurred(level, light):
    (found,) = measure(np.full((1, 112, 112, 3), level, np.uint8), [None])
    assert reasons(found) == (light, "low contrast")


def test_a_dim_or_flat_face_is_not_called_blurred():
    usual = named(FACES).get("blurred", 0)
    assert named(each(FACES, lambda face: (face * 0.3).astype(np.uint8))).get("blurred", 0) <= usual
    flat = each(FACES, lambda face: (128 + (face - 128.0) * 0.3).astype(np.uint8))
    assert named(flat).get("blurred", 0) <= usual


def test_strong_degradations_are_named():
    blurred = each(FACES, lambda face: cv2.GaussianBlur(face, (0, 0), 2))
    tiny = each(FACES, enlarged_from_24)
    dim = each(FACES, lambda face: (face * 0.3).astype(np.uint8))
    pale = each(FACES, lambda face: (215 + face * 0.1).astype(np.uint8))
    assert named(blurred)["blurred"] == 1
    assert named(tiny)["blurred"] > 0.9
    assert named(dim)["dark"] == named(dim)["low contrast"] == 1
    assert named(pale)["too bright"] == named(pale)["low contrast"] == 1
