"""IResNet against the original's numbers and a block's formula."""

import numpy as np
import pytest
import torch

from models.backbones.iresnet import IResNet


def test_embeddings_and_features_are_those_of_the_original(iresnet18, iresnet18_images, golden):
    with np.load(golden / "iresnet18.npz") as file:
        reference = dict(file)
    with torch.no_grad():
        output = iresnet18(iresnet18.preprocessing(iresnet18_images))
        mirrored = iresnet18(iresnet18.preprocessing(iresnet18_images.flip(2)))
    assert output.features.shape == (2, 25088)  # of bn2, before dropout
    for values, name in (
        (output.embedding, "embedding"),
        (output.features[:, ::31], "features_every_31st"),
        (mirrored.embedding, "embedding_of_hflip"),
    ):
        np.testing.assert_allclose(values, reference[name], rtol=0, atol=1e-4)


def test_only_the_weight_of_the_last_batch_norm_is_frozen(tiny):
    frozen = [name for name, weight in tiny.named_parameters() if not weight.requires_grad]
    assert frozen == ["features.weight"]


def test_a_small_network_from_lists_as_json_gives_them_is_under_a_megabyte():
    net = IResNet(layers=[1, 1, 1, 1], widths=[8, 16, 32, 32], embedding_size=64)
    assert (net.features_shape, net.embedding_size) == ((32, 7, 7), 64)
    assert 4 * sum(weight.numel() for weight in net.parameters()) < 1_000_000
    assert net(torch.zeros(2, 3, 112, 112)).features.shape == (2, net.features_size)


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
