"""Sentences for what makes a number too uncertain to trust, or incomplete."""

from __future__ import annotations

from collections.abc import Iterable

from evaluation.metrics.thresholds import FEWEST_ERRORS, Caution

UNITS = {"identity": "identities", "image": "images", "pair": "pairs"}
FEWEST_UNITS = 20

SENTENCES = {
    "few_false_matches": "at FMR {fmr:g}, {non_mated} non-mated pairs leave {expected:.2g} "
    "expected false matches (fewer than {fewest}): the threshold, and FNMR with it, is too "
    "uncertain to trust",
    "few_starting_errors": "at FNMR {fnmr:g}, {mated} mated pairs leave {expected:.2g} expected "
    "false non-matches (fewer than {fewest}): the threshold, and FNMR with it, is too uncertain to "
    "trust",
    "uncertain_point": "FMR {fmr:g} of {non_mated} non-mated comparisons is {expected:.2g} false "
    "matches: this operating point is too uncertain to trust",
    "no_mated_kept": "no mated pair is kept from discard fraction {fraction:.2f} on: FNMR stays at "
    "its last value",
    "no_non_mated_kept": "no non-mated pair is kept from discard fraction {fraction:.2f} on: "
    "{consequence}",
    "no_errors": "no false non-match without discard: there is nothing to lower",
    "coarse_unit": "drawn by {unit}, but this set knows its {bests}: comparisons that share one "
    "are taken for independent, so the intervals may be too narrow",
    "few_units": "only {units_drawn} {units} to draw from: fewer than {fewest_units} make the "
    "intervals unreliable",
    "few_errors": "{errors} false non-matches without discard: fewer than {fewest}, so the "
    "intervals say little",
    "few_sources": "all {errors} false non-matches come from {sources} of {units_drawn} {units}: "
    "the intervals depend on those few",
    "draws_without_errors": "{draws} of {total} draws have no false non-match: the area relative "
    "to random is undefined there, and its interval is that of the other draws",
    "draws_lost": "{draws} of {total} draws lack mated or non-mated comparisons and are left out",
    "beyond_list": "in {draws} of {total} draws the score threshold lies below the listed "
    "non-mated scores; {listed_from:.4f} was taken for it, which makes the upper ends too high: "
    "list more of them, or take a sample (--non_mated COUNT)",
    "approximate_total": "the weight of the unlisted non-mated comparisons is taken in proportion "
    "to that of all possible ones, as for a sample",
}


def caution_sentence(caution: Caution) -> str:
    """One line for people."""
    facts = caution.facts
    return SENTENCES[caution.kind].format(
        **facts,
        fewest=FEWEST_ERRORS,
        fewest_units=FEWEST_UNITS,
        units=UNITS.get(str(facts.get("unit")), ""),
        bests=UNITS.get(str(facts.get("best")), ""),
        consequence=(
            "FNMR is 0" if facts.get("threshold") == "per_subset" else "the threshold stays"
        ),
    )


def caution_sentences(cautions: Iterable[Caution]) -> tuple[str, ...]:
    """One line each."""
    return tuple(map(caution_sentence, cautions))
