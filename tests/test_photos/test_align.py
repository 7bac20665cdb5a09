import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.synthetic import SyntheticFaces
from photos.align import REFERENCE, align, similarity_transforms


def similarity(scale, degrees, shift):
    """(2, 3) matrix: turn and scale, then shift."""
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, shift])


def moved(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.2, 5), st.floats(-180, 180), st.tuples(st.floats(-300, 300), st.floats(-300, 300))
)
def test_a_known_transform_is_found(scale, degrees, shift):
    matrix = similarity(scale, degrees, shift)
    found = similarity_transforms(moved(matrix, REFERENCE)[None])[0]
    np.testing.assert_allclose(moved(found, moved(matrix, REFERENCE)), REFERENCE, atol=1e-8)


def test_noisy_points_give_the_least_squares_solution():
    rng = np.random.default_rng(0)
    points = REFERENCE * 1.7 + rng.normal(0, 4, (20, 5, 2)) + (30, -12)
    found = similarity_transforms(points.astype(np.float32))
    for one, matrix in zip(points.astype(np.float32), found, strict=True):
        # x' = a x - b y + c, y' = b x + a y + d: ten equations in a, b, c, d
        x, y = one.T.astype(float)
        ones, zeros = np.ones(5), np.zeros(5)
        left = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
        (a, b, c, d), *_ = np.linalg.lstsq(left, REFERENCE.T.ravel())
        np.testing.assert_allclose(matrix, [[a, -b, c], [b, a, d]], rtol=1e-7, atol=1e-7)


def test_mirrored_landmarks_do_not_mirror_the_face():
    matrix = similarity_transforms((REFERENCE * (-1, 1) + (112, 0))[None])[0]
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_shifted_or_quarter_turned_face_comes_back_pixel_for_pixel(degrees):
    face = SyntheticFaces(1, 1).read(0)
    turned = np.rot90(face, -degrees // 90)
    crop = np.full((170, 190, 3), 40, np.uint8)
    crop[20:132, 33:145] = turned
    centre = np.array([55.5, 55.5])
    turn = similarity(1, degrees, (0, 0))
    points = moved(turn, REFERENCE - centre) + centre + (33, 20)
    np.testing.assert_array_equal(align(crop, points), face)


def test_outside_of_the_picture_is_black():
    aligned = align(np.full((112, 112, 3), 200, np.uint8), REFERENCE - (60, 0))
    assert (aligned[:, :59] == 0).all()
    assert (aligned[:, 61:] == 200).all()


def test_landmarks_in_one_point():
    with pytest.raises(ValueError, match="five landmarks do not span a face"):
        align(np.zeros((9, 9, 3), np.uint8), np.ones((5, 2)))
