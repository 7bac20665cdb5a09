"""Files of networks: ask for them, and run them on the CPU with ONNX Runtime.

For all detectors, and for those whose networks OpenCV 5 gets wrong; imports onnxruntime when used.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BATCH = 256  # inputs at a time, which bounds memory


def needed_file(name: str, weights: str, source: str) -> Path:
    """Path of the weights that a user brings.

    Args:
        name: of the detector.
        weights: path as given; "" for none.
        source: where such a file can be had, for the message.

    Raises:
        ValueError: none was given, or there is no such file.
    """
    if not weights:
        raise ValueError(f"{name}: say {name}:weights=FILE; {source}")
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"{name}: {path}: no such file; {source}")
    return path


class Network:
    """One network with one input; safe to call from several threads."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Read a file.

        Raises:
            ValueError: onnxruntime is missing, or the file is, or it is no network.
        """
        if find_spec("onnxruntime") is None:
            raise ValueError(f"{path.name} needs onnxruntime: pip install onnxruntime")
        if not path.is_file():
            raise ValueError(f"{path}: no such file of weights")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # warnings about the file are not the user's
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its classes share no base of their own
            raise ValueError(f"{path}: not an ONNX network: {error}") from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Every output of the network, in the file's order, first axis as the input's."""
        parts = [
            self._session.run(None, {self._input: batch[start : start + _BATCH]})
            for start in range(0, max(len(batch), 1), _BATCH)
        ]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
