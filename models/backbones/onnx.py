"""Any recogniser in an ONNX file, such as `w600k_r50.onnx`: ONNX Runtime computes it, as it is.

The file is `backbone_weights`. What it does not say is found out by running it
(models/onnx_graph.py) and logged in one line.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.base import Backbone, BackboneOutput
from models.onnx_graph import SHAPING, Interface, read_recogniser, with_stages
from utils.distributed import is_main_process
from utils.onnx_runtime import is_onnx, open_session

__all__ = ["OnnxBackbone"]

NODE = "faceuq::Recogniser"  # stands for the file in an exported graph until it is put there

# What a graph that keeps none of the format's rules can lead to, beside a ValueError.
_BROKEN = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError)
_CPU_BATCH = 16  # images; larger activations leave the caches

log = logging.getLogger("faceuq")


class OnnxBackbone(Backbone):
    """A recogniser's file behind the interface of a backbone, on the CPU or, where it can, CUDA.

    Features are the last map before the embedding that has more than one place, as (C, H, W); a
    file without any, such as a transformer's, gives its embedding instead. The tail is read out of
    the graph, for dropout, where its layers are products, convolutions, BatchNorms and the like.

    Args:
        weights: the file's content under `FILE`; the program fills it in.
        source: name of the file, for messages; the program fills it in.
        embedding: name of the output that is compared, where the right one is not found.
        features: name of the tensor that heads read.
        preprocessing: see `Backbone`. A graph that normalises pixels itself gets them as it wants
            them; others are taken to want RGB, (x - 127.5) / 127.5. export/colour_order.py tries.

    Raises:
        ValueError: not a file that is understood; the message says what is wrong and names it.
    """

    FILE: ClassVar[str] = "onnx"
    is_differentiable: ClassVar[bool] = False

    def __init__(
        self,
        *,
        weights: Mapping[str, Tensor],
        source: str,
        embedding: str | None = None,
        features: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        if set(weights) != {self.FILE}:
            raise ValueError(f"{source} is not an ONNX file, as backbone 'onnx' needs one (.onnx)")
        content = weights[self.FILE].cpu().numpy().tobytes()
        try:
            recogniser = read_recogniser(content, embedding, features)
        except _BROKEN as error:
            raise ValueError(f"{source}: {error}") from error
        super().__init__({**recogniser.scaling, **(preprocessing or {})})
        self.interface = recogniser.interface
        self.embedding_size = self.interface.embedding_size
        self.features_shape = self.interface.features_shape
        self.register_buffer(self.FILE, weights[self.FILE].cpu())
        self._sessions = _Sessions(recogniser.content, source)
        self._tail, self._no_tail = recogniser.tail, recogniser.no_tail
        self.description = self._described()
        if is_onnx(source) and is_main_process():  # a packed model's choices were told before
            log.warning("%s: %s", source, self.description)

    @property
    def graph(self) -> bytes:
        """The file with the interface's outputs, in this order, as its only ones."""
        return self._sessions.content

    def _described(self) -> str:
        own, pixels = self.interface, self.preprocessing
        layout = "NHWC" if own.channels_last else "NCHW"
        batch = "any batch" if own.batch is None else f"batches of {own.batch}"
        shape = " x ".join(map(str, own.features_shape))
        return (
            f"input {own.input!r}, {layout}, {own.size} x {own.size}, {batch}; {pixels.color}, "
            f"{pixels.formula}; embedding {own.embedding!r}, {own.embedding_size} numbers; "
            f"heads read {own.features!r}, {shape} (options preprocessing, embedding, features)"
        )

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the (B, C, H, W) map that heads read, of normalised images (B, 3, 112, 112)."""
        return self._computed(images)[1]

    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        """Map features (B, F), flattened channel-major, to embeddings (B, D), in PyTorch.

        Raises:
            ValueError: the graph's last layers could not be read.
        """
        if self._no_tail:
            raise ValueError(
                f"{self._sessions.source}: dropout before the last layers needs them in PyTorch, "
                f"and {self._no_tail}; take another method, or other features"
            )
        last = [layer for layer in self._tail if layer.kind not in SHAPING][-1:]
        for layer in self._tail:
            if batch_norm or layer not in last or layer.kind != "BatchNormalization":
                features = layer(features)
        return features.flatten(1)

    def tail_modules(self) -> tuple[nn.Module, ...]:
        """Return the whole backbone: nothing of it is merged or computed in fewer bits."""
        return (self,)

    def forward(self, images: Tensor) -> BackboneOutput:
        """Map (B, 3, 112, 112) normalised images to embeddings (B, D) and features (B, F)."""
        embedding, maps, *pooled = self._computed(images)
        if not pooled:
            return BackboneOutput(embedding, maps.flatten(1))
        features, count = maps.flatten(1), len(pooled) // 2
        stages = torch.cat([*pooled[:count], maps.mean(dim=(2, 3))], dim=1)
        lengths = torch.stack([part.norm(dim=1) for part in (*pooled[count:], features)], dim=1)
        return BackboneOutput(embedding, features, stages=stages, lengths=lengths)

    def watch_stages(self) -> tuple[int, ...]:
        """Let `forward` also give averages and lengths of earlier maps and of the features.

        Raises:
            ValueError: the graph has no earlier maps.
        """
        if not self.interface.stages:
            source = self._sessions.source
            try:
                content, self.interface = with_stages(self.graph, self.interface)
            except _BROKEN as error:
                raise ValueError(
                    f"{source}: the ends of its stages are not found: {error}"
                ) from error
            self._sessions = _Sessions(content, source)
        own = self.interface
        channels = (shape[0] for shape in own.shapes[2 : 2 + len(own.stages)])
        return (*channels, self.features_shape[0])

    def _computed(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the graph's embedding (B, D), features (B, C, H, W) and pooled maps, float32."""
        own = self.interface
        if images.shape[2] != own.size:
            size = (own.size, own.size)
            images = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        if own.dtype == "uint8":
            images = images.round().clamp(0, 255)
        if own.channels_last:
            images = images.permute(0, 2, 3, 1)
        images = images.to(getattr(torch, own.dtype))
        run = self._in_a_graph if torch.compiler.is_exporting() else self._sessions.run
        embedding, maps, *pooled = run(images, own)
        if own.features_last:
            maps = maps.permute(0, 3, 1, 2)
        return (
            embedding.float().flatten(1),
            maps.float().reshape(-1, *own.features_shape),
            *(values.float().flatten(1) for values in pooled),
        )

    def _in_a_graph(self, images: Tensor, own: Interface) -> Sequence[Tensor]:
        """Return what stands for the file in the graph that torch.onnx exports."""
        dtype = getattr(torch, "float32" if own.dtype == "uint8" else own.dtype)
        return torch.onnx.ops.symbolic_multi_out(
            NODE,
            (images,),
            dtypes=(dtype,) * len(own.shapes),
            shapes=tuple((images.shape[0], *shape) for shape in own.shapes),
        )


class _Sessions:
    """A file, opened on each device where it is run; copies of a backbone share it."""

    def __init__(self, content: bytes, source: str) -> None:
        self.content, self.source = content, source
        self._sessions: dict[torch.device, Any] = {}

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    def run(self, images: Tensor, own: Interface) -> Sequence[Tensor]:
        """Return the outputs for images as the graph takes them, on their device."""
        if images.device not in self._sessions:
            cuda = (images.device.index or 0) if images.device.type == "cuda" else None
            opened = open_session(
                self.content, self.source, threads=torch.get_num_threads(), cuda=cuda
            )
            self._sessions[images.device] = opened
            if cuda is not None and not _runs_on_cuda(opened):
                log.warning(
                    "%s: computed on the CPU, since the installed ONNX Runtime has no CUDA (pip "
                    "install onnxruntime-gpu)",
                    self.source,
                )
        session = self._sessions[images.device]
        pixels = images.detach().contiguous().cpu().numpy()
        most = len(pixels) if _runs_on_cuda(session) else _CPU_BATCH
        size = own.batch or max(most, 1)
        parts = []
        for start in range(0, max(len(pixels), 1), size):
            part = pixels[start : start + size]
            missing = (own.batch or 0) - len(part)
            if missing > 0:
                part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
            parts.append(session.run([*own.outputs], {own.input: part}))
        outputs = (np.concatenate(arrays)[: len(pixels)] for arrays in zip(*parts, strict=True))
        return [torch.from_numpy(array).to(images.device) for array in outputs]


def _runs_on_cuda(session: Any) -> bool:
    return "CUDAExecutionProvider" in session.get_providers()
