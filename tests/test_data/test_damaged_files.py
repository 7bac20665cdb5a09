"""Damaged variants of every data file: each is read, or is one error that names the file."""

import io
import json
import os
import warnings
import zipfile

import numpy as np
import pytest

from data.extracted import ABOUT, Bad, Extracted, Shard, ShardFolder
from data.faces import FaceImages, open_faces
from data.features import Embeddings, Features
from data.images import encode_jpeg
from data.pairs import open_pairs
from data.recordio import RecordWriter
from data.rendered import SyntheticFaces
from data.verification import read_bin, write_bin
from evaluation.sets.stored import open_stored
from photos.sources import open_sources
from utils.files import naming
from utils.tables import read_table

N = 12
RNG = np.random.default_rng(5)
FACES = [encode_jpeg(SyntheticFaces(3, 4, seed=5).read(row), 60) for row in range(N)]
MU = RNG.normal(size=(N, 4)).astype(np.float32)
SIGMA = RNG.random((N, 1)).astype(np.float32)
PEOPLE = np.repeat(np.arange(3), 4)
PAIRS = {"mu": MU, "sigma_sq": SIGMA, "issame": np.arange(N // 2) % 2}
LABELLED = {"mu": MU, "sigma_sq": SIGMA, "identity": PEOPLE, "name": PEOPLE.astype(str)}


def npz(folder, arrays):
    np.savez_compressed(folder / "f.npz", **arrays)
    return [folder / "f.npz"]


def bin_set(folder):
    write_bin(folder / "s.bin", FACES, [True, False] * 3)
    return [folder / "s.bin"]


def pack(folder, suffixes=(".rec", ".idx")):
    with RecordWriter(folder / "p") as writer:
        for row, face in enumerate(FACES):
            writer.write_image(row // 4, face)
    if ".idx" not in suffixes:
        (folder / "p.idx").unlink()
    return [folder / f"p{suffix}" for suffix in suffixes]


def listed(folder, name, line, heading=""):
    for row, face in enumerate(FACES):
        (folder / f"{row}.jpg").write_bytes(face)
    lines = (line.format(row=row, other=(row + 6) % N, label=row // 6) for row in range(N))
    (folder / name).write_text(heading + "".join(lines))
    return [folder / name, folder / "0.jpg"]


def extracted(folder, form):
    about = {"columns": ("idq",), "embedding_size": 4, "format": form, "images": N}
    (folder / ABOUT).write_text(json.dumps({**about, "shard_images": 8}))
    shards = ShardFolder(folder, form, N, 8, ("idq",), "x")
    for number in range(2):
        rows = np.arange(*shards.bounds(number))
        names = [f"{row}.jpg" for row in rows]
        shard = Shard(rows, PEOPLE[rows], MU[rows], SIGMA[rows], rows != 9, names)
        shards.write(number, shard, [Bad(9, "9.jpg", "cut off")] if number else [], {})
    second = shards.path(1)
    return [folder / ABOUT, *(sorted(second.iterdir()) if form == "npy" else [second])]


def read_faces(path):
    FaceImages(open_faces(str(path))).decode(0, 99)


def read_photos(path):
    """What cannot be read is an item that says so."""
    for item in open_sources(str(path)):
        try:
            item.load()
        except ValueError as error:
            if "\n" in str(error):
                raise


def read_set(path):
    images = read_bin(path)
    images.decode(0, 99)
    images.first_rows()


def read_columns(path):
    table = read_table(path)
    with naming(path):
        for part in table.chunks(table.columns):
            for column in part.values():
                column.numbers()


def read_extracted(path):
    folder = Extracted(path)
    folder.labelled()
    folder.take(np.arange(len(folder)))
    list(folder.bad())


# what writes files into a folder and returns those to damage, and what reads them
KINDS = {
    "features": (lambda at: npz(at, PAIRS), lambda at: Features.load(at / "f.npz")),
    "embeddings": (lambda at: npz(at, LABELLED), lambda at: Embeddings.load(at / "f.npz")),
    "stored": (lambda at: npz(at, PAIRS), lambda at: open_stored(at / "f.npz").comparisons()),
    "columns": (
        lambda at: npz(at, {"a": SIGMA[:, 0], "b": PEOPLE, "c": np.array(0.5)}),
        lambda at: read_columns(at / "f.npz"),
    ),
    "bin": (bin_set, lambda at: read_set(at / "s.bin")),
    "bin photos": (bin_set, lambda at: read_photos(at / "s.bin")),
    "rec": (pack, lambda at: read_faces(at / "p.rec")),
    "rec photos": (pack, lambda at: read_photos(at / "p.rec")),
    "rec without idx": (lambda at: pack(at, (".rec",)), lambda at: read_faces(at / "p.rec")),
    "lst": (
        lambda at: listed(at, "l.lst", "{row}\t{label}\t{row}.jpg\n"),
        lambda at: read_faces(at / "l.lst"),
    ),
    "txt photos": (
        lambda at: listed(at, "l.txt", "{row}.jpg {label}\n"),
        lambda at: read_photos(at / "l.txt"),
    ),
    "csv photos": (
        lambda at: listed(at, "l.csv", "{row}.jpg,{label}\n", "path,name\n"),
        lambda at: read_photos(at / "l.csv"),
    ),
    "pairs": (
        lambda at: listed(at, "p.csv", "{row}.jpg,{other}.jpg,1\n"),
        lambda at: FaceImages(open_pairs(at / "p.csv", at).faces).decode(0, 99),
    ),
    "npy shards": (lambda at: extracted(at, "npy"), read_extracted),
    "parquet shards": (lambda at: extracted(at, "parquet"), read_extracted),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_one_error_that_names_the_file(tmp_path, kind):
    write, read = KINDS[kind]
    paths = write(tmp_path)
    read(tmp_path)
    refused = 0
    for path in paths:
        whole = path.read_bytes()
        for variant in variants(path.suffix, whole):
            path.write_bytes(variant)
            message = outcome(read, tmp_path)
            assert not message or str(tmp_path) in message
            assert len(message) < 1000
            refused += bool(message)
        path.write_bytes(whole)
    assert refused > 5 or kind.endswith("photos")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind", KINDS)
def test_pipes_and_devices_are_not_read(tmp_path, kind):
    write, read = KINDS[kind]
    for path in write(tmp_path):
        whole = path.read_bytes()
        for special in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
            path.unlink()
            special(path)
            message = outcome(read, tmp_path)
            assert str(tmp_path) in message or path.suffix in (".idx", ".jpg", ".bin", ".rec")
            assert message or kind.endswith("photos") or path.suffix == ".idx"
        path.unlink()
        path.write_bytes(whole)


def outcome(read, folder):
    try:
        read(folder)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def variants(suffix, content):
    for place in np.linspace(0, len(content) - 1, 30).astype(int).tolist():
        yield content[:place]
    random = np.random.default_rng(len(content))
    for near in 20 * [len(content), min(len(content), 200)]:
        damaged = np.frombuffer(content, np.uint8).copy()
        places = random.integers(0, near, random.integers(1, 4))
        values = [0, 255, 128, *b',\n0"', *random.integers(0, 256, 6)]
        damaged[places] = random.choice(values, len(places))
        yield damaged.tobytes()
    for extra in (b"\0", b"\n", content, bytes(1 << 17)):
        yield content + extra
    kinds = {".npz": members, ".npy": lambda _: arrays(), ".json": texts}
    yield from kinds.get(suffix, lambda _: ())(content)


def members(content):
    """An archive with each member changed, renamed, left out, there twice or packed otherwise."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for name, part in parts.items():
        others = {other: parts[other] for other in parts if other != name}
        yield zipped(others)
        for changed in (b"", b"x", *arrays()):
            yield zipped({**others, name: changed})
        for other in ("/", "../x.npy", name.removesuffix(".npy")):
            yield zipped({**others, other: part})
    yield zipped(parts, (name, b"x"))
    yield zipped(parts, method=zipfile.ZIP_LZMA)
    yield zipped(parts, method=zipfile.ZIP_BZIP2)


def zipped(parts, *more, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w", method) as archive:
        for name, part in (*parts.items(), *more):
            archive.writestr(name, part)
    return file.getvalue()


def arrays():
    """Arrays of the wrong shape or type, and headers that are damaged or say too much."""
    for array in (
        *(np.array(3.0), np.zeros(0), np.zeros((0, 3)), np.zeros((N, 0)), np.zeros((2, 3, 4))),
        *(MU.T, np.asfortranarray(MU), MU[:5], MU.astype(float) * 1e300, np.full((N, 4), np.nan)),
        *(np.array(["a"] * N), np.array([b"a"] * N), np.array([None] * N), MU > 0),
        *(MU.astype(complex), np.zeros(N, "M8[s]"), np.zeros(N, "f4,i8"), np.zeros(N, "V7")),
        *(
            np.zeros(N, "S0"),
            np.full(N, -1),
            np.full(N, 2**63, np.uint64),
            np.arange(N, dtype=">i2"),
        ),
    ):
        file = io.BytesIO()
        np.save(file, array)
        yield file.getvalue()
    letters = np.full(N, 0xFFFFFFFF, np.uint32).tobytes()
    yield npy(header("'<U1'", "(12,)"), letters)
    for text in HEADERS:
        yield npy(text, MU.tobytes())
    yield npy(HEADERS[-1], MU.tobytes(), version=2)
    yield npy(HEADERS[-1], MU.tobytes(), version=7)
    for length in (0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF):
        yield npy("x", b"", version=2)[:8] + length.to_bytes(4, "little") + b" " * 99


def npy(text, data, version=1):
    encoded = text.encode() + b"\n"
    length = len(encoded).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + encoded + data


def header(kind, shape, order="False"):
    return f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}}}"


HEADERS = (
    *("", "{", "{}", "[]", "None", "1", "'a'", "{'descr': '<f4'}", "\0" * 9, "(" * 500),
    "{" * 60_000,
    *(
        header("'<f4'", shape)
        for shape in (
            *("(1000000000000,)", "(1000000, 1000000, 4)", "(0, 1000000000000)", "(-1,)"),
            *("(12.0, 4)", "12", "(True, 4)", f"({'1,' * 70})", f"({'9' * 30},)", "(2**62, 4)"),
        )
    ),
    *(header("'<f4'", "(12, -4)", "True"), header("'<f4'", "(12, 4)", "2")),
    *(
        header(kind, "(12,)")
        for kind in (
            *("'|O'", "'<U1000000000'", "'|S2000000000'", "'bad'", "None", "'<M8[0s]'"),
            *("[('a', '<f4'), ('a', '<i4')]", "'<f4'*1000", f"'{'f4,' * 5000}'"),
            *("[('a', ('<f4', (100000, 100000, 100000)))]", "('<f4', (2, 2))"),
        )
    ),
    *(header(kind, "(1000000000000,)") for kind in ("'|V0'", "'|S0'", "'<U0'")),
    header("'>f4'", "(4, 12)", "True"),
)


def texts(content):
    """A JSON text with each value left out or replaced."""
    for text in (
        "",
        "null",
        "[]",
        "1",
        '"x"',
        "[" * 200_000,
        '{"a":' * 100_000,
        "1" * 5000,
        "\xff",
    ):
        yield text.encode("latin1")
    stated = json.loads(content)
    values = (
        *(None, True, -1, 0, 3, 1.5, 1e300, float("nan"), float("inf"), 10**12, 10**18, 10**400),
        *("x", "npy", "", [], {}, [[]], [1], ["a", "a"], {"a": None}),
    )
    for key in stated:
        yield json.dumps({name: value for name, value in stated.items() if name != key}).encode()
        for value in values:
            yield json.dumps({**stated, key: value}).encode()
            for name in stated[key] if isinstance(stated[key], dict) else ():
                yield json.dumps({**stated, key: {**stated[key], name: value}}).encode()
