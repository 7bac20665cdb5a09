"""Raw photos to aligned faces: 112x112, as training, evaluation and scoring take them.

python photos/align_faces.py PHOTOS --out FACES
python photos/align_faces.py PHOTOS --out FACES --format rec
python photos/align_faces.py PHOTOS --out FACES --format bin --pairs pairs.csv

PHOTOS is a folder that holds a folder for each person, a list, or a CSV of path and identity. The
face of `ann/1.jpg` is `ann/1.jpg.png`. Nothing is overwritten; the same command resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.cli import Parser, positive, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Cut the aligned face out of each photo; report what was found and what is doubtful."""
    parser = Parser(main.__doc__, __doc__)
    add = parser.add_argument
    add("photos", type=Path, nargs="?", help="folder per person, list, or CSV of path and identity")
    add("--photos", type=Path, dest="named", help="the same by name")
    add("--out", type=Path, required=True, help="folder of the set")
    add("--format", choices=("folder", "rec", "bin"), default="folder", help="of the set (folder)")
    add("--pairs", type=Path, help="for bin: CSV path_a,path_b,same or LFW's pairs.txt")
    add(
        "--face",
        choices=("largest", "central", "all"),
        default="largest",
        help="of a photo: the largest (default), the nearest to its middle, or each",
    )
    add("--largest", action="store_const", const="largest", dest="face", help="--face largest")
    add("--detector", default="mtcnn", help="name:option=value,...; default: mtcnn")
    add("--turned", action="store_true", help="also heads turned by quarters")
    add("--report", type=Path, help="CSV: what was found in each photo (OUT/report.csv)")
    share_help = "of the photos that may be unreadable before the work ends (0.5)"
    add("--max_bad_share", type=float, default=0.5, help=share_help)
    add("--threads", type=positive, help="that read and search (the cores)")
    flags = parser.parse_args(argv)
    if (flags.photos is None) == (flags.named is None):
        parser.error("name one folder or list of photos")
    return run_command(
        lambda: _body(flags), resume_hint="the same command resumes where it stopped"
    )


def _body(flags: argparse.Namespace) -> int:
    from photos.face_set import AlignOptions, align_photos
    from report.doubtful import write_doubtful

    values = vars(flags)
    values["photos"] = values.pop("named") or values["photos"]
    if values.pop("turned"):
        values["detector"] += f"{',' if ':' in flags.detector else ':'}turned=true"
    faces = align_photos(AlignOptions(**values))
    page = write_doubtful(faces)
    were = "photo was" if faces.done_before == 1 else "photos were"
    before = f"{faces.done_before} {were} done before\n" if faces.done_before else ""
    shown = f"{faces.options.report_file} says what was found in each photo\n"
    shown += f"{page} shows what is doubtful\n" if page else ""
    sys.stdout.write(f"{before}{faces.summary()}\n{shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
