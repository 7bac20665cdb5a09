"""SER-FIQ, GraFIQs, FaceQAN and disagreements against the same thing done image by image."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from data.synthetic import degradation_sweep
from estimators.base import Batch
from estimators.faceqan import FaceQAN
from estimators.flip_disagreement import FlipDisagreement
from estimators.grafiqs import GraFIQs, discrepancy
from estimators.light_disagreement import LightDisagreement
from estimators.ser_fiq import SERFIQ, mean_distance
from models.backbones.iresnet import IResNet
from models.backbones.mobilefacenet import MobileFaceNet
from models.frozen import FrozenBackbone
from utils.config import Method
from utils.methods import build

FACES = degradation_sweep("blur", [0.0, 0.5], 2).reshape(4, 112, 112, 3)
STAGE = {f"block{number}": f"layer{number}" for number in (1, 2, 3, 4)}


def filled(backbone, seed=0):
    """Give the BatchNorms statistics and weights that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    return backbone.eval()


@pytest.fixture
def backbone():
    """As it was before it is frozen, in double precision: for the references."""
    return original_of(tiny())


def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = IResNet(layers=(1, 1, 2, 1), widths=(4, 6, 8, 8), embedding_size=16)
    return filled(net)


def original_of(net):
    return copy.deepcopy(net).double().requires_grad_(False)


@pytest.fixture
def frozen():
    return FrozenBackbone(tiny())


def embed_of(backbone, pixels):
    """(features, embedding) in the network's own precision."""
    features = backbone.feature_map(pixels).flatten(1)
    return features[0], backbone.tail(features)[0]


def cosine(a, b):
    return a @ b / a.norm() / b.norm()


def normalised(image, backbone):
    return backbone.preprocessing(torch.from_numpy(image)[None]).double()


# --- flip and light disagreement ---------------------------------------------------------------


def test_flip_disagreement_is_one_minus_the_cosine(frozen, backbone):
    estimate = FlipDisagreement(frozen=frozen)(Batch(FACES))
    for row, image in enumerate(FACES):
        plain, mirrored = (
            embed_of(backbone, normalised(np.ascontiguousarray(side), backbone))[1]
            for side in (image, image[:, ::-1])
        )
        expected = 1 - cosine(plain, mirrored).item()
        assert estimate.sigma_sq[row, 0] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        np.testing.assert_allclose(estimate.mu[row], plain, rtol=1e-3, atol=1e-4)


def test_light_disagreement_is_the_geometric_mean_of_three_moves(frozen, backbone):
    estimate = LightDisagreement(frozen=frozen, gamma=3.0, noise=20.0, seed=4)(Batch(FACES))
    noise = 20 * torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(4))
    for row, image in enumerate(FACES):
        levels = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float64))
        copies = [255 * (levels / 255) ** power for power in (1, 3, 1 / 3)]
        copies.append((levels + noise).clamp(0, 255))
        plain, *others = (embed_of(backbone, (copy - 127.5) / 127.5)[1] for copy in copies)
        moves = [1 - cosine(plain, other).item() + 1e-4 for other in others]
        assert estimate.sigma_sq[row, 0] == pytest.approx(math.prod(moves) ** (1 / 3), rel=1e-3)
        np.testing.assert_allclose(estimate.mu[row], plain, rtol=1e-3, atol=1e-4)


def symmetric(images):
    return np.concatenate([images[:, :, :56], images[:, :, :56][:, :, ::-1]], axis=2)


# --- SER-FIQ -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_ser_fiq_is_the_papers_double_loop(frozen, backbone, rate):
    passes = 9
    estimate = SERFIQ(frozen=frozen, passes=passes, rate=rate, seed=3)(Batch(FACES))
    weight, bias = (part.double() for part in backbone.tail_affine())
    generator = torch.Generator().manual_seed(3)
    kept = [torch.rand(8 * 49, generator=generator) >= rate for _ in range(passes)]
    masks = [one.double() / (1 - rate) for one in kept]
    for row, image in enumerate(FACES):
        features, _ = embed_of(backbone, normalised(image, backbone))
        embedded = [weight @ (features * mask) + bias for mask in masks]
        embedded = [(one / one.norm()).tolist() for one in embedded]
        distances = [math.dist(a, b) for a, b in itertools.combinations(embedded, 2)]
        quality = 2 / (1 + math.exp(sum(distances) / len(distances)))
        assert estimate.sigma_sq[row, 0] == pytest.approx(1 - quality, rel=1e-4)


def test_mean_distance_closed_forms():
    assert mean_distance(3 * torch.eye(7)).item() == pytest.approx(math.sqrt(2))
    pair = torch.tensor([[1.0, 0], [-5, 0]])
    assert mean_distance(pair).item() == pytest.approx(2)
    assert mean_distance(torch.ones(4, 3)).item() == 0
    assert mean_distance(torch.tensor([[0.0, 0], [2, 0]])).item() == pytest.approx(1)
    near = torch.tensor([[1.0, 0], [1, 1e-5]])  # float32 cosines cannot tell these apart
    assert mean_distance(near).item() == pytest.approx(1e-5, rel=1e-3)


# --- GraFIQs -----------------------------------------------------------------------------------


def gradient_size_of_one(backbone, image, at):
    """The gradient's size for one image, in double precision, without cutting the graph."""
    inputs = []
    place = []
    handles = [
        module.register_forward_pre_hook(lambda m, args: inputs.append((m, args[0])))
        for module in backbone.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    if at != "image":
        stage = backbone.get_submodule(STAGE[at])

        def keep(_module, _args, output):
            output.retain_grad()
            place.append(output)

        handles.append(stage.register_forward_hook(keep))
    pixels = normalised(image, backbone).requires_grad_()
    backbone.feature_map(pixels)
    for handle in handles:
        handle.remove()
    loss = 0
    for module, maps in inputs:
        channels = maps[0].flatten(1)
        mean = channels.sum(1) / channels.shape[1]
        variance = ((channels - mean[:, None]) ** 2).sum(1) / channels.shape[1]
        gaps = (mean - module.running_mean) ** 2 + (variance - module.running_var) ** 2
        loss = loss + gaps.sum() / len(gaps)
    (loss / len(inputs)).backward()
    gradient = pixels.grad if at == "image" else place[0].grad
    return gradient.abs().sum().item()


@pytest.mark.parametrize("at", ["image", "block1", "block2", "block3", "block4"])
def test_grafiqs_of_a_batch_is_that_of_each_image(frozen, backbone, at):
    estimate = GraFIQs(frozen=frozen, at=at)(Batch(FACES))
    expected = [gradient_size_of_one(backbone, image, at) for image in FACES]
    np.testing.assert_allclose(estimate.sigma_sq[:, 0], expected, rtol=1e-3)
    embedding = frozen(torch.from_numpy(FACES)).embedding
    np.testing.assert_allclose(estimate.mu, embedding, rtol=1e-6)


def test_discrepancy_closed_form():
    norm = nn.BatchNorm2d(2)
    norm.running_mean.copy_(torch.tensor([1.0, -1]))
    norm.running_var.copy_(torch.tensor([4.0, 0]))
    maps = torch.zeros(2, 2, 1, 2)
    maps[1, 0] = torch.tensor([[-1.0, 3.0]])  # mean 1, variance 4: as in training
    maps[1, 1] = -1
    np.testing.assert_allclose(discrepancy(norm, maps), [(1 + 1) / 2 + 16 / 2, 0])


def test_grafiqs_leaves_no_hooks_and_no_gradients_behind(frozen):
    estimator = GraFIQs(frozen=frozen, at="block2")
    estimator(Batch(FACES))
    modules = list(estimator.backbone.modules())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in modules)
    assert all(weight.grad is None for weight in estimator.backbone.parameters())
    with torch.no_grad():  # a caller's no_grad does not matter
        first, second = (estimator(Batch(FACES)).sigma_sq for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_grafiqs_errors(frozen):
    with pytest.raises(ValueError, match="at = 'block5': must be one of image, block1, block2"):
        GraFIQs(frozen=frozen, at="block5")
    nameless = FrozenBackbone(tiny())
    nameless.unfolded().stages = ()
    with pytest.raises(ValueError, match="at = 'block1', but IResNet names no such stage; use im"):
        GraFIQs(frozen=nameless, at="block1")
    once_more = FrozenBackbone(FrozenBackbone(MobileFaceNet()).backbone)
    with pytest.raises(ValueError, match="MobileFaceNet has no BatchNorm after image"):
        GraFIQs(frozen=once_more)(Batch(FACES[:1]))


# --- FaceQAN -----------------------------------------------------------------------------------


def quality_of_one(backbone, image, noise, steps, epsilon, exponent):
    """The paper's quality of one image, in double precision, one copy after the other."""

    def embed(levels):
        return embed_of(backbone, (levels[None] - 127.5) / 127.5)[1]

    levels = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float64))
    own = embed(levels)
    similarities = []
    for one in noise.double():
        moved = (levels + 255 * epsilon * one).clamp(0, 255)
        for _ in range(steps):
            moved.requires_grad_()
            similarity = cosine(own, embed(moved))
            similarities.append(similarity.item())
            (gradient,) = torch.autograd.grad(1 - similarity, moved)
            moved = (moved.detach() + 255 * epsilon * gradient.sign()).clamp(0, 255)
    flip = max(0, cosine(own, embed(levels.flip(2))).item())
    spread = max(0, 1 - float(np.std(similarities)))
    return ((1 + float(np.mean(similarities))) / 2 * spread * flip) ** exponent


@pytest.mark.parametrize("steps", [1, 3])
def test_faceqan_of_a_batch_is_the_papers_for_each_image(frozen, backbone, steps):
    passes, epsilon, exponent = 3, 0.02, 4.0
    options = {"passes": passes, "steps": steps, "epsilon": epsilon, "exponent": exponent}
    estimate = FaceQAN(frozen=frozen, seed=6, **options)(Batch(FACES))
    generator = torch.Generator().manual_seed(6)
    noise = 2 * torch.rand((passes, 3, 112, 112), generator=generator) - 1
    for row, image in enumerate(FACES):
        quality = quality_of_one(backbone, image, noise, steps, epsilon, exponent)
        assert estimate.sigma_sq[row, 0] == pytest.approx(1 - quality, rel=2e-3, abs=1e-6)


def test_faceqan_symmetry_does_not_matter_to_a_symmetric_face(frozen):
    with_it, without = (
        FaceQAN(frozen=frozen, passes=2, steps=2, symmetry=symmetry) for symmetry in (True, False)
    )
    faces, batch = Batch(symmetric(FACES)), Batch(FACES)
    np.testing.assert_allclose(with_it(faces).sigma_sq, without(faces).sigma_sq, atol=2e-6)
    assert (with_it(batch).sigma_sq > without(batch).sigma_sq).all()


# --- the stages of real backbones --------------------------------------------------------------


@pytest.mark.parametrize("name", ["iresnet", "mobilefacenet", "mbf"])
def test_stages_end_where_the_map_is_about_to_shrink(name):
    backbone = build("models.backbones", Method(name)).eval()
    sizes = []
    for stage in backbone.stages:
        backbone.get_submodule(stage).register_forward_hook(
            lambda _module, _args, output: sizes.append(output.shape[2])
        )
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 112, 112))
    assert sizes == [56, 28, 14, 7]
