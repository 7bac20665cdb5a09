"""How a frozen network's forward pass is carried out: as it is, compiled, or as a CUDA graph.

models/frozen.py uses it.
"""

from __future__ import annotations

import logging
import typing
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from models.backbones.base import BackboneOutput
from utils.config import Execution

T = TypeVar("T")
Forward = Callable[[Tensor], BackboneOutput]

MOST_SIZES = 4  # prepared for one kind of images; each holds memory, or takes long to compile
_WARM_UP = 3  # passes before a capture: libraries choose and allocate in the first ones

log = logging.getLogger("faceuq")


def executed(forward: Forward, execution: Execution, device: torch.device) -> Forward:
    """Return a forward pass that is carried out in that way; "eager" is `forward` itself.

    It maps images to tensors on the device, always by the same operations for images of the same
    shape and type; each image independent of the others.

    Raises:
        ValueError: not an execution, or "cuda_graph" without CUDA; when called: images could not be
            compiled for.
    """
    allowed = typing.get_args(Execution)
    if execution not in allowed:
        raise ValueError(f"execution = {execution!r}: must be one of {', '.join(allowed)}")
    if execution == "eager":
        return forward
    if execution == "compile":
        return FixedSizes(forward, Compiler(forward))
    if device.type != "cuda":
        raise ValueError(
            f"execution = 'cuda_graph' needs a CUDA device, and this runs on {device.type}; "
            "use 'eager' or 'compile'"
        )
    graphs = CudaGraphs(device)
    return FixedSizes(forward, lambda images: GraphRun(forward, images, graphs))


class FixedSizes:
    """Sends batches through runs that were prepared for one number of images each.

    The first batch of a kind (shape and type of its images) prepares a run, and so does a larger
    one, up to `MOST_SIZES`. A smaller batch goes through the smallest run that it fills at least
    half, and else through the plain forward pass, like the rest of an evaluation set.
    `prepare` returns a run for batches of up to as many images as it is given.
    """

    def __init__(self, forward: Forward, prepare: Callable[[Tensor], Forward]) -> None:
        self._forward = forward
        self._prepare = prepare
        self._runs: dict[tuple[torch.dtype, torch.Size], dict[int, Forward]] = {}

    def __call__(self, images: Tensor) -> BackboneOutput:
        """Run a batch of any size."""
        size = len(images)
        runs = self._runs.setdefault((images.dtype, images.shape[1:]), {})
        if size > max(runs, default=0) and len(runs) < MOST_SIZES:
            runs[size] = self._prepare(images)
        fitting = [most for most in runs if size <= most <= 2 * size]
        run = runs[min(fitting)] if fitting else self._forward
        return run(images)


class Graphs(Protocol):
    """What records operations and repeats them: CUDA, or a stand-in of a test."""

    def capture(self, work: Callable[[], T], warm_up: int = ...) -> tuple[Callable[[], None], T]:
        """Record work on tensors that stay where they are, after doing it `warm_up` times.

        Returns:
            What repeats it, and the tensors that it then fills.
        """
        ...


class GraphRun:
    """A recorded forward pass: copies images in, repeats it, and copies the output out.

    It is recorded for as many images as in the example.
    """

    def __init__(self, forward: Forward, images: Tensor, graphs: Graphs) -> None:
        self._images = images.clone()
        self._replay, self._output = graphs.capture(lambda: forward(self._images))

    def __call__(self, images: Tensor) -> BackboneOutput:
        """Run up to so many images; the caller may keep the output."""
        size = len(images)
        self._images[:size].copy_(images, non_blocking=True)
        self._replay()
        return self._output.map(lambda part: part[:size].clone())


class CudaGraphs:
    """CUDA graphs of one device, which share their working memory: they never run at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def capture(
        self, work: Callable[[], T], warm_up: int = _WARM_UP
    ) -> tuple[Callable[[], None], T]:
        """Warm up on a stream aside, then record; work that has run before needs no warming up."""
        with torch.cuda.device(self._device):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(warm_up):
                    work()
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # thread_local: threads that read images may allocate pinned memory meanwhile
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = work()
        return graph.replay, output


class Compiler:
    """Compiles a forward pass for each size that it is asked for."""

    def __init__(self, forward: Forward, backend: str | Callable[..., Any] = "inductor") -> None:
        self._forward = forward
        self._compiled = torch.compile(forward, dynamic=False, backend=backend)

    def __call__(self, images: Tensor) -> Forward:
        """Compile for as many images as these."""
        most = len(images)
        log.info("compiling the backbone for %d images at a time: this takes a while", most)
        try:
            self._compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ValueError(
                f"execution = 'compile' failed ({str(error).strip().splitlines()[0]}); it needs a "
                "C++ compiler; use 'eager'"
            ) from error

        def run(images: Tensor) -> BackboneOutput:
            size = len(images)
            if size < most:
                filler = images.new_zeros((most - size, *images.shape[1:]))
                images = torch.cat([images, filler])
            output = self._compiled(images)
            return output.map(lambda part: part[:size])

        return run
