"""The student: what it reads, how small it is, and how it starts from a MobileFaceNet."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.backbones.base import BackboneOutput
from models.backbones.mobilefacenet import MobileFaceNet
from models.frozen import FrozenBackbone
from models.heads.student import StudentHead, _PReLU
from models.load import load_head


@pytest.fixture
def backbone():
    torch.manual_seed(3)
    network = MobileFaceNet()
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 0.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def pixels():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8))


def student(output="probability", **options):
    torch.manual_seed(0)
    return StudentHead(output=output, **options).eval()


def scored(head, images):
    nothing = torch.empty(len(images), 0)
    return head(BackboneOutput(nothing, nothing, images))


def levels(images):
    return images.permute(0, 3, 1, 2).float()


def test_it_has_less_than_half_a_million_parameters():
    assert sum(parameter.numel() for parameter in student().parameters()) < 500_000


def test_the_frozen_backbone_hands_on_the_images_as_they_came(backbone, pixels):
    frozen = FrozenBackbone(backbone)
    for images in (pixels, levels(pixels)):
        output = frozen(images)
        assert torch.equal(output.images, images)
        assert output.tensors[2] is output.images
    head = student(size=48)
    by_steps = torch.cat([head(frozen(image[None])) for image in pixels])
    assert torch.allclose(head(frozen(pixels)), by_steps, atol=1e-6)
    assert torch.allclose(scored(head, levels(pixels)), by_steps, atol=1e-6)


def test_the_image_is_reduced_as_interpolation_with_antialias_does(pixels):
    shrink, images = student(size=80).shrink.double(), levels(pixels).double()
    expected = F.interpolate(images, size=(80, 80), mode="bilinear", antialias=True)
    assert torch.allclose(shrink @ images @ shrink.T, expected, atol=1e-3)
    assert torch.equal(student(size=112).shrink, torch.eye(112))


def test_prelu_is_pytorchs():
    torch.manual_seed(1)
    ours, theirs = _PReLU(6), nn.PReLU(6)
    nn.init.uniform_(ours.weight, -1, 1)
    theirs.load_state_dict(ours.state_dict())
    maps = torch.randn(2, 6, 4, 4)
    assert torch.allclose(ours(maps), theirs(maps), atol=1e-6)


def test_from_a_mobilefacenet_it_computes_what_the_shared_layers_compute(
    backbone, pixels, tmp_path
):
    torch.save(backbone.state_dict(), tmp_path / "mbf.pth")
    head = student(size=112)
    fresh = head.layer.weight.clone()
    load_head(head, tmp_path / "mbf.pth")
    assert torch.equal(head.layer.weight, fresh)
    images = (levels(pixels) - 127.5) / 128
    names = [name for name, _ in head.body.named_children()]
    theirs = nn.Sequential(*(getattr(backbone.body, name) for name in names))
    with torch.no_grad():
        assert torch.allclose(head.body(images), theirs(images), atol=1e-5)


def test_from_a_student_it_is_that_student_and_from_anything_else_it_does_not_start(
    pixels, tmp_path
):
    trained = student(size=64)
    nn.init.normal_(trained.layer.weight)
    torch.save(trained.state_dict(), tmp_path / "student.pth")
    head = student(size=64)
    load_head(head, tmp_path / "student.pth")
    assert torch.equal(scored(head, pixels), scored(trained, pixels))
    torch.save({"layer.weight": torch.zeros(1, 256)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="missing: body"):
        load_head(student(), tmp_path / "other.pth")


def test_a_mirrored_face_keeps_its_side_differences(pixels):
    head = student(size=112)
    head.body = head.standardise = head.layer = nn.Identity()
    plain, mirrored = scored(head, pixels), scored(head, pixels.flip(2))
    assert torch.allclose(plain, mirrored, atol=1e-5)
    assert plain[:, 3:].min() > 0


@pytest.mark.parametrize(("output", "start"), [("probability", 0.0), ("variance", -0.2231)])
def test_it_starts_in_the_middle(output, start, pixels):
    head = student(output)
    assert head.layer.bias.item() == pytest.approx(start, abs=1e-4)
    raw = scored(head.train(), pixels)
    assert raw.shape == (5, 1)
    assert (raw - start).abs().max() < 1.5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 20}, "size = 20: must be 32 to 112"),
        ({"fixed": 9}, "fixed = 9: must be 0 to 8"),
        ({"hint": -1}, "hint = -1: must be at least 0"),
        ({"output": "x"}, "head 'student': output = 'x'"),
    ],
)
def test_refused_options(options, text):
    with pytest.raises(ValueError, match=text):
        student(**options)


def test_features_without_images_are_refused():
    with pytest.raises(ValueError, match="reads images, and these features come without any"):
        student()(BackboneOutput(torch.zeros(1, 2), torch.zeros(1, 3)))


def test_a_hint_is_the_error_of_the_features_summary_and_ends_with_training(pixels, tmp_path):
    head = student(size=32, features_shape=(3, 2, 4), fixed=2, hint=0.5).train()
    channels = []
    head.standardise.register_forward_hook(lambda *call: channels.append(call[2]))
    batch = BackboneOutput(torch.empty(5, 0), torch.randn(5, 3 * 2 * 4), pixels)
    head(batch)
    maps = batch.features.view(5, 3, 2, 4)
    sides = (maps - maps.flip(3)).abs().mean((2, 3))
    summary = torch.cat([maps.mean((2, 3)), sides], 1)
    target = (summary - summary.mean(0)) / (summary.var(0, unbiased=False) + 1e-5).sqrt()
    expected = 0.5 * (head.hint_layer(channels[0]) - target).square().mean()
    assert head.extra.item() == pytest.approx(expected.item(), rel=1e-4)
    head.extra = None
    scored(head.eval(), pixels)
    assert head.extra is None
    torch.save(head.state_dict(), tmp_path / "with.pth")
    without = student(size=32)
    load_head(without, tmp_path / "with.pth")
    assert torch.equal(scored(without, pixels), scored(head, pixels))


def test_fixed_layers_are_not_trained():
    head = student(size=32, fixed=2).train()
    assert [layer.training for layer in head.body] == [False] * 2 + [True] * 7
    learning = {name for name, value in head.named_parameters() if value.requires_grad}
    assert not any(name.startswith(("body.conv_1.", "body.conv_2_dw.")) for name in learning)
    assert "body.dconv_23.sep.0.weight" in learning
