"""Open ONNX files of anybody: one way for exported models, recognisers and detectors.

ONNX Runtime runs the operators that it has itself and nothing else; no library that a file names is
loaded. The packages are imported when a file is opened.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from utils.files import read_bytes

_MOST_BYTES = 2**31  # that protobuf writes


def is_onnx(path: str | Path | None) -> bool:
    """Whether a file is an ONNX file by its name, and does not begin as torch.save's do."""
    path = Path(path or "")
    if path.suffix.lower() != ".onnx" or not path.is_file():
        return path.suffix.lower() == ".onnx"
    with path.open("rb") as file:
        return not file.read(2).startswith((b"PK", b"\x80"))


def needed(package: str) -> Any:
    """Import a package that only ONNX files need.

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


def open_session(
    model: Path | bytes,
    name: str | Path,
    *,
    threads: int | None = None,
    cuda: int | None = None,
    optimised: bool = True,
) -> Any:
    """Open a file, or its content, with ONNX Runtime.

    Args:
        model: the file or the content.
        name: of the file, for the message.
        threads: of ONNX Runtime; None leaves it the choice.
        cuda: number of the CUDA device, if the installed ONNX Runtime can use one; else the CPU.
        optimised: False opens faster, for a single run.

    Raises:
        ValueError: onnxruntime is missing, or cannot run the file.
    """
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what is wrong with a file is in the exception
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda is not None and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": cuda}))
    try:
        return runtime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors have no class of their own in common
        raise ValueError(f"{name} cannot be opened as an ONNX model: {error}") from error


def network_files(path: Path) -> tuple[Path, ...]:
    """Return an ONNX file and those beside it that hold its weights."""
    network = needed("onnx").load(path, load_external_data=False)
    entries = (entry for tensor in network.graph.initializer for entry in tensor.external_data)
    names = {entry.value for entry in entries if entry.key == "location"}
    return (path, *(path.with_name(name) for name in sorted(names)))


def read_network(path: Path) -> bytes:
    """Return the content of an ONNX file, with weights that it keeps in files beside it.

    Raises:
        ValueError: the onnx package is missing, the file is not a network or too large, or it wants
            weights from outside its folder.
    """
    network = parsed_network(read_bytes(path), path, path.parent)
    if network.ByteSize() >= _MOST_BYTES:
        raise ValueError(
            f"{path}: {network.ByteSize() / 2**30:.1f} GiB; a network may have 2 at most"
        )
    return bytes(network.SerializeToString())


def parsed_network(content: bytes, name: str | Path, folder: str | Path = os.devnull) -> Any:
    """Return the ONNX model of a file's content, with weights from files of a folder, if given.

    Raises:
        ValueError: the onnx package is missing, there is no network in it, or its weights would
            come from outside the folder.
    """
    onnx = needed("onnx")
    try:
        network = onnx.load_model_from_string(content)
        # takes no path that leaves the folder, and follows no link
        onnx.load_external_data_for_model(network, str(folder))
        if not network.graph.node:
            raise ValueError("there is no network in it")
    except Exception as error:  # protobuf's, onnx's and the system's have no class in common
        raise ValueError(f"{name} cannot be opened as an ONNX model: {error}") from error
    return network
