"""Words of results: numbers as pages write them, and sentences that evaluation leads to.

Protocols, cautions, verdicts, certified risks, the summary of a page. Formats, never computes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluation.confidence.calibration import RISK_KINDS, RISK_NAMES
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.metrics.thresholds import FEWEST_ERRORS, Caution
from utils.files import visible

if TYPE_CHECKING:
    from evaluation.comparison import Verdict
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.confidence.differentials import Differential, GroupResult, Kind
    from evaluation.confidence.intervals import Interval
    from evaluation.confidence.risk_control import RiskControl
    from evaluation.metrics.comparisons import Cap
    from evaluation.metrics.protocols import Protocol
    from report.facts import Preset, Rate, ReportFacts

_ENDING = 12  # characters from the end of a file name, where the number often is
PERCENT = "\u00a0%"  # stays with its number at the end of a line

ACCEPTED = (
    "accepted means that such faces are missed as rarely as stated, in pairs like those of the "
    "calibration set; two accepted photos of one person may still not match (taken twenty years "
    "apart, say), and an accepted face can be an impostor's"
)

RED = (
    "Red: where the uncertainty would be lower if a plain mean face were there, and the redder the "
    "more; one scale for all faces"
)

UNITS = {"identity": "identities", "image": "images", "pair": "pairs"}
FEWEST_UNITS = 20
RATES: dict[Kind, str] = {"fnmr": "FNMR", "fmr": "FMR", "refused": "refused"}  # of groups
GROUP_RATES = {
    "fnmr": "FNMR",
    "fmr": "FMR within the group",
    "refused": "refused, where the most uncertain tenth of all is",
}
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
    "one_person": "one person of {people} ({person}) has {share:.0%} of the {kind} pairs: {rate} "
    "depends on that person",
    "few_people": "only {people} people, one of whom ({person}) has {share:.0%} of the {kind} "
    "pairs: the rates say little about other people",
    "self_comparisons": "{file}: {count} comparisons of an image with itself were left out (the "
    "first is in {where})",
    "repeated_pairs": "{file}: {count} comparisons repeat a pair of images; each pair counts once "
    "(the first is in {where})",
    "copies": "{copies} of {total} images are copies of another image, {elsewhere} of them under "
    "another identity: pairs of copies compare an image with itself, and count as they stand",
    "odd_pairs": "of {total} pairs {self} compare an image with itself, {repeated} repeat a pair "
    "and {contradictory} are of the other kind than a pair of the same images: all count as they "
    "stand",
    "probe_copies": "{copies} of {total} probes are a photo that is enrolled ({elsewhere} of them "
    "under another name), or as good as that (the first is {first}): they count as they stand",
    "not_probed": "{people} of {total} people of the gallery have no probe",
    "few_false_positives": "at FPIR {fpir:g}, {strangers} probes of strangers leave {expected:.2g} "
    "expected false positives (fewer than {fewest}): the threshold, and FNIR with it, is too "
    "uncertain to trust",
    "no_strangers": "all {total} probes are of enrolled people: FPIR, and FNIR at it, are "
    "undefined",
    "no_enrolled": "none of the {total} probes is of an enrolled person: FNIR is undefined",
    "without_embedding": "{file}: {count} of {total} images have no embedding and are left out",
    "failures": "{file}: {sentence}",
    "said": "{sentence}",
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
    "no_errors": "no false non-match without discard: there is nothing to lower; FNMR may still be "
    "up to {upper:.2g} (95 %, if all mated pairs are independent)",
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
    "few_draws": "{draws} bootstrap draws are too few for {verdicts} verdicts under Holm's rule: "
    "give {needed} or more (--replicates)",
    "draws_lost": "{draws} of {total} draws lack mated or non-mated comparisons and are left out",
    "beyond_list": "in {draws} of {total} draws the score threshold lies below the listed "
    "non-mated scores; {listed_from:.4f} was taken for it, which makes the upper ends too high: "
    "list more of them, or take a sample (--non_mated COUNT)",
    "groups_absent": "{file}: {count} of its {total} {kind} are not in this set",
    "groups_missing": "{file}: {count} of {total} images of this set are not in it, so that their "
    "group is unknown",
    "groups_unknown": "{file}: {count} of {total} images have no value of {column}, so that their "
    "group is unknown",
    "audit_no_limit": "no limit of poor quality: {missed} of {tested} images do not match their "
    "own person, and beyond no uncertainty is it shown to be more than half (--max_uncertainty "
    "sets a limit)",
    "audit_alone": "{count} images are the only usable ones of their person: whether their label "
    "is right cannot be told",
    "audit_blind": "wrong labels cannot be told: {share:.0%} of strangers are as near as half of "
    "the images are to their own person, so this recogniser does not tell these people apart",
    "approximate_total": "the weight of the unlisted non-mated comparisons is taken in proportion "
    "to that of all possible ones, as for a sample",
}


def share(value: float | None, digits: int = 3) -> str:
    """A rate as a percentage with so many significant digits; a dash for None."""
    if value is None:
        return "\u2013"
    if value in (0, 1):
        return f"{100 * value:.0f}{PERCENT}"
    exponent = int(f"{100 * value:.{digits - 1}e}".partition("e")[2])  # rounded: 9.996 is 10.0
    return f"{100 * value:.{min(max(0, digits - 1 - exponent), 6)}f}{PERCENT}"


def whole(value: float) -> str:
    """A round share as a percentage without needless digits, as in 0.1 % or 10 %."""
    return f"{100 * value:.6g}{PERCENT}"


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits; a dash for None."""
    return "\u2013" if value is None else f"{value:.{digits}g}".replace("-", "\u2212", 1)


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def plural(value: int, noun: str) -> str:
    """A count with its noun, as in 1 face or 2 faces."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def of(rate: Rate) -> str:
    """Errors / total, as in 64/3500."""
    return f"{count(rate.errors)}/{count(rate.total)}"


def counted(rate: Rate) -> str:
    """Counts and rate, as in 64/3500 = 1.83 %."""
    return f"{of(rate)}\u00a0=\u00a0{share(rate.rate)}"


def fmr(target: float | None) -> str:
    """An FMR target, as in 0.001 or 1e-06; a dash where no non-mated score is known."""
    return "\u2013" if target is None else f"{target:.3g}"


def target(preset: Preset) -> str:
    """What fixed the threshold of a preset, as in FMR 0.001."""
    protocol = PROTOCOLS.get(preset.protocol)
    if protocol is not None and protocol.rule == "starting_error":
        return f"FNMR {fmr(protocol.start_fnmr)}"
    return f"FMR {fmr(preset.fmr_target)}"


def shortened(name: str, longest: int = 24) -> str:
    """A name that fits on a card: outer folders go first, then the middle of the file's name."""
    if len(name) <= longest:
        return name
    fits = re.search(rf"(?<=[/\\]).{{1,{longest - 1}}}$", name)
    if fits:
        return f"\u2026{fits[0]}"
    base = re.split(r"[/\\]", name)[-1]
    return f"{base[: longest - _ENDING - 1]}\u2026{base[-_ENDING:]}"


def slug(word: str) -> str:
    """A verdict or a reason as a CSS class."""
    return "is-" + "".join(char if char.isalnum() else "-" for char in word.lower())


def tested(facts: ReportFacts) -> str:
    """What was tested, in one or two sentences."""
    size = facts.set
    images = f"{count(size.images)} images"
    who = images if size.identities is None else f"{images} of {count(size.identities)} people"
    return (
        f"{facts.method} was tested on {facts.name}: {who}, "
        f"{count(size.comparisons)} comparisons, {count(size.mated)} of them mated (one "
        f"person) and {count(size.non_mated)} non-mated (two)."
    )


def outcome(facts: ReportFacts) -> str:
    """What refusing the most uncertain comparisons buys, in words."""
    head = facts.headline
    text = (
        f"At the score threshold {number(head.score_threshold)}, {counted(head.fnmr_before)} of "
        f"the mated comparisons are missed, and {counted(head.fmr_before)} of the non-mated ones "
        f"pass (FMR target {fmr(head.fmr_target)})."
    )
    if head.fnmr_after is not None:
        left = counted(head.fnmr_after)
        text += f" Refusing the most uncertain {whole(head.refused)} leaves {left}."
    return text


def area(facts: ReportFacts) -> str:
    """The area relative to random, with what is known about its interval."""
    head = facts.headline
    name, interval = area_name(head.area_limit), head.interval
    if head.relative_area is None:
        return f"{name} relative to random is undefined: there is no false non-match to avoid."
    text = (
        f"{name} (the area under the curve) is {number(head.relative_area, 3)} of that of "
        "refusing at random"
    )
    if interval is None:
        return text + " (1 is no better than chance; lower is better). No interval was computed."
    return (
        f"{text}, {whole(interval.confidence)} interval {number(interval.low, 3)} to "
        f"{number(interval.high, 3)} by bootstrap over {UNITS[interval.unit]} (1 is no better "
        "than chance; lower is better)."
    )


def risk_lines(facts: ReportFacts) -> list[str]:
    """The threshold for a stated risk and its facts, without the set's name; [] without one."""
    risk = facts.risk_control
    if risk is None:
        return []
    return str(risk["in_words"]).removeprefix(f"{risk['name']}: ").splitlines()


def caution_sentence(caution: Caution) -> str:
    """One line for people."""
    facts = {
        key: visible(fact) if isinstance(fact, str) else fact for key, fact in caution.facts.items()
    }
    is_zero = facts.get("threshold") == "per_subset"
    return CAUTIONS[caution.kind].format(
        **facts,
        fewest=FEWEST_ERRORS,
        fewest_units=FEWEST_UNITS,
        rate="FNMR" if facts.get("kind") == "mated" else "FMR, and the threshold with it,",
        units=UNITS.get(str(facts.get("unit")), ""),
        bests=UNITS.get(str(facts.get("best")), ""),
        zero_fnmr=" and FNMR is 0" if is_zero else "",
        consequence="FNMR is 0" if is_zero else "the threshold stays",
    )


def caution_sentences(cautions: Iterable[Caution]) -> tuple[str, ...]:
    """One line each."""
    return tuple(map(caution_sentence, cautions))


def cap_sentence(cap: Cap | None) -> str:
    """What a cap left out; "" where there is none, or it left out nothing."""
    if cap is None or not cap.left_out:
        return ""
    return (
        f"at most {cap.limit} mated pairs of one person: {cap.left_out} of {cap.total} are left "
        "out (--cap 0 takes all)"
    )


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
    if verdict.family > 1:
        numbers += f" (p {verdict.p_value:.2g}, by Holm {verdict.adjusted:.2g})"
    if interval.high < 0 and verdict.is_clear:
        return f"{first} is better than {second} at {area}: {numbers}{ahead}"
    return (
        f"{first} and {second} cannot be told apart on this set: {area} differs by {numbers}{ahead}"
    )


def verdict_rule(verdicts: Sequence[Verdict]) -> str:
    """How several verdicts of one table came about; "" where a single one needs no correction."""
    if not verdicts or verdicts[0].family == 1:
        return ""
    family, level = verdicts[0].family, verdicts[0].level
    return (
        f"these are {family} verdicts: one is better where its interval excludes 0 and p <= "
        f"{level:.2g} by Holm's correction for {family}; p is twice the share of the bootstrap "
        "draws on the rarer side of 0"
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


def drawn_sentence(draws: Bootstrap | GroupResult) -> str:
    """What was drawn in each replicate, such as "1457 identities"."""
    return f"{draws.units} {UNITS[draws.unit]}"


def group_sentences(result: GroupResult) -> list[str]:
    """How far apart the groups of one grouping are, and what these numbers rest on."""
    lines = [_differential_sentence(part, result) for part in result.differentials]
    small = [
        f"{row.group} ({', '.join(RATES[kind] for kind in row.too_small)})"
        for row in result.rows
        if row.too_small
    ]
    if small:
        lines.append(
            f"too small to be compared, with fewer than {FEWEST_UNITS} people or {FEWEST_ERRORS} "
            f"errors to expect: {', '.join(small)}"
        )
    for (mated, others), where in (
        (result.across, "across groups"),
        (result.unknown, "with a side whose group is unknown"),
    ):
        if mated or others.total:
            lines.append(
                f"in no group: {mated} mated and {others.total} non-mated pairs {where} (FMR "
                f"{others})"
            )
    if result.replicates:
        lines.append(
            f"{result.confidence:.0%} intervals by {result.replicates} bootstrap draws of "
            f"{drawn_sentence(result)}: of a rate for itself, of a ratio for all groups at once; "
            "nothing is corrected for the number of rates and of groupings"
        )
    return lines


def _differential_sentence(part: Differential, result: GroupResult) -> str:
    name, rows = RATES[part.kind], result.rows
    compared = [row for row in rows if part.kind not in row.too_small]
    if len(compared) < 2:
        return f"{name}: fewer than two groups are large enough to be compared"
    if not part.worst:
        return f"{name}: no group that is large enough has any"
    if not np.isfinite(part.ratio):
        none = [row for row in compared if not row.counts[part.kind].errors]
        which = ", ".join(f"{row.group} (0 of {row.counts[part.kind].total})" for row in none)
        return (
            f"{name}: highest in {part.worst}; its ratio to the geometric mean is undefined, which "
            f"is 0 because of {which}; about {part.at_least:.3g} or more, as 0 of n may be up to "
            "3/n"
        )
    apart = [group for group, (_, (low, high)) in part.relative.items() if low > 1 or high < 1]
    verdict = f"; apart from it at {result.confidence:.0%}: {', '.join(apart)}" if apart else ""
    if result.replicates and not apart:
        verdict = "; the groups cannot be told apart"
    return (
        f"{name}: highest in {part.worst}, {ratio(part.ratio, part.interval)} times the geometric "
        f"mean of {len(compared)} groups, {ratio(part.to_best, part.to_best_interval)} times the "
        f"lowest{verdict}"
    )


def ratio(value: float, interval: Interval) -> str:
    """A ratio with its interval, if there is one, as in 1.21 [1, 2.86]."""
    first, low, high = (f"{x:.{3 if x < 1000 else 6}g}" for x in (value, *interval))
    return f"{first} [{low}, {high}]" if np.isfinite(interval.low) else first


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
    risk, kind = RISK_NAMES[control.risk], RISK_KINDS[control.risk]
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
    kind, percent = RISK_KINDS[control.risk], f"{100 * control.confidence:g} %"
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
        lines.append(ACCEPTED)
    low, high = control.accept_all_interval
    lines.append(
        f"held-out part, accepting everything: {control.accept_all} [{low:.4g}, {high:.4g}]"
    )
    return [*lines, f"{control.left_out} comparisons between the parts were left out"]
