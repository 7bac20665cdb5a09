"""Merge BatchNorms into the convolutions before them: the same map in eval mode, in less time.

For frozen backbones; who may train again must not be folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(network: nn.Module, untouched: Iterable[nn.Module] = ()) -> None:
    """Fold every BatchNorm2d that directly follows a convolution, exact up to rounding.

    In a `nn.Sequential` the order is seen; another module lists its pairs of attributes in
    `conv_norms`. A BatchNorm before a padded convolution cannot be folded and stays.

    Args:
        network: in eval mode; changed in place, folded BatchNorms become identities.
        untouched: parts whose modules stay as they are.
    """
    kept = {id(module) for part in untouched for module in part.modules()}
    for module in network.modules():
        if id(module) in kept:
            continue
        for conv_name, norm_name in _pairs(module):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    if isinstance(module, nn.Sequential):
        yield from pairwise(name for name, _ in module.named_children())
    else:
        yield from getattr(module, "conv_norms", ())
