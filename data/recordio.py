"""Read and write MXNet RecordIO packs (`.rec` + `.idx`, insightface layout) without mxnet.

python data/recordio.py --images FOLDER_OR_LIST --out PREFIX    (thousands a second)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.faces import open_faces, write_pack
from data.rec.format import Header, Record, RecordWriter, pack_record
from data.rec.reader import RecordPack
from utils.cli import Parser, run_command

__all__ = ["Header", "Record", "RecordPack", "RecordWriter", "main", "pack_record"]


def main(argv: Sequence[str] | None = None) -> int:
    """Pack a folder per identity, or a list file, into `.rec`, `.idx`, `.lst` and `property`."""
    parser = Parser(main.__doc__, __doc__)
    parser.add_argument("--images", required=True, help="folder per identity, or a list file")
    parser.add_argument("--out", required=True, help="prefix: PREFIX.rec, .idx, .lst")
    parser.add_argument("--quality", type=int, default=95, help="of images that are not 112x112")
    options = parser.parse_args(argv)

    def pack() -> int:
        faces = open_faces(options.images)
        write_pack(faces, options.out, options.quality)
        sys.stdout.write(
            f"{options.out}.rec: {len(faces)} images of {faces.num_classes} identities\n"
        )
        return 0

    return run_command(pack)


if __name__ == "__main__":
    sys.exit(main())
