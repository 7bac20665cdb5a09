"""How likely a search is answered wrongly: a distribution over the gallery and "nobody".

In the spirit of HolUE (Erlygin and Zaytsev, arXiv 2408.14229): doubt about a probe comes from its
own quality and from a gallery that offers several people, or nobody. There, a person of the gallery
is a von Mises-Fisher distribution and nobody a uniform one, so log P(c) is linear in the cosine.
Here that line is fitted, and tilted by the uncertainties of both sides:

    log P(c) / P(nobody) = a + b s_c + (d + e s_c) u_probe + (f + g s_c) u_c

over the candidates c of a search, with u the share of the fitted side that is less uncertain, less
one half. The likelihood of who was there is concave in the six numbers; NumPy and SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.thresholds import Ranked, find_threshold
from search.searches import Searches
from utils.config import require

Floats = NDArray[np.float64]
KNOTS = np.linspace(0, 1, 101)
RIDGE = 1e-3  # keeps numbers finite that the data say nothing about
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Doubt:
    """A fitted distribution over candidates and nobody; it holds for the share of strangers there.

    Attributes:
        weights: (6,) a, b, d, e, f, g, for scores less `centre` divided by `spread`.
        centre: of the highest scores.
        spread: their standard deviation.
        probe_knots: (101,) percentiles of the probes' uncertainties.
        gallery_knots: (101,) the same of the gallery.
    """

    weights: tuple[float, ...]
    centre: float
    spread: float
    probe_knots: tuple[float, ...]
    gallery_knots: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = len(self.weights), len(self.probe_knots), len(self.gallery_knots)
        sound = sizes == (6, len(KNOTS), len(KNOTS)) and self.spread > 0
        require(sound, "doubt", sizes, "what evaluation/identification.py fitted")

    @classmethod
    def fit(cls, searches: Searches, *, with_quality: bool = True) -> Doubt:
        """Fit by maximum likelihood; a person beyond the candidates counts as nobody.

        Raises:
            ValueError: no enrolled probe, or nothing but enrolled ones.
        """
        if searches.enrolled.all() or not searches.enrolled.any():
            raise ValueError(
                f"{searches.name}: P(error) needs probes of enrolled people and of others"
            )
        top = searches.candidates.scores[:, 0].astype(np.float64)
        sides = searches.uncertainty, searches.gallery_uncertainty
        knots = [tuple(np.quantile(side, KNOTS).tolist()) for side in sides]
        shape = cls((0.0,) * 6, float(top.mean()), float(top.std()) or 1.0, *knots)
        features = shape.features(searches)
        if not with_quality:
            features[..., 2:] = 0
        listed = np.isfinite(searches.candidates.scores)
        truth = (searches.candidates.rows == searches.own[:, None]) & searches.enrolled[:, None]

        def loss(weights: Floats) -> tuple[float, Floats]:
            shares = _shares(features @ weights, listed)
            own = np.where(truth.any(axis=1), (shares[:, 1:] * truth).sum(axis=1), shares[:, 0])
            slope = np.einsum("pk,pkf->f", shares[:, 1:] - truth, features)
            cost = -np.log(np.maximum(own, 1e-300)).mean()
            ridge = RIDGE * weights / len(searches)
            return float(cost + ridge @ weights), slope / len(searches) + 2 * ridge

        from scipy.optimize import minimize

        weights = minimize(loss, np.zeros(6), jac=True, method="BFGS").x
        return cls(tuple(weights.tolist()), shape.centre, shape.spread, *knots)

    def features(self, searches: Searches) -> Floats:
        """(P, K, 6) what the weights are for; 0 where a gallery has no candidate."""
        scores, rows = searches.candidates
        listed = np.isfinite(scores)
        score = np.where(listed, scores.astype(np.float64), self.centre) - self.centre
        score /= self.spread
        probe = np.interp(searches.uncertainty, *_distinct(self.probe_knots)) - 0.5
        gallery = np.interp(searches.gallery_uncertainty, *_distinct(self.gallery_knots)) - 0.5
        of_probe = np.broadcast_to(probe[:, None], score.shape)
        of_gallery = gallery[np.maximum(rows, 0)]
        ones = np.ones_like(score)
        parts = (ones, score, of_probe, score * of_probe, of_gallery, score * of_gallery)
        features: Floats = np.stack(parts, axis=-1) * listed[..., None]
        return features

    def shares(self, searches: Searches) -> Floats:
        """(P, 1 + K) probabilities of nobody and of each candidate."""
        listed = np.isfinite(searches.candidates.scores)
        return _shares(self.features(searches) @ np.array(self.weights), listed)

    def p_error(self, searches: Searches, threshold: float) -> NDArray[np.float32]:
        """(P,) probability that the answer is wrong.

        The answer is the best candidate where its score reaches the threshold, else nobody.
        """
        shares = self.shares(searches)
        is_named = searches.candidates.scores[:, 0] >= np.float64(threshold)
        p_error: NDArray[np.float32] = 1 - np.where(is_named, shares[:, 1], shares[:, 0])
        return p_error.astype(np.float32)

    def entropy(self, searches: Searches) -> NDArray[np.float32]:
        """(P,) entropy of the distribution, in nats."""
        shares = self.shares(searches)
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        return np.asarray(-(shares * logs).sum(axis=1), np.float32)


def cross_fitted(
    searches: Searches, target: float, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Uncertainties of every search by distributions that were fitted on other people.

    Args:
        searches: with probes of enrolled people and of others.
        target: FPIR whose threshold is found again on those other people.
        seed: of the five folds of people.

    Returns:
        Name -> (P,): "P(error)", "P(error) by scores" (no uncertainty of either side in it) and
        "entropy". Nothing where one kind of probe shows fewer than two people.
    """
    fold = np.empty(len(searches), np.int64)
    rng = np.random.default_rng([seed, FOLDS])
    for kind in (searches.enrolled, ~searches.enrolled):
        people, person = np.unique(searches.person[kind], return_inverse=True)
        if len(people) < 2:
            return {}
        fold[kind] = rng.permutation(len(people))[person] % FOLDS
    names = ("P(error)", "P(error) by scores", "entropy")
    results = {name: np.empty(len(searches), np.float32) for name in names}
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if not inside.size:
            continue
        others, own = searches.take(outside), searches.take(inside)
        level = threshold_at(others, target)
        doubt = Doubt.fit(others)
        by_scores = Doubt.fit(others, with_quality=False)
        for name, values in zip(
            names,
            (doubt.p_error(own, level), by_scores.p_error(own, level), doubt.entropy(own)),
            strict=True,
        ):
            results[name][inside] = values
    return results


def threshold_at(searches: Searches, target: float) -> float:
    """Return the lowest threshold with FPIR <= target; ValueError without a stranger's probe."""
    others = searches.candidates.scores[~searches.enrolled, 0]
    if not len(others):
        raise ValueError(f"{searches.name}: no probe of a person outside the gallery: no FPIR")
    ranked = Ranked.of(others)
    empty = Ranked.of(np.empty(0, np.float32))
    threshold = find_threshold(empty, ranked, "conservative", target, len(others), complete=True)
    assert threshold is not None
    return threshold


def _shares(logits: Floats, listed: NDArray[np.bool_]) -> Floats:
    """Softmax over nobody, at 0, and the candidates."""
    logits = np.where(listed, logits, -np.inf)
    whole = np.concatenate([np.zeros((len(logits), 1)), logits], axis=1)
    powers = np.exp(whole - whole.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _distinct(knots: tuple[float, ...]) -> tuple[Floats, Floats]:
    """Knots that ascend, and the mean share of those that are equal."""
    values, place = np.unique(knots, return_inverse=True)
    return values, np.bincount(place, weights=KNOTS) / np.bincount(place)
