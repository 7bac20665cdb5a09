"""Damaged variants of every file of a model: each opens, or is one error that names the file."""

import copy
import json
import math
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data.features import checked_rows
from data.synthetic import SyntheticFaces
from estimators.base import Batch
from estimators.embedding_norm import EmbeddingNorm
from estimators.fusion import fit_rank_mean, load_fusion, save_fusion
from estimators.onnx import INPUT, metadata
from evaluation.confidence.calibration import Calibration
from evaluation.open_model import from_run, open_model
from export.packing import PackOptions, pack
from models.load import check_size, load_backbone, load_state, read_safely
from models.run import load_packed, load_run, save_packed
from scoring.scorer import Scorer, load_scorer
from tests.helpers import TINY
from tests.test_models.conftest import ABOUT
from utils.config import Method, load_config, override
from utils.files import MOST_JSON, naming, read_json

HUGE = 10**400
VALUES = (None, -1, 1e308, math.nan, math.inf, HUGE, "", "x", "\ud800", [], {}, [[[]]], True)
DEEP = "[" * 200_000


def damaged_bytes(content):
    """Shortened, lengthened, overwritten and with single bits changed."""
    rng = np.random.default_rng(len(content))
    yield b""
    yield from (content[: len(content) * part // 8] for part in range(1, 8))
    yield content + content
    for _ in range(40):
        bad = bytearray(content)
        bad[rng.integers(len(content))] ^= 1 << rng.integers(8)
        yield bytes(bad)
        start = rng.integers(len(content))
        bad[start : start + 8] = rng.bytes(8)
        yield bytes(bad)


def damaged_values(value, values=VALUES):
    """A plain value with one place in it changed or left out, for each place (of lists: two)."""
    yield from values
    is_list = isinstance(value, list)
    for place in range(min(2, len(value))) if is_list else value if isinstance(value, dict) else ():
        for part in damaged_values(value[place], values):
            changed = copy.copy(value)
            changed[place] = part
            yield changed
        without = copy.copy(value)
        del without[place]
        yield without


def opens_or_is_named(action, path):
    """Whether it opens; if not, the error has to name the file."""
    try:
        action()
    except (ValueError, OSError) as error:
        message = str(error)
    else:
        return True
    assert path.name in message or str(path.parent) in message  # of a run: any file of it
    assert len(message) < 3000
    return False


def count_opened(path, variants, action):
    opened = [opens_or_is_named(action, path) for variant in variants if path.write_bytes(variant)]
    assert len(opened) > 30
    assert not all(opened)


@pytest.fixture
def run(write_run, tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def packed(run, calibration, tmp_path):
    save_packed(tmp_path / "model.pt", load_run(run, device="cpu"), ABOUT, calibration.to_dict())
    return tmp_path / "model.pt"


@pytest.fixture
def json_files(run, calibration, tmp_path):
    """Path of each kind of JSON file, and what reads it."""
    calibration.save(tmp_path / "calibration.json")
    columns = np.random.default_rng(0).random((20, 2))
    save_fusion(fit_rank_mean(columns, ("a", "b"), {"backbone": "x"}), tmp_path / "fusion.json")
    tiny = from_run(load_run(run, device="cpu"), calibrated=False)

    def calibrate(path):
        tiny.with_calibration(Calibration.load(path), path)

    return {"calibration": calibrate, "fusion": load_fusion}


@pytest.mark.parametrize("kind", ["calibration", "fusion"])
def test_json_that_is_damaged(json_files, tmp_path, kind):
    path, read = tmp_path / f"{kind}.json", json_files[kind]
    content = path.read_bytes()
    variants = [json.dumps(value).encode() for value in damaged_values(json.loads(content))]
    bombs = [DEEP.encode(), b'{"version":' + DEEP.encode(), b"\xff\xfe", b" " * (MOST_JSON + 1)]
    count_opened(path, [*damaged_bytes(content), *variants, *bombs], lambda: read(path))


def test_json_is_read_in_one_way(tmp_path):
    path = tmp_path / "a.json"
    for text, message in (
        (DEEP, "nested too deeply"),
        (" " * (MOST_JSON + 1), "has more than"),
        ("{", "a.json is damaged: Expecting"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_json(path)


def test_a_name_is_put_before_what_damage_leads_to():
    for error in (KeyError("x"), TypeError("x"), RecursionError("x"), OverflowError("x")):
        with pytest.raises(ValueError, match=r"f\.pt is damaged.*x"), naming("f.pt", type(error)):
            raise error
        with pytest.raises(type(error)), naming("f.pt"):
            raise error


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_packed_model_or_checkpoint_that_is_damaged(run, packed):
    """The bytes, every entry, and every entry of the config."""
    odd = torch.arange(3.0)
    tensors = (
        odd.to_sparse(),
        odd.to("meta"),
        odd.to(torch.complex64),
        torch.quantize_per_tensor(odd, 0.1, 0, torch.quint8),
        torch.empty(1).expand(10**12),
        odd * math.nan,
        odd.int(),
    )
    checkpoint = run / "best.pt"
    for path, read in (
        (packed, lambda: open_model(packed, device="cpu")),
        (checkpoint, lambda: load_run(run, device="cpu")),
    ):
        content = torch.load(path, weights_only=True)
        variants = [path.read_bytes()[:-9], *damaged_bytes(path.read_bytes())]
        configs = damaged_values(json.loads(content["config"]), (None, [[{}]]))
        payloads = [content | {"config": json.dumps(config)} for config in configs]
        payloads += [content | {"config": text} for text in (DEEP, '{"a":' + DEEP)]
        for name, value in content.items():
            payloads += [content | {name: part} for part in (*VALUES[::3], *tensors[::3])]
            if isinstance(value, dict) and name != "calibration":
                key = next(iter(value))
                payloads += [content | {name: value | {key: part}} for part in (*VALUES, *tensors)]
        opened = 0
        for payload in payloads:
            torch.save(payload, path)
            opened += opens_or_is_named(read, path)
        assert 0 < opened < len(payloads) / 2
        for variant in variants:
            path.write_bytes(variant)
            opens_or_is_named(read, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_size": 10**7}, "numbers, and the file holds"),
        ({"widths": (4, 4, 8, 10**6)}, "numbers, and the file holds"),
        ({"layers": (10**9, 1, 1, 1)}, "has more layers than the file"),
        ({"embedding_size": 10**30}, "cannot be built"),
        ({"embedding_size": 16.0}, "embedding_size = 16.0: expected int"),
        ({"embedding_size": "16"}, "embedding_size = '16': expected int"),
        ({"preprocessing": {"size": 10**6}}, "size = 1000000: must be 1 to 1024"),
        ({"preprocessing": {"scale": HUGE}}, "scale = .*: expected a finite number"),
    ],
)
def test_a_config_claims_no_more_than_its_file_holds(packed, options, message):
    content = torch.load(packed, weights_only=True)
    config = json.loads(content["config"])
    config["backbone"]["options"] |= options
    torch.save(content | {"config": json.dumps(config)}, packed)
    with pytest.raises(ValueError, match=rf"model\.pt.*{message}"):
        load_packed(packed)


def test_gradients_stay_on_wherever_the_limit_of_layers_ends_the_making(monkeypatch):
    for calls in range(60):
        monkeypatch.setattr("models.load._CALLS", math.sqrt(calls))
        with pytest.raises(ValueError, match="more layers than the file"):
            check_size("models.backbones", TINY, {}, "model.pt")
        assert torch.is_grad_enabled()


def test_a_head_claims_no_more_than_its_file_holds(run):
    content = torch.load(run / "best.pt", weights_only=True)
    config = json.loads(content["config"])
    config["head"]["options"]["hidden"] = 10**7
    torch.save(content | {"config": json.dumps(config)}, run / "best.pt")
    with pytest.raises(ValueError, match=r"best\.pt.*numbers, and the file holds"):
        load_run(run, device="cpu")


@pytest.mark.parametrize("where", ["head", "optimizer", "backbone"])
def test_nan_is_packed_by_no_door(run, tmp_path, where):
    nan = {"w": torch.tensor([1.0, math.nan])}
    if where == "backbone":
        weights = torch.load(run / "backbone.pth")
        weights["fc.bias"][0] = math.inf
        torch.save(weights, run / "backbone.pth")
    else:
        content = torch.load(run / "best.pt", weights_only=True)
        content[where] = nan if where == "optimizer" else content[where]
        if where == "head":
            next(iter(content["head"].values())).view(-1)[0] = math.nan
        torch.save(content, run / "best.pt")
    options = PackOptions(model_dir=str(run), out=tmp_path / "m.pt", license="x", device="cpu")
    with pytest.raises(ValueError, match="NaN or infinite"):
        pack(options)
    assert not (tmp_path / "m.pt").exists()


def test_numbers_that_the_network_cannot_hold():
    layer = torch.nn.Linear(1, 1, bias=False)
    for tensor, message in (
        (torch.tensor([[1e300]], dtype=torch.float64), "1 of 1 values that are NaN or infinite"),
        (torch.tensor([[3]]), "weight is of type torch.int64, not torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            load_state(layer, {"weight": tensor}, "w.pth", "a layer")


def test_safetensors_that_are_damaged(tiny_weights, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(torch.load(tiny_weights), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    first, second, *_ = header
    headers = [
        {**header, first: {**header[first], **change}}
        for change in (
            {"dtype": "F4"},
            {"dtype": 3},
            {"shape": [10**12]},
            {"shape": [-1]},
            {"data_offsets": header[second]["data_offsets"]},
            {"data_offsets": [0, 10**15]},
        )
    ]
    variants = [
        len(text).to_bytes(8, "little") + text + content[8 + length :]
        for text in (json.dumps(each).encode() for each in [*headers, [], {"a": 1}])
    ]
    variants += [(2**63).to_bytes(8, "little") + content[8:], b"\xff" * 8 + content]
    count_opened(path, [*variants, *damaged_bytes(content)], lambda: load_backbone(TINY, path))


def test_archives_and_pickles_that_are_damaged(tiny_weights, tmp_path):
    path = tmp_path / "w.pth"
    for zipped in (True, False):
        torch.save(torch.load(tiny_weights), path, _use_new_zipfile_serialization=zipped)
        count_opened(path, damaged_bytes(path.read_bytes()), lambda: load_backbone(TINY, path))
    endless = [("a", torch.zeros(1))]
    endless.append(endless)
    shared = {"a": 1}
    for _ in range(60):
        shared = {"a": shared, "b": shared}
    for content in (endless, shared, {"state_dict": shared, "a": {"b": torch.zeros(1)}}):
        torch.save(content, path)
        assert not opens_or_is_named(lambda: load_backbone(TINY, path), path)
    path.write_bytes(b"\x80\x02c" + b"os.a" * 300_000 + b"\nsystem\n.")  # torch searches in it
    assert not opens_or_is_named(lambda: read_safely(path), path)


CONFIG = """
from utils.config import Method, Schedule, TrainConfig
config = TrainConfig(
    name="x", backbone=Method("iresnet"), backbone_weights="w", train_images="f",
    head=Method("fc2", output="probability"), loss=Method("idq"), schedule=Schedule(epochs=1),
)
"""


def test_names_that_take_very_long_to_read_are_refused(tmp_path):
    many, header = 1 << 22, b"{" + b" " * (1 << 22) + b"}"
    torch.save({}, tmp_path / "empty.pt")
    with zipfile.ZipFile(tmp_path / "empty.pt") as empty:
        parts = {name: empty.read(name) for name in empty.namelist()}
    table = next(name for name in parts if name.endswith("data.pkl"))
    with zipfile.ZipFile(tmp_path / "zip.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in {**parts, table: b"\x80\x02" + b"(" * many}.items():
            archive.writestr(name, part)
    (tmp_path / "old.pt").write_bytes(b"\x80\x02" + (b"B\0\0\x10\0" + bytes(1 << 20)) * 4)
    header = len(header).to_bytes(8, "little") + header
    (tmp_path / "a.safetensors").write_bytes(header + bytes(9))
    for name in ("zip.pt", "old.pt", "a.safetensors"):
        with pytest.raises(ValueError, match=rf"{name}: more than \d+ bytes of names"):
            read_safely(tmp_path / name)


def test_config_files_that_are_damaged(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    load_config(path)
    for text in (
        "",
        "config = 3",
        "config = (",
        "import nothing_of_that_name",
        "1 / 0",
        "\0",
        "(" * 5000,
        "def f(): f()\nf()",
        CONFIG.replace('"w"', "1 +"),
        CONFIG.replace("epochs=1", "epochs=0"),
        CONFIG.replace("epochs=1", "epochs='1'"),
        CONFIG.replace("epochs=1", "epoch=1"),
    ):
        path.write_text(text)
        assert not opens_or_is_named(lambda: load_config(path), path), text
    path.write_bytes(b"\xff\xfe\x00")
    assert not opens_or_is_named(lambda: load_config(path), path)


def test_settings_of_any_kind(run):
    config = load_run(run, device="cpu").config
    fields = ["schedule.lr", "head", "head.hidden", "backbone.options", "train_images", "seed", "x"]
    fields += ["name", "branches", "verification", "verification.targets", "schedule.drop_at", "."]
    texts = ["", "nan", "inf", "-1", "1e999", "[]", "{}", "{1: 2}", "(((", DEEP, "9" * 5000]
    texts += ["None", "'a", "{'name': 3}", "{'name': 'fc2', 'options': 3}", "[[[]]]", "b'x'", "1j"]
    refused = 0
    for field in fields:
        for text in texts:
            try:
                override(config, [f"{field}={text}"])
            except ValueError:
                refused += 1
    assert refused > len(fields) * len(texts) / 2


@pytest.fixture
def graph():
    """Return a function that gives an ONNX file: `nodes` lead from "flat", (N, 3), to "end"."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT

    def make(nodes=None, constants=(), *, exported=False, functions=(), shape=("N", None)):
        node, value = helper.make_node, helper.make_tensor_value_info
        first = [node("GlobalAveragePool", ["input"], ["gap"]), node("Flatten", ["gap"], ["flat"])]
        last = [node("Identity", ["end"], ["embedding"])]
        inputs, outputs = [("input", floats, ["N", 3, 112, 112])], [("embedding", floats, shape)]
        if exported:
            inputs = [(INPUT, onnx.TensorProto.UINT8, ["N", 112, 112, 3])]
            first = [
                node("Cast", [INPUT], ["float"], to=floats),
                node("Transpose", ["float"], ["input"], perm=[0, 3, 1, 2]),
                *first,
            ]
            last = [node("ReduceMean", ["end"], ["uncertainty"], axes=[1], keepdims=0)]
            outputs = [("uncertainty", floats, ["N"])]
        nodes = [node("Identity", ["flat"], ["end"])] if nodes is None else nodes
        proto = helper.make_model(
            helper.make_graph(
                [*first, *nodes, *last],
                "g",
                [value(*each) for each in inputs],
                [value(*each) for each in outputs],
                list(constants),
            ),
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
            ir_version=8,
            functions=list(functions),
        )
        helper.set_model_props(proto, metadata({}, None, None))
        return proto

    make.node, make.onnx = helper.make_node, onnx
    make.constant = lambda name, value: onnx.numpy_helper.from_array(np.array(value), name)
    return make


def bombs(graph):
    """Graphs without end, or of gigabytes, by name: nodes, constants and functions."""
    node, constant, helper = graph.node, graph.constant, graph.onnx.helper
    kinds = graph.onnx.TensorProto
    passed = [("k", kinds.BOOL, []), ("x", kinds.FLOAT, None)]
    body = helper.make_graph(
        [node("Identity", [name], [f"{name}_"]) for name, *_ in passed],
        "body",
        [helper.make_tensor_value_info(*each) for each in [("i", kinds.INT64, []), *passed]],
        [helper.make_tensor_value_info(f"{name}_", *kind) for name, *kind in passed],
    )
    loop = node("Loop", ["count", "go", "flat"], ["end"], body=body)
    mean = node("ReduceMean", ["k40"], ["mean"], axes=[0], keepdims=1)
    add = node("Add", ["flat", "mean"], ["end"])
    double = [node("Concat", [f"k{i}"] * 2, [f"k{i + 1}"], axis=0) for i in range(40)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    twice = [
        helper.make_function(
            "own",
            f"f{i}",
            ["x"],
            ["y"],
            [node(f"f{i + 1}", [a], [b], domain="own") for a, b in ("xz", "zy")]
            if i < 30
            else [node("Relu", ["x"], ["y"])],
            opsets,
        )
        for i in range(31)
    ]
    beside = kinds(name="k40", data_type=kinds.FLOAT, dims=[3], data_location=kinds.EXTERNAL)
    beside.external_data.add(key="location", value="../secret.bin")
    claim = kinds(name="k40", data_type=kinds.FLOAT, dims=[10**12], raw_data=b"1234")
    sizes = constant("sizes", [10**11])
    return {
        "a Loop": ([loop], [constant("count", 2**62), constant("go", True)], ()),
        "ConstantOfShape": ([node("ConstantOfShape", ["sizes"], ["k40"]), mean, add], [sizes], ()),
        "running Concat": ([*double, mean, add], [constant("k0", np.ones(4, np.float32))], ()),
        "more than 100000": ([node("f0", ["flat"], ["end"], domain="own")], (), twice),
        "10000[0-9] nodes": (
            [node("Identity", [f"n{i}" if i else "flat"], [f"n{i + 1}"]) for i in range(100_001)]
            + [node("Identity", ["n100001"], ["end"])],
            (),
            (),
        ),
        "file inside": ([mean, add], [beside], ()),
        "cannot be opened": ([mean, add], [claim], ()),
    }


@pytest.mark.parametrize("exported", [True, False], ids=["exported", "recogniser"])
def test_graphs_without_end_or_of_gigabytes(graph, tmp_path, exported):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    path = tmp_path / "in" / "g.onnx"
    for message, (nodes, constants, functions) in bombs(graph).items():
        proto = graph(nodes, constants, exported=exported, functions=functions)
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ValueError, match=rf"g\.onnx.*({message})"):
            open_graph(path, exported)


def open_graph(path, exported):
    return open_model(path) if exported else load_backbone(Method("onnx"), path)


@pytest.mark.parametrize("exported", [True, False], ids=["exported", "recogniser"])
def test_graphs_that_are_damaged(graph, tmp_path, exported):
    path = tmp_path / "g.onnx"
    content = graph(exported=exported).SerializeToString()
    path.write_bytes(content)
    open_graph(path, exported)
    count_opened(path, damaged_bytes(content), lambda: open_graph(path, exported))
    if exported:
        for facts in (
            {"about": DEEP},
            {"about": "[]"},
            {"about": '{"direction": 1}'},
            {"calibration": '{"version": 1}'},
            {"decision": '{"a": Infinity}'},
            {"decision": '{"accept_up_to": 1e999, "refuse_above": null, "rule": "x"}'},
        ):
            proto = graph(exported=True)
            graph.onnx.helper.set_model_props(proto, metadata({}, None, None) | facts)
            path.write_bytes(proto.SerializeToString())
            assert not opens_or_is_named(lambda: load_scorer(path), path), facts


def test_an_exported_model_gives_one_uncertainty_for_a_face(graph, tmp_path):
    path = tmp_path / "g.onnx"
    for change, message in (
        (lambda value: value.type.tensor_type.shape.dim.add(dim_value=3), r"expected float \(N,\)"),
        (lambda value: value.type.tensor_type.shape.dim.pop(), r"expected float \(N,\)"),
        (lambda value: setattr(value.type.tensor_type, "elem_type", 11), "cannot be opened"),
    ):
        proto = graph(exported=True)
        change(proto.graph.output[0])
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ValueError, match=rf"g\.onnx.*{message}|g\.onnx cannot be opened"):
            open_model(path)
    node = graph.node
    rows = [node("Concat", ["flat", "flat"], ["end"], axis=0)]
    path.write_bytes(graph(rows, exported=True).SerializeToString())
    with pytest.raises(ValueError, match=r"g.onnx: output uncertainty has shape"):
        open_model(path).estimator(Batch(np.zeros((2, 112, 112, 3), np.uint8)))


def test_a_recogniser_of_nan_is_refused(graph, tmp_path):
    nan = graph.constant("nan", np.float32(math.nan))
    proto = graph([graph.node("Add", ["flat", "nan"], ["end"])], [nan])
    (tmp_path / "g.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=r"g\.onnx: its 'embedding' has NaN or infinite"):
        load_backbone(Method("onnx"), tmp_path / "g.onnx")


@pytest.mark.parametrize("scale", [1e30, 1e-25, math.nan])
def test_embeddings_without_a_direction_reach_no_row(run, scale):
    """A backbone whose last layer is that large; the scorer and the evaluation refuse it."""
    model = open_model(run, device="cpu")
    with torch.no_grad():
        model.frozen.backbone.features.weight.fill_(scale)
        model.frozen.backbone.features.bias.zero_()
    faces = SyntheticFaces(2, 1, 0)
    images = [faces.read(0)]
    with pytest.raises(ValueError, match="no direction"):
        Scorer(model)(images, aligned=True)
    with pytest.raises(ValueError, match="NaN or inf"):
        checked_rows(*EmbeddingNorm(frozen=model.frozen)(Batch(np.stack(images))))
