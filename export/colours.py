"""Does a backbone want RGB or BGR, and which scaling? They are tried on a few pairs of faces.

For export/colour_order.py and export/pack_model.py. Takes four forward passes per pair, and as many
for each other scaling on up to 50 pairs of each kind.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.labelled_pairs import mated_pairs, non_mated_pairs
from evaluation.metrics.comparisons import cosine_of_pairs
from evaluation.metrics.thresholds import error_rates
from evaluation.sets.open_set import (
    EvaluationSet,
    LabelledSet,
    PairsSet,
    VerificationPairs,
    open_set,
)
from models.backbones.base import Preprocessing

if TYPE_CHECKING:
    from models.frozen import FrozenBackbone

Verdict = Literal["recorded", "other", "cannot tell"]
COUNT = 200  # pairs of each kind
SMALL = 50  # with fewer of a kind, the answer is seldom clear
SCALINGS = ((127.5, 127.5), (127.5, 128.0), (0.0, 255.0), (0.0, 1.0))  # mean and scale
_TRIED = 50  # pairs of each kind that other scalings are tried on
_EQUAL = 0.01  # of the best d': so much less is as good
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
class Trial:
    """How well the backbone does with pixels in one order and scaling, on the first few pairs."""

    preprocessing: Preprocessing
    d_prime: float  # see `Separation`

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        own = self.preprocessing
        return {"color": own.color, "mean": own.mean, "scale": own.scale, "d_prime": self.d_prime}


@dataclass(frozen=True, kw_only=True)
class ColourCheck:
    """What both colour orders gave on the same pairs, and other scalings of the pixels.

    Attributes:
        pairs: name of the set.
        mated: pairs of one person that were compared.
        non_mated: pairs of two people.
        recorded: in the order that the backbone's preprocessing says.
        other: in the swapped order.
        interval: of the recorded order's d' minus the other's: bootstrap over pairs, 99 %.
        coloured: share of the images that are not grey.
        verdict: the order that is better, where the interval leaves 0 out.
        trials: both orders with the recorded scaling, then with the other ones.
        better: the trial with another scaling that is clearly better than the recorded one, if any.
    """

    pairs: str
    mated: int
    non_mated: int
    recorded: Separation
    other: Separation
    interval: tuple[float, float]
    coloured: float
    verdict: Verdict
    trials: tuple[Trial, ...]
    better: Trial | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and model files."""
        return {
            **dataclasses.asdict(self),
            "interval": list(self.interval),
            "trials": [trial.to_dict() for trial in self.trials],
            "better": self.better and self.better.to_dict(),
        }

    def describe(self) -> str:
        """Return some lines with both orders' numbers and what follows from them."""
        low, high = self.interval
        lines = [f"colour order on {self.mated} mated and {self.non_mated} non-mated {self.pairs}:"]
        for order, note in ((self.recorded, "recorded"), (self.other, "swapped")):
            lines.append(f"  {order.color} {note:<9} EER {order.eer:.4f}  d' {order.d_prime:.3f}")
        difference = f"d' of {self.recorded.color} minus d' of {self.other.color}"
        lines.append(f"  {difference}: {low:+.3f} to {high:+.3f} (99 % interval)")
        lines += [f"  {self._conclusion()}", "scaling of the pixels x, on the first few of them:"]
        for trial in self.trials:
            own = trial.preprocessing
            lines.append(f"  {own.color} {own.formula:<23} d' {trial.d_prime:.3f}")
        formula = self.trials[0].preprocessing.formula
        if self.better is None:
            lines.append(f"  no other is clearly better: {formula} is right, as recorded")
        else:
            own = self.better.preprocessing
            lines.append(f"  {own.color} {own.formula} is better: {formula}, as recorded, is WRONG")
        return "\n".join(lines) + "\n"

    def _conclusion(self) -> str:
        if self.verdict == "recorded":
            return f"{self.recorded.color} is better: the recorded order is right"
        if self.verdict == "other":
            return f"{self.other.color} is better: the recorded order is WRONG"
        if self.coloured == 0:
            return "all images are grey, so there is no answer: take pairs in colour"
        more = "" if min(self.mated, self.non_mated) >= SMALL else ": too few pairs"
        return f"no clear difference on these pairs{more}"


def colour_check(frozen: FrozenBackbone, pairs: str, count: int = COUNT) -> ColourCheck:
    """Embed pairs in both channel orders, and a few in the usual scalings, and compare.

    Pairs are a `.bin` file or a target of `open_set`; at most `count` of each kind are taken, by a
    fixed rule, spread over the set.

    Raises:
        ValueError: no such set, one of templates, or one without two pairs of both kinds.
    """
    if count < 2:
        raise ValueError(f"count = {count}: the colour check needs 2 pairs of each kind at least")
    labelled = open_named_set("--pairs", pairs, count)
    rows, mated = _some_pairs(labelled, count)
    images = _decoded(labelled, rows)
    own = frozen.preprocessing
    color = own.color
    other = dataclasses.replace(own, color="BGR" if color == "RGB" else "RGB")
    scores, swapped = (_scores(frozen, images, wanted) for wanted in (own, other))
    interval = _bootstrap(scores, swapped, mated)
    verdict: Verdict = "cannot tell"
    if interval[0] > 0 or interval[1] < 0:
        verdict = "recorded" if interval[0] > 0 else "other"
    kinds = [np.flatnonzero(mated)[:_TRIED], np.flatnonzero(~mated)[:_TRIED]]
    few = np.concatenate(kinds)
    by_trial = {own: scores[few], other: swapped[few]}
    for mean, scale in SCALINGS:
        for order in (own, other):
            wanted = dataclasses.replace(order, mean=mean, scale=scale)
            if wanted not in by_trial:
                tried = images.reshape(-1, 2, *images.shape[1:])[few]
                by_trial[wanted] = _scores(frozen, tried.reshape(-1, *images.shape[1:]), wanted)
    trials = tuple(
        Trial(preprocessing=wanted, d_prime=d_prime(tried, mated[few]))
        for wanted, tried in by_trial.items()
    )
    return ColourCheck(
        pairs=labelled.name,
        mated=int(mated.sum()),
        non_mated=int((~mated).sum()),
        recorded=_separation(color, scores, mated),
        other=_separation(other.color, swapped, mated),
        interval=interval,
        coloured=float((images != images[..., :1]).any(axis=(1, 2, 3)).mean()),
        verdict=verdict,
        trials=trials,
        better=_better(trials, by_trial, mated[few]),
    )


def _better(
    trials: tuple[Trial, ...],
    scores: Mapping[Preprocessing, NDArray[np.float32]],
    mated: NDArray[np.bool_],
) -> Trial | None:
    """Return the best trial, if it has another scaling than the first and is clearly better."""
    recorded = trials[0].preprocessing
    top = max(trial.d_prime for trial in trials)
    best = next(trial for trial in trials if trial.d_prime >= top - _EQUAL * abs(top))
    if best.preprocessing.formula == recorded.formula:
        return None
    low, _ = _bootstrap(scores[best.preprocessing], scores[recorded], mated)
    return best if low > 0 else None


def some_images(pairs: str, count: int) -> NDArray[np.uint8]:
    """Return images (n, 112, 112, 3) of at most `count` >= 2 pairs of each kind, spread evenly."""
    labelled = open_named_set("--pairs", pairs, count)
    return _decoded(labelled, _some_pairs(labelled, count)[0])


def require_colour_order(check: ColourCheck, advice: str) -> None:
    """Refuse a backbone whose recorded order or scaling is worse; `advice` ends the message.

    Raises:
        ValueError: another one is better; names the option that gives it.
    """
    if check.better is not None:
        own, recorded = check.better.preprocessing, check.trials[0]
        option = json.dumps({"color": own.color, "mean": own.mean, "scale": own.scale})
        raise ValueError(
            f"wrong scaling: {own.color} {own.formula} separates {check.pairs} better than the "
            f"recorded {recorded.preprocessing.color} {recorded.preprocessing.formula} (d' "
            f"{check.better.d_prime:.3f} against {recorded.d_prime:.3f}). The backbone's option "
            f"is preprocessing={option}: {advice}"
        )
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
    mates, others = scores[mated].astype(np.float64), scores[~mated].astype(np.float64)
    spread = np.sqrt((mates.var() + others.var()) / 2)
    return float((mates.mean() - others.mean()) / max(spread, np.finfo(np.float64).tiny))


def open_named_set(flag: str, text: str, pairs: int | None = None) -> EvaluationSet:
    """Open `path/to/lfw.bin`, or a target of `open_set` with so many non-mated pairs.

    Raises:
        ValueError: there is no such set; the message names the flag.
    """
    if ":" in text:
        return open_set(text) if pairs is None else open_set(text, non_mated=pairs, cap=1)
    path = Path(text)
    if path.suffix != ".bin":
        raise ValueError(
            f"{flag} {text}: name a .bin file, faces:FOLDER, pairs:FILE or synthetic:pairs=400"
        )
    return open_set(path.stem, path.parent)


def _some_pairs(labelled: EvaluationSet, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return rows (N, 2) of at most `count` pairs of each kind, spread over the set, and labels."""
    kinds: list[NDArray[np.signedinteger[Any]]]
    if isinstance(labelled, LabelledSet):
        kinds = [mated_pairs(labelled.labels, 1), non_mated_pairs(labelled.labels, count)]
    elif isinstance(labelled, VerificationPairs):
        every = np.arange(len(labelled.images)).reshape(-1, 2)
        kinds = [every[labelled.images.mated], every[~labelled.images.mated]]
    elif isinstance(labelled, PairsSet):
        kinds = [labelled.pairs[labelled.mated], labelled.pairs[~labelled.mated]]
    else:
        raise ValueError(f"{labelled.name} has templates; the colour check takes pairs of images")
    sizes = [len(pairs) for pairs in kinds]
    if min(sizes) < 2:
        raise ValueError(
            f"{labelled.name}: {sizes[0]} mated and {sizes[1]} non-mated pairs; the colour check "
            "needs two of each at least"
        )
    chosen = [
        pairs[np.linspace(0, size - 1, min(count, size)).astype(int)]
        for pairs, size in zip(kinds, sizes, strict=True)
    ]
    mated = np.repeat([True, False], [len(pairs) for pairs in chosen])
    return np.concatenate(chosen).astype(np.int64), mated


def _decoded(labelled: EvaluationSet, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.stack([labelled.images.decode(row, row + 1)[0] for row in rows.ravel().tolist()])


def _scores(
    frozen: FrozenBackbone, images: NDArray[np.uint8], wanted: Preprocessing
) -> NDArray[np.float32]:
    """Return the cosines of pairs of images that reach the network as if preprocessed so."""
    import torch

    own = frozen.preprocessing
    embeddings = []
    for start in tqdm(range(0, len(images), _BATCH), "colour order", unit="batch", disable=None):
        part = images[start : start + _BATCH]
        part = part if wanted.color == own.color else part[..., ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(part))
        if wanted.formula != own.formula:
            levels = pixels.permute(0, 3, 1, 2).float()
            pixels = (levels - wanted.mean) / wanted.scale * own.scale + own.mean
        embeddings.append(frozen(pixels).embedding.cpu().numpy())
    return cosine_of_pairs(np.concatenate(embeddings))


def _separation(color: str, scores: NDArray[np.float32], mated: NDArray[np.bool_]) -> Separation:
    eer = error_rates(scores, mated).equal_error_rate().value
    return Separation(color=color, eer=eer, d_prime=d_prime(scores, mated))


def _bootstrap(
    scores: NDArray[np.float32], swapped: NDArray[np.float32], mated: NDArray[np.bool_]
) -> tuple[float, float]:
    """Interval of d' of the one minus d' of the other, on the same draws of pairs of each kind."""
    rng = np.random.default_rng(0)
    kinds = [np.flatnonzero(mated), np.flatnonzero(~mated)]
    differences = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        rows = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        differences[draw] = d_prime(scores[rows], mated[rows]) - d_prime(swapped[rows], mated[rows])
    low, high = np.quantile(differences, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)
