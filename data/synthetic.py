"""Rendered faces with known degradations, in the formats of real data: nothing to download.

python data/synthetic.py --out faces --format folder --identities 100 --images 12 (photos, rec, bin)
python data/synthetic.py --sheet sheet.png                      a page that shows what is rendered
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils  # noqa: F401 - takes Ctrl-C over before large imports run

from tqdm import tqdm

from data.faces import write_pack
from data.images import encode_jpeg, encode_png
from data.rendered import (
    SyntheticFaces,
    contact_sheet,
    degradation_sweep,
    raw_photo,
    verification_images,
)
from data.rendered_drawing import render
from data.rendered_person import DEGRADATIONS, HAIR_STYLES, Degradation, Identity, Variation
from data.verification import synthetic_verification, write_bin
from utils.cli import Parser, run_command
from utils.files import sole_writer, write_bytes

__all__ = [
    "DEGRADATIONS",
    "HAIR_STYLES",
    "Degradation",
    "Identity",
    "SyntheticFaces",
    "Variation",
    "contact_sheet",
    "degradation_sweep",
    "main",
    "render",
    "synthetic_verification",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Write rendered faces as image folders, a pack or a verification set, or a contact sheet."""
    parser = Parser(main.__doc__, __doc__)
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--format", choices=("folder", "photos", "rec", "bin"), default="folder")
    parser.add_argument("--identities", type=int, help="people; default: 100, for bin pairs / 4")
    parser.add_argument("--images", type=int, default=12, help="of each identity")
    parser.add_argument("--pairs", type=int, default=3000, help="for bin")
    parser.add_argument("--seed", type=int, default=0, help="names the population")
    parser.add_argument("--severity", type=float, default=1.0, help="of degradations, 0 to 1")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet (PNG) to this file")
    options = parser.parse_args(argv)
    if options.out is None and options.sheet is None:
        parser.error("nothing to do: give --out DIR, --sheet FILE or both")

    def write() -> int:
        if options.sheet is not None:
            write_bytes(options.sheet, encode_png(contact_sheet(options.seed)))
        if options.out is not None:
            with sole_writer(options.out):
                write_set(options.out)
        return 0

    def write_set(out: Path) -> None:
        population = options.seed, options.severity
        if options.format == "bin":
            path = out / "synthetic.bin"
            write_pairs(path, options.pairs, options.identities, *population)
            return
        people = 100 if options.identities is None else options.identities
        faces = SyntheticFaces(people, options.images, *population)
        if options.format == "rec":
            write_pack(faces, out / "train")
        else:
            write_folder(faces, out, as_photos=options.format == "photos")

    return run_command(write)


def write_folder(faces: SyntheticFaces, folder: Path, as_photos: bool = False) -> None:
    """Write JPEG files, one folder per identity: aligned faces, or whole photos of them."""
    for row in tqdm(range(len(faces)), desc=str(folder), unit="face", disable=None):
        path = folder / f"{row // faces.images:05d}" / f"{row % faces.images:03d}.jpg"
        write_bytes(path, encode_jpeg(raw_photo(faces, row) if as_photos else faces.read(row)))


def write_pairs(path: Path, pairs: int, identities: int | None, seed: int, severity: float) -> None:
    """Write a `.bin` set of rendered pairs; see `synthetic_verification`."""
    images, mated = verification_images(pairs, seed, identities, severity)
    bar = tqdm(images, desc=str(path), total=2 * len(mated), unit="face", disable=None)
    write_bin(path, list(bar), mated)


if __name__ == "__main__":
    sys.exit(main())
