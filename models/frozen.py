"""A backbone that stays as it was trained: no gradients, no changing statistics, fast arithmetic.

Heads train on what it gives and estimators compare with it.
"""

from __future__ import annotations

import copy
import logging
import typing
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from models.backbones.base import Backbone, BackboneOutput
from utils.config import Execution, Precision
from utils.device import autocast_dtype, keep_freed_memory

_CPU_CHUNK = 16  # images; larger activations leave the caches and go back to the system each time


class FrozenBackbone(nn.Module):
    """Wrap a backbone for use without training it; `train()` leaves it in eval mode.

    BatchNorms are merged into the convolutions before them, where that is exact. It runs under
    `no_grad` and not `inference_mode`: a head keeps the features for its backward pass.

    Args:
        backbone: one of `models.backbones`; it is frozen in place and moved to the device.
        device: where it runs.
        precision: of the layers up to the feature map (the tail is always float32). "auto" takes
            bf16 on CUDA (fp16 on cards without it), fp16 on MPS, fp32 on a CPU. With "fp32", CUDA
            convolutions still use TF32 unless `torch.backends.cudnn` is set otherwise.
        execution: "eager"; "cuda_graph" repeats recorded kernels, so that the host has no work for
            each; "compile" is torch.compile, whose first batch takes long. Both are
            prepared for few sizes of a batch (models/frozen.py); others run as "eager".

    Raises:
        ValueError: not a precision or an execution, or "cuda_graph" on another device than CUDA.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
        execution: Execution = "eager",
    ) -> None:
        super().__init__()
        self.device = torch.device(device)
        if not backbone.is_differentiable:
            for name, value, usual in (
                ("execution", execution, "eager"),
                ("precision", precision, "fp32"),
            ):
                if value not in (usual, "auto"):
                    raise ValueError(
                        f"{name} = {value!r}: ONNX Runtime computes this backbone as its file has "
                        f"it; take {usual!r}"
                    )
            precision = "fp32"
        self.dtype = autocast_dtype(self.device, precision)
        if self.device.type == "cpu":
            keep_freed_memory()
        backbone.requires_grad_(False).eval()
        # A tuple: the copy is not a submodule. Only what folding replaces is in memory twice.
        self._unfolded = (_sharing_copy(backbone),)
        backbone.fold()
        self.backbone = backbone.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.embedding_size = backbone.embedding_size
        self.features_shape = backbone.features_shape
        self.features_size = backbone.features_size
        self.preprocessing = backbone.preprocessing
        self._execution: Execution = execution
        self._stage_channels: tuple[int, ...] = ()
        self._run = self._prepared()
        super().train(False)

    def _prepared(self) -> Forward:
        network = self.backbone
        # On MPS, which operations autocast converts differs between versions.
        if self.dtype is not None and self.device.type != "mps":
            network = _lowered(self.backbone, self.dtype)
        return executed(_pipeline(network), self._execution, self.device)

    def give_stages(self) -> tuple[int, ...]:
        """Give the stages' averages with every output from now on; return each stage's channels.

        What reads them asks when it is built; nobody else pays for them.

        Raises:
            ValueError: the backbone cannot; the message says why.
        """
        if not self._stage_channels:
            self._stage_channels = self.backbone.watch_stages()
            self._run = self._prepared()
        return self._stage_channels

    def unfolded(self) -> Backbone:
        """Return the backbone as it was before its BatchNorms were merged, on the device.

        For scores that read BatchNorm statistics; float32, eval mode, no gradients for weights.
        """
        (backbone,) = self._unfolded
        return backbone.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def is_same_as(self, other: FrozenBackbone) -> bool:
        """Whether another backbone has the same weights and preprocessing, to the last bit."""
        own, others = (frozen._unfolded[0].state_dict() for frozen in (self, other))
        return (
            self.preprocessing == other.preprocessing
            and self.backbone.description == other.backbone.description
            and own.keys() == others.keys()
            and all(torch.equal(own[name], others[name].to(own[name].device)) for name in own)
        )

    def require_gradients(self, method: str) -> None:
        """Raise ValueError where the images get no gradients, which the method needs."""
        if not self.backbone.is_differentiable:
            raise ValueError(
                f"{method} needs gradients through the backbone, and an ONNX file run by ONNX "
                "Runtime has none: take another estimator, or the network's .pth weights"
            )

    def train(self, mode: bool = True) -> Self:
        """Do nothing: a frozen backbone has eval mode only."""
        return self

    def forward(self, images: Tensor) -> BackboneOutput:
        """Embed images: uint8 (B, 112, 112, 3) RGB, or float (B, 3, 112, 112) RGB in 0..255.

        Returns:
            float32 embedding (B, D) and features (B, F), and the images themselves, on the
            backbone's device; after `give_stages` also the stages.
        """
        if self.backbone.training:  # someone reached past train() above
            self.backbone.eval()
        is_cut = self.device.type == "cpu" and self.backbone.is_differentiable
        size = _CPU_CHUNK if is_cut else len(images)
        images = images.to(self.device, non_blocking=True)
        outputs = [self._embed(part) for part in images.split(max(size, 1))]
        if len(outputs) == 1:
            return outputs[0]._replace(images=images)
        whole = (
            part[0] if part[0] is None else torch.cat(part) for part in zip(*outputs, strict=True)
        )
        return BackboneOutput(*whole)._replace(images=images)  # type: ignore[arg-type]

    def differentiable(self, images: Tensor) -> BackboneOutput:
        """Do what `forward` does for float images, in float32, so that gradients reach them."""
        with torch.enable_grad():
            output = self.backbone(self.preprocessing(images))
        return output._replace(images=images)

    def _embed(self, images: Tensor) -> BackboneOutput:
        autocast = torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()
        with torch.no_grad(), autocast:
            return self._run(images)


def _pipeline(backbone: Backbone) -> Forward:
    """From images as they are stored to float32 embeddings and features, all on the device."""

    def run(images: Tensor) -> BackboneOutput:
        normalised = backbone.preprocessing(images)
        output = backbone(normalised.contiguous(memory_format=torch.channels_last))
        return output.map(Tensor.float)

    return run


def _lowered(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """Return a copy whose convolutions and PReLUs hold their weights in the autocast type.

    Autocast converts weights that need no gradient again in every pass. The tail stays float32, and
    so do the weights of all other layers, which are shared.
    """
    lowered = _sharing_copy(backbone)
    tail = {id(module) for part in lowered.tail_modules() for module in part.modules()}
    for module in lowered.modules():
        if isinstance(module, nn.Conv2d | nn.PReLU) and id(module) not in tail:
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(weight.to(dtype), requires_grad=False))
    return lowered


def _sharing_copy(backbone: Backbone) -> Backbone:
    """Return a copy with layers of its own that hold the same tensors."""
    tensors = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    return copy.deepcopy(backbone, dict(tensors))


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
        self._newest: torch.cuda.CUDAGraph | None = None  # the pool lasts while it has a graph

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
        self._newest = graph
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
