"""Static 8-bit quantisation of the backbone of an exported file; head and calibration stay float.

evaluation/export.py --int8 and benchmarks/onnx.py use it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.exporting.graph import describe
from evaluation.scoring.onnx_model import INPUT, needed

_BATCH = 16
_TYPES = ("Conv", "Gemm", "MatMul")


def quantise(
    source: str | Path, out: str | Path, faces: NDArray[np.uint8], note: str
) -> tuple[str, ...]:
    """Write an 8-bit form of a file of `write_onnx`, with the same facts.

    Weights are scaled per channel; the ranges of activations are the smallest and largest values
    that the faces cause (QDQ form).

    Args:
        source: the float file.
        out: the file to write.
        faces: uint8 (N, 112, 112, 3), like those that will be scored.
        note: added to the file's line for people.

    Returns:
        names of the layers that were quantised.

    Raises:
        ValueError: a package is missing, or the file has no embedding.
    """
    onnx = needed("onnx")
    tools = needed("onnxruntime.quantization")
    proto = onnx.load(source)
    layers = _behind(proto.graph, "embedding")
    if not layers:
        raise ValueError(f"{source} has no embedding: 8 bits are for the backbone's layers")
    with _quiet():
        tools.quantize_static(
            proto,
            out,
            _Reader(faces),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=list(_TYPES),
            nodes_to_quantize=list(layers),
            per_channel=True,
            activation_type=tools.QuantType.QInt8,
            weight_type=tools.QuantType.QInt8,
        )
    written = onnx.load(out)
    facts = {one.key: one.value for one in onnx.load(source).metadata_props}
    describe(written, facts, f"{proto.doc_string}; {note}")
    onnx.save(written, out)
    return layers


class _Reader:
    """Feeds batches of faces, as ONNX Runtime asks for them."""

    def __init__(self, faces: NDArray[np.uint8]) -> None:
        self._batches = iter([faces[at : at + _BATCH] for at in range(0, len(faces), _BATCH)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _behind(graph: Any, output: str) -> tuple[str, ...]:
    """Names of convolutions and matrix products that an output depends on."""
    made_by = {name: node for node in graph.node for name in node.output}
    seen: dict[str, Any] = {}
    waiting = [output]
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.name not in seen:
            seen[node.name] = node
            waiting += node.input
    return tuple(node.name for node in graph.node if node.name in seen and node.op_type in _TYPES)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice to preprocess the graph, which the exporter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
