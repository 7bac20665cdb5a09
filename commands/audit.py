"""What evaluation/audit.py does: its flags, and the work once they are read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from commands import flags
from utils.cli import PARTS_HINT, run_on_ranks, share
from utils.distributed import World
from utils.files import sole_writer


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `AuditOptions`, `ModelFlags` and `open_gallery`."""
    add = parser.add_argument
    gallery = "folder per person, list, .rec pack; or stored embeddings: .npz, an extracted folder"
    add("gallery", help=gallery)
    flags.add_model_flags(parser)
    add("--out", required=True, help="write audit.csv and audit.html into this folder")
    add("--images", help="stored embeddings: the faces they come from, to show them on the page")
    rate = "share of wrong findings among those of a kind, at most (0.05)"
    add("--false_discoveries", type=share, default=0.05, help=rate)
    add("--fpir", type=share, default=0.01, help="of the threshold that effects are told at (0.01)")
    add("--fmr", type=share, default=1e-4, help="of the threshold for poor quality (1e-4)")
    add("--max_uncertainty", type=float, help="poor quality from here on (found in the gallery)")
    add("--seed", type=int, default=0, help="of the pairs and strangers that are drawn (0)")
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--parts", help="keep finished parts of the embedding here; a stopped run resumes there")


def audit_main(args: argparse.Namespace) -> int:
    """Audit a gallery as the flags say, and write its table and page; returns the exit code."""
    model = flags.read(flags.ModelFlags, args)

    def body(world: World, device: str) -> int:
        from report.audit import audit_text, audit_warnings, write_audit
        from scoring.gallery import open_gallery
        from search.audit import AuditOptions, audit

        out = Path(args.out)
        if out.is_file():
            raise ValueError(f"--out {out}: names a folder, but a file is there")
        options = flags.read(AuditOptions, args)
        loaded = model.open(device) if model.model or model.backbone else None
        gallery = open_gallery(
            args.gallery,
            loaded,
            images=args.images,
            batch_size=args.batch_size,
            parts=args.parts,
            world=world,
        )
        if not world.is_main:
            return 0
        with sole_writer(out):
            result = audit(gallery, options)
            sys.stdout.write(audit_text(result))
            sys.stderr.writelines(f"warning: {line}\n" for line in audit_warnings(result))
            for path in write_audit(result, out):
                sys.stdout.write(f"wrote {path}\n")
        return 0

    return run_on_ranks(args.device, body, resume_hint=PARTS_HINT)
