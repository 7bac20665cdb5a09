"""Static 8-bit quantisation of the backbone of an exported file; head and calibration stay float.

export/export.py --int8 and benchmarks/onnx.py use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.onnx import INPUT
from export.graph import describe, quiet
from utils.onnx_runtime import needed

_BATCH = 16
_KEPT = 99.99  # percent of an activation's values that its range holds
_TYPES = ("Conv", "Gemm", "MatMul")


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
    if len(faces) < _BATCH:
        raise ValueError(f"{len(faces)} faces to take ranges from: at least {_BATCH} are needed")
    if not layers:
        raise ValueError(f"{source} has no embedding: 8 bits are for the backbone's layers")
    with quiet():
        tools.quantize_static(
            proto,
            out,
            _Reader(faces),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=list(_TYPES),
            nodes_to_quantize=list(layers),
            per_channel=True,
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=tools.CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": _KEPT, "CalibStridedMinMax": 1},
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
        return len(self._faces) // _BATCH  # whole ones: ONNX Runtime stacks what they cause

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go to a batch, and stop before another."""
        starts = range(start_index * _BATCH, end_index * _BATCH, _BATCH)
        self._batches = iter([self._faces[at : at + _BATCH] for at in starts])

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
    return node.op_type in _TYPES and (not groups or groups[0] == 1)
