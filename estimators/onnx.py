"""An exported model (`.onnx`) as an estimator, with what its file says of itself.

export/export.py writes such files. Needs onnxruntime, not PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.base import DIRECTION, Batch, Estimate
from utils.files import DAMAGE, naming, parse_json
from utils.onnx_runtime import Proto, open_session, read_alone, run_limited

__all__ = ["OnnxModel"]

KIND = "face-uncertainty model"
VERSION = 1
INPUT = "images"
OUTPUTS = ("embedding", "uncertainty", "quality", "percentile", "p_false_non_match")
_SIZE = 112
_FACTS = ("about", "calibration", "decision")


class OnnxModel:
    """ONNX Runtime behind the interface of an estimator, on the CPU.

    Nothing but the operators that ONNX Runtime itself has is ever run.

    Args:
        path: a file that export/export.py wrote.
        threads: of ONNX Runtime; None leaves it the choice.

    Attributes:
        outputs: names of what the file gives, in its order.
        embedding_size: D; 0 where the file gives no embedding.
        about: model, sha256, license, label, direction and more.
        calibration, decision: what their classes' `from_dict` reads, or None.

    Raises:
        ValueError: no such file, not an ONNX file, one of another tool, or onnxruntime is missing.
    """

    name = "onnx"

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no file {path}: export/export.py writes one")
        self.name = path.name
        content = read_alone(path)
        first = open_session(content, path, optimised=False, limited=True)
        with naming(path, *DAMAGE):
            facts = _facts(first.get_modelmeta().custom_metadata_map, path)
            self.outputs, self.embedding_size = _outputs(first)
            run_limited(first, self.outputs, {INPUT: np.zeros((1, _SIZE, _SIZE, 3), np.uint8)})
        self._session = open_session(content, path, threads=threads)
        self.about: dict[str, Any] = facts["about"]
        self.calibration: dict[str, Any] | None = facts["calibration"]
        self.decision: dict[str, Any] | None = facts["decision"]

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; mu is (B, 0) where the file gives no embedding."""
        outputs = self._run(batch.images, [name for name in OUTPUTS[:2] if name in self.outputs])
        mu = outputs.get("embedding", np.empty((len(batch), 0), np.float32))
        return Estimate(mu, outputs["uncertainty"][:, None])

    def everything(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return all outputs by name for (B, 112, 112, 3) RGB images."""
        return self._run(images, self.outputs)

    def _run(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        if images.dtype != np.uint8 or images.shape[1:] != (_SIZE, _SIZE, 3):
            raise ValueError(
                f"images of shape {images.shape} and type {images.dtype}: expected uint8 "
                f"(B, {_SIZE}, {_SIZE}, 3)"
            )
        outputs = self._session.run(list(names), {INPUT: np.ascontiguousarray(images)})
        for name, array in zip(names, outputs, strict=True):
            expected = (len(images), *([self.embedding_size] if name == "embedding" else []))
            if np.shape(array) != expected:
                shape = np.shape(array)
                raise ValueError(f"{self.name}: output {name} has shape {shape}, not {expected}")
        return dict(zip(names, outputs, strict=True))


def metadata(
    about: Mapping[str, Any],
    calibration: Mapping[str, Any] | None,
    decision: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Return the properties of the file's metadata that `OnnxModel` reads back, and `direction`.

    Calibration and decision are what their `to_dict` gives.
    """
    contents = (dict(about, direction=DIRECTION), calibration, decision)
    facts = zip(_FACTS, contents, strict=True)
    stored = {name: json.dumps(value) for name, value in facts if value is not None}
    return {"kind": KIND, "version": str(VERSION), **stored}


def _facts(stored: Mapping[str, str], path: Path) -> dict[str, Any]:
    if stored.get("kind") != KIND:
        raise ValueError(
            f"{path} is an ONNX file of another tool (its metadata has kind "
            f"{stored.get('kind')!r}, not {KIND!r}): a recogniser goes into backbone_weights, with "
            "backbone_name onnx; export/export.py writes a model as ONNX"
        )
    if stored.get("version") != str(VERSION):
        raise ValueError(
            f"{path}: version {stored.get('version')!r} of an exported model is not known "
            f"(known: {VERSION})"
        )
    with naming("its metadata is damaged"):
        facts = {name: parse_json(stored[name]) if name in stored else None for name in _FACTS}
    if not all(isinstance(value, dict | None) for value in facts.values()):
        raise ValueError(f"{path}: its metadata is damaged: a fact is not a JSON object")
    direction = (facts["about"] or {}).get("direction")
    if direction != DIRECTION:
        raise ValueError(f"{path}: direction {direction!r} must be {DIRECTION!r}")
    return facts


def _outputs(session: Proto) -> tuple[tuple[str, ...], int]:
    """Return the names of the outputs and D, or 0; ValueError where one is of another shape."""
    inputs = [(value.name, value.type, list(value.shape)) for value in session.get_inputs()]
    if inputs != [(INPUT, "tensor(uint8)", ["N", _SIZE, _SIZE, 3])]:
        raise ValueError(
            f"inputs {inputs}: expected {INPUT}, uint8 (N, {_SIZE}, {_SIZE}, 3), N free"
        )
    outputs = {value.name: value for value in session.get_outputs()}
    if "uncertainty" not in outputs or not set(outputs) <= set(OUTPUTS):
        raise ValueError(
            f"outputs {', '.join(outputs)}: expected uncertainty and others of {', '.join(OUTPUTS)}"
        )
    for name, value in outputs.items():
        rank, kind = (2 if name == "embedding" else 1), "uint8" if name == "quality" else "float"
        is_fixed = all(isinstance(size, int) and size > 0 for size in value.shape[1:])
        if value.type != f"tensor({kind})" or len(value.shape) != rank or not is_fixed:
            raise ValueError(
                f"output {name}, {value.type} {value.shape}: expected {kind} "
                f"{'(N, D)' if rank == 2 else '(N,)'}"
            )
    return tuple(outputs), outputs["embedding"].shape[1] if "embedding" in outputs else 0
