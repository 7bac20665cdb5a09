"""What every backbone has to keep, and the names and numbers of the published ones."""

import copy
import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.backbones.base import Preprocessing
from models.backbones.iresnet import IResNet
from models.backbones.mbf import MBF
from models.backbones.mobilefacenet import MobileFaceNet
from models.frozen import FrozenBackbone
from models.load import load_backbone
from tests.helpers import SHARED
from utils.config import Method
from utils.methods import available, build

FACES = SHARED / "faces"

PUBLISHED = {
    "iresnet18": lambda: IResNet(depth=18),
    "iresnet34": lambda: IResNet(depth=34),
    "iresnet50": lambda: IResNet(),
    "iresnet100": lambda: IResNet(depth=100),
    "iresnet200": lambda: IResNet(depth=200),
    "mbf": lambda: MBF(),
    "mbf_large": lambda: MBF(large=True),
    "mobilefacenet_y1": lambda: MobileFaceNet(),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_published_weights(name, golden):
    expected = json.loads(gzip.decompress((golden / "backbone_keys.json.gz").read_bytes()))[name]
    with torch.device("meta"):
        state = PUBLISHED[name]().state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == expected
    assert list(state) == list(expected)


# --- the contract, for any class in models/backbones -------------------------------------------

STATISTICS = ("running_mean", "running_var", "weight", "bias")
SMALL = {"iresnet": {"layers": (1, 2, 1, 1), "widths": (4, 6, 8, 8), "embedding_size": 16}}


@pytest.fixture(scope="module", params=[*available("models.backbones"), "mbf large"])
def backbone(request, fill, backbone_draw, tmp_path_factory):
    name, *options = request.param.split()
    if name == "onnx":
        net = build("models.backbones", Method("iresnet", **SMALL["iresnet"]))
        fill(net, backbone_draw)
        write = request.getfixturevalue("write_recogniser")
        return load_backbone(
            Method("onnx"), write(net.eval(), tmp_path_factory.mktemp("n") / "n.onnx")
        )
    method = Method(name, **SMALL.get(name, {}), **dict.fromkeys(options, True))
    net = build("models.backbones", method)
    fill(net, backbone_draw)
    return net.eval().requires_grad_(False)


@pytest.fixture
def features(backbone):
    return torch.randn(4, backbone.features_size, generator=torch.Generator().manual_seed(0))


def test_it_is_a_backbone(backbone, images):
    output = backbone(backbone.preprocessing(images))
    assert output.embedding.shape == (3, backbone.embedding_size)
    assert output.features.shape == (3, backbone.features_size)
    assert output.features.dtype == output.embedding.dtype == torch.float32
    assert backbone.features_size == np.prod(backbone.features_shape)
    assert torch.isfinite(output.embedding).all()
    assert not torch.equal(output.embedding[0], output.embedding[1])
    torch.testing.assert_close(backbone.tail(output.features), output.embedding)


def test_features_are_flattened_channel_major_in_any_memory_format(backbone, images):
    normalised = backbone.preprocessing(images)
    maps = backbone.feature_map(normalised.contiguous())
    features = backbone(normalised.contiguous(memory_format=torch.channels_last)).features
    assert maps.shape == (3, *backbone.features_shape)
    restored = features.unflatten(1, backbone.features_shape)
    torch.testing.assert_close(restored, maps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_tail_affine_is_the_tail_as_one_matrix(backbone, features, batch_norm):
    try:
        weight, bias = backbone.tail_affine(batch_norm)
    except ValueError as error:
        pytest.skip(str(error))  # a tail with an activation
    assert weight.shape == (backbone.embedding_size, backbone.features_size)
    assert bias.shape == (backbone.embedding_size,)
    assert weight.dtype == bias.dtype == torch.float32
    expected = backbone.tail(features, batch_norm)
    torch.testing.assert_close(features @ weight.T + bias, expected, rtol=1e-4, atol=2e-4)


def test_without_batch_norm_a_last_batch_norm_alone_is_missing(backbone, features):
    if not backbone.is_differentiable:
        pytest.skip("test_onnx.py compares it with the network that was exported")
    bare, whole = backbone.tail(features, batch_norm=False), backbone.tail(features)
    norms = [part for part in backbone.modules() if isinstance(part, _BatchNorm)]
    sized = [norm for norm in norms if norm.num_features == backbone.embedding_size]
    ends = [
        F.batch_norm(bare, *map(norm.state_dict().get, STATISTICS), eps=norm.eps) for norm in sized
    ]
    assert any(torch.allclose(end, whole, rtol=1e-4, atol=1e-5) for end in [bare, *ends])
    if type(backbone) in (IResNet, MBF, MobileFaceNet):
        assert not torch.allclose(bare, whole)


def test_frozen_it_is_the_same_in_less_time_with_its_tail_as_it_was(backbone, images):
    own = copy.deepcopy(backbone)
    tail = {id(part) for whole in own.tail_modules() for part in whole.modules()}
    stay = [part for part in own.modules() if id(part) in tail]
    frozen = FrozenBackbone(own)
    expected, output = backbone(backbone.preprocessing(images)), frozen(images)
    torch.testing.assert_close(output.features, expected.features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=1e-4, atol=1e-4)
    assert all(part in list(frozen.backbone.modules()) for part in stay)
    precision = "bf16" if backbone.is_differentiable else "auto"
    half = FrozenBackbone(copy.deepcopy(backbone), precision=precision)(images)
    assert half.embedding.dtype == torch.float32
    torch.testing.assert_close(half.embedding, backbone.tail(half.features), rtol=1e-4, atol=1e-4)


def test_the_tail_stays_in_float32_under_autocast(backbone, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = backbone(backbone.preprocessing(images))
    torch.testing.assert_close(output.embedding, backbone.tail(output.features))


@pytest.mark.parametrize("name", sorted({*available("models.backbones")} - {"onnx"}))
def test_every_backbone_builds_without_options(name):
    with torch.device("meta"):
        assert build("models.backbones", Method(name)).embedding_size >= 1


# --- the ones that come with the code ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "norms"),
    [(Method("iresnet", **SMALL["iresnet"]), 6), (Method("mobilefacenet"), 1), (Method("mbf"), 1)],
    ids=["iresnet", "mobilefacenet", "mbf"],
)
def test_folding_leaves_the_batch_norms_that_it_has_to(method, norms, images):
    net = build("models.backbones", method).eval().requires_grad_(False)
    before = net.tail_affine()
    net.fold()  # iresnet: one stays before each block's first convolution, and bn2
    assert sum(isinstance(part, nn.BatchNorm2d) for part in net.modules()) == norms
    assert all(torch.equal(*pair) for pair in zip(before, net.tail_affine(), strict=True))
    once = net(net.preprocessing(images)).features
    net.fold()
    assert torch.equal(net(net.preprocessing(images)).features, once)


@pytest.mark.parametrize(
    ("network", "channels", "block", "last_norm"),
    [
        (MobileFaceNet, 128, "body.res_4_block2", "proj.1"),
        (MBF, 256, "layers.5.layers.2", "layers.2.layers.1"),
    ],
)
def test_a_block_of_stride_one_adds_its_input(network, channels, block, last_norm):
    layer = network().eval().get_submodule(block)
    nn.init.zeros_(layer.get_submodule(last_norm).weight)
    maps = torch.randn(1, channels, 14, 14)
    assert torch.equal(layer(maps), maps)


def test_batch_norm_of_mobilefacenet_has_the_published_eps():
    layers = list(MobileFaceNet().modules())
    assert {layer.eps for layer in layers if isinstance(layer, nn.BatchNorm2d)} == {1e-3}
    assert {layer.eps for layer in layers if isinstance(layer, nn.BatchNorm1d)} == {2e-5}


def test_preprocessing_of_published_weights_and_of_others():
    assert IResNet(depth=18).preprocessing == Preprocessing("RGB", 127.5, 127.5)
    assert MBF().preprocessing == Preprocessing("RGB", 127.5, 127.5)
    assert MobileFaceNet().preprocessing == Preprocessing("RGB", 127.5, 128.0)
    swapped = MobileFaceNet(preprocessing={"color": "BGR"}).preprocessing
    assert swapped == Preprocessing("BGR", 127.5, 128.0)
    with pytest.raises(ValueError, match="preprocessing has no field 'colour'"):
        MobileFaceNet(preprocessing={"colour": "BGR"})


@pytest.mark.parametrize("network", [MBF, MobileFaceNet])
def test_an_embedding_needs_a_dimension(network):
    with pytest.raises(ValueError, match="embedding_size = 0: must be at least 1"):
        network(embedding_size=0)


def test_names_of_a_file_from_elsewhere(tmp_path, monkeypatch):
    names = {"head.": "fc.", "head": None, "": "layer"}  # the first that fits counts
    monkeypatch.setattr(IResNet, "published_names", names)
    tensors = {"head.bias": 1, "header": 2, "4.0.bn1.bias": 3}
    assert IResNet(depth=18).starting_from(tensors) == {"fc.bias": 1, "layer4.0.bn1.bias": 3}
    monkeypatch.setattr(IResNet, "published_names", {"head.": "fc.", "classes.": None})
    method = Method("iresnet", **SMALL["iresnet"])
    state = build("models.backbones", method).state_dict()
    foreign = {name.replace("fc.", "head."): tensor for name, tensor in state.items()}
    torch.save(foreign | {"classes.weight": torch.zeros(9, 16)}, tmp_path / "foreign.pth")
    assert torch.equal(
        load_backbone(method, tmp_path / "foreign.pth").fc.weight, state["fc.weight"]
    )


def _records(folder: Path, keys: list[int]) -> torch.Tensor:
    """Read single-part image records of a pack by their keys."""
    lines = (folder / "lfw_dev.idx").read_text().splitlines()
    offsets = dict(map(int, line.split()) for line in lines)
    images = []
    with (folder / "lfw_dev.rec").open("rb") as file:
        for key in keys:
            file.seek(offsets[key])
            _, length, flag = struct.unpack("<III", file.read(12))
            payload = file.read(length - 4)[20 + 4 * flag :]
            images.append(simplejpeg.decode_jpeg(payload, "RGB"))
    return torch.from_numpy(np.stack(images))


@pytest.mark.skipif(not FACES.exists(), reason="needs ../shared/faces")
def test_published_mobilefacenet_embeds_faces_as_recorded():
    with np.load(FACES / "weights" / "expected_lfw_dev_first48.npz") as file:
        expected = {name: file[name] for name in ("key", "embedding", "features_first4")}
    backbone = load_backbone(Method("mobilefacenet"), FACES / "weights" / "mbf_y1.pth")
    images = _records(FACES / "lfw_dev", [int(key) for key in expected["key"]])
    with torch.no_grad():
        output = backbone(backbone.preprocessing(images))
    np.testing.assert_allclose(output.embedding, expected["embedding"], rtol=0, atol=1e-4)
    # recorded in half precision: 2 ** -11 of the value
    np.testing.assert_allclose(
        output.features[:4], expected["features_first4"], rtol=6e-4, atol=1e-3
    )
