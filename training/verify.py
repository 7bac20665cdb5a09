"""How good the heads are on the verification sets, in the middle of training.

Used by training.trainer alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from data.verification import VerificationSet
from estimators.trained_head import TrainedHead
from evaluation.embed import embed_each
from evaluation.pipeline import FMR_TARGETS, Result, evaluate
from models.frozen import FrozenBackbone
from training.branch import TrainedBranch
from utils.config import Verification
from utils.distributed import World


def verify(
    branches: Sequence[TrainedBranch],
    frozen: FrozenBackbone,
    sets: Sequence[VerificationSet],
    options: Verification,
    world: World,
) -> list[list[Result]]:
    """Return each head's results, one per set, in the first process; none in the others.

    Every image goes through the backbone once for all heads, on one of the processes.
    """
    heads = [TrainedHead(frozen=frozen, head=branch.head) for branch in branches]
    found: list[list[Result]] = [[] for _ in branches]
    for one in sets:
        features = embed_each(heads, one, options.batch_size, flip=options.flip, world=world)
        for results, of_head in zip(found, features, strict=True) if world.is_main else ():
            results.append(evaluate(of_head, options.protocol, name=one.name))
    return found


def mean_area(results: Sequence[Result]) -> float | None:
    """Return the mean AUERC30 over sets, which the best checkpoint is chosen by; None without."""
    areas = [result.blocks[0].areas.auerc30 for result in results]
    return sum(areas) / len(areas) if areas else None


def in_short(result: Result) -> str:
    """Return the FNMR at FMR 1e-3 with nothing and with 30 % discarded, and the area between."""
    block = result.blocks[0]
    curve = block.curves[FMR_TARGETS.index(1e-3)]
    return (
        f"fmr1000 {curve.fnmr[0]:.6f}, of the best 70 % {curve.fnmr[30]:.6f}, "
        f"AUERC30 {block.areas.auerc30:.4f}"
    )
