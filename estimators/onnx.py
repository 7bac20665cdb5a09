"""An exported model (`.onnx`) as an estimator, with the facts that its file carries.

export/export.py writes such files; the scorer and the export's proof read them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.base import Batch, Estimate
from evaluation.confidence.calibration import DIRECTION

KIND = "face-uncertainty model"
VERSION = 1
INPUT = "images"
OUTPUTS = ("embedding", "uncertainty", "quality", "percentile", "p_false_non_match")
_SIZE = 112
_FACTS = ("about", "calibration", "decision")


class OnnxModel:
    """ONNX Runtime behind the interface of an estimator.

    Args:
        session: of a file that `open_onnx` has checked.
        name: shown in messages.

    Attributes:
        name: as given.
        outputs: names of what the file gives, in its order.
    """

    def __init__(self, session: Any, name: str) -> None:
        self._session = session
        self.name = name
        self.outputs = tuple(output.name for output in session.get_outputs())

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; mu is (B, 0) where the file gives no embedding."""
        wanted = [name for name in OUTPUTS[:2] if name in self.outputs]
        found = self._run(batch.images, wanted)
        mu = found.get("embedding", np.empty((len(batch), 0), np.float32))
        return Estimate(mu, found["uncertainty"][:, None])

    def everything(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return all outputs by name for (B, 112, 112, 3) RGB images."""
        return self._run(images, list(self.outputs))

    def _run(self, images: NDArray[np.uint8], names: list[str]) -> dict[str, NDArray[Any]]:
        if images.dtype != np.uint8 or images.shape[1:] != (_SIZE, _SIZE, 3):
            raise ValueError(
                f"images of shape {images.shape} and type {images.dtype}: expected uint8 "
                f"(B, {_SIZE}, {_SIZE}, 3)"
            )
        found = self._session.run(names, {INPUT: np.ascontiguousarray(images)})
        return dict(zip(names, found, strict=True))


def open_onnx(
    path: str | Path, threads: int | None = None
) -> tuple[OnnxModel, dict[str, Any] | None, dict[str, Any] | None, dict[str, Any]]:
    """Open a file that export/export.py wrote, to run on the CPU.

    Nothing but the operators that ONNX Runtime itself has is ever run.

    Args:
        path: the file.
        threads: of ONNX Runtime; None leaves it the choice.

    Returns:
        the estimator; what `Calibration.from_dict` reads, or None; what `Decision.from_dict` reads,
        or None; facts: model, sha256, license, label, direction and more.

    Raises:
        ValueError: no such file, no ONNX file, one of another tool, or onnxruntime is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}: export/export.py writes one")
    session = _session(path, threads)
    facts = _facts(session.get_modelmeta().custom_metadata_map, path)
    _check_interface(session, path)
    return OnnxModel(session, path.name), facts["calibration"], facts["decision"], facts["about"]


def metadata(
    about: Mapping[str, Any],
    calibration: Mapping[str, Any] | None,
    decision: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Return the properties of the file's metadata that `open_onnx` reads back.

    Args:
        about: facts that JSON can carry; `direction` is added.
        calibration: of `Calibration.to_dict`.
        decision: of `Decision.to_dict`.
    """
    found = {"kind": KIND, "version": str(VERSION)}
    contents = (dict(about, direction=DIRECTION), calibration, decision)
    for name, value in zip(_FACTS, contents, strict=True):
        if value is not None:
            found[name] = json.dumps(value)
    return found


def needed(package: str) -> Any:
    """Import a package that only exported models need.

    Raises:
        ValueError: it is not installed; the message says how it is.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise ValueError(
            f"the package {name} is missing ({error}): pip install onnx onnxscript onnxruntime"
        ) from error


def _session(path: Path, threads: int | None) -> Any:
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no class of their own in common
        raise ValueError(f"{path} cannot be opened as an ONNX model: {error}") from error


def _facts(stored: Mapping[str, str], path: Path) -> dict[str, Any]:
    if stored.get("kind") != KIND:
        raise ValueError(
            f"{path} is an ONNX file of another tool (its metadata has kind "
            f"{stored.get('kind')!r}, not {KIND!r}): export the model with export/export.py"
        )
    if stored.get("version") != str(VERSION):
        raise ValueError(
            f"{path}: version {stored.get('version')!r} of an exported model is not known "
            f"(known: {VERSION})"
        )
    try:
        found = {name: json.loads(stored[name]) if name in stored else None for name in _FACTS}
    except ValueError as error:
        raise ValueError(f"{path}: its metadata is damaged: {error}") from error
    if not all(isinstance(value, dict | None) for value in found.values()):
        raise ValueError(f"{path}: its metadata is damaged: a fact is no JSON object")
    about = found["about"]
    if about is None or about.get("direction") != DIRECTION:
        direction = None if about is None else about.get("direction")
        raise ValueError(f"{path}: direction {direction!r} must be {DIRECTION!r}")
    return found


def _check_interface(session: Any, path: Path) -> None:
    inputs = [(one.name, one.type, list(one.shape)) for one in session.get_inputs()]
    if inputs != [(INPUT, "tensor(uint8)", ["N", _SIZE, _SIZE, 3])]:
        raise ValueError(
            f"{path}: inputs {inputs}: expected {INPUT}, uint8 (N, {_SIZE}, {_SIZE}, 3), N free"
        )
    outputs = [one.name for one in session.get_outputs()]
    if "uncertainty" not in outputs or not set(outputs) <= set(OUTPUTS):
        raise ValueError(
            f"{path}: outputs {', '.join(outputs)}: expected uncertainty and others of "
            f"{', '.join(OUTPUTS)}"
        )
