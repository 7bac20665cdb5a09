"""What evaluation/identification.py does: its flags, and the work once they are read."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from commands import flags
from utils.cli import PARTS_HINT, count, positive, run_on_ranks, share
from utils.distributed import World
from utils.files import file_name, sole_writer, write_text

if TYPE_CHECKING:
    from evaluation.sets.templates import Weights
    from search.searches import Searches
    from search.sides import Side


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of both sides, the model and `IdentificationOptions`."""
    from evaluation.sets.templates import FUSIONS

    add = parser.add_argument
    faces = "folder per person, list, .rec pack, stored embeddings (.npz), or an extracted folder"
    add("--gallery", help=f"enrolled people: {faces}")
    add("--probes", help="searched faces, of the same kinds; without them --gallery is divided")
    add("--scores", help="instead of both: .npz with scores (P, G), probe (P,) and gallery (G,)")
    add("--enrolled", type=positive, default=1, help="divided: images of a person enrolled (1)")
    add("--left_out", type=share, default=0.5, help="divided: share of people not enrolled (0.5)")
    add("--fusion", choices=FUSIONS[:4], help="weights within a template (what suits the model)")
    flags.add_model_flags(parser)
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--parts", help="keep finished parts of the embedding here; a stopped run resumes there")
    add("--fpir", type=share, nargs="+", default=[1e-2], help="FPIR targets (1e-2)")
    add("--score_threshold", type=float, help="instead of the ones for --fpir")
    add("--rank", type=positive, default=1, help="the own person must be among so many (1)")
    add("--candidates", type=positive, default=20, help="of each probe that are kept (20)")
    add("--replicates", type=count, default=1000, help="bootstrap draws over people (1000)")
    add("--confidence", type=share, default=0.95, help="of intervals and of the promise (0.95)")
    add("--target_risk", type=share, help="certify the cut-off that keeps this risk of accepted")
    add("--risk", default="fpir", choices=("fpir", "fnir", "total"), help="which risk (fpir)")
    add("--by", default="p_error", choices=("quality", "p_error"), help="what accepts (p_error)")
    add("--seed", type=int, default=0, help="of every draw (0)")
    add("--json", help="write every number to this file")
    add("--out", help="write rule.json, result.json, det.csv and the picture into this folder")


@dataclass(frozen=True, kw_only=True)
class SideFlags:
    """Which sides are searched, and how images become templates."""

    gallery: str | None
    probes: str | None
    scores: str | None
    enrolled: int
    left_out: float
    fusion: Weights | None
    candidates: int
    batch_size: int
    flip: bool
    parts: str | None
    seed: int


def identification_main(args: argparse.Namespace) -> int:
    """Search, evaluate, print and write as the flags say; returns the exit code."""
    sides, model = flags.read(SideFlags, args), flags.read(flags.ModelFlags, args)

    def body(world: World, device: str) -> int:
        from report.identification import identification_text, write_identification
        from search.run import IdentificationOptions, identify

        options = flags.read(IdentificationOptions, args)
        searches, hashes = _searches(sides, model, world, device)
        if not world.is_main:
            return 0
        result = identify(searches, options, weights_sha256=hashes)
        sys.stdout.write(identification_text(result))
        if args.out:
            with sole_writer(Path(args.out)):
                for path in write_identification(result, Path(args.out)):
                    sys.stdout.write(f"wrote {path}\n")
        if args.json:
            from report.identification import identification_dict

            write_text(Path(args.json), json.dumps(identification_dict(result), indent=1) + "\n")
            sys.stdout.write(f"wrote {args.json}\n")
        return 0

    return run_on_ranks(args.device, body, resume_hint=PARTS_HINT)


def _searches(
    flag: SideFlags, model: flags.ModelFlags, world: World, device: str
) -> tuple[Searches, dict[str, str]]:
    from evaluation.embed import embed_images
    from search.searches import read_matrix, search
    from search.sides import divide, is_stored, open_side

    if bool(flag.scores) == bool(flag.gallery):
        raise ValueError("give --gallery G with --probes P, or --scores FILE.npz")
    if flag.scores or not flag.gallery:
        return read_matrix(str(flag.scores), flag.candidates), {}
    sources = [source for source in (flag.gallery, flag.probes) if source]
    embed, loaded = None, None
    if not all(map(is_stored, sources)):
        loaded = model.open(device)
        embed = partial(embed_images, loaded.estimator, batch_size=flag.batch_size, flip=flag.flip)
        embed = partial(embed, about=loaded.fingerprint, world=world)
    elif model.model:
        raise ValueError(f"{sources[0]} holds embeddings: no --model goes with it")

    def opened(source: str) -> Side:
        if embed is None:
            return open_side(source, None)
        parts = Path(flag.parts) / file_name(Path(source).stem) if flag.parts else None
        return open_side(source, lambda name, images: embed(images, name=name, parts=parts))

    gallery = opened(flag.gallery)
    if flag.probes:
        probes = opened(flag.probes)
    else:
        gallery, probes = divide(gallery, flag.enrolled, flag.left_out, flag.seed)
    fusion = flag.fusion or (loaded.fusion if loaded else "mean")
    return search(gallery, probes, flag.candidates, fusion), loaded.weights_sha256 if loaded else {}
