"""Everything that reads a file of strangers: its name, files to begin with, and the reader.

A row of `TARGETS` is all that it takes to fuzz a reader; test_fuzz.py and run.py go through them.
"""

import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pyarrow
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save as safetensors_of

from data import cache_file
from data.extracted import Bad, Shard, ShardFolder, open_extracted
from data.faces import open_faces
from data.ijb_files import find_paths, read_members
from data.ijb_files import read_pairs as read_template_pairs
from data.images import decode, decode_into, encode_jpeg, encode_png, to_112
from data.listing import list_file_listing
from data.pairs import read_pairs
from data.rec.format import RecordWriter
from data.rec.reader import RecordPack
from data.verification import read_bin
from estimators.base import Batch, save_fit
from estimators.from_file import FromFile
from estimators.froq import FROQ
from estimators.fusion import fit_rank_mean, load_fusion, save_fusion
from estimators.onnx import metadata
from evaluation.confidence.calibration import Calibration, Decision
from evaluation.confidence.same_person import SamePerson
from evaluation.metrics.comparisons import Comparisons
from evaluation.open_model import open_model
from evaluation.sets.score_files import read_scores
from evaluation.sets.stored import open_stored
from models.load import load_tensors, save_checkpoint
from models.onnx_graph import read_recogniser
from models.run import (
    About,
    Run,
    backbone_record,
    branch_folders,
    build_head,
    load_frozen,
    save_packed,
)
from photos.decode import jpeg_block, orientation, read_photo
from photos.sources import Item, open_sources
from scoring.rows import RowParts
from tests.helpers import GOLDEN, TINY
from utils.config import Method, Schedule, TrainConfig, from_json, override, parse_method, to_json
from utils.methods import build
from utils.onnx_runtime import read_network
from utils.run import MetricsFile
from utils.tables import read_table, write_table

Files = dict[str, bytes]  # by their names below a folder; the first is that which is read


@dataclass(frozen=True)
class Target:
    """A reader, which gets the path of the first file.

    Attributes:
        name: for people.
        cost: about how many ms of CPU time one input takes.
        corpus: files to begin with; each entry is a folder.
        read: reads, and uses what was read; ValueError and OSError are answers.
        fixed: endings of files that stay as they are.
        names_file: whether an error has the name of a file.
    """

    name: str
    cost: float
    corpus: Callable[[], list[Files]]
    read: Callable[[Path], object]
    fixed: tuple[str, ...] = ()
    names_file: bool = True


def files_in(folder: Path, first: str) -> Files:
    """Return the files below a folder, this one first."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)) for path in paths]
    names.sort(key=lambda name: name != first)
    return {name: (folder / name).read_bytes() for name in names}


def written(name: str, write: Callable[[Path], object]) -> Files:
    """Return what a function writes to a path of this name, and beside it."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return files_in(Path(folder), name)


# Tables


def texts(suffix: str, *lines: str) -> list[Files]:
    """Return a table with commas, semicolons or tabs, in some encodings and both line ends."""
    text = "\n".join(lines) + "\n"
    return [
        {f"t{suffix}": text.encode()},
        {f"t{suffix}": text.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig")},
        {f"t{suffix}": text.replace(",", "\t").encode("utf-16")},
        {f"t{suffix}": ("# made by hand\n\n" + text).encode()},
    ]


def read_columns(path: Path) -> None:
    table = read_table(path)
    for chunk in table.chunks(table.columns):
        for column in chunk.values():
            for use in (column.text, column.numbers, lambda column=column: column.flags("0 or 1")):
                with suppress(ValueError):
                    use()
            column.where(0)


def columns_of_numbers(rows: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image_a": np.arange(rows) + 1,
        "image_b": np.arange(rows) + 100,
        "score": rng.random(rows).astype(np.float32),
        "mated": np.arange(rows) % 2 == 0,
        "uncertainty_a": rng.random(rows).astype(np.float32),
        "uncertainty_b": rng.random(rows),
        "identity_a": np.array([f"p{row}" for row in range(rows)]),
        "identity_b": np.array([f"p{row + row % 2}" for row in range(rows)]),
    }


def tables(suffix: str) -> list[Files]:
    columns = columns_of_numbers()
    some = {name: columns[name] for name in ("score", "mated", "uncertainty_a", "uncertainty_b")}
    unlisted = {} if suffix == ".csv" else {"unlisted": 5, "listed_from": 0.1}
    name = f"t{suffix}"
    return [
        written(name, lambda path: write_table(path, columns)),
        written(name, lambda path: write_table(path, some, unlisted)),
    ]


def other_parquet() -> list[Files]:
    """Return Parquet with missing values, dictionaries, lists and structures."""
    arrays = {
        "score": pyarrow.array([0.5, None, 0.25]),
        "mated": pyarrow.array([True, False, True]),
        "quality": pyarrow.array(["1", "x", "3"]).dictionary_encode(),
        "list": pyarrow.array([[1], [2, 3], []]),
        "image": pyarrow.array([{"bytes": b"\xff\xd8", "path": "a"}] * 3),
    }
    return [written("t.parquet", lambda path: parquet.write_table(pyarrow.table(arrays), path))]


SCORES = (
    "image_a,image_b,score,mated,uncertainty_a,uncertainty_b",
    *("a,b,0.9,1,0.1,0.2", 'c,"d, e",.1,0,0.3,0.4', "a,c,-1e-3,false,0.1,0.3", "b,d,0,True,.2,.4"),
)
QUALITIES = ("image,quality", "a.jpg,10", '"b, c.jpg",255', "d.jpg,99.5")


def from_file(path: Path) -> None:
    scores = FromFile(path=str(path))
    scores.uncertainty_of(list(scores.scores))


# Lists


def faces_beside(*lists: tuple[str, str]) -> list[Files]:
    image = encode_png(np.zeros((8, 8, 3), np.uint8))
    beside = {"a.png": image, "b/c.png": image, "ab/ab_0001.png": image}
    return [{name: text.encode()} | beside for name, text in lists]


def faces_of_list(path: Path) -> None:
    faces = list_file_listing(path)
    for row in range(min(len(faces), 3)):
        faces.path(row)


def photos(path: Path) -> None:
    sources = open_sources(path)
    for item, _ in zip(sources.items(), range(5), strict=False):
        with suppress(ValueError):
            item.load()
    sources.count()


# Packs of faces


@cache
def face(kind: str) -> bytes:
    rng = np.random.default_rng(1)
    pixels = np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((28, 28, 1), np.uint8))
    return encode_jpeg(pixels, 60) if kind == "jpg" else encode_png(pixels)


def bins() -> list[Files]:
    images, flags = [face("jpg"), face("png")] * 2, [True, False]
    pixels = [np.zeros((4, 4, 3), np.uint8)] * 4
    encoded = [np.frombuffer(image, np.uint8) for image in images]
    contents = [(images, flags), (encoded, np.array(flags)), (pixels, flags), [images, flags]]
    return [
        {"lfw.bin": pickle.dumps(content, protocol)}
        for content in contents
        for protocol in (2, 4, 5)
    ] + [{"lfw.bin": (GOLDEN / "data/bin/py2_proto2.bin").read_bytes()[:8000]}]


def read_pairs_of_bin(path: Path) -> None:
    pairs = read_bin(path)
    pairs.first_rows()
    pairs.decode(0, min(4, len(pairs.images)))


def recs() -> list[Files]:
    def write(path: Path) -> None:
        with RecordWriter(path.with_suffix("")) as writer:
            for row in range(6):
                writer.write_image(row // 2, face("png") if row % 3 else face("jpg"), f"{row}.jpg")

    whole = written("train.rec", write)
    walked = {"train.rec": whole["train.rec"]}
    golden = GOLDEN / "data/rec/mixed_header_after"
    index = (golden / "train.idx").read_text().splitlines()[:2]
    start = int(index[1].split()[1])
    cut = (golden / "train.rec").read_bytes()[: max(start, 4096)]
    return [whole, walked, {"train.rec": cut}]


def read_pack(path: Path) -> None:
    with RecordPack(path) as pack:
        images = pack.images
        for position in list(images.positions)[:3]:
            pack.record_at(int(position))
            pack.image_view(int(position)).release()
        for key in pack.keys[:3].tolist():
            pack.read(key)


def read_faces(path: Path) -> None:
    faces = open_faces(str(path))
    for row in range(min(len(faces), 3)):
        faces.name(row)
        to_112(decode(faces.encoded(row)))


# Stored embeddings


def npz(**arrays: np.ndarray) -> Files:
    file = BytesIO()
    np.savez(file, **arrays)
    return {"features.npz": file.getvalue()}


def features() -> list[Files]:
    rng = np.random.default_rng(2)
    mu = rng.normal(size=(12, 4)).astype(np.float32)
    sigma_sq = rng.random((12, 1)).astype(np.float32)
    names = np.array([f"{row}.jpg" for row in range(12)])
    return [
        npz(mu=mu, sigma_sq=sigma_sq, issame=np.arange(6) % 2 == 0),
        npz(mu=mu, sigma_sq=sigma_sq, identity=np.arange(12) // 3, name=names),
        npz(mu=mu.astype(np.float64), sigma_sq=np.tile(sigma_sq, 2), identity=np.arange(12) // 4),
    ]


def evaluate_stored(path: Path) -> None:
    open_stored(path).comparisons()


def extracted(form: str) -> Files:
    rng = np.random.default_rng(3)
    about = {"columns": ["a", "b"], "embedding_size": 4, "format": form}

    def write(path: Path) -> None:
        shards = ShardFolder(path.parent, form, 10, 6, ("a", "b"), "s")  # type: ignore[arg-type]
        path.write_text(json.dumps(about | {"images": 10, "shard_images": 6}))
        for number in range(2):
            rows = np.arange(*shards.bounds(number))
            arrays = (
                rng.normal(size=(len(rows), 4)).astype(np.float16),
                rng.random((len(rows), 2)).astype(np.float32),
                rows != 7,
            )
            shard = Shard(rows, rows // 2, *arrays, [f"{row}.jpg" for row in rows])
            bad = [Bad(7, "7.jpg", "cut off")] if number else []
            shards.write(number, shard, bad, {})

    return written("about.json", write)


def read_extracted(path: Path) -> None:
    folder = open_extracted(path.parent)
    folder.labelled()
    list(folder.bad())
    folder.take(range(min(len(folder), 3)))
    evaluate_stored(path.parent)


def ijb() -> list[Files]:
    five = " ".join(f"{number}.5" for number in range(10))
    templates = [1, 1, 2, 3, 5]
    members = [f"{row}.jpg {template} {row + 10}" for row, template in enumerate(templates)]
    places = [f"{row}.jpg {five} 0.9" for row in range(5)]
    pairs = ["1 2 1", "1 3 0", "2 5 0", "3 5 1"]
    names = ("face_tid_mid", "name_5pts_score", "template_pair_label")
    files = zip(names, (members, places, pairs), strict=True)
    texts = {f"meta/ijbc_{name}.txt": ("\n".join(lines) + "\n").encode() for name, lines in files}
    return [texts | {"loose_crop/0.jpg": b""}]


def read_ijb(path: Path) -> None:
    paths = find_paths(path.parents[1])
    members = read_members(paths)
    read_template_pairs(paths.pairs, np.unique(members.template))


# Images


def images() -> list[Files]:
    noise = np.random.default_rng(4).integers(0, 256, (6, 6, 4), np.uint8)
    picture = Image.fromarray(np.kron(noise, np.ones((4, 4, 1), np.uint8)), "RGBA")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    saved = [
        ("RGB", "JPEG", {"exif": exif, "xmp": xmp}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 2}),
        *(("L", "JPEG", {}), ("CMYK", "JPEG", {})),
        *((mode, "PNG", {"exif": exif}) for mode in ("1", "L", "P", "LA", "RGBA")),
        *(("RGB", "TIFF", {"compression": name}) for name in (None, "tiff_lzw", "tiff_deflate")),
        *(("L", "TIFF", {}), ("RGB", "TIFF", {"compression": "jpeg", "exif": exif})),
        *(("I;16", "PNG", {}), ("I;16", "TIFF", {}), ("F", "TIFF", {}), ("P", "GIF", {})),
        *(("RGBA", "WEBP", {"lossless": True}), ("RGB", "WEBP", {"exif": exif, "xmp": xmp})),
        *(("RGB", "BMP", {}), ("P", "BMP", {}), ("RGB", "PPM", {}), ("L", "PCX", {})),
        *(("RGB", "SGI", {}), ("RGBA", "ICO", {}), ("RGB", "JPEG2000", {}), ("RGB", "AVIF", {})),
        ("RGBA", "QOI", {}),
    ]
    made = []
    for mode, form, options in saved:
        file = BytesIO()
        grey = picture.convert("L")
        with suppress(KeyError):  # a Pillow without it
            converted = Image.fromarray(np.asarray(grey, np.uint16) << 8) if ";" in mode else None
            (converted or (grey if mode == "F" else picture).convert(mode)).save(
                file, form, **options
            )
            made.append({f"photo.{form.lower()}": file.getvalue()})
    return made


def read_photo_file(path: Path) -> None:
    read_photo(path.read_bytes())


def read_face_file(path: Path) -> None:
    encoded = path.read_bytes()
    pixels = decode(encoded)
    out = np.empty((112, 112, 3), np.uint8)
    decode_into(encoded, out)
    np.testing.assert_array_equal(out, to_112(pixels))


def read_orientation(path: Path) -> None:
    encoded = path.read_bytes()
    orientation(
        jpeg_block(encoded, b"Exif\0\0"), jpeg_block(encoded, b"http://ns.adobe.com/xap/1.0/\0")
    )
    orientation(encoded, encoded)


# Models


CONFIG = TrainConfig(
    name="tiny",
    backbone=TINY,
    backbone_weights="backbone.pth",
    train_images="synthetic:identities=4,images=2,seed=1",
    schedule=Schedule(epochs=2, steps_per_epoch=3, drop_at=(1,)),
    head=Method("fc2", output="probability", hidden=4),
    loss=Method("idq", scale=8.0),
    device="cpu",
)


def calibration() -> Calibration:
    rng = np.random.default_rng(5)
    uncertainty = rng.random(400).astype(np.float32)
    mated = np.arange(200) % 2 == 0
    scores = (mated + rng.uniform(-0.7, 0.7, 200)).astype(np.float32)
    pairs = np.arange(400, dtype=np.int32).reshape(-1, 2)
    made = Comparisons("set", scores, mated, pairs, uncertainty)
    fitted = Calibration.fit(made, score_threshold=0.5, method="trained_head")
    return replace(fitted, same_person=SamePerson.fit(made))


def short_calibration() -> dict[str, object]:
    stored = calibration().to_dict()
    for key in ("uncertainty", "probabilities", "percentile_at", "percentiles"):
        values = stored[key]
        stored[key] = values[:: max(1, len(values) // 6)]  # type: ignore[index, arg-type]
    return stored


def calibrations() -> list[Files]:
    decision = Decision.from_calibration(calibration()).to_dict()
    weights = {"backbone": "ab" * 32, "head": "cd" * 32}
    for_all = [short_calibration(), short_calibration() | {"decision": decision}]
    return [
        {"c.json": json.dumps(stored | extra).encode()}
        for stored in for_all
        for extra in ({}, {"weights_sha256": weights})
    ]


def read_calibration(path: Path) -> None:
    loaded = Calibration.load(path)
    values = np.array([0, 0.5, 1, np.nan, np.inf])
    loaded.iso_quality(values)
    loaded.probability(values)
    if loaded.same_person:
        loaded.same_person.probability(0.5, values, 0.5, prior=0.01)
    decision = loaded.decision or Decision.from_calibration(loaded)
    decision.to_dict()
    json.dumps(loaded.to_dict())


@cache
def network() -> tuple[Run, dict[str, object], bytes]:
    """Return a tiny model, what checkpoints say of its backbone, and the backbone's file."""
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "backbone.pth"
        torch.save(build("models.backbones", TINY).state_dict(), weights)
        frozen = load_frozen(CONFIG, "cpu", "fp32", str(weights))
        record = backbone_record(frozen, str(weights))
        content = weights.read_bytes()
    head = build_head(CONFIG, frozen).eval()
    return Run(Path(), CONFIG, frozen, head, 1, record["sha256"], ()), record, content


def weights() -> list[Files]:
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2, dtype=torch.float16)}
    whole = {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}

    def saved(content: object, **options: object) -> bytes:
        file = BytesIO()
        torch.save(content, file, **options)  # type: ignore[arg-type]
        return file.getvalue()

    return [
        {"w.pth": saved(state)},
        {"w.pt": saved(whole)},
        {"w.pth": saved(state, _use_new_zipfile_serialization=False)},
        {"w.pth": saved({"w": torch.eye(3).to_sparse()})},
        {"w.safetensors": safetensors_of(state)},
        {"w.pth": pickle.dumps({"a": 1})},
    ]


def packed() -> list[Files]:
    run = network()[0]
    about = About(
        name="tiny", license="MIT", source="", sha256=run.sha256, label="", colour_check=None,
        created="2026-01-31", version="1",
    )  # fmt: skip
    stored = short_calibration()
    return [written("m.pt", lambda path: save_packed(path, run, about, stored))]


def runs() -> list[Files]:
    run, record, backbone = network()
    config = to_json(CONFIG)
    payload = {"config": config, "backbone": record, "head": run.head.state_dict(), "step": 1}

    def write(path: Path) -> None:
        save_checkpoint(path, payload)
        path.with_name("config.json").write_text(config)
        path.with_name("calibration.json").write_text(json.dumps(short_calibration()))
        path.with_name("backbone.pth").write_bytes(backbone)

    return [written("best.pt", write)]


def read_run(path: Path) -> None:
    open_model(path.parent, device="cpu", backbone_weights=path.with_name("backbone.pth"))


def use_model(path: Path) -> None:
    model = open_model(path, device="cpu")
    model.header()
    model.estimator(Batch(np.zeros((2, 112, 112, 3), np.uint8)))


def graph(nodes: list, source: tuple, outputs: list, constants: dict, facts: dict) -> Files:
    helper = onnx.helper
    proto = helper.make_graph(
        [
            helper.make_node(kind, inputs, [output], **options)
            for kind, inputs, output, options in nodes
        ],
        "graph",
        [helper.make_tensor_value_info(*source)],
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in outputs
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(proto, opset_imports=opset, ir_version=8)
    helper.set_model_props(model, facts)
    return {"m.onnx": model.SerializeToString()}


def exported() -> list[Files]:
    about = {"model": "m.pt", "license": "MIT", "name": "tiny", "sha256": "ab" * 32}
    nodes = [
        ("Cast", ["images"], "float", {"to": onnx.TensorProto.FLOAT}),
        ("ReduceMean", ["float"], "uncertainty", {"axes": [1, 2, 3], "keepdims": 0}),
        ("ReduceMean", ["float"], "embedding", {"axes": [1, 2], "keepdims": 0}),
    ]
    source = "images", onnx.TensorProto.UINT8, ["N", 112, 112, 3]
    outputs = [("embedding", ["N", 3]), ("uncertainty", ["N"])]
    decision = Decision.from_calibration(calibration()).to_dict()
    facts = metadata(about, short_calibration(), decision)
    return [
        graph(nodes, source, outputs, {}, facts),
        graph(nodes, source, outputs, {}, metadata({}, None, None)),
    ]


def recognisers() -> list[Files]:
    rng = np.random.default_rng(6)
    constants = {
        "kernel": rng.normal(size=(4, 3, 16, 16)).astype(np.float32),
        "matrix": rng.normal(size=(36, 8)).astype(np.float32),
        "shape": np.array([-1, 36]),
    }
    nodes = [
        ("Conv", ["pixels", "kernel"], "map", {"strides": [32, 32]}),
        ("Relu", ["map"], "relu", {}),
        ("Reshape", ["relu", "shape"], "flat", {}),
        ("MatMul", ["flat", "matrix"], "embedding", {}),
    ]
    return [
        graph(
            nodes,
            ("pixels", onnx.TensorProto.FLOAT, [batch, 3, 112, 112]),
            [("embedding", [batch, 8])],
            constants | {"shape": np.array([-1, 64]), "matrix": np.ones((64, 8), np.float32)},
            {},
        )
        for batch in ("N", 1)
    ]


def read_recogniser_file(path: Path) -> None:
    recogniser = read_recogniser(read_network(path), None, None)
    recogniser.tail(torch.zeros(1, int(np.prod(recogniser.interface.features_shape))))


# Records of our own


def row_parts() -> list[Files]:
    def write(path: Path) -> None:
        parts = RowParts(path.parents[1] / "rows.jsonl", {"model": "a"})
        parts.open()
        for name in ("a.jpg", "b.jpg"):
            row = {"file": name, "uncertainty": 0.5}
            parts.add([Item(name)], [row, row])  # type: ignore[list-item]
        parts.close()

    return [written("rows.jsonl.parts/about.json", write)]


def read_row_parts(path: Path) -> None:
    parts = RowParts(path.parents[1] / "rows.jsonl", {"model": "a"})
    try:
        parts.open()
        parts.resume(lambda number: iter([Item("a.jpg"), Item("b.jpg")][number:]))
        list(parts.rows())
    finally:
        parts.close()


def records() -> list[Files]:
    lines = [json.dumps({"global_step": step, "loss": 0.5}) for step in range(3)]
    config = to_json(CONFIG).encode()
    return [{"metrics.jsonl": "\n".join(lines).encode(), "config.json": config}]


def read_records(path: Path) -> None:
    MetricsFile(path, 1).close()
    branch_folders(path.parent)


# Plain values


def fusions() -> list[Files]:
    columns = np.random.default_rng(7).random((8, 2))
    model = fit_rank_mean(columns, ("a", "b"), {"a": "ab" * 32})
    return [written("f.json", lambda path: save_fusion(model, path))]


def read_fusion(path: Path) -> None:
    fusion = load_fusion(path)
    fusion(np.zeros((2, len(fusion.members))))


def fits() -> list[Files]:
    weights, models = {"weights": np.ones(4) / 4}, {"backbone": "ab" * 32}
    return [written("f.npz", lambda path: save_fit(path, "froq", weights, models, 8))]


def read_fit(path: Path) -> None:
    froq = object.__new__(FROQ)
    froq._layers = 4
    froq.load(str(path), {"backbone": "ab" * 32})


def configs() -> list[Files]:
    return [{"config.json": to_json(CONFIG).encode()}]


def read_config(path: Path) -> None:
    to_json(from_json(path.read_text(encoding="utf-8")))


ASSIGNMENTS = (
    *(
        "schedule.lr=3e-3",
        "loss=idq:margin=0.4",
        "loss.scale=2.5",
        "head=fc2:hidden=8,output='variance'",
    ),
    *(
        "branches.*.loss.margin=0.4",
        "schedule.drop_at=(1, 2)",
        "augment.blur_radii=[1.0,2]",
        "name=x",
    ),
    *(
        "train_images=('a', 'b')",
        "head=None",
        "backbone=iresnet:layers=(1,1,1,1)",
        "schedule.epochs=1",
    ),
)


def assignments() -> list[Files]:
    return [{"set.txt": line.encode()} for line in ASSIGNMENTS]


def read_assignment(path: Path) -> None:
    text = path.read_bytes().decode(errors="surrogateescape")
    with suppress(ValueError):
        parse_method(text)
    override(CONFIG, [text])


KEY = {"kind": "list", "list": [1, 2]}


def caches() -> list[Files]:
    arrays = {"ends": np.arange(4, dtype=np.uint32), "labels": np.arange(4, dtype=np.int32)}

    def write(path: Path) -> None:
        path.write_bytes(b"")
        cache_file.store(path, KEY, arrays)
        path.unlink()

    files = written("x", write)
    return [{name: content for name, content in files.items()}]


def read_cache(path: Path) -> None:
    source = path.with_name(path.name.removesuffix(cache_file.SUFFIX))
    arrays = cache_file.load(source, KEY, dict)
    for array in (arrays or {}).values():
        array.sum()


def rows_of_parquet() -> list[Files]:
    image = pyarrow.array([{"bytes": face("jpg"), "path": "a.jpg"}, {"bytes": None, "path": ""}])
    contents = ({"image": image}, {"image": pyarrow.array([face("png")] * 3)}, {"path": ["a", "b"]})
    return [
        written("p.parquet", lambda path, c=content: parquet.write_table(pyarrow.table(c), path))
        for content in contents
    ]


LISTS = (
    ("l.txt", "a.png 0\nb/c.png 1\nab/ab_0001.png 1.0\n"),
    ("l.lst", "1\t0\ta.png\n2\t1\tb/c.png\n"),
    ("l.txt", "a.png 5 1 2 3 4\nb\\c.png 6 1 2 3 4\n"),
)
PHOTO_LISTS = (
    *(
        ("l.txt", "# photos\na.png\nb/c.png\nmissing.jpg\n"),
        ("l.lst", "1\t0\ta.png\n2\t1\tb/c.png\n"),
    ),
    *(("l.csv", "path,identity\na.png,x\nb/c.png,y\n"), ("l.tsv", "no\tfile\n1\ta.png\n")),
    ("l.csv", "a.png;x\nb\\c.png;y\n"),
)
PAIRS = (
    ("p.csv", "path_a,path_b,same\na.png,b/c.png,1\na.png,ab/ab_0001.png,0\n"),
    ("pairs.txt", "1\nab\t1\t2\nab\t1\tb\t3\n"),
    ("p.txt", "2 1\nab 1 2\nab 1 b 3\n"),
)


def csvs() -> list[Files]:
    return texts(".csv", *SCORES) + texts(".tsv", *QUALITIES)


def score_files() -> list[Files]:
    return texts(".csv", *SCORES) + tables(".csv") + tables(".npz") + tables(".parquet")


def qualities() -> list[Files]:
    return texts(".csv", *QUALITIES) + texts(".txt", "a.jpg 1", "b.jpg 2")


def pairs_of(path: Path) -> None:
    read_pairs(path, path.parent)


TARGETS = [
    Target("csv", 1.5, csvs, read_columns),
    Target("npz", 1.5, lambda: tables(".npz"), read_columns),
    Target("parquet", 0.4, lambda: tables(".parquet") + other_parquet(), read_columns),
    Target("score files", 0.9, score_files, read_scores),
    Target("quality files", 0.6, qualities, from_file),
    Target("lists of faces", 0.2, lambda: faces_beside(*LISTS), faces_of_list, (".png",)),
    Target("lists of photos", 0.4, lambda: faces_beside(*PHOTO_LISTS), photos, (".png",)),
    Target("lists of pairs", 0.2, lambda: faces_beside(*PAIRS), pairs_of, (".png",)),
    Target("bin sets", 0.2, bins, read_pairs_of_bin),
    Target("photos of bin", 0.3, bins, photos),
    Target("rec packs", 0.5, recs, read_pack),
    Target("faces of rec", 0.6, recs, read_faces, names_file=False),
    Target("photos of rec", 1, recs, photos),
    Target("photos of parquet", 0.4, rows_of_parquet, photos),
    Target("stored features", 1, features, evaluate_stored),
    Target("extracted npy", 5, lambda: [extracted("npy")], read_extracted, names_file=False),
    Target(
        "extracted parquet", 5, lambda: [extracted("parquet")], read_extracted, names_file=False
    ),
    Target("ijb", 0.7, ijb, read_ijb, names_file=False),
    Target("face images", 0.2, images, read_face_file, names_file=False),
    Target("photos", 0.3, images, read_photo_file, names_file=False),
    Target("orientation", 0.1, images, read_orientation, names_file=False),
    Target("weights", 1.5, weights, load_tensors),
    Target("packed models", 30, packed, use_model),
    Target("run folders", 20, runs, read_run, (".pth",), names_file=False),
    Target("exported models", 5, exported, use_model),
    Target("onnx recognisers", 15, recognisers, read_recogniser_file, names_file=False),
    Target("calibration", 0.3, calibrations, read_calibration),
    Target("parts of rows", 0.5, row_parts, read_row_parts, ("lock",), names_file=False),
    Target("records of a run", 1, records, read_records),
    Target("fusion", 0.1, fusions, read_fusion),
    Target("fits", 0.3, fits, read_fit),
    Target("config.json", 0.8, configs, read_config, names_file=False),
    Target("--set", 0.6, assignments, read_assignment, names_file=False),
    Target("caches", 0.1, caches, read_cache),
]
