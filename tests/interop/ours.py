"""Our side: write packs and sets for mxnet to read, then read what mxnet wrote.

python tests/interop/ours.py write|read FOLDER      (called by run.sh)
"""

import json
import random
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from checks import Checks, digest  # noqa: E402 - beside this file

from data.faces import open_faces  # noqa: E402
from data.images import (  # noqa: E402
    decode,  # noqa: E402
    encode_jpeg,
    encode_png,
)
from data.recordio import RecordPack, RecordWriter, pack_record  # noqa: E402
from data.verification import read_bin, write_bin  # noqa: E402

MAGIC = (0xCED7230A).to_bytes(4, "little")
LABELS = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3]


def payloads() -> list[bytes]:
    """Payloads of all lengths, with the magic at every alignment, in a row, and at both ends."""
    rng = random.Random(5)
    chosen = [b"", b"a", MAGIC, MAGIC * 3, MAGIC[:3], b"abc" + MAGIC, b"abcd" + MAGIC + b"e"]
    for length in range(40):
        pieces = rng.choices([MAGIC, b"x", b"yz", rng.randbytes(4)], k=length)
        chosen.append(b"".join(pieces))
    return [*chosen, rng.randbytes(100_000), rng.randbytes(50_000) + MAGIC * 2 + b"end"]


def pictures() -> list[bytes]:
    """JPEG and PNG images; some carry the magic in a comment, aligned in the record or not."""
    rng, encoded = np.random.default_rng(3), []
    for number in range(len(LABELS)):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
        if number % 5 == 4:
            encoded.append(encode_png(image))
            continue
        comment = MAGIC * 3 + bytes(number)
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        jpeg = encode_jpeg(image)
        encoded.append(jpeg[:2] + segment + jpeg[2:] if number % 2 else jpeg)
    return encoded


def write(folder: Path) -> int:
    """Write what mxnet is to read, and a manifest of what it should find."""
    images = pictures()
    with RecordWriter(folder / "ours_raw") as writer:
        for key, payload in enumerate(payloads()):
            writer.write(key, payload)
    with RecordWriter(folder / "ours_faces" / "train") as writer:
        for label, image in zip(LABELS, images, strict=True):
            writer.write_image(label, image)
    with RecordWriter(folder / "ours_arrays") as writer:
        for key, (label, image) in enumerate(zip(LABELS, images, strict=True)):
            writer.write(key, pack_record((label, 0.0, 0.5), key, image))
    write_bin(folder / "ours.bin", images, [True, False, True, False, False])
    manifest = {
        "payloads": [payload.hex() for payload in payloads()],
        "images": [image.hex() for image in images],
        "labels": LABELS,
        "pixels": [digest(decode(image).tobytes()) for image in images],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return 0


def read(folder: Path) -> int:
    """Read what mxnet wrote."""
    checks, images = Checks("we read what mxnet writes"), pictures()
    with RecordPack(folder / "theirs_raw.rec") as pack:
        found = [digest(pack.read(key)) for key in pack.keys.tolist()]
    checks.equal("records, multi-part ones too", found, [digest(raw) for raw in payloads()])
    for suffix in (".rec", ".idx"):
        ours, theirs = (folder / f"{side}_raw{suffix}" for side in ("ours", "theirs"))
        checks.equal(
            f"the same records: {suffix} byte for byte",
            digest(theirs.read_bytes()),
            digest(ours.read_bytes()),
        )
    pixels = [digest(decode(image).tobytes()) for image in images]
    for style in ("scalar", "array"):
        faces = open_faces(str(folder / f"theirs_{style}"))
        rows = range(len(faces))
        checks.equal(f"insightface pack, {style} labels: labels", faces.labels.tolist(), LABELS)
        checks.equal(
            f"insightface pack, {style} labels: pixels",
            [digest(faces.read(row).tobytes()) for row in rows],
            pixels,
        )
    (folder / "theirs_raw.idx").unlink()
    with RecordPack(folder / "theirs_raw.rec") as pack:
        checks.equal("records without the .idx", len(pack), len(payloads()))
    for protocol in (2, 4):
        found_set = read_bin(folder / f"theirs_{protocol}.bin")
        decoded = [digest(image.tobytes()) for image in found_set.decode(0, len(images))]
        checks.equal(f".bin, pickle protocol {protocol}: pixels", decoded, pixels)
        checks.equal(
            f".bin, pickle protocol {protocol}: flags",
            found_set.mated.tolist(),
            [True] * 2 + [False] * 3,
        )
    return checks.finish()


if __name__ == "__main__":
    sys.exit({"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2])))
