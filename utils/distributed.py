"""Several processes as one job: who this process is, and what it exchanges with the others.

For training and evaluation under torchrun; without torchrun nothing here does anything, and torch
is not even imported.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")
_MEETING = timedelta(
    minutes=10
)  # a launcher that was killed at the start does not hold its processes
_PATIENCE = timedelta(hours=2)  # one process may compute statistics alone while the others wait
_MOMENT = 2  # seconds


class RankLost(RuntimeError):  # noqa: N818 - what happened, as KeyboardInterrupt
    """Another process of this job died, or cannot be reached; nothing more can be shared."""


class PeerFailed(RuntimeError):  # noqa: N818
    """Another process of this job called `World.fail`; the message says which, and why."""


@dataclass(frozen=True)
class _Failure:
    message: str


@dataclass(frozen=True)
class World:
    """This process among the processes of a job.

    Every process must make the same calls in the same order. Ranks count from 0; `local_rank` is
    that among the processes of one machine.
    """

    rank: int
    size: int
    local_rank: int

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def sum_(self, tensor: torch.Tensor) -> None:
        """Add up a contiguous CPU or CUDA tensor over all ranks, in place.

        On CUDA it is queued as a kernel is: the host does not wait, and learns of a lost process at
        the next `gather` or `barrier`.

        Raises:
            RankLost: another process is gone.
        """
        if self.size > 1:
            import torch.distributed as dist

            self._collective(lambda: dist.all_reduce(tensor))

    def gather(self, value: Value) -> list[Value]:
        """Return every rank's value, on every rank, in rank order; anything that pickles.

        Raises:
            RankLost: another process is gone.
            PeerFailed: another process called `fail` instead.
        """
        values = self._exchange(value)
        for rank, failure in enumerate(values):
            if isinstance(failure, _Failure):
                raise PeerFailed(f"rank {rank} of {self.size}: {failure.message}")
        return values

    def barrier(self) -> None:
        """Wait, on the host, until every rank is here; raises as `gather` does."""
        self.gather(None)

    def fail(self, message: str) -> None:
        """Tell the others, at their next `gather` or `barrier`, that this rank cannot continue.

        Not for places where they may be in `sum_`: there, let the process end, and they lose it.

        Raises:
            RankLost: another process is gone.
        """
        self._exchange(_Failure(message))

    def _exchange(self, value: Value) -> list[Value]:
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values = [value] * self.size
        self._collective(lambda: dist.all_gather_object(values, value))
        return values

    def _collective(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise RankLost(
                f"lost contact with another process of this job (rank {self.rank} of {self.size} "
                f"says: {_first_line(error)})"
            ) from error


ALONE = World(0, 1, 0)


def start(device: str) -> tuple[World, torch.device]:
    """Join the job that torchrun describes in the environment; ALONE where there is none.

    With several ranks "auto" and "cuda" give each rank of a machine a GPU of its own, and "auto"
    is the CPU where there is no CUDA. CPU tensors travel by gloo, CUDA tensors by NCCL.

    Other names of devices than auto, cpu and cuda serve without torchrun only.

    Raises:
        ValueError: half an environment, a device that ranks cannot share, or more ranks than GPUs.
        RankLost: the other processes cannot be reached.
    """
    from utils.device import resolve_device

    world = _from_environment()
    if world.size == 1:
        return world, resolve_device(device)
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise ValueError(
            f"WORLD_SIZE = {world.size}, but this build of PyTorch has no torch.distributed; start "
            "one process, without torchrun"
        )
    from torch.distributed.rendezvous import rendezvous

    name = _device_of(device, world)
    if name != "cpu":
        torch.cuda.set_device(world.local_rank)
    backend = "gloo" if name == "cpu" else "cpu:gloo,cuda:nccl"
    # Its defaults hold the group that there is when it is loaded, which an optimizer's first step
    # does: the group's threads would outlive `stop`, and now and then abort the process at exit.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        store, rank, size = next(rendezvous("env://", timeout=_MEETING))
        store.set_timeout(_PATIENCE)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    except RuntimeError as error:
        raise RankLost(
            f"rank {world.rank} of {world.size} cannot meet the others at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {_first_line(error)}"
        ) from error
    return world, torch.device(name)


def stop(world: World, *, failed: bool = False) -> None:
    """Leave the job; drop what holds gradients' hooks (a wrapped model, its optimizer) before.

    Waits for the others and then takes the group apart. Without that, a process now and then
    aborts at exit.

    Args:
        world: of `start`.
        failed: this process ends on an error that the others may not know of: do not wait. With
            NCCL the group stays, since pending GPU work would keep this process for ever.

    Raises:
        RankLost: another process is gone.
        PeerFailed: another process called `fail`.
    """
    if world.size == 1:
        return
    import torch.distributed as dist

    if not failed:
        world.barrier()
    gc.collect()
    if not (failed and "nccl" in dist.get_backend_config()):
        dist.destroy_process_group()


def in_job() -> bool:
    """Whether torchrun started this process with others."""
    return _from_environment().size > 1


def is_main_process() -> bool:
    """Whether this process is the one of its machine to report a mistake made before `start`.

    The others wait a moment first: torchrun ends all processes as soon as one has left.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        return True
    time.sleep(_MOMENT)
    return False


def _first_line(error: RuntimeError) -> str:
    """Return what gloo or NCCL says, without its source line and its advice."""
    line = str(error).strip().partition("\n")[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line).partition(". This is ")[0]


def _from_environment() -> World:
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return ALONE
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise ValueError(
                f"WORLD_SIZE = {size}, but {name} is not set: start with torchrun "
                f"--nproc_per_node={size}, or unset WORLD_SIZE for one process"
            )
    rank, local_rank = _number("RANK", 0), _number("LOCAL_RANK", 0)
    if not 0 <= rank < size:
        raise ValueError(f"RANK = {rank}: must lie in 0..{size - 1}, as WORLD_SIZE = {size}")
    return World(rank, size, local_rank)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise ValueError(f"environment variable {name} = {text!r}: must be a whole number")
    return int(text)


def _device_of(device: str, world: World) -> str:
    """Name the device of this rank."""
    import torch

    from utils.device import resolve_device

    kind = device
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    has_gpus = resolve_device(kind).type == "cuda"
    if kind not in ("cpu", "cuda"):
        way_out = "take cuda, and each gets its own" if has_gpus else "take cpu"
        raise ValueError(
            f"device = {device!r} with {world.size} processes: one device cannot be shared; "
            f"{way_out}"
        )
    if kind == "cpu":
        return "cpu"
    ranks, gpus = _number("LOCAL_WORLD_SIZE", world.local_rank + 1), torch.cuda.device_count()
    if ranks > gpus:
        raise ValueError(
            f"device = {device!r}: {ranks} processes on this machine, but it has {gpus} "
            f"GPU{'' if gpus == 1 else 's'}; start it with --nproc_per_node={gpus}, or take cpu"
        )
    return f"cuda:{world.local_rank}"
