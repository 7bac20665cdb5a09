"""What every backbone has to keep, and the names and numbers of the published ones."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from torch import nn

from models.backbones.iresnet import IResNet
from models.backbones.mbf import MBF
from models.backbones.mobilefacenet import MobileFaceNet
from models.load import load_backbone
from models.preprocessing import Preprocessing
from utils.config import Method
from utils.methods import available, build

SHARED = Path(__file__).resolve().parents[3] / "shared"
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


SMALL = {"iresnet": {"layers": (1, 2, 1, 1), "widths": (4, 6, 8, 8), "embedding_size": 16}}


@pytest.fixture(scope="module", params=[*available("models.backbones"), "mbf large"])
def backbone(request, fill, backbone_draw):
    name, *options = request.param.split()
    method = Method(name, **SMALL.get(name, {}), **dict.fromkeys(options, True))
    net = build("models.backbones", method)
    fill(net, backbone_draw)
    return net.eval()


def test_it_is_a_backbone(backbone, images):
    with torch.no_grad():
        output = backbone(backbone.preprocessing(images))
    assert output.embedding.shape == (3, backbone.embedding_size)
    assert output.features.shape == (3, backbone.features_size)
    assert output.features.dtype == output.embedding.dtype == torch.float32
    assert backbone.features_size == np.prod(backbone.features_shape)
    assert torch.isfinite(output.embedding).all()
    assert output.embedding.std(dim=0).min() > 0


def test_features_are_flattened_channel_major_in_any_memory_format(backbone, images):
    normalised = backbone.preprocessing(images)
    with torch.no_grad():
        maps = backbone.feature_map(normalised.contiguous())
        output = backbone(normalised.contiguous(memory_format=torch.channels_last))
    channels, height, width = backbone.features_shape
    assert maps.shape == (3, channels, height, width)
    index = (channels - 1) * height * width + 2 * width + 5
    torch.testing.assert_close(output.features[:, index], maps[:, -1, 2, 5], rtol=1e-4, atol=1e-4)


def test_tail_gives_the_embedding(backbone, images):
    with torch.no_grad():
        output = backbone(backbone.preprocessing(images))
        assert torch.equal(backbone.tail(output.features), output.embedding)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_tail_affine_is_the_tail_as_one_matrix(backbone, batch_norm):
    features = torch.randn(4, backbone.features_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weight, bias = backbone.tail_affine(batch_norm)
        expected = backbone.tail(features, batch_norm)
    assert weight.shape == (backbone.embedding_size, backbone.features_size)
    assert bias.shape == (backbone.embedding_size,)
    assert weight.dtype == bias.dtype == torch.float32
    torch.testing.assert_close(features @ weight.T + bias, expected, rtol=1e-4, atol=2e-4)


def test_without_batch_norm_the_last_layer_alone_is_missing(backbone):
    features = torch.randn(4, backbone.features_size, generator=torch.Generator().manual_seed(1))
    norm = [layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm1d)][-1]
    with torch.no_grad():
        bare = backbone.tail(features, batch_norm=False)
        assert not torch.allclose(bare, backbone.tail(features))
        torch.testing.assert_close(norm(bare), backbone.tail(features))


def test_the_tail_stays_in_float32_under_autocast(backbone, images):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = backbone(backbone.preprocessing(images))
    with torch.no_grad():
        assert torch.equal(output.embedding, backbone.tail(output.features))


@pytest.mark.parametrize("name", available("models.backbones"))
def test_every_backbone_builds_without_options(name):
    with torch.device("meta"):
        net = build("models.backbones", Method(name))
    assert net.embedding_size == {"mobilefacenet": 128}.get(name, 512)


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
    with torch.no_grad():
        assert torch.equal(layer(maps), maps)


@pytest.mark.parametrize(
    ("network", "channels", "block"),
    [(MobileFaceNet, 64, "body.dconv_34"), (MBF, 128, "layers.4")],
)
def test_a_block_of_stride_two_does_not(network, channels, block):
    with torch.no_grad():
        out = network().eval().get_submodule(block)(torch.randn(1, channels, 28, 28))
    assert out.shape == (1, 2 * channels, 14, 14)


def test_batch_norm_of_mobilefacenet_has_the_published_eps():
    layers = list(MobileFaceNet().modules())
    assert {layer.eps for layer in layers if isinstance(layer, nn.BatchNorm2d)} == {1e-3}
    assert {layer.eps for layer in layers if isinstance(layer, nn.BatchNorm1d)} == {2e-5}


def test_preprocessing_of_published_weights():
    assert IResNet(depth=18).preprocessing == Preprocessing("RGB", 127.5, 127.5)
    assert MBF().preprocessing == Preprocessing("RGB", 127.5, 127.5)
    assert MobileFaceNet().preprocessing == Preprocessing("RGB", 127.5, 128.0)


def test_other_weights_of_the_same_shape_may_want_other_colours():
    backbone = MobileFaceNet(preprocessing={"color": "BGR"})
    assert backbone.preprocessing == Preprocessing("BGR", 127.5, 128.0)
    with pytest.raises(ValueError, match="preprocessing has no field 'colour'"):
        MobileFaceNet(preprocessing={"colour": "BGR"})


@pytest.mark.parametrize("network", [MBF, MobileFaceNet])
def test_an_embedding_needs_a_dimension(network):
    with pytest.raises(ValueError, match="embedding_size = 0: must be at least 1"):
        network(embedding_size=0)


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
