"""Cut the faces out of a folder of photos: aligned, 112x112, as training and scoring take them.

python photos/align_faces.py photos --out faces
python photos/align_faces.py photos --out faces --face largest --report faces.csv

Folders stay as they are: the faces of `ann/1.jpg` are `ann/1.jpg.png`, `ann/1.jpg.2.png`, ...,
largest first. Nothing is overwritten, and the same command resumes where it stopped.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.images import encode_png
from photos.align import align
from photos.detectors import Detector, open_detector
from photos.sources import Item, open_sources
from utils.cli import Parser, positive, run_command
from utils.files import write_bytes
from utils.long_work import prefetch


@dataclass(frozen=True)
class AlignOptions:
    """What to align: the folders, the detector's name, which face of a photo, and threads."""

    photos: Path
    out: Path
    detector: str
    face: str
    report: Path | None
    threads: int


def main(argv: Sequence[str] | None = None) -> int:
    """Cut aligned 112x112 faces out of the photos of a folder and its folders."""
    parser = Parser(main.__doc__, __doc__)
    parser.add_argument("photos", type=Path, nargs="?", help="folder of photos")
    parser.add_argument("--photos", type=Path, dest="named", help="the same by name")
    parser.add_argument("--out", type=Path, required=True, help="folder for the faces")
    parser.add_argument("--detector", default="mtcnn", help="name:option=value,...; default: mtcnn")
    parser.add_argument(
        "--face",
        choices=("all", "largest", "central"),
        default="all",
        help="which faces of a photo: all (default), the largest, or the nearest to its middle",
    )
    parser.add_argument("--largest", action="store_true", help="the same as --face largest")
    parser.add_argument("--turned", action="store_true", help="also faces turned by quarters")
    parser.add_argument("--report", type=Path, help="CSV: photo, faces, and why there is none")
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1)
    flags = parser.parse_args(argv)
    if (flags.photos is None) == (flags.named is None):
        parser.error("name one folder of photos")
    options = AlignOptions(
        flags.photos or flags.named,
        flags.out,
        with_turned(flags.detector) if flags.turned else flags.detector,
        "largest" if flags.largest else flags.face,
        flags.report,
        flags.threads,
    )

    def body() -> int:
        sys.stdout.write(f"{options.out}: {align_folder(options)}\n")
        return 0

    return run_command(body, resume_hint="the same command resumes where it stopped")


def with_turned(detector: str) -> str:
    """Return a detector's name and options with the option `turned=true`."""
    return f"{detector}{',' if ':' in detector else ':'}turned=true"


def align_folder(options: AlignOptions) -> str:
    """Align every photo that has no face in the output yet; return a summary."""
    if not options.photos.is_dir():
        raise ValueError(f"no folder {options.photos}: --photos names a folder of photos")
    detector = open_detector(options.detector)
    sources, counts = open_sources(options.photos), Counter[str]()

    def cut(item: Item) -> tuple[Item, list[NDArray[np.uint8]] | ValueError | None]:
        try:
            return item, None if face_path(item, options).exists() else faces_of(
                item, detector, options.face
            )
        except ValueError as error:
            return item, error

    results = prefetch(cut, sources, options.threads, 2 * options.threads)
    rows: list[tuple[str, str, str]] = [("photo", "faces", "reason")]
    for item, faces in tqdm(results, desc=str(options.out), unit="photo", disable=None):
        counts["photos"] += 1
        rows.append(_report_row(item, faces, options))
        if faces is None:
            counts["done before"] += 1
        elif isinstance(faces, ValueError):
            counts["unreadable"] += 1
            tqdm.write(f"{item.file}: {faces}", file=sys.stderr)
        else:
            counts["without a face"] += not faces
            counts["faces"] += len(faces)
            # the first one last: where it exists, the photo is done
            for number, face in reversed(list(enumerate(faces, start=1))):
                write_bytes(face_path(item, options, number), encode_png(face))
    if options.report is not None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_bytes(options.report, text.getvalue().encode(errors="surrogateescape"))
    counts["non-photo files skipped"] = sum(sources.skipped.values())
    words = ("photos", "faces", "without a face", "unreadable", "done before")
    return ", ".join(f"{counts[word]} {word}" for word in (*words, "non-photo files skipped"))


def _report_row(
    item: Item, faces: list[NDArray[np.uint8]] | ValueError | None, options: AlignOptions
) -> tuple[str, str, str]:
    name = item.file if item.index is None else f"{item.file}:{item.index}"
    if faces is None:
        number = 1
        while face_path(item, options, number + 1).exists():
            number += 1
        return name, str(number), ""
    if isinstance(faces, ValueError):
        return name, "0", str(faces)
    return name, str(len(faces)), "" if faces else "no face detected"


def faces_of(item: Item, detector: Detector, which: str = "all") -> list[NDArray[np.uint8]]:
    """Return (112, 112, 3) RGB faces of a photo, largest first; those of a pack as they are.

    `which` is "all", "largest" or "central", the face whose landmarks are nearest to the middle.
    """
    photo = item.load()
    if item.aligned:
        return [photo.pixels]
    landmarks = detector(photo.pixels).landmarks
    if which == "central" and len(landmarks):
        height, width = photo.pixels.shape[:2]
        distance = np.linalg.norm(landmarks.mean(axis=1) - (width / 2, height / 2), axis=1)
        landmarks = landmarks[[int(distance.argmin())]]
    elif which == "largest":
        landmarks = landmarks[:1]
    return [align(photo.pixels, points) for points in landmarks]


def face_path(item: Item, options: AlignOptions, number: int = 1) -> Path:
    """Return where a face of a photo goes."""
    name = os.path.relpath(item.file, options.photos)
    row = "" if item.index is None else f".{item.index:06d}"
    return options.out / f"{name}{row}{'' if number == 1 else f'.{number}'}.png"


if __name__ == "__main__":
    sys.exit(main())
