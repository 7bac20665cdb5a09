"""Several methods on several sets: one table with intervals, ranks and verdicts, one figure a set.

python evaluation/compare.py --target faces:FOLDER --methods RUN_DIR embedding_norm other=FILE.csv
python evaluation/compare.py --target faces:FOLDER --methods RUN_OF_BRANCHES --out compared
python evaluation/compare.py --features ours=OURS.npz theirs=THEIRS.csv --out compared

Every image is decoded and embedded once for all methods; all of them see the same bootstrap draws.
Runs that differ in their seeds alone are also shown as one, with mean and spread.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from estimators.base import Estimate
from evaluation import cli
from evaluation.compared import GroupRow, MethodRow, facts, group_rows, method_rows
from evaluation.confidence.bootstrap import Bootstrap, bootstrap
from evaluation.embed import embed_images
from evaluation.inputs import file_name
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from evaluation.open_model import named, open_models
from evaluation.seeds import Group
from evaluation.sets.open_set import EvaluationSet, open_set
from evaluation.sets.stored import load_comparisons
from report.tables import FORMATS, group_table, method_table
from report.words import comparison_notes
from utils.cli import PARTS_HINT, Parser, count, run_on_ranks, share
from utils.distributed import World
from utils.files import write_text

Columns = dict[str, NDArray[np.float32]]
Groups = tuple[Group, ...]


@dataclass
class Found:
    """What has been measured so far, and the facts of each set."""

    rows: list[MethodRow] = field(default_factory=list)
    spreads: list[GroupRow] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; the exit code is 0, or 2 when no result can be given."""
    args = _parser().parse_args(argv)
    return run_on_ranks(
        "cpu" if args.features else args.device,
        lambda world, device: _body(args, world, device),
        resume_hint=PARTS_HINT,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description="Uncertainty methods side by side.")
    add = parser.add_argument
    add("--target", nargs="+", default=[], help="sets: lfw faces:PATH pairs:FILE ijb:FOLDER ...")
    add("--dataset_path", help="folder with the .bin files")
    add(
        "--methods",
        nargs="+",
        default=[],
        metavar="[NAME=]METHOD",
        help="run folders of network.py, files with a score per image (.csv, .npz), or estimators "
        "such as embedding_norm or mc_dropout:form=closed_form",
    )
    add(
        "--features",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="instead of methods: stored arrays or scores of the same comparisons",
    )
    cli.add_backbone_arguments(parser)
    add("--protocol", default="iso29794", help=f"one of: {', '.join(PROTOCOLS)} (iso29794)")
    add("--fmr", nargs="+", type=share, default=[1e-3], help="FMR targets (1e-3)")
    add("--against", help="method that all others are compared with (the best one)")
    add("--replicates", type=count, default=1000, help="bootstrap draws (1000)")
    add("--confidence", type=share, default=0.95, help="of the intervals (0.95)")
    add("--unit", choices=["identity", "image", "pair"], help="what is drawn (the best known)")
    cli.add_set_arguments(parser)
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--parts", help="keep finished parts of the embedding here; a stopped run goes on")
    add("--out", help="write table (txt, csv, md, tex, json) and figures into this folder")
    return parser


def _body(args: argparse.Namespace, world: World, device: str) -> int:
    args.device = device
    protocol = find_protocol(args.protocol)
    if args.out and Path(args.out).is_file():
        raise ValueError(f"--out {args.out}: names a folder, but a file is there")
    found = Found()
    for comparisons, columns, groups in _inputs(args, world):
        _check_against(args.against, columns, groups)
        for fmr in args.fmr:
            draws = _measure(comparisons, columns, protocol, fmr, args)
            _report(found, comparisons.name, fmr, draws, groups, args)
    if not world.is_main:
        return 0
    sys.stdout.write(f"{protocol.describe()}.\n")
    if args.out:
        _write(Path(args.out), found, protocol)
    return 0


def _check_against(against: str | None, columns: Columns, groups: Groups) -> None:
    known = [*columns, *(group.name for group in groups if group.name not in columns)]
    if against is not None and against not in known:
        raise ValueError(f"--against {against}: the methods are {', '.join(known)}")


def _report(
    found: Found,
    name: str,
    fmr: float,
    draws: Bootstrap,
    groups: Groups,
    args: argparse.Namespace,
) -> None:
    """Print one set at one FMR, keep its rows, and draw its figure."""
    rows = method_rows(name, fmr, draws, args.against if args.against in draws.curves else None)
    means = group_rows(name, fmr, draws, groups, args.against)
    text = f"{method_table(rows, 'txt')}{comparison_notes(draws)}\n"
    sys.stdout.write(text + (f"{group_table(means, 'txt')}\n" if means else ""))
    sys.stdout.flush()
    found.rows += rows
    found.spreads += means
    found.facts.append(facts(name, fmr, draws))
    if args.out:
        _figure(Path(args.out), name, fmr, draws, groups, len(args.fmr) > 1)


def _inputs(
    args: argparse.Namespace, world: World
) -> Iterator[tuple[Comparisons, Columns, Groups]]:
    """Each set with its methods; all ranks embed, the main one alone gets the sets."""
    if args.features:
        if args.target or args.methods:
            raise ValueError("--features has its own comparisons; --target and --methods do not go")
        if world.is_main:
            yield *_stored(args), ()
        return
    if not (args.target and args.methods):
        raise ValueError("give --target SET ... with --methods METHOD ..., or --features FILE ...")
    methods = open_models(
        args.methods,
        backbone_name=args.backbone_name,
        backbone_weights=args.backbone_weights,
        device=args.device,
        precision=args.precision,
    )
    for target in args.target:
        found = open_set(
            target, args.dataset_path, non_mated=args.non_mated, cap=args.cap, seed=args.seed
        )
        estimate = embed_images(
            methods.estimator,
            found.images,
            args.batch_size,
            name=found.name,
            parts=Path(args.parts) / file_name(found.name) if args.parts else None,
            about=methods.fingerprint,
            world=world,
        )
        if world.is_main:
            yield *_compared(found, estimate, methods.names), methods.groups


def _compared(
    found: EvaluationSet, estimate: Estimate, names: Sequence[str]
) -> tuple[Comparisons, Columns]:
    columns = {
        name: np.ascontiguousarray(estimate.sigma_sq[:, column])
        for column, name in enumerate(names)
    }
    first = found.comparisons(estimate.mu, estimate.sigma_sq[:, :1])
    if len(first.uncertainty) != len(estimate.mu):  # templates: uncertainties are fused first
        columns = {
            name: found.comparisons(estimate.mu, column[:, None]).uncertainty
            for name, column in columns.items()
        }
    return first, columns


def _stored(args: argparse.Namespace) -> tuple[Comparisons, Columns]:
    columns: Columns = {}
    first: Comparisons | None = None
    for name, path in named(args.features):
        for label, one in load_comparisons(
            path, non_mated=args.non_mated, cap=args.cap, seed=args.seed
        ):
            first = first or one
            _require_equal(first, one, path)
            columns[f"{name} {label}".strip()] = one.uncertainty
    assert first is not None
    return first, columns


def _require_equal(first: Comparisons, other: Comparisons, path: str) -> None:
    same = np.array_equal(first.pairs, other.pairs) and np.array_equal(first.mated, other.mated)
    if not same or not np.allclose(first.scores, other.scores, atol=1e-5):
        raise ValueError(
            f"{path}: other comparisons than in {first.name}: methods are compared on the same "
            "pairs and scores, in the same order"
        )


def _measure(
    comparisons: Comparisons,
    columns: Mapping[str, NDArray[np.float32]],
    protocol: Protocol,
    fmr: float,
    args: argparse.Namespace,
) -> Bootstrap:
    return bootstrap(
        comparisons,
        columns,
        protocol,
        fmr,
        unit=args.unit,
        replicates=args.replicates,
        confidence=args.confidence,
        seed=args.seed,
        progress=lambda draws: tqdm(draws, desc="bootstrap", leave=False, disable=None),
    )


def _figure(
    folder: Path, name: str, fmr: float, draws: Bootstrap, groups: Groups, several: bool
) -> None:
    from report.figures import compare_figure

    ending = f"-fmr{fmr:g}" if several else ""
    path = compare_figure(draws, folder / f"{file_name(name)}{ending}.png", name, fmr, groups)
    sys.stdout.write(f"wrote {path}\n")


def _write(folder: Path, found: Found, protocol: Protocol) -> None:
    """Write the tables; means over seeds stand below the others, but in a CSV file of their own."""
    texts = {notation: method_table(found.rows, notation) for notation in FORMATS}
    files = {f"compare.{ending}": text for ending, text in texts.items()}
    if found.spreads:
        means = {notation: group_table(found.spreads, notation) for notation in FORMATS}
        files["compare-seeds.csv"] = means.pop("csv")
        files |= {f"compare.{ending}": f"{texts[ending]}\n{means[ending]}" for ending in means}
    numbers = {
        "protocol": protocol.switches(),
        "sets": found.facts,
        "rows": [row.to_dict() for row in found.rows],
        "groups": [row.to_dict() for row in found.spreads],
    }
    files["compare.json"] = json.dumps(numbers, indent=1)
    for name, text in files.items():
        write_text(folder / name, text.rstrip() + "\n")
        sys.stdout.write(f"wrote {folder / name}\n")


if __name__ == "__main__":
    sys.exit(main())
