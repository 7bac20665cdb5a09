"""Recognisers in ONNX files: whatever they look like, they are the network that was exported."""

import re

import numpy as np
import pytest
import torch

from estimators.base import Batch, build_estimator
from models.backbones.onnx import OnnxBackbone
from models.frozen import FrozenBackbone
from models.load import load_backbone, weights_sha256
from models.run import open_backbone, parse_backbone
from utils.config import Method, parse_method
from utils.files import file_sha256

onnx = pytest.importorskip("onnx")
FLOAT, INT64, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.UINT8
node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info


@pytest.fixture(scope="module")
def source(tiny_weights, tmp_path_factory, write_recogniser):
    """A network whose BatchNorms change something, as .pth and as .onnx: the folder of both."""
    folder = tmp_path_factory.mktemp("source")
    network = load_backbone(Method("iresnet", **TINY), tiny_weights)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
    torch.save(network.state_dict(), folder / "r.pth")
    write_recogniser(network, folder / "r.onnx")
    return folder


TINY = {"layers": (1, 1, 1, 1), "widths": (4, 4, 8, 8), "embedding_size": 16}


@pytest.fixture(scope="module")
def torch_frozen(source):
    return open_backbone(Method("iresnet", **TINY), source / "r.pth", "cpu")


def const(name, numbers, kind=FLOAT):
    numbers = np.array(numbers)
    return onnx.helper.make_tensor(name, kind, numbers.shape, numbers.ravel().tolist())


def feed(graph, shape, nodes, kind=FLOAT, constants=()):
    """Put nodes from a new input `pixels` to the old one in front."""
    before = [*graph.node]
    del graph.input[:], graph.node[:]
    graph.input.append(value("pixels", kind, shape))
    graph.node.extend([*nodes, *before])
    graph.initializer.extend(constants)


def batch_of(size, *, literal=True):
    def change(graph):
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
        (flatten,) = (one for one in graph.node if one.op_type == "Flatten")
        rows, columns = const("rows", [size], INT64), const("columns", [392], INT64)
        place = list(graph.node).index(flatten)
        if literal:
            graph.initializer.append(const("shape", [size, 392], INT64))
        else:  # a shape that cannot be freed
            graph.initializer.extend([rows, columns])
            graph.node.insert(place, node("Concat", ["rows", "columns"], ["shape"], axis=0))
        flatten.op_type, flatten.name = "Reshape", ""
        del flatten.attribute[:]
        flatten.input.append("shape")

    return change


def channels_last(graph):
    turn = node("Transpose", ["pixels"], ["input"], perm=[0, 3, 1, 2])
    feed(graph, ["N", 112, 112, 3], [turn])


def normalising(graph):
    steps = [
        node("Sub", ["pixels", "mean"], ["centred"]),
        node("Mul", ["centred", "by"], ["input"]),
    ]
    feed(graph, ["N", 3, "h", "w"], steps, constants=[const("mean", 127.5), const("by", 1 / 127.5)])


def of_bytes(graph):
    steps = [
        node("Cast", ["pixels"], ["float"], to=FLOAT),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Sub", ["planes", "mean"], ["centred"]),
        node("Div", ["centred", "mean"], ["input"]),
    ]
    feed(graph, ["N", 112, 112, 3], steps, UINT8, [const("mean", 127.5)])


def other_outputs_first(graph):
    wide = np.linspace(-1, 1, 16 * 40).reshape(16, 40)
    graph.initializer.append(const("classes", wide))
    graph.node.append(node("MatMul", ["output", "classes"], ["logits"]))
    graph.node.append(node("ReduceL2", ["output"], ["length"], axes=[1], keepdims=1))
    graph.node.append(node("Div", ["output", "length"], ["unit"]))
    own = graph.output.pop()
    own.name = "embeddings"
    graph.node.append(node("Identity", ["output"], ["embeddings"]))
    names = ("length", "logits", "unit")
    graph.output.extend([*(value(name, FLOAT, None) for name in names), own])


VARIANTS = {
    "as it is": lambda graph: None,
    "a batch of 1": batch_of(1),
    "a batch of 4": batch_of(4, literal=False),
    "channels last": channels_last,
    "normalises": normalising,
    "bytes": of_bytes,
    "other outputs first": other_outputs_first,
}


def changed(source, change, path):
    network = onnx.load(source / "r.onnx")
    change(network.graph)
    onnx.save(network, path)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_network_that_was_exported(
    variant, source, torch_frozen, images, tmp_path, caplog
):
    path = changed(source, VARIANTS[variant], tmp_path / "r.onnx")
    frozen = open_backbone("onnx", path, "cpu")
    (line,) = [text for text in caplog.messages if str(path) in text]
    assert "16 numbers; heads read" in line
    assert frozen.features_shape == (8, 7, 7)
    assert frozen.backbone.interface.batch == (4 if variant == "a batch of 4" else None)
    output, expected = frozen(images), torch_frozen(images)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.features, expected.features, rtol=1e-5, atol=1e-5)
    for batch_norm in (True, False):
        own, other = (
            one.backbone.tail(expected.features, batch_norm) for one in (frozen, torch_frozen)
        )
        torch.testing.assert_close(own, other, rtol=0, atol=1e-5)
    single = torch.cat([frozen(images[row : row + 1]).embedding for row in range(3)])
    torch.testing.assert_close(single, output.embedding, rtol=0, atol=1e-5)
    assert frozen.give_stages() == torch_frozen.give_stages() == (4, 4, 8, 8)
    again, expected = frozen(images), torch_frozen(images)
    torch.testing.assert_close(again.stages[:, :16], expected.stages[:, :16], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again.lengths[:, :3], expected.lengths[:, :3], rtol=1e-5, atol=1e-5)
    last = expected.features.unflatten(1, (8, 49))  # after the last BatchNorm
    torch.testing.assert_close(again.stages[:, 16:], last.mean(2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again.lengths[:, 3], last.norm(dim=(1, 2)), rtol=1e-5, atol=1e-5)
    assert torch.equal(again.features, output.features)


def test_options_choose_embedding_features_and_pixels(source, images, tmp_path):
    path = changed(source, other_outputs_first, tmp_path / "r.onnx")
    text = 'onnx:embedding=unit,features=logits,preprocessing={"color":"BGR","mean":0}'
    frozen = FrozenBackbone(load_backbone(parse_method(text), path))
    assert (frozen.features_shape, frozen.preprocessing.color) == ((40, 1, 1), "BGR")
    torch.testing.assert_close(frozen(images).embedding.norm(dim=1), torch.ones(3))
    assert not frozen.is_same_as(open_backbone("onnx", path, "cpu"))
    for option in ("embedding", "features"):
        with pytest.raises(ValueError, match=rf"r\.onnx: .*{option}"):
            open_backbone(f"onnx:{option}=nowhere", path, "cpu")


@pytest.mark.parametrize("form", ["sampled", "closed_form"])
def test_dropout_sees_the_same_last_layers(form, source, torch_frozen, faces):
    method = Method("mc_dropout", passes=5, form=form)
    frozen = open_backbone("onnx", source / "r.onnx", "cpu")
    own, other = (
        build_estimator(method, frozen=one)(Batch(faces)) for one in (frozen, torch_frozen)
    )
    np.testing.assert_allclose(own.sigma_sq, other.sigma_sq, rtol=1e-3)


def test_last_layers_that_cannot_be_read_are_missing_for_dropout_alone(source, images, tmp_path):
    def bend(graph):
        graph.node[-1].output[0] = "straight"
        graph.node.append(node("Sigmoid", ["straight"], ["output"]))

    frozen = open_backbone("onnx", changed(source, bend, tmp_path / "r.onnx"), "cpu")
    features = frozen(images).features
    with pytest.raises(ValueError, match=r"r\.onnx: dropout .* Sigmoid \(to 'output'\)"):
        frozen.backbone.tail(features)


def test_a_network_without_earlier_maps_has_no_stages(source, tmp_path):
    path = changed(source, other_outputs_first, tmp_path / "r.onnx")
    frozen = open_backbone(Method("onnx", features="input"), path, "cpu")
    with pytest.raises(
        ValueError, match=r"r\.onnx: the ends of its stages are not found: no layer"
    ):
        frozen.give_stages()


@pytest.mark.parametrize("name", ["grafiqs", "faceqan"])
def test_what_needs_gradients_is_refused(name, source):
    with pytest.raises(ValueError, match=f"{name} needs gradients through the backbone"):
        build_estimator(Method(name), frozen=open_backbone("onnx", source / "r.onnx", "cpu"))


@pytest.mark.parametrize("option", [{"execution": "compile"}, {"precision": "bf16"}])
def test_what_pytorch_alone_can_do_is_refused(option, source):
    with pytest.raises(ValueError, match=f"{next(iter(option))} = .* ONNX Runtime"):
        open_backbone("onnx", source / "r.onnx", "cpu", **option)


def two_inputs(graph):
    graph.input.append(value("phase", FLOAT, [1]))


def wrong_colours(graph):
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4


def no_vector(graph):
    graph.node.append(node("ReduceSum", ["output"], ["sum"], keepdims=0))
    graph.output[0].name = "sum"


def unknown_operator(graph):
    graph.node[-1].domain = "org.example"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (two_inputs, "expected one batch of images"),
        (wrong_colours, "expected square images of three colours"),
        (no_vector, "an embedding, (N, D) numbers is not among them"),
        (unknown_operator, "cannot be opened as an ONNX model"),
    ],
)
def test_networks_of_another_kind_are_refused(change, message, source, tmp_path):
    path = changed(source, change, tmp_path / "r.onnx")
    with pytest.raises(ValueError, match=rf"r\.onnx.*{re.escape(message)}"):
        open_backbone("onnx", path, "cpu")


def test_files_that_are_not_networks_are_refused(source, tmp_path):
    path = tmp_path / "r.onnx"
    whole = (source / "r.onnx").read_bytes()
    for junk in (b"no network", b"", whole[: len(whole) // 2], bytes(range(256)) * 8):
        path.write_bytes(junk)
        with pytest.raises(ValueError, match=r"r\.onnx"):
            open_backbone("onnx", path, "cpu")
    with pytest.raises(ValueError, match=r"r\.pth is not an ONNX file"):
        open_backbone("onnx", source / "r.pth", "cpu")
    with pytest.raises(ValueError, match=r"r\.onnx is an ONNX model, .*--backbone_name onnx"):
        open_backbone("iresnet18", source / "r.onnx", "cpu")


def test_weights_in_other_files_come_from_the_same_folder_alone(source, images, tmp_path):
    folder, path = tmp_path / "own", tmp_path / "own" / "r.onnx"
    folder.mkdir()
    network = onnx.load(source / "r.onnx")
    onnx.save(network, path, save_as_external_data=True, location="r.data", size_threshold=0)
    expected = open_backbone("onnx", source / "r.onnx", "cpu")(images).embedding
    assert torch.equal(open_backbone("onnx", path, "cpu")(images).embedding, expected)
    before = weights_sha256(path)
    assert before != weights_sha256(source / "r.onnx") == file_sha256(source / "r.onnx")
    (folder / "r.data").write_bytes((folder / "r.data").read_bytes()[::-1])
    assert weights_sha256(path) != before
    bytes_ = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"packed\.pt: it cannot be opened"):
        OnnxBackbone(weights={"onnx": bytes_}, source="packed.pt")  # which has no folder
    (folder / "r.data").rename(tmp_path / "r.data")
    path.write_bytes(path.read_bytes().replace(b"r.data", b"../r.d"))
    (tmp_path / "r.d").symlink_to(tmp_path / "r.data")
    with pytest.raises(ValueError, match=r"r\.onnx cannot be opened"):
        open_backbone("onnx", path, "cpu")


def test_an_unknown_name_lists_the_ways_in():
    with pytest.raises(ValueError, match=r"known: .*onnx.*\.onnx file.*adding_a_method\.md"):
        parse_backbone("facenet")
