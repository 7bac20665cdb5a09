"""Does a backbone want RGB or BGR? Both orders are tried on a few pairs of faces.

python export/colour_order.py --backbone_name iresnet50 --backbone_weights backbone.pth \
    --pairs lfw.bin

Ends with exit code 2 when the other order separates people better than the one in the options.
pack_model.py runs the same check. Takes four forward passes per pair.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from evaluation import cli
from evaluation.metrics.error_rates import error_rates
from evaluation.metrics.scores import cosine_of_pairs
from evaluation.sets.kinds import LabelledSet, PairsSet, VerificationPairs
from evaluation.sets.labelled import mated_pairs, non_mated_pairs
from evaluation.sets.open_set import EvaluationSet, open_set
from utils.cli import Parser, count, run_command

if TYPE_CHECKING:
    from models.frozen import FrozenBackbone

Verdict = Literal["recorded", "other", "cannot tell"]
COUNT = 200  # pairs of each kind
SMALL = 50  # with fewer of a kind, the answer is seldom clear
_DRAWS = 2000
_CONFIDENCE = 0.99
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well one colour order tells mated from non-mated pairs.

    Attributes:
        color: "RGB" or "BGR".
        eer: equal error rate; smaller = better.
        d_prime: distance between the two means of the scores in units of their root mean variance
            (decidability; Daugman, doi 10.1109/TCSVT.2003.818350); larger = better.
    """

    color: str
    eer: float
    d_prime: float


@dataclass(frozen=True, kw_only=True)
class ColourCheck:
    """What both colour orders gave on the same pairs.

    Attributes:
        pairs: name of the set.
        mated: pairs of one person that were looked at.
        non_mated: pairs of two people.
        recorded: in the order that the backbone's preprocessing says.
        other: in the other one.
        interval: of the recorded order's d' minus the other's: bootstrap over pairs, 99 %.
        coloured: share of the images that are not grey.
        verdict: the order that is better, where the interval leaves 0 out.
    """

    pairs: str
    mated: int
    non_mated: int
    recorded: Separation
    other: Separation
    interval: tuple[float, float]
    coloured: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and model files."""
        found = dataclasses.asdict(self)
        return {**found, "interval": list(self.interval)}

    def describe(self) -> str:
        """Return some lines with both orders' numbers and what follows from them."""
        low, high = self.interval
        lines = [f"colour order on {self.mated} mated and {self.non_mated} non-mated {self.pairs}:"]
        for one, note in ((self.recorded, "as recorded"), (self.other, "the other")):
            lines.append(f"  {one.color} {note:<12} EER {one.eer:.4f}  d' {one.d_prime:.3f}")
        difference = f"d' of {self.recorded.color} minus d' of {self.other.color}"
        lines.append(f"  {difference}: {low:+.3f} to {high:+.3f} (99 % interval)")
        return "\n".join([*lines, f"  {self._conclusion()}"]) + "\n"

    def _conclusion(self) -> str:
        if self.verdict == "recorded":
            return f"{self.recorded.color} is better: the recorded order is right"
        if self.verdict == "other":
            return f"{self.other.color} is better: the recorded order is WRONG"
        if self.coloured == 0:
            return "all images are grey, so that nothing can be said: take pairs in colour"
        more = "" if min(self.mated, self.non_mated) >= SMALL else ": these are too few pairs"
        return f"the two cannot be told apart on these pairs{more}"


def colour_check(frozen: FrozenBackbone, pairs: str, count: int = COUNT) -> ColourCheck:
    """Embed pairs in the recorded and in the swapped channel order, and compare.

    Args:
        frozen: the backbone; its preprocessing says the recorded order.
        pairs: a `.bin` file, or a target of `open_set`: `synthetic:...`, `faces:PATH`,
            `pairs:FILE`.
        count: pairs of each kind at most; drawn by a fixed rule, spread over the set.

    Raises:
        ValueError: no such set, one of templates, or one without two pairs of both kinds.
    """
    if count < 2:
        raise ValueError(f"count = {count}: the colour check needs 2 pairs of each kind at least")
    opened = _open(pairs, count)
    rows, mated = _some_pairs(opened, count)
    images = _decoded(opened, rows)
    scores = cosine_of_pairs(_embeddings(frozen, images))
    swapped = cosine_of_pairs(_embeddings(frozen, images[..., ::-1]))
    color = frozen.preprocessing.color
    interval = _bootstrap(scores, swapped, mated)
    verdict: Verdict = "cannot tell"
    if interval[0] > 0 or interval[1] < 0:
        verdict = "recorded" if interval[0] > 0 else "other"
    return ColourCheck(
        pairs=opened.name,
        mated=int(mated.sum()),
        non_mated=int((~mated).sum()),
        recorded=_separation(color, scores, mated),
        other=_separation("BGR" if color == "RGB" else "RGB", swapped, mated),
        interval=interval,
        coloured=float((images != images[..., :1]).any(axis=(1, 2, 3)).mean()),
        verdict=verdict,
    )


def some_images(pairs: str, count: int) -> NDArray[np.uint8]:
    """Return images (n, 112, 112, 3) of `count` pairs at most of each kind, spread over the set.

    Args:
        pairs: as in `colour_check`.
        count: 2 or more.
    """
    opened = _open(pairs, count)
    return _decoded(opened, _some_pairs(opened, count)[0])


def require_colour_order(check: ColourCheck, advice: str) -> None:
    """Refuse a backbone whose recorded order is the worse one.

    Args:
        check: what was found.
        advice: ends the message, which has named the option that gives the other order.

    Raises:
        ValueError: it is.
    """
    if check.verdict != "other":
        return
    raise ValueError(
        f"wrong colour order: {check.other.color} separates {check.pairs} better than the recorded "
        f"{check.recorded.color} (EER {check.other.eer:.4f} against {check.recorded.eer:.4f}, d' "
        f"{check.other.d_prime:.3f} against {check.recorded.d_prime:.3f}). The "
        f'backbone\'s option for {check.other.color} is preprocessing={{"color":'
        f'"{check.other.color}"}}: {advice}'
    )


def d_prime(scores: NDArray[np.float32], mated: NDArray[np.bool_]) -> float:
    """(mean of mated - mean of non-mated) / sqrt((their variances) / 2), in float64."""
    one, two = scores[mated].astype(np.float64), scores[~mated].astype(np.float64)
    spread = np.sqrt((one.var() + two.var()) / 2)
    return float((one.mean() - two.mean()) / max(spread, np.finfo(np.float64).tiny))


def _open(pairs: str, count: int) -> EvaluationSet:
    if pairs.endswith(".bin") and ":" not in pairs:
        path = Path(pairs)
        return open_set(path.stem, path.parent)
    if ":" not in pairs:
        raise ValueError(
            f"--pairs {pairs}: name a .bin file, faces:FOLDER, pairs:FILE or synthetic:pairs=400"
        )
    return open_set(pairs, non_mated=count, cap=1)


def _some_pairs(opened: EvaluationSet, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return rows (N, 2) of at most `count` pairs of each kind, spread over the set, and labels."""
    kinds: list[NDArray[np.signedinteger[Any]]]
    if isinstance(opened, LabelledSet):
        kinds = [mated_pairs(opened.labels, 1), non_mated_pairs(opened.labels, count)]
    elif isinstance(opened, VerificationPairs):
        every = np.arange(len(opened.images)).reshape(-1, 2)
        kinds = [every[opened.pairs.mated], every[~opened.pairs.mated]]
    elif isinstance(opened, PairsSet):
        kinds = [opened.pairs[opened.mated], opened.pairs[~opened.mated]]
    else:
        raise ValueError(f"{opened.name} has templates; the colour check takes pairs of images")
    if min(map(len, kinds)) < 2:
        raise ValueError(
            f"{opened.name}: {len(kinds[0])} mated and {len(kinds[1])} non-mated pairs; the colour "
            "check needs two of each at least"
        )
    chosen = [one[np.linspace(0, len(one) - 1, min(count, len(one))).astype(int)] for one in kinds]
    return np.concatenate(chosen).astype(np.int64), np.repeat([True, False], list(map(len, chosen)))


def _decoded(opened: EvaluationSet, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.stack([opened.images.decode(row, row + 1)[0] for row in rows.ravel().tolist()])


def _embeddings(frozen: FrozenBackbone, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch

    starts = tqdm(range(0, len(images), _BATCH), "colour order", unit="batch", disable=None)
    parts = (np.ascontiguousarray(images[start : start + _BATCH]) for start in starts)
    found = [frozen(torch.from_numpy(part)).embedding.cpu().numpy() for part in parts]
    return np.concatenate(found)


def _separation(color: str, scores: NDArray[np.float32], mated: NDArray[np.bool_]) -> Separation:
    eer = error_rates(scores, mated).equal_error_rate().value
    return Separation(color=color, eer=eer, d_prime=d_prime(scores, mated))


def _bootstrap(
    scores: NDArray[np.float32], swapped: NDArray[np.float32], mated: NDArray[np.bool_]
) -> tuple[float, float]:
    """Interval of d' of the one minus d' of the other, on the same draws of pairs of each kind."""
    rng = np.random.default_rng(0)
    kinds = [np.flatnonzero(mated), np.flatnonzero(~mated)]
    found = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        rows = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        found[draw] = d_prime(scores[rows], mated[rows]) - d_prime(swapped[rows], mated[rows])
    low, high = np.quantile(found, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def main(argv: Sequence[str] | None = None) -> int:
    """Try both orders; 0, or 2 when the other one is better or nothing can be tried."""
    parser = Parser(description="Does a backbone want RGB or BGR?")
    cli.add_backbone_arguments(parser)
    parser.add_argument("--pairs", required=True, help="lfw.bin, faces:FOLDER, synthetic:pairs=400")
    parser.add_argument("--count", type=count, default=COUNT, help=f"of each kind ({COUNT})")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    from models.run import open_backbone

    if not args.backbone_name or not args.backbone_weights:
        raise ValueError("give --backbone_name NAME and --backbone_weights FILE")
    frozen = open_backbone(args.backbone_name, args.backbone_weights, args.device, args.precision)
    check = colour_check(frozen, args.pairs, args.count)
    sys.stdout.write(check.describe())
    require_colour_order(check, "set it before a head is trained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
