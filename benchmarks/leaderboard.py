"""One page of every method on every set and recogniser, from files with a score per image.

python benchmarks/leaderboard.py --scores SCORES --data DATA --out docs/leaderboard
python benchmarks/leaderboard.py --out docs/leaderboard
python benchmarks/leaderboard.py --out docs/leaderboard --data DATA --cost mbf_y1 idq=runs/idq

The first reads OUT/manifest.json, which describes sets, recognisers and methods, and writes
index.html, leaderboard.csv and leaderboard.json beside it. Scores are
SCORES/RECOGNISER/SET/METHOD.csv (.npz, .parquet), or SCORES/SET/METHOD.csv where they are the same
for every recogniser. Embeddings are SCORES/RECOGNISER/SET/embeddings.npz as --save_features of
evaluation/verification_risk_fnmr.py writes them; without, images of the manifest's target are
embedded. The second makes page and table again from OUT/leaderboard.json. The third measures time
per face and parameters of methods, and writes them into the manifest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks._common import compare as in_turn
from benchmarks._common import machine
from data.labelled_pairs import CAP
from estimators.base import Batch
from estimators.from_file import FromFile
from evaluation.comparison import (
    ComparisonOptions,
    MethodComparison,
    compare,
    compare_scores,
    draws_needed,
    pairwise_verdicts,
    ranks,
)
from evaluation.metrics.curve import area_at
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.open_model import open_models
from evaluation.sets.open_set import open_set
from evaluation.sets.stored import open_stored
from report.facts import plain
from report.page import render_leaderboard
from report.words import caution_sentences
from utils.cli import Parser, count, run_command
from utils.files import naming, write_text
from utils.tables import SUFFIXES, write_csv

SCHEMA = "face-uncertainty/leaderboard/1"
COMMAND = (
    "python benchmarks/leaderboard.py --data DATA --out OUT"  # a page names no machine's folders
)
LIMITS = (0.2, 0.3)
DISCARDS = (0.0, 0.1, 0.2)
EMBEDDINGS = "embeddings"
BATCH = 32  # faces per timed batch


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """What embeds; name and weights are needed where embeddings are not stored."""

    about: str = ""
    licence: str = ""
    backbone_name: str | None = None
    backbone_weights: str | None = None  # below --data


@dataclass(frozen=True, kw_only=True)
class FaceSet:
    """A set; of labelled faces also the pairs that are drawn."""

    about: str = ""
    target: str = ""  # as of --target; a path in it lies below --data
    cap: int = CAP
    non_mated: int = 1_000_000


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """What is stated of a method; `cost` is time per face / the embedding's, by recogniser."""

    about: str = ""
    trained_on: str = ""
    licence: str = ""
    source: str = ""
    parameters: int | None = None
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the page is about; methods that are not described have their scores alone."""

    title: str = "Leaderboard"
    about: str = ""
    recognisers: Mapping[str, Recogniser]
    sets: Mapping[str, FaceSet]
    methods: Mapping[str, MethodFacts] = field(default_factory=dict)
    fmr: Sequence[float] = (1e-3, 1e-4)
    confidence: float = 0.95
    replicates: int = 1000  # at least; more where the number of verdicts needs more
    seed: int = 0
    cost_measured: Mapping[str, Any] = field(default_factory=dict)  # machine, date, command

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a JSON file; ValueError names it and what is wrong."""
        with naming(path):
            if not path.is_file():
                raise ValueError("no manifest; docs/formats.md describes it")
            stored = _fields(cls, json.loads(path.read_text(encoding="utf-8")), "manifest")
            kinds = {"recognisers": Recogniser, "sets": FaceSet, "methods": MethodFacts}
            for key, kind in kinds.items():
                entries = stored.get(key, {}).items()
                stored[key] = {name: kind(**_fields(kind, entry, name)) for name, entry in entries}
            return cls(**stored)


Kind = TypeVar("Kind")


def _fields(kind: type[Kind], entry: object, name: str) -> dict[str, Any]:
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(entry, dict) or not entry.keys() <= set(known):
        raise ValueError(f"{name}: {entry!r:.80} is not an object of {', '.join(known)}")
    return dict(entry)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; the exit code is 0, or 2 when it cannot be made."""
    parser = Parser(description="One page of every method on every set and recogniser.")
    add = parser.add_argument
    add("--out", required=True, help="folder of manifest.json, page, CSV and JSON")
    add("--scores", help="folder of score files; without, the page is made of OUT's JSON")
    add("--manifest", help="instead of OUT/manifest.json")
    add("--data", default=".", help="folder in which the manifest's sets and weights lie (.)")
    add("--cost", nargs="+", metavar="RECOGNISER [NAME=]MODEL", help="measure cost per face")
    add("--runs", type=count, default=20, help="timings of each method (20)")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    out, data = Path(args.out), Path(args.data)
    path = Path(args.manifest) if args.manifest else out / "manifest.json"
    if args.cost:
        stored = json.loads(path.read_text(encoding="utf-8"))
        add_costs(stored, Manifest.load(path), data, *args.cost[:1], args.cost[1:], args.runs)
        write_text(path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
        return 0
    file = out / "leaderboard.json"
    if args.scores:
        board = measure(Manifest.load(path), Path(args.scores), data)
    elif file.is_file():
        board = json.loads(file.read_text(encoding="utf-8"))
    else:
        raise ValueError(f"no {file} yet: give --scores FOLDER")
    texts = {
        "leaderboard.json": json.dumps(board, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "leaderboard.csv": table(board),
        "index.html": render_leaderboard(board),
    }
    for name, text in texts.items():
        write_text(out / name, text)
        print(f"wrote {out / name}")
    return 0


def measure(manifest: Manifest, scores: Path, data: Path) -> dict[str, Any]:
    """Return everything that the page shows, in plain types."""
    tables = [
        _table(recogniser, name, comparison)
        for recogniser in manifest.recognisers
        for name in manifest.sets
        for comparison in _comparisons(manifest, recogniser, name, scores, data)
    ]
    if not tables:
        names = f"{'|'.join(manifest.recognisers)}/{'|'.join(manifest.sets)}"
        raise ValueError(f"{scores}: no score file in {names}/METHOD{SUFFIXES[0]}")
    facts = plain(manifest)
    assert isinstance(facts, dict)
    about = {**machine("cpu"), "command": f"{COMMAND} --scores SCORES"}
    origin = {name: about[name] for name in ("date", "command", "revision")}
    methods = {row["method"]: MethodFacts() for table in tables for row in table["rows"]}
    methods |= {name: own for name, own in manifest.methods.items() if name in methods}
    board = {"schema": SCHEMA, **facts, "methods": plain(methods), **origin}
    return {**board, "overall": overall(tables), "tables": tables}


def _comparisons(
    manifest: Manifest, recogniser: str, name: str, scores: Path, data: Path
) -> Iterator[MethodComparison]:
    """Compare all methods that have scores here: of stored embeddings, or of images."""
    about, network = manifest.sets[name], manifest.recognisers[recogniser]
    files = {
        path.stem: path
        for folder in (scores / name, scores / recogniser / name)
        for path in sorted(folder.glob("*"))
        if path.suffix in SUFFIXES
    }
    embeddings = files.pop(EMBEDDINGS, None)
    if not files:
        return
    needed = draws_needed(len(files) * (len(files) - 1) // 2, manifest.confidence)
    options = ComparisonOptions(
        fmr=manifest.fmr,
        replicates=max(needed, manifest.replicates),
        confidence=manifest.confidence,
        seed=manifest.seed,
    )
    print(f"{recogniser} on {name}: {', '.join(files)}", file=sys.stderr)
    if embeddings:
        stored = open_stored(embeddings, non_mated=about.non_mated, cap=about.cap)
        opened = {method: FromFile(path=str(path)) for method, path in files.items()}
        yield from compare_scores(stored, opened, options)
        return
    if not about.target or not network.backbone_weights:
        raise ValueError(
            f"{scores / recogniser / name}: no {EMBEDDINGS}.npz, and the manifest has no target of "
            f"{name} or no backbone_weights of {recogniser} to make them with"
        )
    kind, colon, path = about.target.rpartition(":")
    target = f"{kind}:{data / path}" if colon and "synthetic" not in about.target else about.target
    source = open_set(target, data, non_mated=about.non_mated, cap=about.cap)
    models = open_models(
        [f"{method}={path}" for method, path in files.items()],
        backbone_name=network.backbone_name,
        backbone_weights=str(data / network.backbone_weights),
    )
    yield from compare([source], models, options)


def _table(recogniser: str, name: str, comparison: MethodComparison) -> dict[str, Any]:
    """One recogniser, set and FMR: rows by wins minus losses, then by area."""
    draws, curve = comparison.draws, comparison.curve
    verdicts = pairwise_verdicts(draws)
    clear = [verdict for verdict in verdicts if verdict.is_clear]
    signs = [(v.first, v.second) if v.difference < 0 else (v.second, v.first) for v in clear]
    wins: dict[str, list[str]] = defaultdict(list)
    losses: dict[str, int] = defaultdict(int)
    for better, worse in signs:
        wins[better].append(worse)
        losses[worse] += 1
    rows = []
    for row in comparison.rows:
        own = draws.curves[row.method]
        pauc = {
            f"{limit:g}": area_at(
                limit, own.edc.fractions, own.edc.fnmr, own.start, PROTOCOLS["pauc"]
            )[0]
            for limit in LIMITS
        }
        rows.append(
            {
                "method": row.method,
                "wins": len(wins[row.method]),
                "losses": losses[row.method],
                "better_than": sorted(wins[row.method]),
                "relative": row.relative,
                "interval": list(row.interval),
                "pauc": pauc,
                "fnmr": {f"{at:g}": float(own.edc.fnmr[own.index_at(at)]) for at in DISCARDS},
            }
        )
    places = ranks([row["losses"] - row["wins"] for row in rows])
    rows = [{"rank": place, **row} for place, row in zip(places, rows, strict=True)]
    table = {
        "recogniser": recogniser,
        "set": name,
        "fmr": comparison.fmr,
        "score_threshold": float(curve.edc.score_threshold[0]),
        "false_matches": int(curve.edc.false_matches[0]),
        "non_mated": int(curve.edc.non_mated[0]),
        "false_non_matches": int(curve.edc.false_non_matches[0]),
        "mated": int(curve.edc.mated[0]),
        "best_relative": curve.best_relative[draws.limit],
        "unit": draws.unit,
        "units": draws.units,
        "replicates": draws.replicates,
        "verdicts": len(verdicts),
        "clear_verdicts": len(clear),
        "warnings": list(caution_sentences(comparison.cautions)),
        "rows": sorted(rows, key=lambda row: row["rank"]),
    }
    shown = plain(table)
    assert isinstance(shown, dict)
    return shown


def overall(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rank methods by wins minus losses per table, over the tables that each is in."""
    own: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for table in tables:
        for row in table["rows"]:
            own[row["method"]].append(row)
    rows = [
        {
            "method": method,
            "wins": sum(row["wins"] for row in entries),
            "losses": sum(row["losses"] for row in entries),
            "tables": len(entries),
        }
        for method, entries in own.items()
    ]
    for row in rows:
        row["net"] = (row["wins"] - row["losses"]) / row["tables"]
    places = ranks([-row["net"] for row in rows])
    ranked = [{"rank": place, **row} for place, row in zip(places, rows, strict=True)]
    return sorted(ranked, key=lambda row: row["rank"])


def table(board: Mapping[str, Any]) -> str:
    """Return the CSV: one row for each recogniser, set, FMR and method."""
    stated = ("parameters", "trained_on", "licence", "source")
    header = ["recogniser", "set", "fmr", "method", "rank", "wins", "losses"]
    header += ["auerc30_relative", "low", "high", *(f"pauc_{limit:g}" for limit in LIMITS)]
    header += [*(f"fnmr_at_{at:g}" for at in DISCARDS), "cost", *stated, "date"]
    lines: list[list[object]] = [header]
    for part in board["tables"]:
        for row in part["rows"]:
            facts = board["methods"][row["method"]]
            lines.append(
                [part["recogniser"], part["set"], part["fmr"], row["method"], row["rank"]]
                + [row["wins"], row["losses"], row["relative"], *row["interval"]]
                + [*row["pauc"].values(), *row["fnmr"].values()]
                + [facts["cost"].get(part["recogniser"]), *(facts[name] for name in stated)]
                + [board["date"]]
            )
    buffer = StringIO()
    write_csv(buffer, lines)
    return buffer.getvalue()


def add_costs(
    stored: dict[str, Any],
    manifest: Manifest,
    data: Path,
    recogniser: str,
    specs: Sequence[str],
    runs: int,
) -> None:
    """Time methods against the bare embedding, and write that and parameters into a manifest."""
    if recogniser not in manifest.recognisers or not specs:
        known = ", ".join(manifest.recognisers)
        raise ValueError(f"--cost: give one of {known}, then models, not {recogniser} {specs}")
    network = manifest.recognisers[recogniser]
    weights = network.backbone_weights and str(data / network.backbone_weights)
    has_run = any(Path(spec.rpartition("=")[2]).is_dir() for spec in specs)  # knows its backbone
    name = None if has_run else network.backbone_name
    models = open_models(specs, device="cpu", backbone_name=name, backbone_weights=weights)
    frozen = models.backbone.frozen
    assert frozen is not None
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 112, 112, 3), np.uint8)
    for name, model in models.models.items():
        sides = {
            "embedding": lambda: Batch(images).output(frozen),
            "method": lambda model=model: model.estimator(Batch(images)),
        }
        seconds = in_turn(sides, runs)
        entry = stored.setdefault("methods", {}).setdefault(name, {})
        cost = seconds["method"] / seconds["embedding"]
        entry.setdefault("cost", {})[recogniser] = round(cost, 3)
        if model.head is not None:
            entry["parameters"] = sum(part.numel() for part in model.head.parameters())
        print(f"{name} on {recogniser}: {cost:.3f} times the embedding")
    command = f"{COMMAND} --cost {recogniser} {' '.join(f'{name}=MODEL' for name in models.names)}"
    stored["cost_measured"] = {**machine("cpu"), "command": command}


if __name__ == "__main__":
    sys.exit(main())
