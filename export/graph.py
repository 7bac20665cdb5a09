"""From stored images to uncertainty and quality as one network, an ONNX file, and one of 8 bits.

Static quantisation is for the backbone; head and calibration stay float. export/export.py and
benchmarks/onnx.py write files with it.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from estimators.onnx import INPUT, OUTPUTS
from evaluation.confidence.calibration import NOT_COMPUTED, Calibration
from models.backbones.base import Backbone, BackboneOutput
from models.backbones.onnx import NODE, OnnxBackbone
from models.heads.base import Head, to_scalar, to_sigma_sq
from utils.files import atomic_path
from utils.onnx_runtime import needed

_RANGE_BATCH = 16  # faces that ranges are taken from at once
_RANGE_PERCENT = 99.99  # of an activation's values that its range holds
_DENSE = ("Conv", "Gemm", "MatMul")


class PiecewiseLinear(nn.Module):
    """`np.interp` between knots (K,) float64, ascending, in NumPy's order of operations."""

    def __init__(self, knots: NDArray[np.float64], heights: NDArray[np.float64]) -> None:
        super().__init__()
        slopes = np.append(np.diff(heights) / np.diff(knots), 0.0)
        self.knots: Tensor
        self.heights: Tensor
        self.slopes: Tensor
        for name, values in (("knots", knots), ("heights", heights), ("slopes", slopes)):
            self.register_buffer(name, torch.from_numpy(values))

    def forward(self, values: Tensor) -> Tensor:
        """Map (N,) float64 values, which may be infinite but not NaN."""
        first, last = self.knots[:1], self.knots[-1:]
        inside = torch.where(values < first, first, torch.where(values > last, last, values))
        knot = (inside[:, None] >= self.knots).sum(1) - 1
        rise = self.slopes[knot] * (inside - self.knots[knot])
        return rise + self.heights[knot]


class _ChannelPReLU(nn.Module):
    """PReLU as slope * x + (1 - slope) * relu(x), the products as 1 x 1 convolutions.

    ONNX Runtime has no fast kernel for the operator itself.
    """

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.straight, self.bent = _scaled(slope), _scaled(1 - slope)

    def forward(self, maps: Tensor) -> Tensor:
        straight: Tensor = self.straight(maps)
        return straight + self.bent(torch.relu(maps))


def _scaled(factors: Tensor) -> nn.Conv2d:
    """Return a convolution that multiplies channels by (C,) factors."""
    channels = len(factors)
    conv = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    conv.weight = nn.Parameter(factors.reshape(-1, 1, 1, 1).clone(), requires_grad=False)
    return conv


class ExportedModel(nn.Module):
    """Preprocessing, backbone, head and calibration in one network.

    Backbone (folded) and head are in eval mode. A head that reads images needs no backbone and
    gives no embedding; without calibration quality, percentile and probability are left out.
    """

    def __init__(
        self, backbone: Backbone | None, head: Head, calibration: Calibration | None
    ) -> None:
        super().__init__()
        self.backbone: Backbone | None = None if backbone is None else _plain(backbone)
        self.head: Head = _plain(head)
        self.percentile: PiecewiseLinear | None = None
        self.probability: PiecewiseLinear | None = None
        if calibration is not None:
            self.percentile = PiecewiseLinear(calibration.percentile_at, calibration.percentiles)
            self.probability = PiecewiseLinear(calibration.uncertainty, calibration.probabilities)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns, in order."""
        first = 0 if self.backbone is not None else 1
        return OUTPUTS[first : len(OUTPUTS) if self.percentile is not None else 2]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 (N, 112, 112, 3) RGB images to the tensors that `outputs` names."""
        if self.backbone is None:
            output = images_alone(images)
        else:
            output = self.backbone(self.backbone.preprocessing(images))._replace(images=images)
        uncertainty = to_scalar(_sigma_sq(self.head(output).float(), self.head.output))
        scores = (uncertainty, *self._calibrated(uncertainty.double()))
        return scores if self.backbone is None else (output.embedding, *scores)

    def _calibrated(self, uncertainty: Tensor) -> tuple[Tensor, ...]:
        if self.percentile is None or self.probability is None:
            return ()
        unknown = uncertainty.isnan()
        known = torch.where(unknown, torch.zeros_like(uncertainty), uncertainty)
        percentile, probability = self.percentile(known), self.probability(known)
        quality = torch.round(100 - percentile)
        missing = torch.full_like(known, torch.nan)
        return (
            torch.where(torch.isfinite(uncertainty), quality, float(NOT_COMPUTED)).to(torch.uint8),
            torch.where(unknown, missing, percentile).float(),
            torch.where(unknown, missing, probability).float(),
        )


def _sigma_sq(raw: Tensor, output: str) -> Tensor:
    """Do what `to_sigma_sq` does; the error of ONNX Runtime's Sigmoid is 1e-7 for any value."""
    return 1 / (1 + (-raw).exp()) if output == "probability" else to_sigma_sq(raw, output)


def images_alone(images: Tensor) -> BackboneOutput:
    """What a head that reads images needs: no embedding, no features."""
    nothing = torch.empty(images.shape[0], 0)  # len() would fix the size of a batch
    return BackboneOutput(nothing, nothing, images)


def write_onnx(path: str | Path, model: ExportedModel, facts: Mapping[str, str], doc: str) -> None:
    """Write a model as one ONNX file, for batches of any size, with facts and a line for people.

    Raises:
        ValueError: a package is missing, or a recogniser's own graph does not fit in.
    """
    onnx = needed("onnx")
    needed("onnxscript")
    example = torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(model.outputs),
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    if isinstance(model.backbone, OnnxBackbone):
        _join(proto, model.backbone)
    _strip(proto)
    describe(proto, facts, doc)
    onnx.checker.check_model(proto)
    with atomic_path(path) as temporary:
        onnx.save(proto, temporary)


def _join(proto: Any, backbone: OnnxBackbone) -> None:
    """Put a recogniser's graph where the exporter left a node for it.

    Raises:
        ValueError: it takes one size of a batch, or its operators have no form in this opset.
    """
    onnx = needed("onnx")
    if backbone.interface.batch is not None:
        raise ValueError(
            f"the recogniser takes batches of {backbone.interface.batch} alone: export it again "
            "with a batch of any size"
        )
    opset = next(entry.version for entry in proto.opset_import if not entry.domain)
    try:
        own = onnx.version_converter.convert_version(onnx.load_from_string(backbone.graph), opset)
    except Exception as error:  # the converter's errors have no class of their own
        raise ValueError(
            f"the recogniser's operators cannot be brought to opset {opset} ({error}): export it "
            "again with a newer tool"
        ) from error
    own = onnx.compose.add_prefix(own, "recogniser/")
    graph, domain = proto.graph, NODE.partition("::")[0]
    (place,) = (number for number, node in enumerate(graph.node) if node.domain == domain)
    stub = graph.node.pop(place)
    interface = backbone.interface
    ends = [(stub.input[0], f"recogniser/{interface.input}")]
    ends += [
        (f"recogniser/{name}", output)
        for name, output in zip(interface.outputs, stub.output, strict=True)
    ]
    first, *last = (onnx.helper.make_node("Identity", [a], [b], f"to {b}") for a, b in ends)
    for node in reversed([first, *own.graph.node, *last]):
        graph.node.insert(place, node)
    graph.initializer.extend(own.graph.initializer)
    proto.functions.extend(own.functions)
    proto.ir_version = max(proto.ir_version, own.ir_version)
    for number, node in enumerate(graph.node):
        node.name = node.name or f"node {number}"  # the quantiser goes by names
    known = {entry.domain for entry in own.opset_import} | {domain}
    kept = [entry for entry in proto.opset_import if entry.domain not in known]
    del proto.opset_import[:]
    proto.opset_import.extend([*kept, *own.opset_import])


def describe(proto: Any, facts: Mapping[str, str], doc: str) -> None:
    """Put facts and a line for people into an ONNX model."""
    needed("onnx").helper.set_model_props(proto, dict(facts))
    proto.producer_name = "face-uncertainty"
    proto.doc_string = doc


def _plain(network: Any) -> Any:
    """Return a copy on the CPU, its weights in ONNX's order, without PReLUs."""
    copied = copy.deepcopy(network).to("cpu").eval().to(memory_format=torch.contiguous_format)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.PReLU) and child.num_parameters > 1:
                setattr(module, name, _ChannelPReLU(child.weight.detach()))
    return copied


def _strip(proto: Any) -> None:
    """Take out what the exporter notes of this machine: source files, lines, module names."""
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence exporter and quantiser: torchvision's operators, deprecations, advice, counts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def quantise(
    source: str | Path, out: str | Path, faces: NDArray[np.uint8], note: str
) -> tuple[str, ...]:
    """Write an 8-bit form of a file of `write_onnx`, with the same facts; return the layers' names.

    Dense convolutions and matrix products get 8-bit activations (QDQ form), whose ranges hold all
    but the largest of those that the faces cause, and weights scaled per channel into 7 of their 8
    bits: a CPU without VNNI adds two products in 16 bits, which larger weights overflow. Depthwise
    convolutions stay float: they have few weights, and each would be one more rounding. Faces are
    uint8 (N, 112, 112, 3), like those that will be scored; the note is added to the file's line for
    people.

    Raises:
        ValueError: a package is missing, fewer than 16 faces, or a file without embedding.
    """
    onnx = needed("onnx")
    tools = needed("onnxruntime.quantization")
    proto = onnx.load(source)
    layers = _dense_layers(proto.graph)
    if len(faces) < _RANGE_BATCH:
        raise ValueError(
            f"{len(faces)} faces to take ranges from: at least {_RANGE_BATCH} are needed"
        )
    if not layers:
        raise ValueError(f"{source} has no embedding: 8 bits are for the backbone's layers")
    with quiet():
        tools.quantize_static(
            proto,
            out,
            _Reader(faces),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=list(_DENSE),
            nodes_to_quantize=list(layers),
            per_channel=True,
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=tools.CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": _RANGE_PERCENT, "CalibStridedMinMax": 1},
        )
    written = onnx.load(out)
    facts = {fact.key: fact.value for fact in onnx.load(source).metadata_props}
    describe(written, facts, f"{proto.doc_string}; {note}")
    onnx.save(written, out)
    return layers


class _Reader:
    """Feeds batches of faces, as ONNX Runtime asks for them: some at a time, to save memory."""

    def __init__(self, faces: NDArray[np.uint8]) -> None:
        self._faces = faces
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return len(self._faces) // _RANGE_BATCH  # whole ones: ONNX Runtime stacks what they cause

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go to a batch, and stop before another."""
        starts = range(start_index * _RANGE_BATCH, end_index * _RANGE_BATCH, _RANGE_BATCH)
        self._batches = iter([self._faces[at : at + _RANGE_BATCH] for at in starts])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _dense_layers(graph: Any) -> tuple[str, ...]:
    """Names of the layers behind the embedding that mix channels."""
    made_by = {name: node for node in graph.node for name in node.output}
    seen: set[str] = set()
    waiting = ["embedding"]
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            waiting += node.input
    return tuple(node.name for node in graph.node if node.name in seen and _mixes_channels(node))


def _mixes_channels(node: Any) -> bool:
    groups = [option.i for option in node.attribute if option.name == "group"]
    return node.op_type in _DENSE and (not groups or groups[0] == 1)
