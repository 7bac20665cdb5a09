"""What a recogniser's ONNX file holds: input, embedding, the map before it, the layers between.

Files say little that can be relied on: a declared batch of 1 may stand for any, and shapes are
often missing. So some noise is run through the graph, and what comes out decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from utils.onnx_runtime import needed, open_session, parsed_network, run_limited

Arrays = dict[str, NDArray[Any]]
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_DEFAULT_SIZE, _LARGEST_SIZE, _MOST_PIXELS = 112, 1024, 1 << 24  # the last of a fixed batch
_EPSILON = 1e-5  # of BatchNorms, where only about how large they are counts
_PASSING = ("Identity", "Cast", "Dropout")
SHAPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")  # operators that move no number
_WATCHED = 48  # tensors before an output that are looked at
_SMALL_GAIN = 0.05  # of a graph that scales pixels in 0..255 down itself
_USUAL_WIDTHS = range(32, 2049)  # of embeddings; logits are wider, qualities narrower


@dataclass(frozen=True, kw_only=True)
class Interface:
    """How a recogniser is fed, and what of it is read.

    Attributes:
        input: name of the images' tensor.
        dtype: its NumPy type.
        channels_last: (B, size, size, 3) rather than (B, 3, size, size).
        size: height and width in pixels.
        batch: images of one run; None for any number.
        embedding: name of the output that is compared.
        embedding_size: D.
        features: name of the tensor that heads read.
        features_shape: (C, H, W).
        features_last: it is stored as (B, H, W, C).
        stages: names of the outputs with averages of earlier maps; () unless they are asked for.
        lengths: those with each channel's Euclidean length, of the same maps.
        shapes: of all outputs as they are stored, without B.
    """

    input: str
    dtype: str
    channels_last: bool
    size: int
    batch: int | None
    embedding: str
    embedding_size: int
    features: str
    features_shape: tuple[int, int, int]
    features_last: bool
    shapes: tuple[tuple[int, ...], ...]
    stages: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what is computed, in order."""
        return (self.embedding, self.features, *self.stages, *self.lengths)


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """A graph that gives embedding and features, in this order.

    Attributes:
        content: the ONNX file.
        interface: see there.
        scaling: mean and scale of the pixels that it wants; {} where the graph does not say.
        tail: from features (B, F), flattened channel-major, to embeddings; a sequence of layers.
        no_tail: why there is none; "" where there is.
    """

    content: bytes
    interface: Interface
    scaling: dict[str, float]
    tail: nn.Sequential
    no_tail: str


def read_recogniser(content: bytes, embedding: str | None, features: str | None) -> Recogniser:
    """Find out how a recogniser is used; `embedding` and `features` name tensors of the graph.

    Raises:
        ValueError: it cannot be run, does not take one batch of images, or has no such tensor.
    """
    graph = _Graph(content)
    outputs = [output.name for output in graph.proto.graph.output]
    watched = dict.fromkeys([*outputs, *filter(None, (embedding, features))])
    for name in list(watched):
        watched |= dict.fromkeys(graph.before(name))
    probe = _Probe(graph.with_outputs([name for name in watched if name in graph.dependent]))
    images = probe.noise(probe.batch or 1)
    arrays = probe.run(images)
    embedding = _embedding(embedding, outputs, arrays, len(images), graph)
    if not np.isfinite(arrays[embedding]).all():
        raise ValueError(f"its {embedding!r} has NaN or infinite values: its weights are damaged")
    features = features or _map_before(embedding, arrays, graph)
    if features not in arrays:
        raise ValueError(f"no tensor {features!r} depends on the images: name another as features")
    values = arrays[features]
    last = values.ndim == 4 and values.shape[1] == values.shape[2] != values.shape[3]
    shape = values.shape[1:] if values.ndim == 4 else (values[0].size, 1, 1)
    final, batch = _any_batch(graph, probe, [embedding, features], images, arrays)
    interface = Interface(
        input=probe.input,
        dtype=np.dtype(probe.dtype).name,
        channels_last=probe.channels_last,
        size=probe.size,
        batch=batch,
        embedding=embedding,
        embedding_size=arrays[embedding][0].size,
        features=features,
        features_shape=(shape[2], *shape[:2]) if last else tuple(shape),
        features_last=last,
        shapes=(arrays[embedding].shape[1:], values.shape[1:]),
    )
    tail, no_tail = _tail(graph, interface, arrays)
    return Recogniser(
        content=final,
        interface=interface,
        scaling=_scaling(graph, probe),
        tail=tail,
        no_tail=no_tail,
    )


def with_stages(content: bytes, own: Interface) -> tuple[bytes, Interface]:
    """Return a graph that also gives averages and lengths of its stages, and its interface then.

    Of each size of map between image and features: the first map that a layer with a stride reads.

    Raises:
        ValueError: it has no such maps.
    """
    graph = _Graph(content)
    read = {node.input[0] for node in graph.proto.graph.node if max(_strides(node), default=1) > 1}
    candidates = [name for name in graph.place if name in read & graph.dependent][:_WATCHED]
    probe = _Probe(graph.with_outputs([own.features, *candidates]))
    arrays = probe.run(probe.noise(probe.batch or 1))
    ends: dict[int, str] = {}
    for name in candidates:
        _, _, height, width = (*arrays[name].shape, 0, 0, 0, 0)[:4]
        if own.features_shape[1] < height == width < own.size:
            ends.setdefault(height, name)
    if not ends:
        raise ValueError("no layer with a stride reads a map (B, C, H, W) before its features")
    stages = tuple(f"faceuq/average of {name}" for name in ends.values())
    lengths = tuple(f"faceuq/length of {name}" for name in ends.values())
    for pool, outputs in (("GlobalAveragePool", stages), ("GlobalLpPool", lengths)):
        graph.proto.graph.node.extend(
            graph.onnx.helper.make_node(pool, [name], [output])
            for name, output in zip(ends.values(), outputs, strict=True)
        )
    shapes = [(arrays[name].shape[1], 1, 1) for name in ends.values()]
    own = replace(own, stages=stages, lengths=lengths, shapes=(*own.shapes, *shapes, *shapes))
    return graph.with_outputs([*own.outputs]), own


def _strides(node: Any) -> list[int]:
    return [step for option in node.attribute if option.name == "strides" for step in option.ints]


class _Graph:
    """A parsed file: who makes and who reads each tensor, and what depends on the images."""

    def __init__(self, content: bytes) -> None:
        self.onnx = needed("onnx")
        self.proto = parsed_network(content, "it")
        graph = self.proto.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
        self.made_by = {name: node for node in graph.node for name in node.output if name}
        self.place = {name: place for place, name in enumerate(self.made_by)}
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.dependent = set(self.inputs)
        for node in graph.node:
            if self.dependent.intersection(node.input):
                self.dependent.update(filter(None, node.output))

    def before(self, name: str) -> list[str]:
        """Names of what a tensor is made from, the nearest first, about `_WATCHED`."""
        names: list[str] = []
        waiting = {name}
        for node in reversed(self.proto.graph.node):
            if waiting.intersection(node.output) and len(names) < _WATCHED:
                waiting.update(node.input)
                names += [made for made in node.output if made in self.dependent]
        return names

    def constant(self, name: str) -> NDArray[Any] | None:
        """Value of a tensor that stands in the file; None for any other."""
        tensor = self.constants.get(name)
        return None if tensor is None else self.onnx.numpy_helper.to_array(tensor)

    def with_outputs(self, names: list[str], batch: int | None = None) -> bytes:
        """Return the file with other outputs; a fixed `batch` becomes any number, where it can."""
        proto = self.onnx.ModelProto()
        proto.CopyFrom(self.proto)
        graph = proto.graph
        del graph.output[:], graph.value_info[:]
        graph.output.extend(self.onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
        if batch is not None:
            for value in graph.input:
                if value.name in self.inputs:
                    value.type.tensor_type.shape.dim[0].dim_param = "N"
            for number, node in enumerate(graph.node):
                is_literal = node.op_type == "Reshape" and len(node.input) == 2
                shape = self.constant(node.input[1]) if is_literal else None
                if shape is not None and len(shape) > 1 and shape[0] == batch:
                    first = 0 if -1 in shape else -1  # 0: as it comes in
                    free = np.array([first, *shape[1:]], np.int64)
                    del node.attribute[:]  # which says what a 0 means
                    node.input[1] = f"{node.input[1]}_of_any_batch_{number}"
                    graph.initializer.append(self.onnx.numpy_helper.from_array(free, node.input[1]))
        return bytes(proto.SerializeToString())


class _Probe:
    """A session for single runs, and what the file says of its input.

    Raises:
        ValueError: it cannot be opened, or does not take one batch of square images.
    """

    def __init__(self, content: bytes) -> None:
        self._session = open_session(content, "it", optimised=False, limited=True)
        inputs = self._session.get_inputs()
        described = ", ".join(f"{value.name} {value.type} {value.shape}" for value in inputs)
        shape = list(inputs[0].shape) if len(inputs) == 1 else []
        if len(shape) != 4 or inputs[0].type not in _TYPES:
            raise ValueError(f"inputs {described or 'missing'}: expected one batch of images")
        self.input, self.dtype = inputs[0].name, _TYPES[inputs[0].type]
        batch, *sides = (side if isinstance(side, int) and side > 0 else None for side in shape)
        self.batch = batch
        self.channels_last = sides[2] == 3 and sides[0] != 3
        pixels = sides[:2] if self.channels_last else sides[1:]
        height, width = (side or _DEFAULT_SIZE for side in pixels)
        channels = sides[2] if self.channels_last else sides[0]
        fits = channels in (3, None) and height == width <= _LARGEST_SIZE
        if not fits or (batch or 1) * height * width > _MOST_PIXELS:
            raise ValueError(f"input {described}: expected square images of three colours")
        self.size = height

    def noise(self, count: int) -> NDArray[Any]:
        """Return so many images; the first ones are always the same."""
        rows = [
            np.random.default_rng(row).normal(size=(3, self.size, self.size)).astype(np.float32)
            for row in range(count)
        ]
        images = np.stack(rows)
        if self.dtype == np.uint8:
            images = (images * 50 + 128).clip(0, 255)
        return np.ascontiguousarray(
            images.transpose(0, 2, 3, 1) if self.channels_last else images, self.dtype
        )

    def run(self, images: NDArray[Any]) -> Arrays:
        """Return the outputs by name.

        Raises:
            ValueError: it fails.
        """
        names = [output.name for output in self._session.get_outputs()]
        outputs = run_limited(self._session, names, {self.input: images})
        arrays = zip(names, outputs, strict=True)
        return {name: array for name, array in arrays if isinstance(array, np.ndarray)}


def _embedding(
    name: str | None, outputs: list[str], arrays: Arrays, images: int, graph: _Graph
) -> str:
    """The output that is compared: as named, else of the usual width and the first to be made."""
    widths = {
        output: values[0].size
        for output, values in arrays.items()
        if values.ndim >= 2
        and len(values) == images
        and values.dtype.kind == "f"
        and values[0].size == max(values.shape[1:]) > 1
    }
    if name is None:
        candidates = [output for output in outputs if output in widths]
        if candidates:
            return min(
                candidates,
                key=lambda output: (
                    "embed" not in output.lower(),
                    widths[output] not in _USUAL_WIDTHS,
                    graph.place.get(output, 0),
                ),
            )
    elif name in widths:
        return name
    shapes = {output: list(arrays[output].shape) for output in outputs if output in arrays}
    described = ", ".join(f"{output} {shape}" for output, shape in shapes.items()) or "none"
    wanted = "an embedding, (N, D) numbers" if name is None else f"embedding = {name!r}"
    raise ValueError(f"its outputs for {images} images are {described}: {wanted} is not among them")


def _map_before(embedding: str, arrays: Arrays, graph: _Graph) -> str:
    """The last map of several places before the embedding; the embedding where there is none."""
    images = len(arrays[embedding])
    for name in graph.before(embedding):
        values = arrays[name]
        is_batch = values.dtype.kind == "f" and values.ndim > 2 and len(values) == images
        if is_batch and values.shape[2] > 1:
            return name if values.ndim == 4 else embedding  # else tokens of a transformer
    return embedding


def _any_batch(
    graph: _Graph, probe: _Probe, names: list[str], images: NDArray[Any], arrays: Arrays
) -> tuple[bytes, int | None]:
    """Return the file with these outputs, and the batch that it needs; None for any.

    One that declares a fixed batch often gives the same for any other, once a few shapes are freed.
    """
    more = probe.noise(len(images) + 1)
    for batch in [len(images)] if probe.batch else [None, len(images)]:
        content = graph.with_outputs(names, batch)
        try:
            free = _Probe(content).run(more)
        except ValueError:
            continue
        pairs = [(free[name], arrays[name]) for name in names]
        if all(
            len(new) == len(more) and np.allclose(new[:-1], old, rtol=1e-3, atol=1e-3)
            for new, old in pairs
        ):
            return content, None
    return graph.with_outputs(names), len(images)


def _scaling(graph: _Graph, probe: _Probe) -> dict[str, float]:
    """What the pixels are to be where the graph normalises them itself; {} where it does not."""
    if probe.dtype == np.uint8:
        return {"mean": 0.0, "scale": 1.0}
    name, gain, offset = probe.input, 1.0, 0.0
    readers_of: dict[str, list[Any]] = defaultdict(list)
    for node in graph.proto.graph.node:
        for read in set(node.input):
            readers_of[read].append(node)
    while True:
        readers = readers_of[name]
        step = _step(graph, readers[0], name) if len(readers) == 1 else None
        if step is None:
            break
        gain, offset, name = gain * step[0], offset * step[0] + step[1], readers[0].output[0]
    middle = -offset / gain if gain > 0 else 0.0  # the value that becomes 0
    if middle > 2 or 0 < gain < _SMALL_GAIN:
        return {"mean": 0.0, "scale": 1.0}
    return {"mean": 0.0, "scale": 255.0} if 0.2 < middle < 0.8 else {}


def _step(graph: _Graph, node: Any, name: str) -> tuple[float, float] | None:
    """Gain and offset, averaged over channels, of a node that changes values one by one."""
    if node.op_type in ("Cast", "Identity", "Transpose"):
        return 1.0, 0.0
    others = [graph.constant(other) for other in node.input if other != name]
    values = [float(np.mean(other)) for other in others if other is not None]
    if not values or len(values) != len(others):
        return None
    match node.op_type, node.input[0] == name:
        case "Add", _:
            return 1.0, values[0]
        case "Mul", _:
            return values[0], 0.0
        case "Sub", True:
            return 1.0, -values[0]
        case "Div", True:
            return 1 / values[0], 0.0
        case "BatchNormalization", True:
            weight, bias, mean, var = values
            gain = weight / np.sqrt(var + _EPSILON)
            return gain, bias - mean * gain
    return None


_RUN: dict[str, Callable[..., Tensor]] = {  # values, the node's options, its constants
    "Add": lambda values, _, other: values + other,
    "Sub": lambda values, _, other: values - other,
    "Mul": lambda values, _, other: values * other,
    "Div": lambda values, _, other=None: F.normalize(values) if other is None else values / other,
    "LpNormalization": lambda values, _: F.normalize(values),
    "Transpose": lambda values, options: values.permute(*options["perm"]),
    "MatMul": lambda values, _, weight: values @ weight,
    "Gemm": lambda values, options, weight, bias=0.0: (
        options.get("alpha", 1.0) * (values @ (weight.T if options.get("transB") else weight))
        + options.get("beta", 1.0) * bias
    ),
    "Relu": lambda values, _: values.relu(),
    "PRelu": lambda values, _, slope: values.clamp_min(0) + slope * values.clamp_max(0),
    "GlobalAveragePool": lambda values, _: values.mean((2, 3), keepdim=True),
    "ReduceMean": lambda values, options, axes=(): values.mean(
        options.get("axes") or [int(axis) for axis in axes], bool(options.get("keepdims", 1))
    ),
    "BatchNormalization": lambda values, options, weight, bias, mean, var: F.batch_norm(
        values, mean, var, weight, bias, eps=options.get("epsilon", 1e-5)
    ),
    "Conv": lambda values, options, weight, bias=None: F.conv2d(
        values, weight, bias, options.get("strides", 1), groups=options.get("group", 1)
    ),
}


class Layer(nn.Module):
    """A node on constants, which move with the module but are not stored with it."""

    def __init__(self, kind: str, run: Callable[..., Tensor], *constants: Tensor) -> None:
        super().__init__()
        self.kind, self._run = kind, run
        for number, constant in enumerate(constants):
            self.register_buffer(f"constant{number}", constant, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return what the node makes of the values."""
        return self._run(values, *self.buffers())


def _tail(graph: _Graph, interface: Interface, arrays: Arrays) -> tuple[nn.Sequential, str]:
    """Return layers from features to embedding, or why there are none.

    What they give for the noise is compared with what the graph gave.
    """
    shape = arrays[interface.features].shape[1:]
    features = torch.from_numpy(arrays[interface.features]).float()
    layers = []
    name = interface.embedding
    while name != interface.features:
        node = graph.made_by[name]
        if node.op_type not in _PASSING:
            layer = _layer(graph, node, arrays[name].shape[1:])
            if layer is None:
                return nn.Sequential(), f"{node.op_type} (to {name!r}) is not a layer that is read"
            layers.append(layer)
        name = next((other for other in node.input if other in graph.dependent), "")
        if name not in arrays:
            return nn.Sequential(), f"{node.op_type} does not lead back to {interface.features!r}"
    if interface.features_last:
        features = features.permute(0, 3, 1, 2)
        layers.append(Layer("Transpose", lambda maps: maps.permute(0, 2, 3, 1)))
        shape = interface.features_shape
    layers.append(Layer("Reshape", lambda values: values.reshape(-1, *shape)))
    tail = nn.Sequential(*reversed(layers))
    expected = torch.from_numpy(arrays[interface.embedding]).float()
    try:
        embedding = tail(features.flatten(1))
        assert embedding.shape == expected.shape
        close = torch.allclose(embedding, expected, 1e-3, 1e-3 * float(expected.abs().max()))
    except (RuntimeError, TypeError, KeyError, AssertionError):  # an option that is not read
        close = False
    return (tail, "") if close else (nn.Sequential(), "its last layers do not give its embedding")


def _layer(graph: _Graph, node: Any, shape: tuple[int, ...]) -> Layer | None:
    """Return a node as a layer that gives values of this shape for each image, or None."""
    if node.op_type in SHAPING:
        return Layer(node.op_type, lambda values: values.reshape(-1, *shape))
    constants = [value for value in map(graph.constant, node.input) if value is not None]
    is_first = node.input[0] in graph.dependent or node.op_type in ("Add", "Mul")
    if node.op_type not in _RUN or not is_first:
        return None
    read = graph.onnx.helper.get_attribute_value
    options = {option.name: read(option) for option in node.attribute}
    return Layer(
        node.op_type,
        lambda values, *tensors: _RUN[node.op_type](values, options, *tensors),
        *(torch.from_numpy(np.array(value)).float() for value in constants),
    )
