"""The command of data/recordio.py: pack faces from files into `.rec`.

Apart from the reader, since it needs data/faces.py, which needs the reader.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from data.face_files import FileFaces
from data.faces import PackFaces, class_index, open_faces
from data.images import decode, encode_jpeg, to_112
from data.rec.writer import RecordWriter


def pack(source: str, prefix: str, quality: int = 95) -> tuple[int, int]:
    """Pack the faces of a folder, a list or another pack, identity by identity.

    Images of 112x112 are stored as they are, byte for byte; others are resized and encoded as JPEG.

    Returns:
        (images, identities) written.

    Raises:
        ValueError: nothing to pack, or an image that cannot be read (named).
    """
    faces = open_faces(source)
    rows, _ = class_index(faces.labels)
    with RecordWriter(prefix) as writer:
        for index in tqdm(rows, desc=prefix, unit="image", disable=None):
            row = int(index)
            label = int(faces.labels[row])
            if isinstance(faces, (FileFaces, PackFaces)):
                encoded = _at_size(faces, row, quality)
            else:
                encoded = encode_jpeg(faces.read(row), quality)
            writer.write_image(label, encoded, faces.name(row))
    return len(faces), faces.num_classes


def run(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, pack, and say what was written."""
    parser = argparse.ArgumentParser(prog="recordio.py", description="Pack faces into .rec/.idx.")
    parser.add_argument("--images", required=True, help="folder per identity, or a list file")
    parser.add_argument("--out", required=True, help="prefix: PREFIX.rec, .idx, .lst")
    parser.add_argument("--quality", type=int, default=95, help="of images that are not 112x112")
    arguments = parser.parse_args(argv)
    try:
        images, identities = pack(arguments.images, arguments.out, arguments.quality)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"recordio.py: {error}\n")
        return 2
    sys.stdout.write(f"{arguments.out}.rec: {images} images of {identities} identities\n")
    return 0


def _at_size(faces: FileFaces | PackFaces, row: int, quality: int) -> bytes:
    encoded = faces.encoded(row)
    try:
        image = decode(encoded)
    except ValueError as error:
        raise ValueError(f"{faces.name(row)}: {error}") from error
    resized = to_112(image)
    return encoded if np.shares_memory(image, resized) else encode_jpeg(resized, quality)
