"""Cut the faces out of a folder of photos: aligned, 112x112, as training and scoring take them.

python photos/align_faces.py --photos photos --out faces
python photos/align_faces.py --photos photos --out faces --largest --detector mtcnn:min_face=40

Folders stay as they are: the faces of `ann/1.jpg` are `ann/1.jpg.png`, `ann/1.jpg.2.png`, ...,
largest first. Nothing is overwritten, and the same command resumes where it stopped.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """What to align: the folders, the detector's name, one face per photo, and threads."""

    photos: Path
    out: Path
    detector: str
    largest: bool
    threads: int


def main(argv: Sequence[str] | None = None) -> int:
    """Cut aligned 112x112 faces out of the photos of a folder and its folders."""
    parser = Parser(main.__doc__, __doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--out", type=Path, required=True, help="folder for the faces")
    parser.add_argument("--detector", default="mtcnn", help="name:option=value,...; default: mtcnn")
    parser.add_argument("--largest", action="store_true", help="only the largest face of a photo")
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1)
    options = AlignOptions(**vars(parser.parse_args(argv)))

    def body() -> int:
        sys.stdout.write(f"{options.out}: {align_folder(options)}\n")
        return 0

    return run_command(body, resume_hint="the same command resumes where it stopped")


def align_folder(options: AlignOptions) -> str:
    """Align every photo that has no face in the output yet; return a summary."""
    if not options.photos.is_dir():
        raise ValueError(f"no folder {options.photos}: --photos names a folder of photos")
    detector = open_detector(options.detector)
    sources, counts = open_sources(options.photos), Counter[str]()

    def cut(item: Item) -> tuple[Item, list[NDArray[np.uint8]] | ValueError | None]:
        try:
            return item, None if face_path(item, options).exists() else faces_of(item, detector)
        except ValueError as error:
            return item, error

    results = prefetch(cut, sources, options.threads, 2 * options.threads)
    for item, faces in tqdm(results, desc=str(options.out), unit="photo", disable=None):
        counts["photos"] += 1
        if faces is None:
            counts["done before"] += 1
        elif isinstance(faces, ValueError):
            counts["unreadable"] += 1
            tqdm.write(f"{item.file}: {faces}", file=sys.stderr)
        else:
            faces = faces[:1] if options.largest else faces
            counts["without a face"] += not faces
            counts["faces"] += len(faces)
            # the first one last: where it exists, the photo is done
            for number, face in reversed(list(enumerate(faces, start=1))):
                write_bytes(face_path(item, options, number), encode_png(face))
    counts["non-photo files skipped"] = sum(sources.skipped.values())
    words = ("photos", "faces", "without a face", "unreadable", "done before")
    return ", ".join(f"{counts[word]} {word}" for word in (*words, "non-photo files skipped"))


def faces_of(item: Item, detector: Detector) -> list[NDArray[np.uint8]]:
    """Return the (112, 112, 3) RGB faces of a photo, largest first; those of a pack as they are."""
    photo = item.load()
    if item.aligned:
        return [photo.pixels]
    return [align(photo.pixels, points) for points in detector(photo.pixels).landmarks]


def face_path(item: Item, options: AlignOptions, number: int = 1) -> Path:
    """Return where a face of a photo goes."""
    name = os.path.relpath(item.file, options.photos)
    row = "" if item.index is None else f".{item.index:06d}"
    return options.out / f"{name}{row}{'' if number == 1 else f'.{number}'}.png"


if __name__ == "__main__":
    sys.exit(main())
