"""The files of a report: an HTML page with its JSON, the printed text, and pictures as PNG.

The page needs no network, no script and no other file; docs/evaluate.md describes it and its JSON.
`templates/` lays out typed data: report.html this page, sheet.html that of `report.sheet`, and one
stylesheet both.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.images import encode_jpeg
from estimators.base import grey
from evaluation.calibration_run import Reliability, held_out_reliability
from evaluation.confidence.calibration import Calibration
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.run import (
    EvaluationOptions,
    EvaluationResult,
    UncertaintyResult,
    protocol_rows,
)
from report import words
from report.facts import FEW_ERRORS, Provenance, ReportData, ReportFacts, collect
from report.text import groups_csv, report_text
from report.words import caution_sentences
from utils.files import file_name, file_sha256, visible, write_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

JPEG_QUALITY = 88
RED = np.array([220, 38, 38], np.float32)
Explain = Callable[
    [NDArray[np.uint8]], NDArray[np.float32]
]  # faces to maps, as LoadedModel.explain
TEMPLATES = Path(__file__).parent / "templates"
FILTERS = (
    "share", "whole", "number", "count", "plural", "of", "fmr", "target", "shortened",
    "slug",
)  # fmt: skip


def write_reports(
    result: EvaluationResult,
    folder: str | Path,
    *,
    config: Mapping[str, object] | None = None,
    files: Sequence[Path] = (),
    explain: Explain | None = None,
) -> Iterator[Path]:
    """Write all files of one set into a folder, which is made, and yield their paths.

    The page names the settings of the run (`config`), and the files behind the numbers; with
    `explain` it shows for each face what raises the uncertainty.
    """
    from report.figures import contact_sheet, edc_figure  # matplotlib

    folder, name = Path(folder), file_name(result.name)
    text = folder / f"{name}.txt"
    write_text(text, visible(report_text(result), "\n"))
    yield text
    if result.original is not None:
        yield edc_figure(result.original, folder / f"{name}-edc.png")
    images, first = result.images, result.uncertainties[0].comparisons.uncertainty
    if images is not None and len(images) == len(first):
        yield contact_sheet(images, first, folder / f"{name}-faces.png", title=name)
    if any(part.groups for part in result.uncertainties):
        table = folder / f"{name}-groups.csv"
        write_text(table, groups_csv(result))
        yield table
    provenance = _provenance(config or {}, files)
    for part in result.uncertainties:
        stem = f"{name}-{file_name(part.label)}" if part.label else name
        yield from write_report(folder, _data(result, part, provenance, explain), stem)


def write_report(folder: str | Path, data: ReportData, stem: str = "report") -> list[Path]:
    """Write `report.html` and `report.json` into a folder, which is made; return their paths.

    Equal input gives equal files, byte for byte, under equal versions of the libraries.

    Raises:
        ValueError: the folder is a file, or a curve does not fit its comparisons.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder}: a report needs a folder, but a file is there")
    facts = collect(data)
    stored = json.dumps(facts.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    texts = {folder / f"{stem}.html": _page(facts, data), folder / f"{stem}.json": stored}
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def _page(facts: ReportFacts, data: ReportData) -> str:
    from report.figures import GROUP_STYLES  # matplotlib

    images, capped = data.images, words.cap_sentence(data.comparisons.cap)
    faces = {} if images is None else {row: images.decode(row, row + 1)[0] for row in facts.rows()}
    maps = map_pictures(list(faces.values()), data.explain)
    tested = words.tested(facts) + (f" Of these, {capped}." if capped else "")
    return render(
        "report.html",
        facts=facts,
        summary=[tested, words.outcome(facts), words.area(facts)],
        risk=words.risk_lines(facts),
        pictures=_pictures(facts),
        group_styles=[(part, " ".join(map(str, dash))) for part, (_, dash) in GROUP_STYLES],
        jpegs={row: encode_jpeg(face, JPEG_QUALITY) for row, face in faces.items()},
        maps=dict(zip(faces, maps, strict=False)),
    )


def map_pictures(faces: Sequence[NDArray[np.uint8]], explain: Explain | None) -> list[bytes]:
    """Return a JPEG of each RGB face in grey, red where it raises the uncertainty.

    Full red is the 99th percentile of what does so in all of them, so that faces can be compared.
    """
    if explain is None or not faces:
        return []
    maps = explain(np.stack(faces)).clip(0)
    shares = (maps / max(float(np.percentile(maps, 99)), 1e-12)).clip(0, 1)[..., None]
    greys = grey(np.stack(faces))[..., None]
    tinted = (greys + shares * (RED - greys)).round().astype(np.uint8)
    return [encode_jpeg(picture, JPEG_QUALITY) for picture in tinted]


def _pictures(facts: ReportFacts) -> dict[str, Markup | list[Markup] | list[list[Markup]] | None]:
    """The SVG of each figure; None where there is nothing to draw."""
    from report import figures  # matplotlib

    limit, threshold = facts.headline.area_limit, facts.headline.score_threshold
    return {
        "curves": [
            figures.edc_picture(curve, f"edc{place}", limit)
            for place, curve in enumerate(facts.curves)
        ],
        "scores": figures.score_picture(facts.scores, threshold),
        "deciles": figures.decile_picture(facts.scores, threshold),
        "det": figures.det_picture(facts.det, facts.curves),
        "groups": [
            figures.group_pictures(grouping, f"groups{place}")
            for place, grouping in enumerate(facts.groups)
        ],
        "reliability": (
            figures.reliability_picture(facts.reliability) if facts.reliability else None
        ),
    }


def _data(
    result: EvaluationResult,
    part: UncertaintyResult,
    provenance: Provenance,
    explain: Explain | None,
) -> ReportData:
    comparisons, images, options = part.comparisons, result.images, result.options
    presets = protocol_rows(comparisons, PROTOCOLS.values(), options.fmr[:1])
    calibration, reliability, missing = _calibrated(part, options)
    shown = images is not None and len(images) == len(comparisons.uncertainty)
    return ReportData(
        name=result.name,
        method=part.method,
        comparisons=comparisons,
        curves=part.curves,
        presets=[row.curve for row in presets if row.curve],
        bootstrap=part.draws,
        groups=part.groups,
        risk=part.risk,
        reliability=reliability,
        calibration=calibration,
        images=images if shown else None,
        explain=None if part.label else explain,
        provenance=provenance,
        warnings=[*missing, *caution_sentences(result.cautions)],
    )


def _calibrated(
    part: UncertaintyResult, options: EvaluationOptions
) -> tuple[Calibration | None, Reliability | None, list[str]]:
    """Map and check of what uncertainties mean; a line that says why where there is none."""
    try:
        fitted = Calibration.fit(part.comparisons, fmr_target=options.fmr[0], method=part.method)
        checked = held_out_reliability(
            part.comparisons,
            score_threshold=fitted.score_threshold,
            confidence=options.confidence,
            seed=options.seed,
        )
    except ValueError as error:
        return None, None, [f"no reliability diagram: {error}"]
    return fitted, checked, []


def _provenance(config: Mapping[str, object], files: Sequence[Path]) -> Provenance:
    from utils.run import environment  # torch

    return Provenance(
        date=datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        command=sys.argv,
        environment=environment(),
        config=config,
        files={str(path): file_sha256(path) for path in files},
    )


def render_leaderboard(board: Mapping[str, object]) -> str:
    """Return the page of benchmarks/leaderboard.py; its only script sorts and is known by hash."""
    from markupsafe import Markup

    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return render("leaderboard.html", board=board, script=Markup(script), digest=digest)


def render(template: str, **values: object) -> str:
    """Fill a template of `report/templates`; every value is escaped unless it is `Markup`.

    What cannot be seen, such as a change of direction in a file's name, is spelled out.
    """
    return visible(_environment().get_template(template).render(**values), "\n\t")


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as the address of a picture that stands in the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FILTERS:
        environment.filters[name] = getattr(words, name)
    environment.filters.update(area_name=words.area_name, data_uri=data_uri, visible=visible)
    environment.filters["json"] = lambda value: json.dumps(value, indent=1, ensure_ascii=False)
    environment.globals.update(
        red=words.RED, accepted=words.ACCEPTED, units=words.UNITS, few_errors=FEW_ERRORS
    )
    return environment
