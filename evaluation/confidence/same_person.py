"""P(same person): what a score and the uncertainties of both faces say, at a stated prior.

A face's uncertainty becomes a share t of the way from `certain` to `uncertain`, cut off at both
ends, and x is the mean of both faces' t. Then

    ln LR = (1 - x) line_0 + x line_1, cut to least .. most
    line_i = offset_i + below_i min(score - bend, 0) + above_i max(score - bend, 0)
    P(same person) = 1 / (1 + exp(-(ln LR + ln(prior / (1 - prior)))))

LR is the likelihood ratio of "one person" against "two persons". So P does not depend on the order
of the faces, never falls with the score, and another prior shifts its log odds and nothing else.
NumPy alone, but for `fit`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics.comparisons import Comparisons
from utils.config import parsed, require

Floats = NDArray[np.float64]

FEWEST = 20  # comparisons of either kind
TAILS = (0.005, 0.995)  # quantiles of the images' uncertainties that are taken for its ends
WEIGHT = 0.1  # of all mated comparisons in the fit, for priors of .5 and of searches alike
RIDGE = 1e-7  # keeps the lines finite where the scores of both kinds do not overlap
LARGEST = 1e15  # of any number of a map


@dataclass(frozen=True, kw_only=True)
class SamePerson:
    """The map from a score and two uncertainties to P(same person); see the top of this module.

    Attributes:
        mated: comparisons of one person that it was fitted on.
        non_mated: of two persons.
        prior: P(same person) before anything is seen, where nobody gives another.
        certain: uncertainty at and below which a face has t = 0.
        uncertain: uncertainty at and above which it has t = 1.
        bend: score at which the lines change their slope.
        offset: of the lines at x = 0 and x = 1: their height at the bend.
        below: slope at lower scores, 0 or more.
        above: slope at higher scores, 0 or more.
        least: of ln LR; no fewer mated comparisons could show less.
        most: of ln LR; no fewer non-mated comparisons could show more.
    """

    mated: int
    non_mated: int
    prior: float
    certain: float
    uncertain: float
    bend: float
    offset: tuple[float, float]
    below: tuple[float, float]
    above: tuple[float, float]
    least: float
    most: float

    def __post_init__(self) -> None:
        require_prior(self.prior)
        for name in ("mated", "non_mated"):
            count = getattr(self, name)
            require(FEWEST <= count < 1 << 63, name, count, f"{FEWEST} comparisons or more")
        slopes = (*self.below, *self.above)
        numbers = (self.certain, self.uncertain, self.bend, *self.offset, *slopes)
        pairs = all(len(each) == 2 for each in (self.offset, self.below, self.above))
        sound = pairs and all(abs(value) <= LARGEST for value in numbers)
        require(sound, "same_person", numbers, f"two of each, within -{LARGEST:g} to {LARGEST:g}")
        ends = (self.certain, self.uncertain)
        require(self.certain <= self.uncertain, "certain, uncertain", ends, "in ascending order")
        require(min(slopes) >= 0, "below, above", slopes, "0 or more: P never falls with a score")
        shown, bounds = bounds_of(self.mated, self.non_mated), (self.least, self.most)
        within = shown[0] - 1e-6 <= self.least < self.most <= shown[1] + 1e-6
        rule = f"within what the comparisons can show, {shown[0]:.4f} to {shown[1]:.4f}"
        require(within, "least, most", bounds, rule)

    @classmethod
    def fit(cls, comparisons: Comparisons, prior: float = 0.5) -> SamePerson:
        """Fit the two lines by logistic regression, with mated comparisons weighed for one prior.

        That is prior-weighted calibration (Brümmer and du Preez, Computer Speech and Language 20,
        2006). The lines bend half way between the mean scores of both kinds. The ends of ln LR are
        -ln(mated + 1) and ln(non-mated + 1): n comparisons cannot tell a rate below 1 / (n + 1)
        from 0. Uncertainties that are all equal give a map of the score alone.

        Args:
            comparisons: the set, all of whose comparisons are listed.
            prior: where nobody gives another.

        Raises:
            ValueError: a prior outside (0, 1), too few comparisons of a kind, or some not listed.
        """
        from scipy.optimize import minimize  # takes a while; reading a calibration does without

        require_prior(prior)
        mated, name = comparisons.mated, comparisons.name
        if comparisons.unlisted:
            raise ValueError(
                f"{name}: P(same person) needs low scores too, and {comparisons.unlisted} "
                "non-mated comparisons are not listed; sample them (--non_mated COUNT)"
            )
        counts = int(np.count_nonzero(mated)), int(np.count_nonzero(~mated))
        if min(counts) < FEWEST:
            raise ValueError(
                f"{name}: {counts[0]} mated and {counts[1]} non-mated comparisons are too few for "
                f"P(same person): give {FEWEST} or more of each kind"
            )
        images = comparisons.uncertainty[np.unique(comparisons.pairs)].astype(np.float64)
        certain, uncertain = map(float, np.quantile(images, TAILS))
        scores = comparisons.scores.astype(np.float64)
        bend = float(scores[mated].mean() + scores[~mated].mean()) / 2
        scale = float(scores.std()) or 1.0
        share = _share(comparisons.uncertainty[comparisons.pairs], certain, uncertain)[:, None]
        line = np.column_stack([np.ones(len(scores)), *_sides(scores, bend, scale)])
        inputs = np.hstack([(1 - share) * line, share * line])
        sign = np.where(mated, 1.0, -1.0)
        weight = np.where(mated, WEIGHT / counts[0], (1 - WEIGHT) / counts[1])
        shift = sign * math.log(WEIGHT / (1 - WEIGHT))

        def loss(values: Floats) -> tuple[float, Floats]:
            margin = sign * (inputs @ values) + shift
            gradient = inputs.T @ (weight * -sign * np.exp(-np.logaddexp(0, margin)))
            ridge = RIDGE * values
            return float(weight @ np.logaddexp(0, -margin) + ridge @ values / 2), gradient + ridge

        bounds = [(None, None), (0, None), (0, None)] * 2
        options = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8}
        found = minimize(
            loss, np.zeros(6), jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        (offset, below, above) = found.x.reshape(2, 3).T.tolist()
        least, most = bounds_of(*counts)
        return cls(
            mated=counts[0],
            non_mated=counts[1],
            prior=prior,
            certain=certain,
            uncertain=uncertain,
            bend=bend,
            offset=(offset[0], offset[1]),
            below=(below[0] / scale, below[1] / scale),
            above=(above[0] / scale, above[1] / scale),
            least=least,
            most=most,
        )

    def log_ratio(self, scores: ArrayLike, first: ArrayLike, second: ArrayLike) -> Floats:
        """Natural logarithm of the likelihood ratio.

        Args:
            scores: (N,), as the map was fitted on: cosines, for a model's faces.
            first: (N,) raw uncertainties of one face; NaN gives NaN, as in a score.
            second: (N,) of the other.
        """
        sides = np.stack(np.broadcast_arrays(first, second), axis=-1)
        share, score = _share(sides, self.certain, self.uncertain), np.asarray(scores, np.float64)
        under, over = _sides(score, self.bend)
        lines = zip(self.offset, self.below, self.above, strict=True)
        low, high = (offset + below * under + above * over for offset, below, above in lines)
        return np.clip((1 - share) * low + share * high, self.least, self.most)

    def probability(
        self, scores: ArrayLike, first: ArrayLike, second: ArrayLike, prior: float | None = None
    ) -> Floats:
        """P(same person), at the map's own prior where none is given; see `log_ratio`.

        Raises:
            ValueError: a prior outside (0, 1).
        """
        prior = self.prior if prior is None else prior
        return posterior(self.log_ratio(scores, first, second), prior)

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: object) -> SamePerson:
        """Read what `to_dict` gave; ValueError for anything that it cannot have given."""
        read: SamePerson = parsed(cls, stored, "same_person")
        return read


def require_prior(prior: float) -> None:
    """Raise ValueError for a prior that is no probability, or one that nothing could change."""
    require(0 < prior < 1, "prior", prior, "between 0 and 1, such as 0.5")


def posterior(log_ratio: Floats, prior: float) -> Floats:
    """P(same person) of (N,) natural logarithms of likelihood ratios, at a prior in (0, 1)."""
    require_prior(prior)
    log_odds = log_ratio + math.log(prior) - math.log1p(-prior)
    return 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))  # NaN stays NaN, without a warning


def bounds_of(mated: int, non_mated: int) -> tuple[float, float]:
    """Ends of ln LR that so many comparisons can show."""
    return -math.log(mated + 1), math.log(non_mated + 1)


def _sides(scores: Floats, bend: float, scale: float = 1.0) -> tuple[Floats, Floats]:
    """(N,) scores below and above the bend, from it."""
    beyond = (scores - bend) / scale
    return np.minimum(beyond, 0), np.maximum(beyond, 0)


def _share(sides: ArrayLike, certain: float, uncertain: float) -> Floats:
    """(N,) x of (N, 2) uncertainties."""
    values = np.asarray(sides, np.float64)
    width = (uncertain - certain) or 1.0
    shares: Floats = ((np.clip(values, certain, uncertain) - certain) / width).mean(axis=-1)
    return shares
