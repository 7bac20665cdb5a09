"""mxnet's side: read what we wrote, and write the same things with mxnet.

python tests/interop/theirs.py FOLDER      (called by run.sh, in the environment that has mxnet)
"""

import json
import pickle
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")  # mxnet 1.9.1 uses names that its numpy already warns about

import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402
from checks import Checks, digest  # noqa: E402

recordio = mx.recordio


def reader(prefix: Path) -> recordio.MXIndexedRecordIO:
    """Open a pack for reading."""
    return recordio.MXIndexedRecordIO(f"{prefix}.idx", f"{prefix}.rec", "r")


def decoded(image: bytes) -> str:
    """Name an image's pixels as mxnet decodes them."""
    return digest(mx.image.imdecode(image).asnumpy().tobytes())


def read_records(checks: Checks, folder: Path, payloads: list[bytes]) -> None:
    """Read our records by key and in sequence."""
    expected = [digest(payload) for payload in payloads]
    pack = reader(folder / "ours_raw")
    checks.equal("records by key", [digest(pack.read_idx(key)) for key in pack.keys], expected)
    pack.close()
    stream, found = recordio.MXRecordIO(str(folder / "ours_raw.rec"), "r"), []
    for _ in payloads:
        found.append(digest(stream.read()))
    checks.equal("records in sequence", found, expected)
    checks.equal("nothing after the last record", stream.read(), None)
    stream.close()


def read_faces(checks: Checks, folder: Path, manifest: dict) -> None:
    """Read our insightface pack as arcface_torch's data set does, then its identities."""
    pack = reader(folder / "ours_faces" / "train")
    header, _ = recordio.unpack(pack.read_idx(0))
    first, end = (int(value) for value in header.label)
    labels, pixels, ids = [], [], []
    for key in range(1, first):
        header, image = recordio.unpack(pack.read_idx(key))
        labels.append(int(header.label))
        ids.append(header.id)
        pixels.append(decoded(image))
    checks.equal("insightface pack: labels", labels, manifest["labels"])
    checks.equal("insightface pack: ids", ids, list(range(1, first)))
    checks.equal("insightface pack: pixels", pixels, manifest["pixels"])
    ranges = [recordio.unpack(pack.read_idx(key))[0].label.tolist() for key in range(first, end)]
    owners = [owner for owner, (a, b) in enumerate(ranges) for _ in range(int(b - a))]
    checks.equal("insightface pack: identity ranges", owners, manifest["labels"])
    pack.close()
    pack, found = reader(folder / "ours_arrays"), []
    for key in pack.keys:
        found.append(recordio.unpack(pack.read_idx(key))[0].label.tolist())
    checks.equal("array labels", found, [[label, 0.0, 0.5] for label in manifest["labels"]])
    pack.close()


def read_set(checks: Checks, folder: Path, manifest: dict) -> None:
    """Read our `.bin` the way insightface's load_bin does."""
    with (folder / "ours.bin").open("rb") as file:
        images, flags = pickle.load(file, encoding="bytes")
    checks.equal(".bin: pixels", [decoded(image) for image in images], manifest["pixels"])
    checks.equal(".bin: flags", flags, [True, False, True, False, False])


def write_all(folder: Path, payloads: list[bytes], images: list[bytes], labels: list[int]) -> None:
    """Write records, packs with scalar and array labels, and sets."""
    writer = recordio.MXIndexedRecordIO(
        str(folder / "theirs_raw.idx"), str(folder / "theirs_raw.rec"), "w"
    )
    for key, payload in enumerate(payloads):
        writer.write_idx(key, payload)
    writer.close()
    for style in ("scalar", "array"):
        write_faces(folder / f"theirs_{style}", style, images, labels)
    for protocol in (2, 4):
        content = (images, [True, True, False, False, False])
        (folder / f"theirs_{protocol}.bin").write_bytes(pickle.dumps(content, protocol=protocol))


def write_faces(folder: Path, style: str, images: list[bytes], labels: list[int]) -> None:
    """Write insightface's layout: header, images, identities."""
    folder.mkdir()
    writer = recordio.MXIndexedRecordIO(str(folder / "x.idx"), str(folder / "x.rec"), "w")
    first, people = len(images) + 1, sorted(set(labels))

    def put(key: int, label: object, image: bytes = b"") -> None:
        writer.write_idx(key, recordio.pack(recordio.IRHeader(0, label, key, 0), image))

    put(0, np.array([first, first + len(people)], dtype=np.float32))
    for key, (label, image) in enumerate(zip(labels, images), start=1):  # noqa: B905
        put(key, float(label) if style == "scalar" else [float(label), 0.0], image)
    for person in people:
        start = 1 + labels.index(person)
        put(first + person, [float(start), float(start + labels.count(person))])
    writer.close()


def main(folder: Path) -> int:
    """Check our files, write theirs."""
    manifest = json.loads((folder / "manifest.json").read_text())
    payloads = [bytes.fromhex(text) for text in manifest["payloads"]]
    checks = Checks(f"mxnet {mx.__version__} reads what we write")
    read_records(checks, folder, payloads)
    read_faces(checks, folder, manifest)
    read_set(checks, folder, manifest)
    write_all(
        folder, payloads, [bytes.fromhex(text) for text in manifest["images"]], manifest["labels"]
    )
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
