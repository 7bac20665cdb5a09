"""What is wrong with the references of a gallery, told from their embeddings and uncertainties.

    result = audit(open_gallery("my_faces", open_model("runs/mine")))

Five kinds of findings, in the order of `KINDS`; an image that has one takes no part in the search
for the next. Cut-offs come from the gallery's own scores. Numbers only: `report.audit` has the
words, the table and the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.features import cosines, equal_rows, unit_rows
from data.labelled_pairs import label_order, non_mated_pairs, non_mated_total
from evaluation.confidence.intervals import Count, clopper_pearson
from evaluation.metrics.thresholds import Caution
from search.gallery import Gallery
from search.nearest import Candidates, nearest
from utils.config import require

Kind = Literal["copy", "poor_quality", "duplicate", "nearer_to_another", "wrong_label"]
KINDS: tuple[Kind, ...] = ("copy", "poor_quality", "duplicate", "nearer_to_another", "wrong_label")
NEIGHBOURS = 16  # of each image that are remembered: so many of its person, and of others
DRAWN = 1_000_000  # non-mated pairs that show how their scores are distributed
MATED_TAILS = 0.3, 0.15  # lower ends of mated scores: beyond the first all wrong labels must lie,
# beyond the second those that are left
STRANGERS = 0.99  # share of strangers that a wrong label must be among
BLIND = 0.05  # share of strangers who may be as near as half of the mated images
ROWS = 1024  # images compared at once

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Scores = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How sure a finding must be.

    Attributes:
        false_discoveries: expected share of wrong findings among those of a kind, at most.
        fpir: that the score threshold is set for at which effects are counted; see `Effect`.
        fmr: that the score threshold is set for below which an image counts as missed, where poor
            quality is told.
        max_uncertainty: images beyond it are of poor quality; None: told from who is missed.
        seed: of the draws of pairs and strangers.
    """

    false_discoveries: float = 0.05
    fpir: float = 0.01
    fmr: float = 1e-4
    max_uncertainty: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("false_discoveries", "fpir", "fmr"):
            value = getattr(self, name)
            require(0 < value < 1, name, value, "between 0 and 1, such as 0.05")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to look at.

    Attributes:
        kind: what it is.
        rows: images that it is about: one; both of a person with two, of which one is wrong; all of
            the person with fewer images that is the same as another.
        other: row of the image that they resemble: the original of a copy, else the most similar of
            another person; -1 without one.
        own: row of the most similar image of the same person; -1 without one.
        own_score: cosine with it; NaN without one.
        other_score: cosine with `other`; of a duplicate, that of the two mean embeddings.
        uncertainty: of the image, the largest of several.
        chance: expected share of wrong findings among those of the kind that are at least as clear;
            NaN for copies and poor quality, where nothing is tested.
        misses: how many searches are no longer missed once the images are removed, or the two
            people joined; below 0 where more are.
        false_positives: how many no longer find a wrong person; see `Effect`.
    """

    kind: Kind
    rows: tuple[int, ...]
    own: int = -1
    other: int = -1
    own_score: float = np.nan
    other_score: float = np.nan
    uncertainty: float = np.nan
    chance: float = np.nan
    misses: int = 0
    false_positives: int = 0


class Effect(NamedTuple):
    """Errors of searches in the gallery at one score threshold (ISO/IEC 19795-1).

    Every image without a finding is searched among all others. It is missed where its own person is
    not the first candidate, at or above the threshold (FNIR; of those whose person has another
    image without a finding); with its own person left out, it finds a wrong one where any is at or
    above the threshold (FPIR; of all).
    """

    fnir: Count
    fpir: Count


@dataclass(frozen=True)
class AuditResult:
    """All findings of a gallery.

    Attributes:
        gallery: that was audited.
        options: how sure findings had to be.
        people: number of its people.
        findings: by kind in the order of `KINDS`, the clearest first.
        threshold: score threshold of the effects: the lowest with the FPIR that was asked for, once
            all findings are removed.
        max_uncertainty: from which on images are of poor quality; NaN without such a limit.
        effects: "nothing", each kind that was found, and "all" -> errors once those are removed.
        cautions: what cannot be told here, and why.
    """

    gallery: Gallery
    options: AuditOptions
    people: int
    findings: tuple[Finding, ...]
    threshold: float
    max_uncertainty: float
    effects: Mapping[str, Effect]
    cautions: tuple[Caution, ...]

    def of(self, kind: Kind) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)


def audit(gallery: Gallery, options: AuditOptions | None = None) -> AuditResult:
    """Look for the references that harm a gallery.

    docs/evaluate.md has the rule of each kind. Memory beyond the embeddings is about 500 bytes an
    image; time is that of one product of all embeddings with each other.

    Raises:
        ValueError: fewer than two people in the gallery.
    """
    return _Audit(gallery, options or AuditOptions()).run()


class Tail:
    """How large a share of scores lies beyond one that hardly any of a sample reach.

    Exponential from a quantile of the sample on, with the slope between it and one further out: the
    tail of Pickands (1975) with shape 0, which cosines, being bounded, do not exceed. Faults
    hardly move either quantile as long as they are fewer than what lies beyond.

    Args:
        scores: (n,) a sample.
        end: share beyond the outer quantile.
        span: how many times as many lie beyond the inner one.
    """

    def __init__(self, scores: Scores, end: float, span: float) -> None:
        self._share = min(span * end, 0.5)
        self._start, last = np.quantile(scores, [1 - self._share, 1 - end])
        self._slope = np.log(self._share / end) / max(float(last - self._start), 1e-9)

    @classmethod
    def non_mated(cls, scores: Scores, label: Rows) -> Tail:
        """Of scores of different labels (n,), any of whom may be a person with one more label.

        As large a share of pairs is then mated, at most, as of all pairs of images.
        """
        mated = float(((np.bincount(label) / len(label)) ** 2).sum())
        return cls(scores, min(max(1e-3, mated), 0.05), 10)

    def score(self, share: float) -> float:
        """The score that such a share of scores lies beyond."""
        return float(self._start + np.log(self._share / share) / self._slope)

    def beyond(self, scores: Scores) -> Floats:
        """Share of scores at or above each; 1 far below the tail."""
        share = self._share * np.exp(-self._slope * (scores.astype(np.float64) - self._start))
        return np.minimum(share, 1)

    def any_beyond(self, scores: Scores, count: int) -> Floats:
        """Chance that the highest of so many scores is at or above each."""
        return -np.expm1(-count * self.beyond(scores))


def missed_from(uncertainty: NDArray[np.floating], missed: Mask) -> float:
    """Find the uncertainty from which on images are more often missed than not, for their quality.

    Images under a wrong name are missed whatever their quality: as many as in the better half. The
    limit is where the isotonic regression of "missed" passes 1/2 of the others, if the share from
    there on is above that with a confidence of 95 %; else NaN.
    """
    if not missed.any():
        return np.nan
    from scipy.optimize import isotonic_regression  # takes a while to load

    order = np.argsort(uncertainty, kind="stable")
    better = float(missed[order[: len(order) // 2]].mean()) if len(order) > 1 else 0.0
    most = (1 + better) / 2
    rising = isotonic_regression(missed[order].astype(np.float64)).x
    place = int(np.searchsorted(rising, most, side="right"))
    if place == len(order):
        return np.nan
    limit = float(uncertainty[order[place]])
    group = missed[uncertainty >= limit]
    return limit if clopper_pearson(int(group.sum()), len(group), 0.9).low > most else np.nan


class Best(NamedTuple):
    """(M,) most similar image of each, and the cosine; -1 and -inf without one."""

    rows: Rows
    scores: Scores


class _Audit:
    """The work of `audit`.

    Attributes:
        valid: (M,) images without a finding so far.
        person: (M,) their people; those who turned out to be one have the same number.
    """

    def __init__(self, gallery: Gallery, options: AuditOptions) -> None:
        self.gallery, self.options, self.count = gallery, options, len(gallery.person)
        self.label = np.unique(gallery.person, return_inverse=True)[1].astype(np.int64)
        self.people = int(self.label.max(initial=-1)) + 1
        if self.people < 2:
            raise ValueError(f"{gallery.name}: {self.people} person; an audit needs two or more")
        self.image, self.unit = equal_rows(gallery.unit), gallery.unit
        self.person, self.valid = self.label.copy(), np.ones(self.count, np.bool_)
        own = self._nearest_own(np.arange(self.count))
        others = nearest(self.unit, self.unit, NEIGHBOURS, exclude=(self.label, self.label))
        self.near = Candidates(
            np.concatenate([own.scores, others.scores], axis=1),
            np.concatenate([own.rows, others.rows], axis=1),
        )
        self.findings: list[Finding] = []
        self.cautions: list[Caution] = []

    def run(self) -> AuditResult:
        """Find, kind by kind, and count the effects."""
        drawn = non_mated_pairs(self.label, DRAWN, self.options.seed)
        self.tail = Tail.non_mated(cosines(self.unit, drawn), self.label)
        self.match = self.tail.score(self.options.fmr)
        self._copies()
        limit = self._poor_quality()
        drawn = drawn[self.valid[drawn].all(axis=1)]
        if len(drawn):
            self.tail = Tail.non_mated(cosines(self.unit, drawn), self.label)
            self.match = self.tail.score(self.options.fmr)
        del drawn
        self._duplicates()
        self._nearer_to_another()
        self._wrong_labels()
        return self._result(limit)

    def _copies(self) -> None:
        """Images that are there twice; the original is the one that fits its person best.

        That of a person without another image goes before one that does not match its person.
        """
        own = self.best(same_person=True).scores
        fit = np.where(np.isfinite(own), own, self.match)
        order = np.lexsort((np.arange(self.count), -fit, self.image))
        sizes = np.bincount(self.image)
        original = order[np.repeat(np.cumsum(sizes) - sizes, sizes)]
        rows, originals = order[order != original], original[order != original]
        same = Best(originals, np.ones(len(rows), np.float32))
        self._add("copy", _singles(rows), others=same)

    def _poor_quality(self) -> float:
        """Images so uncertain that most of their like do not match their own person."""
        own = self.best(same_person=True).scores
        tested = self.valid & np.isfinite(own)
        limit = self.options.max_uncertainty
        uncertainty = self.gallery.uncertainty
        if limit is None:
            limit = missed_from(uncertainty[tested], own[tested] < self.match)
            if np.isnan(limit):
                missed = int((own[tested] < self.match).sum())
                self._say("audit_no_limit", missed=missed, tested=int(tested.sum()))
        poor = np.flatnonzero(self.valid & (uncertainty >= limit))
        self._add("poor_quality", _singles(poor[np.argsort(-uncertainty[poor], kind="stable")]))
        return float(limit)

    def _duplicates(self) -> None:
        """Two people whose mean embeddings are too alike, and most of whose images match."""
        rows = np.flatnonzero(self.valid)
        order, starts, sizes = label_order(self.label[rows])
        images = np.split(rows[order], starts[1:])
        ids = np.arange(len(images))
        if len(ids) < 2:
            return
        means = unit_rows(np.add.reduceat(self.unit[rows[order]], starts))
        drawn = non_mated_pairs(ids, DRAWN, self.options.seed)
        tail = Tail.non_mated(cosines(means, drawn), ids)
        similar = nearest(means, means, NEIGHBOURS, exclude=(ids, ids))
        total = non_mated_total(label_order(ids))
        person, place = np.nonzero(tail.beyond(similar.scores) * total <= len(ids))
        pairs = np.unique(np.sort([person, similar.rows[person, place]], axis=0).T, axis=0)
        pairs = pairs[[self._match(images[first], images[second]) for first, second in pairs]]
        scores = cosines(means, pairs)
        order = np.argsort(-scores, kind="stable")
        pairs, scores = pairs[order], scores[order]
        clear, chances = self._clearest(order, tail.beyond(scores) * total)
        groups, others = [], []
        for first, second in pairs[: len(clear)].tolist():
            fewer, more = sorted((images[first], images[second]), key=len)
            groups.append((*map(int, fewer),))
            others.append(more[(self.unit[fewer] @ self.unit[more].T).max(axis=0).argmax()])
        nearest_of = Best(np.array(others, np.int64), scores)
        self._add("duplicate", groups, chances, nearest_of)
        for group, other in zip(groups, others, strict=True):
            joined = self.person[[group[0], other]]
            self.person[self.person == joined.max()] = joined.min()

    def _match(self, first: Rows, second: Rows) -> bool:
        """Whether more than half of the images of either person match one of the other's."""
        matches = self.unit[first] @ self.unit[second].T >= self.match
        return bool(np.median(matches.any(axis=1)) == 1 and np.median(matches.any(axis=0)) == 1)

    def _nearer_to_another(self) -> None:
        """Images that match another person better than their own, and too well for chance.

        Of two that match each other, only the one that fits its own person less: without it the
        other may be nearest to its own.
        """
        while True:
            own, other = (self.best(same_person=same) for same in (True, False))
            tested = np.flatnonzero(self.valid & np.isfinite(own.scores))
            nearer = tested[other.scores[tested] > own.scores[tested]]
            nearer = nearer[np.argsort(-other.scores[nearer], kind="stable")]
            bounds = np.sort(own.scores[tested])
            chance = self.tail.any_beyond(bounds, self.count)
            from_each = np.append(np.cumsum(chance[::-1])[::-1], 0)
            below = np.searchsorted(bounds, other.scores[nearer])
            by_chance = self.tail.any_beyond(other.scores[nearer], self.count)
            nearer, chances = self._clearest(nearer, from_each[below] + below * by_chance)
            partner = other.rows[nearer]
            first = ~np.isin(partner, nearer) | (own.scores[nearer] <= own.scores[partner])
            if not first.any():
                return
            self._add("nearer_to_another", _singles(nearer[first]), chances[first])

    def _wrong_labels(self) -> None:
        """Images that are as far from all others of their person as a stranger's would be."""
        for tail in MATED_TAILS:
            rows = np.flatnonzero(self.valid)
            own = self.best(same_person=True).scores
            order, starts, sizes = label_order(self.person[rows])
            size = np.zeros(self.count, np.int64)
            size[rows[order]] = np.repeat(sizes, sizes)
            pairs = rows[order][starts[sizes == 2] + np.array([[0], [1]])].T.tolist()
            both = {first: second for first, second in pairs}
            tested = np.setdiff1d(np.flatnonzero(size > 1), list(both.values()))
            if not tested.size:
                break
            strangers = self._as_strangers(rows)
            as_near = float(np.mean(strangers >= np.median(own[tested])))
            if as_near > BLIND:
                self._say("audit_blind", share=as_near)
                break
            short = -self._beyond_expected(own, tested, size, both)
            expected = Tail(short, tail, 1.5).beyond(short) * len(tested)
            order = np.argsort(-short, kind="stable")
            order = order[own[tested[order]] <= np.quantile(strangers, STRANGERS)]
            far, chances = self._clearest(tested[order], expected[order])
            groups = [(row, both[row]) if row in both else (row,) for row in far.tolist()]
            self._add("wrong_label", groups, chances)
        if alone := int(np.count_nonzero(size == 1)):
            self._say("audit_alone", count=alone)

    def _beyond_expected(
        self, own: Scores, tested: Rows, size: Rows, both: Mapping[int, int]
    ) -> Scores:
        """Scores less what is usual for images so uncertain, of people with so many images."""
        mates = [both.get(row, row) for row in tested.tolist()]
        uncertainty = np.maximum(self.gallery.uncertainty[tested], self.gallery.uncertainty[mates])
        rank = np.argsort(np.argsort(uncertainty, kind="stable")) / len(tested)
        about = np.stack([np.ones(len(tested)), np.log(size[tested] - 1), rank], axis=1)
        usual = about @ np.linalg.lstsq(about, own[tested], rcond=None)[0]
        return (own[tested] - usual).astype(np.float32)

    def _as_strangers(self, rows: Rows) -> Scores:
        """Best scores, ascending, of other people's images in the places of these."""
        drawn = np.random.default_rng(self.options.seed).permutation(rows)
        scores = self._nearest_own(rows, drawn).scores.max(axis=1, initial=-np.inf)
        strangers = np.isfinite(scores) & (self.person[drawn] != self.person[rows])
        return np.sort(scores[strangers])

    def best(
        self,
        *,
        same_person: bool,
        at: Rows | None = None,
        gone: Mask | None = None,
        person: Rows | None = None,
    ) -> Best:
        """Find the nearest images of the same people, or of all others, that are no copies.

        Args:
            same_person: of the same.
            at: (n,) rows to find them for; None: all.
            gone: (M,) images that are left out; None: those with findings.
            person: (M,) people; None: as they are joined by now.
        """
        at = np.arange(self.count) if at is None else at
        gone = ~self.valid if gone is None else gone
        person = self.person if person is None else person
        sides = slice(None) if same_person else slice(NEIGHBOURS, None)
        rows, scores = self.near.rows[at, sides], self.near.scores[at, sides]

        def fits(probe: Rows, row: Rows) -> Mask:
            same = (person[probe] == person[row]) == same_person
            return same & ~gone[row] & (self.image[probe] != self.image[row])

        allowed = np.where((rows >= 0) & fits(at[:, None], rows), scores, -np.inf)
        column = allowed.argmax(axis=1)[:, None]
        top = np.take_along_axis(allowed, column, 1)[:, 0]
        best = np.take_along_axis(rows, column, 1)[:, 0]
        last = scores[:, NEIGHBOURS - 1 if same_person else -1]
        if same_person:
            joined = np.isin(person[at], person[person != self.label])
            last = np.where(joined, np.maximum(last, scores[:, -1]), last)
        every = np.arange(self.count)
        for place in np.flatnonzero(last > top):  # others than those remembered may be nearer
            row = np.full(self.count, at[place])
            allowed = np.where(
                fits(row, every), cosines(self.unit, np.stack([row, every], 1)), -np.inf
            )
            best[place], top[place] = allowed.argmax(), allowed.max()
        return Best(np.where(np.isfinite(top), best, -1), top)

    def _nearest_own(self, rows: Rows, probes: Rows | None = None) -> Candidates:
        """Nearest of its person to each row, or to the probe that is put in its place."""
        probes = rows if probes is None else probes
        found = Candidates(
            np.full((len(rows), NEIGHBOURS), -np.inf, np.float32),
            np.full((len(rows), NEIGHBOURS), -1, np.int64),
        )
        order, starts, sizes = label_order(self.person[rows])
        group = np.cumsum(sizes) // ROWS  # people whose images are compared in one product
        for first in np.flatnonzero(np.diff(group, prepend=-1)):
            last = np.searchsorted(group, group[first], side="right") - 1
            places = order[starts[first] : starts[last] + sizes[last]]
            for start in range(0, len(places), ROWS):
                part = places[start : start + ROWS]
                scores = self.unit[probes[part]] @ self.unit[rows[places]].T
                strange = self.person[rows[part]][:, None] != self.person[rows[places]]
                strange |= self.image[rows[part]][:, None] == self.image[rows[places]]
                scores[strange] = -np.inf
                count = min(NEIGHBOURS, len(places))
                columns = np.argsort(-scores, axis=1, kind="stable")[:, :count]
                at, column = np.nonzero(np.isfinite(np.take_along_axis(scores, columns, 1)))
                best = rows[places][columns[at, column]]
                pairs = np.stack([probes[part][at], best], axis=1)
                found.rows[part[at], column] = best
                found.scores[part[at], column] = cosines(self.unit, pairs)
        return found

    def _clearest(self, candidates: Rows, expected: Floats) -> tuple[Rows, Floats]:
        """As many of the candidates, the clearest first, as keep the share of false discoveries.

        Args:
            candidates: (n,) rows.
            expected: (n,) how many would be as clear as each by chance.

        Returns:
            candidates, and the share of false ones among those up to each (Storey 2002, q-values).
        """
        shares = np.minimum(expected / np.arange(1, len(candidates) + 1), 1)
        shares = np.minimum.accumulate(shares[::-1])[::-1]
        number = int(np.searchsorted(shares, self.options.false_discoveries, side="right"))
        return candidates[:number], shares[:number]

    def _add(
        self,
        kind: Kind,
        groups: Sequence[tuple[int, ...]],
        chances: Floats | None = None,
        others: Best | None = None,
    ) -> None:
        """Add findings, and take their images out of what follows; duplicates stay."""
        own, other = self.best(same_person=True), self.best(same_person=False)
        for place, rows in enumerate(groups):
            at = list(rows)
            nearest_own = at[int(own.scores[at].argmax())]
            alike = other.rows[at[0]], other.scores[at[0]]
            if others is not None:
                alike = others.rows[place], others.scores[place]
            finding = Finding(
                kind=kind,
                rows=rows,
                own=int(own.rows[nearest_own]),
                other=int(alike[0]),
                own_score=_number(own.scores[nearest_own]),
                other_score=_number(alike[1]),
                uncertainty=float(self.gallery.uncertainty[at].max()),
                chance=np.nan if chances is None else float(chances[place]),
            )
            self.findings.append(finding)
            if kind != "duplicate":
                self.valid[at] = False

    def _say(self, kind: str, **facts: float) -> None:
        self.cautions.append(Caution(kind, facts))

    def _result(self, limit: float) -> AuditResult:
        """Count errors with and without each kind, and what each finding alone changes."""
        probes, none = np.flatnonzero(self.valid), np.zeros(self.count, np.bool_)
        clean = self.best(same_person=False, at=probes).scores
        allowed = int(self.options.fpir * len(probes))
        threshold = float(np.nextafter(np.sort(clean)[::-1][allowed], np.float32(2)))
        mated = np.isfinite(self.best(same_person=True, at=probes).scores)
        searched = _Searches(self, probes, mated, threshold)
        effects = {"nothing": searched.effect(none, self.label)}
        for kind in KINDS:
            rows = [row for each in self.findings if each.kind == kind for row in each.rows]
            gone = none.copy()
            gone[rows] = kind != "duplicate"
            if rows:
                person = self.person if kind == "duplicate" else self.label
                effects[kind] = searched.effect(gone, person)
        effects["all"] = searched.effect(~self.valid, self.person)
        return AuditResult(
            self.gallery,
            self.options,
            self.people,
            tuple(map(searched.with_effect, self.findings)),
            threshold,
            limit,
            effects,
            tuple(self.cautions),
        )


class _Searches:
    """Errors of the images without findings, searched in the gallery."""

    def __init__(self, work: _Audit, probes: Rows, mated: Mask, threshold: float) -> None:
        self.work, self.probes, self.mated, self.threshold = work, probes, mated, threshold
        self.none = np.zeros(work.count, np.bool_)
        self.own, self.other = (
            work.best(same_person=same, at=probes, gone=self.none, person=work.label)
            for same in (True, False)
        )
        self.missed, self.wrong = self._errors(self.own.scores, self.other.scores, mated)
        met = np.concatenate([self.own.rows, self.other.rows])
        self._order = np.argsort(met, kind="stable")
        self._met = met[self._order]

    def _errors(self, own: Scores, other: Scores, mated: Mask) -> tuple[Mask, Mask]:
        missed = mated & ((own < self.threshold) | (own <= other))
        return missed, other >= self.threshold

    def effect(self, gone: Mask, person: Rows) -> Effect:
        """Errors once images are gone and people joined."""
        own, other = (
            self.work.best(same_person=same, at=self.probes, gone=gone, person=person).scores
            for same in (True, False)
        )
        missed, wrong = self._errors(own, other, self.mated)
        fnir = Count(int(missed.sum()), int(self.mated.sum()))
        return Effect(fnir, Count(int(wrong.sum()), len(self.probes)))

    def with_effect(self, finding: Finding) -> Finding:
        """Add what this finding alone changes: only searches that met its images can."""
        rows, person, gone = list(finding.rows), self.work.label, self.none
        if finding.kind == "duplicate":
            joined = person[[rows[0], finding.other]]
            person = np.where(person == joined[0], joined[1], person)
            changed = np.flatnonzero(np.isin(self.work.label[self.probes], joined))
        else:
            first, last = (np.searchsorted(self._met, rows, side) for side in ("left", "right"))
            places = [self._order[part] for part in map(slice, first, last)]
            changed = np.unique(np.concatenate(places) % len(self.probes))
            gone[rows] = True
        at, mated = self.probes[changed], self.mated[changed]
        own, other = (
            self.work.best(same_person=same, at=at, gone=gone, person=person).scores
            for same in (True, False)
        )
        gone[rows] = False
        missed, wrong = self._errors(own, other, mated)
        return replace(
            finding,
            misses=int(self.missed[changed].sum() - missed.sum()),
            false_positives=int(self.wrong[changed].sum() - wrong.sum()),
        )


def _singles(rows: Rows) -> list[tuple[int, ...]]:
    return [(row,) for row in rows.tolist()]


def _number(score: float) -> float:
    return float(score) if np.isfinite(score) else np.nan
