"""Open ONNX files of anybody: one way for exported models, recognisers and detectors.

ONNX Runtime runs the operators that it has itself and nothing else; no library that a file names is
loaded. A graph has no loops and at most `MOST_NODES` nodes, so that nothing in it is endless; the
first run of each is held to `MOST_MEMORY` and `MOST_SECONDS`. The packages are imported when a file
is opened.
"""

from __future__ import annotations

import importlib
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from utils.files import naming, read_bytes

Proto: TypeAlias = Any  # what onnx and ONNX Runtime have no types for
MOST_NODES = 100_000  # of a graph, with those of its functions where they are used
MOST_MEMORY = 2 << 30  # bytes that one image's tensors may take
MOST_SECONDS = 60  # that the first run may take; looked at between operators
_MOST_BYTES = 2**31  # that protobuf writes
_MOST_OUTPUTS = 100
_ENDLESS = ("Loop", "Scan", "SequenceMap")  # operators that repeat others


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
    limited: bool = False,
) -> Any:
    """Open a file, or its content, with ONNX Runtime.

    Args:
        model: the file or the content.
        name: of the file, for the message.
        threads: of ONNX Runtime; None leaves it the choice.
        cuda: number of the CUDA device, if the installed ONNX Runtime can use one; else the CPU.
        optimised: False opens faster, for a single run.
        limited: for `run_limited`.

    Raises:
        ValueError: onnxruntime is missing, or cannot run the file.
    """
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what is wrong with a file is in the exception
    if threads is not None:
        options.intra_op_num_threads = threads
    if limited:
        _limit_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda is not None and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": cuda}))
    try:
        return runtime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors have no class of their own in common
        raise ValueError(f"{name} cannot be opened as an ONNX model: {error}") from error


@cache
def _limit_memory() -> None:
    """Make the allocator of limited sessions, once for the process."""
    runtime = needed("onnxruntime")
    kind, memory = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, runtime.OrtMemType.DEFAULT
    runtime.create_and_register_allocator(
        runtime.OrtMemoryInfo("Cpu", kind, 0, memory), runtime.OrtArenaCfg({"max_mem": MOST_MEMORY})
    )


def run_limited(session: Proto, names: Sequence[str], inputs: Mapping[str, Proto]) -> list[Proto]:
    """Run a session that was opened as `limited`.

    Raises:
        ValueError: it fails, or takes more than `MOST_MEMORY` or `MOST_SECONDS`.
    """
    options = needed("onnxruntime").RunOptions()
    options.log_severity_level = 4
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    timer = threading.Timer(MOST_SECONDS, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        outputs: list[Proto] = session.run(list(names), dict(inputs), options)
        return outputs
    except Exception as error:  # ONNX Runtime's errors have no class of their own in common
        late = f"it takes more than {MOST_SECONDS} s: " if options.terminate else ""
        raise ValueError(f"it cannot be run: {late}{error}") from error
    finally:
        timer.cancel()


def read_probed(path: Path) -> bytes:
    """Return the content of an ONNX file of fractions that was run once, as `run_limited` does.

    Its inputs are zeros, of 32 where the file leaves an axis open, and of 1 on the first.

    Raises:
        ValueError: as of `read_alone` and `run_limited`.
    """
    content = read_alone(path)
    session = open_session(content, path, optimised=False, limited=True)
    inputs = {}
    for each in session.get_inputs():
        fixed = [size if isinstance(size, int) and size > 0 else None for size in each.shape]
        shape = [size or (32 if axis else 1) for axis, size in enumerate(fixed)]
        if each.type != "tensor(float)" or math.prod(shape) * 4 > MOST_MEMORY:
            raise ValueError(f"{path}: its input {each.name} is {each.type} of {shape}")
        inputs[each.name] = np.zeros(shape, np.float32)
    with naming(path):
        run_limited(session, [each.name for each in session.get_outputs()], inputs)
    return content


def network_files(path: Path) -> tuple[Path, ...]:
    """Return an ONNX file and those beside it that hold its weights."""
    network = parsed_network(_content(path), path, None)
    entries = (entry for tensor in network.graph.initializer for entry in tensor.external_data)
    names = {entry.value for entry in entries if entry.key == "location"}
    return (path, *(path.with_name(name) for name in sorted(names)))


def read_network(path: Path) -> bytes:
    """Return the content of an ONNX file, with weights that it keeps in files beside it.

    Raises:
        ValueError: the onnx package is missing, the file is not a network or too large, or it wants
            weights from outside its folder.
    """
    network = parsed_network(_content(path), path, path.parent)
    if network.ByteSize() >= _MOST_BYTES:
        raise ValueError(
            f"{path}: {network.ByteSize() / 2**30:.1f} GiB; a network may have 2 at most"
        )
    return bytes(network.SerializeToString())


def read_alone(path: Path) -> bytes:
    """Return the content of an ONNX file that has its weights in itself.

    Raises:
        ValueError: as of `read_network`, or it names weights beside it.
    """
    content = _content(path)
    parsed_network(content, path)
    return content


def _content(path: Path) -> bytes:
    if path.stat().st_size >= _MOST_BYTES:
        raise ValueError(f"{path} has 2 GiB or more: a network has less")
    return read_bytes(path)


def parsed_network(content: bytes, name: str | Path, folder: str | Path | None = os.devnull) -> Any:
    """Return the ONNX model of a file's content, with weights from files of a folder.

    None reads no weights; by default those in the content have to be all.

    Raises:
        ValueError: the onnx package is missing, there is no network in it, it is larger or other
            than the top of this module says, or its weights would come from outside the folder.
    """
    onnx = needed("onnx")
    try:
        network = onnx.load_model_from_string(content)
        _check_graph(network)
        if folder is not None:
            # takes no path that leaves the folder, and follows no link
            onnx.load_external_data_for_model(network, str(folder))
    except Exception as error:  # protobuf's, onnx's and the system's have no class in common
        raise ValueError(f"{name} cannot be opened as an ONNX model: {error}") from error
    return network


def _check_graph(network: Proto) -> None:
    """Raise ValueError for a graph that is endless or too large, or names too much data."""
    if not network.graph.node:
        raise ValueError("there is no network in it")
    if len(network.graph.output) > _MOST_OUTPUTS or len(network.functions) > MOST_NODES:
        raise ValueError(f"it has more than {_MOST_OUTPUTS} outputs, or too many functions")
    functions = {(each.domain, each.name): each for each in network.functions}
    size: dict[tuple[str, str], int] = {}
    for key in functions:
        _count(key, functions, size)
    nodes = sum(size.get((node.domain, node.op_type), 1) for node in _nodes(network.graph))
    if nodes > MOST_NODES:
        raise ValueError(f"it has {nodes} nodes, more than {MOST_NODES}")
    external = 0
    for tensor in _tensors(network):
        if tensor.data_location == tensor.EXTERNAL:
            length = _bytes(tensor)
            external += length
            entries = {entry.key: entry for entry in tensor.external_data}
            if "length" not in entries:
                tensor.external_data.add(key="length", value=str(length))
            elif int(entries["length"].value) != length:
                raise ValueError(f"tensor {tensor.name!r} has {length} bytes, and names others")
    if external >= _MOST_BYTES:
        raise ValueError(f"it names {external} bytes of weights beside it: 2 GiB at most")


def _count(key: tuple[str, str], functions: Mapping[Proto, Proto], size: dict[Proto, int]) -> int:
    """Return how many nodes a function stands for; one that calls itself is the library's error."""
    if key not in size:
        size[key] = 1
        nodes = _nodes(functions[key])
        calls = ((node.domain, node.op_type) for node in nodes)
        size[key] = sum(_count(call, functions, size) if call in functions else 1 for call in calls)
    return size[key]


def _nodes(graph: Proto) -> Iterator[Proto]:
    """Yield the nodes of a graph or function and of the graphs inside; ValueError for a loop."""
    for node in graph.node:
        if node.op_type in _ENDLESS:
            raise ValueError(f"it has a {node.op_type}, which need not end: refused")
        yield node
        for option in node.attribute:
            for inner in (*([option.g] if option.HasField("g") else []), *option.graphs):
                yield from _nodes(inner)


def _tensors(network: Proto) -> Iterator[Proto]:
    """Yield the tensors that a file holds or names; ValueError for sparse ones."""
    graphs = [network.graph, *network.functions]
    while graphs:
        graph = graphs.pop()
        if getattr(graph, "sparse_initializer", ()):
            raise ValueError("it has sparse weights: refused")
        yield from getattr(graph, "initializer", ())
        for node in graph.node:
            for option in node.attribute:
                if option.HasField("sparse_tensor") or option.sparse_tensors:
                    raise ValueError("it has sparse weights: refused")
                yield from (*([option.t] if option.HasField("t") else []), *option.tensors)
                graphs += [*([option.g] if option.HasField("g") else []), *option.graphs]


def _bytes(tensor: Proto) -> int:
    kind = needed("onnx").helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if min(tensor.dims, default=0) < 0:
        raise ValueError(f"tensor {tensor.name!r} has sizes {list(tensor.dims)}")
    return int(math.prod(tensor.dims) * kind.itemsize)
