"""Sentences that evaluation leads to: protocols, cautions, verdicts and certified risks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from evaluation.confidence.decision import RISK_NAMES
from evaluation.metrics.thresholds import FEWEST_ERRORS, Caution

if TYPE_CHECKING:
    from evaluation.comparison import Verdict
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.confidence.intervals import Interval
    from evaluation.confidence.risk_control import RiskControl
    from evaluation.metrics.protocols import Protocol

UNITS = {"identity": "identities", "image": "images", "pair": "pairs"}
FEWEST_UNITS = 20
KINDS = {"fnmr": "mated ", "fmr": "non-mated ", "total": ""}
INDEPENDENCE = {
    "identity": "no two share a person",
    "image": "no two share a person, as far as mated pairs link images",
    "pair": "all, taken as independent",
}

SWITCHES = {
    "fuse": {
        "max": "the larger of its two images'",
        "mean": "the mean of its two images'",
        "sum": "the sum of its two images'",
        "product": "the product of its two images'",
    },
    "discard_over": {
        "all": "pairs of both kinds are discarded together",
        "mated": "only mated pairs are discarded",
        "each_kind": "mated and non-mated pairs are discarded in equal proportion",
        "images": "images are discarded (an image's uncertainty is the largest of its rows'), and "
        "every pair with them",
    },
    "ties": {
        "keep": "those up to the interpolated percentile are kept, ties with them",
        "together": "ties leave together, once the discard fraction has room for all of them",
    },
    "threshold": {
        "fixed": "one score threshold for the curve, found on all pairs",
        "per_subset": "score threshold found again on the kept pairs at each discard fraction",
    },
    "rule": {
        "nearest": "the threshold is the one whose FMR is nearest to the target (it may exceed it)",
        "conservative": "the threshold is the lowest one with FMR <= target",
        "interpolated": "the threshold lies on the line between the two scores whose FMR enclose "
        "the target",
        "starting_error": "the threshold is the one whose FNMR without discard is nearest to "
        "{start_fnmr:g} (the FMR target is not used)",
    },
    "read_at": {
        "kept_score": "FNMR is read at the kept score nearest to it",
        "threshold": "FNMR counts the kept mated scores below it",
        "above_threshold": "FNMR counts the kept mated scores at or below it",
    },
    "grid": {
        "percent": "discard fractions 0 to 0.99 by 0.01",
        "by_5": "discard fractions 0 to 0.95 by 0.05",
        "exact": "discard fractions with one step per distinct uncertainty",
    },
    "area": {"trapezoid": "areas by trapezoids", "step": "areas under steps"},
    "area_ends": {
        "at_limit": "up to {limits}",
        "before_limit": "up to the last fraction below {limits}",
    },
    "subtract": {
        "nothing": "",
        "half_square": ", less e min(e, limit) / 2 with e = FNMR without discard",
        "optimum": ", less the area of the ideal order",
    },
    "divide": {
        "nothing": "",
        "start": ", divided by FNMR without discard",
        "random": ", divided by the area of random discard",
    },
}

CAUTIONS = {
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
    "table_without_mated": "no mated pair is kept from discard fraction {fraction:.2f} on: FNMR "
    "stays at its last value, {fnmr:.6f}, and EER is 1{label}",
    "table_without_non_mated": "no non-mated pair is kept from discard fraction {fraction:.2f} on: "
    "EER is 1{zero_fnmr}{label}",
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
    is_zero = facts.get("threshold") == "per_subset"
    return CAUTIONS[caution.kind].format(
        **facts,
        fewest=FEWEST_ERRORS,
        fewest_units=FEWEST_UNITS,
        units=UNITS.get(str(facts.get("unit")), ""),
        bests=UNITS.get(str(facts.get("best")), ""),
        zero_fnmr=" and FNMR is 0" if is_zero else "",
        consequence="FNMR is 0" if is_zero else "the threshold stays",
    )


def caution_sentences(cautions: Iterable[Caution]) -> tuple[str, ...]:
    """One line each."""
    return tuple(map(caution_sentence, cautions))


def area_name(limit: float) -> str:
    """AUERC30 for the area up to a discard fraction of .3, AUERC for the whole."""
    return "AUERC" if limit == 1 else f"AUERC{limit * 100:.3g}"


def verdict_sentence(verdict: Verdict | None) -> str:
    """Say which of two methods is better, or that the interval of their difference holds 0."""
    if verdict is None:
        return ""
    first, second, interval = verdict.first, verdict.second, verdict.interval
    difference = verdict.difference
    area = f"{'mean ' if verdict.pairs else ''}{area_name(verdict.limit)}"
    ahead = ""
    if verdict.pairs:
        leader = first if difference < 0 else second
        ahead = f"; {leader} is ahead in {verdict.ahead} of {verdict.pairs} pairs"
    if interval.low > 0:
        first, second, difference = second, first, -difference
        interval = interval._replace(low=-interval.high, high=-interval.low)
    numbers = signed(difference, interval)
    if interval.high < 0:
        return f"{first} is better than {second} at {area}: {numbers}{ahead}"
    return (
        f"{first} and {second} cannot be told apart on this set: {area} differs by {numbers}{ahead}"
    )


def signed(value: float, interval: Interval) -> str:
    """Write `-.012 [-.020, -.005]` with as many digits as the width of the interval deserves."""
    width = interval.high - interval.low
    is_wide = np.isfinite(width) and width > 0
    digits = max(3, 1 - int(np.floor(np.log10(width)))) if is_wide else 3
    ends = [end for end in interval if 1e-8 < abs(end) < np.inf]
    while any(round(end, digits) == 0 for end in ends):  # a sign without a digit says nothing
        digits += 1
    texts = [f"{number:+.{digits}f}" for number in (value, *interval)]
    texts = [text[0] + text[2:] if text[1:3] == "0." else text for text in texts]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def drawn_sentence(draws: Bootstrap) -> str:
    """What was drawn in each replicate, such as "1457 identities"."""
    return f"{draws.units} {UNITS[draws.unit]}"


def protocol_sentence(protocol: Protocol, scores: str = "") -> str:
    """Say in words what is measured: every switch, and before them what the scores are."""
    limits = ", ".join(f"{limit:g}" for limit in protocol.limits)
    word = {
        name: words[getattr(protocol, name)].format(limits=limits, start_fnmr=protocol.start_fnmr)
        for name, words in SWITCHES.items()
    }
    recomputed = protocol.threshold == "per_subset" and protocol.read_at == "kept_score"
    pair = f"a pair's uncertainty is {word['fuse']}; "
    clauses = [
        ("" if protocol.discard_over == "images" else pair) + word["discard_over"],
        word["ties"],
        word["threshold"] + ("" if recomputed else f" ({word['read_at']})"),
        word["rule"],
        f"{word['area']} over {word['grid']}, {word['area_ends']}{word['subtract']}"
        f"{word['divide']}",
    ]
    return f"protocol {protocol.name}: {'; '.join([scores, *clauses] if scores else clauses)}"


def risk_sentences(control: RiskControl) -> str:
    """The certified cut-off in plain words, one fact per line."""
    return "\n".join([_risk_answer(control), *_risk_facts(control)])


def _risk_answer(control: RiskControl) -> str:
    risk, kind = RISK_NAMES[control.risk], KINDS[control.risk]
    goal = (
        f"{control.name}: {risk} of at most {control.target_risk:g} among accepted comparisons, "
        f"confidence {control.confidence:g}"
    )
    drawn, seen = INDEPENDENCE[control.unit], control.calibration
    if control.uncertainty_threshold is not None:
        return (
            f"{goal}: accept uncertainty <= {np.float32(control.uncertainty_threshold)!s} "
            f"({seen} of the accepted {kind}calibration comparisons are errors, {drawn})"
        )
    way_out = "; give more people"
    if control.reachable is not None:
        way_out += f", or a target risk of {control.reachable:g}, which these can certify"
    if control.calibration_total < control.needed:
        return (
            f"{goal}: cannot be reached: there are {control.calibration_total} {kind}calibration "
            f"comparisons ({drawn}); at least {control.needed} without error are needed{way_out}"
        )
    return (
        f"{goal}: cannot be reached: even the most certain {seen.total} {kind}calibration "
        f"comparisons ({drawn}) have {risk} {seen}, where {control.most_errors} of {seen.total} "
        f"would do (at least {control.needed} without error are needed){way_out}"
    )


def _risk_facts(control: RiskControl) -> list[str]:
    kind, percent = KINDS[control.risk], f"{100 * control.confidence:g} %"
    where = "as given"
    if control.threshold_count is not None and control.fmr_target is not None:
        where = f"for FMR {control.fmr_target:g}: {control.threshold_count} where it was found"
        if control.fmr_target * control.threshold_count.total < FEWEST_ERRORS:
            where += ", too few for this target: give a score threshold instead"
    lines = [f"score threshold {control.score_threshold:.6g}, {where}"]
    if control.held_out_fmr is not None:
        lines[0] += f"; FMR of all held-out comparisons {control.held_out_fmr}"
    if control.uncertainty_threshold is not None:
        low, high = control.held_out_interval
        pooled = f"; all its comparisons, which share people: {control.held_out_pooled}"
        lines.append(
            f"held-out part: {control.held_out} [{low:.4g}, {high:.4g}] ({percent} interval)"
            f"{'' if control.unit == 'pair' else pooled}; accepted {control.accepted:.1%} of {kind}"
            f"comparisons, {control.accepted_images:.1%} of images"
        )
    low, high = control.accept_all_interval
    lines.append(
        f"held-out part, accepting everything: {control.accept_all} [{low:.4g}, {high:.4g}]"
    )
    return [*lines, f"{control.left_out} comparisons between the parts were left out"]
