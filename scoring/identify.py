"""Who a photo shows, of the people of a gallery: somebody, nobody, or that cannot be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from scoring.scorer import Scorer
from search.nearest import nearest
from search.run import SearchRule
from search.searches import NOT_ENROLLED, Searches
from utils.files import naming

CANDIDATES = 20  # that P(error) looks at, as in evaluation/identification.py
Who = Literal["identified", "nobody", "cannot tell"]


@dataclass(frozen=True)
class SearchAnswer:
    """What a search says.

    Attributes:
        verdict: "identified", "nobody" of the gallery, or "cannot tell" by the rule.
        who: the person where the verdict is "identified"; else None.
        candidates: the best people with their scores, best first, whatever the verdict.
        uncertainty: of the probe.
        p_error: probability that the best answer is wrong; NaN where the rule has no distribution.
            It takes strangers to be as frequent as in the evaluation.
    """

    verdict: Who
    who: str | None
    candidates: tuple[tuple[str, float], ...]
    uncertainty: float
    p_error: float


class Gallery:
    """Enrolled people; make one with `enroll`."""

    def __init__(self, scorer: Scorer, people: Mapping[str, object], rule: SearchRule) -> None:
        own = scorer.model.weights_sha256
        if rule.weights_sha256 and own != dict(rule.weights_sha256):
            raise ValueError(f"the rule is not of {scorer.model.name}: it has other weights")
        if not people:
            raise ValueError("nobody to enroll: give a folder per person, or names with images")
        self.scorer, self.rule, self.people = scorer, rule, tuple(people)
        templates = []
        for name, images in people.items():
            with naming(name):
                templates.append(scorer.fuse(images))
        self._mu = np.stack([template.embedding for template in templates])
        self._uncertainty = np.array([each.uncertainty for each in templates], np.float32)

    def decide(
        self, probe: object, aligned: bool | None = None, *, bgr: bool = False
    ) -> SearchAnswer:
        """Say who a probe shows, as the rule has it.

        The best candidate is named where its score reaches the threshold, else nobody; where what
        the rule goes by lies above its cut-off, that cannot be told.

        Args:
            probe: one image as a scorer takes it (its largest face), a `FaceScore` or a `Template`.
            aligned: as in a call of the scorer.
            bgr: the same.

        Raises:
            ValueError: a probe without a face, or several images.
        """
        face = self.scorer.side(probe, "probe", aligned, bgr)
        assert face.embedding is not None  # or nobody would have been enrolled
        candidates = nearest(face.embedding[None], self._mu, min(CANDIDATES, len(self.people)))
        uncertainty = np.array([face.uncertainty], np.float32)
        searches = Searches(
            "probe",
            candidates,
            np.array([NOT_ENROLLED]),
            np.array([0]),
            uncertainty,
            self._uncertainty,
            self.people,
            ("probe",),
        )
        rule, named = self.rule, [self.people[row] for row in candidates.rows[0].tolist()]
        cut, score = rule.accept_up_to, float(candidates.scores[0, 0])
        verdict: Who = "identified" if score >= rule.score_threshold else "nobody"
        if cut is None or not rule.values(searches)[0] <= np.float32(cut):
            verdict = "cannot tell"
        p_error = float("nan")
        if rule.doubt is not None:
            p_error = float(rule.doubt.p_error(searches, rule.score_threshold)[0])
        return SearchAnswer(
            verdict,
            named[0] if verdict == "identified" else None,
            tuple(zip(named, candidates.scores[0].tolist(), strict=True)),
            float(face.uncertainty),
            p_error,
        )


def enroll(
    scorer: Scorer, people: Mapping[str, object] | str | Path, rule: SearchRule | str | Path
) -> Gallery:
    """Enroll people, each with the images that `Scorer.fuse` makes one template of.

    Args:
        scorer: of a model with embeddings.
        people: names with their images, or a folder with one folder per person.
        rule: `rule.json` of evaluation/identification.py, or what it holds.

    Raises:
        ValueError: nobody, a person without a face, or a rule of another model; names the person.
    """
    if isinstance(people, str | Path):
        folders = sorted(path for path in Path(people).iterdir() if path.is_dir())
        people = {path.name: str(path) for path in folders}
    return Gallery(scorer, people, rule if isinstance(rule, SearchRule) else SearchRule.load(rule))
