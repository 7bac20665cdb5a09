import copy

import pytest
import torch
from torch import nn

from models.backbones.iresnet import IResNet
from models.backbones.mbf import MBF
from models.backbones.mobilefacenet import MobileFaceNet


def trained(network, seed=0):
    """Give every BatchNorm statistics and weights as after training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low in ((module.running_var, 0.5), (module.weight.data, 0.5)):
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return network.eval().requires_grad_(False)


def small_iresnet():
    return IResNet(layers=(1, 2, 1, 1), widths=(4, 8, 8, 8), embedding_size=16)


@pytest.mark.parametrize(
    ("build", "left"),
    [(small_iresnet, 6), (MobileFaceNet, 1), (MBF, 1)],
    ids=["iresnet", "mobilefacenet", "mbf"],
)
def test_folding_changes_the_time_and_nothing_else(build, left):
    torch.manual_seed(0)
    network = trained(build())
    folded = copy.deepcopy(network)
    folded.fold()
    norms = [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == left  # iresnet: one before each block's first convolution, and bn2
    images = torch.randn(2, 3, 112, 112)
    expected, output = network(images), folded(images)
    torch.testing.assert_close(output.features, expected.features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=1e-4, atol=1e-4)
    for whole, part in zip(network.tail_affine(), folded.tail_affine(), strict=True):
        assert torch.equal(whole, part)


def test_folding_twice_is_folding_once():
    torch.manual_seed(0)
    network = trained(small_iresnet())
    images = torch.randn(1, 3, 112, 112)
    network.fold()
    once = network(images).features
    network.fold()
    assert torch.equal(network(images).features, once)
