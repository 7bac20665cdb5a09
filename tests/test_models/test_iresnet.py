import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.backbones.iresnet import IResNet


@pytest.fixture(scope="module")
def output(iresnet18, iresnet18_images):
    with torch.no_grad():
        return iresnet18(iresnet18.preprocessing(iresnet18_images))


@pytest.fixture(scope="module")
def reference(golden):
    with np.load(golden / "iresnet18.npz") as file:
        return dict(file)


def test_embedding_is_that_of_the_original(output, reference):
    assert output.embedding.dtype == torch.float32
    np.testing.assert_allclose(output.embedding, reference["embedding"], rtol=0, atol=1e-4)


def test_features_are_bn2_before_dropout(output, reference):
    assert output.features.shape == (2, 25088)
    np.testing.assert_allclose(
        output.features[:, ::31], reference["features_every_31st"], rtol=0, atol=1e-4
    )


def test_mirrored_images(iresnet18, iresnet18_images, reference):
    with torch.no_grad():
        out = iresnet18(iresnet18.preprocessing(iresnet18_images.flip(2)))
    np.testing.assert_allclose(out.embedding, reference["embedding_of_hflip"], rtol=0, atol=1e-4)


def test_a_block_against_its_formula(tiny):
    block = tiny.layer2[1]
    x = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))

    def norm(bn, maps):
        scale = bn.weight / torch.sqrt(bn.running_var + 1e-5)
        shift = bn.bias - bn.running_mean * scale
        return maps * scale[:, None, None] + shift[:, None, None]

    inner = norm(block.bn2, F.conv2d(norm(block.bn1, x), block.conv1.weight, padding=1))
    inner = torch.where(inner > 0, inner, inner * block.prelu.weight[:, None, None])
    expected = x + norm(block.bn3, F.conv2d(inner, block.conv2.weight, padding=1))
    assert (expected < 0).any()
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_only_the_weight_of_the_last_batch_norm_is_frozen(tiny):
    frozen = [name for name, weight in tiny.named_parameters() if not weight.requires_grad]
    assert frozen == ["features.weight"]


def test_a_small_network_is_under_a_megabyte():
    net = IResNet(layers=(1, 1, 1, 1), widths=(8, 16, 32, 32), embedding_size=64)
    assert net.features_shape == (32, 7, 7)
    assert net.embedding_size == 64
    assert 4 * sum(weight.numel() for weight in net.parameters()) < 1_000_000
    assert net(torch.zeros(2, 3, 112, 112)).features.shape == (2, net.features_size)


def test_lists_as_json_gives_them():
    with torch.device("meta"):
        net = IResNet(layers=[1, 1, 1, 1], widths=[4, 4, 4, 4])
    assert net.features_shape == (4, 7, 7)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"depth": 51}, r"depth = 51: must be one of \(18, 34, 50, 100, 200\)"),
        ({"depth": 50, "layers": (1, 1, 1, 1)}, "give one of the two"),
        ({"layers": (1, 1, 1)}, r"layers = \(1, 1, 1\): must be four numbers"),
        ({"layers": (1, 0, 1, 1)}, "of at least 1"),
        ({"widths": (64, 128)}, r"widths = \(64, 128\): must be four"),
        ({"embedding_size": 0}, "embedding_size = 0: must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with torch.device("meta"), pytest.raises(ValueError, match=text):
        IResNet(**options)
