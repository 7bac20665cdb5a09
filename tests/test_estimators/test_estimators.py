import copy
import inspect
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from estimators.base import Batch, harmonic_mean
from estimators.embedding_norm import EmbeddingNorm
from estimators.from_file import FromFile
from estimators.trained_head import TrainedHead
from models.backbones.base import BackboneOutput
from models.frozen import FrozenBackbone
from tests.helpers import TINY
from utils.config import Method, parse_method
from utils.methods import available, build, find


def frozen(images):
    """Stand for a frozen backbone: colour means as embedding, twice that as features."""
    assert images.dtype == torch.uint8
    embedding = images.float().mean(dim=(1, 2))
    return BackboneOutput(embedding, 2 * embedding)


class Head(nn.Module):
    reads = "features"

    def __init__(self, output):
        super().__init__()
        self.output = output
        self.dropout = nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.tensor(0.01))

    def forward(self, output):
        return self.dropout(output.features[:, :1]) * self.weight - 2


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
MEANS = IMAGES.mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("output", "rule"),
    [("probability", lambda raw: 1 / (1 + math.exp(-raw))), ("variance", math.exp)],
)
def test_trained_head_gives_its_uncertainty(output, rule):
    head = Head(output).train()
    estimate = TrainedHead(frozen=frozen, head=head)(Batch(IMAGES))
    np.testing.assert_allclose(estimate.mu, MEANS, rtol=1e-5)
    expected = [[rule(0.02 * mean - 2)] for mean in MEANS[:, 0]]
    np.testing.assert_allclose(estimate.sigma_sq, expected, rtol=1e-5)  # dropout was off
    assert head.training  # and is on again


def test_trained_head_goes_back_to_training_after_an_error():
    head = Head("nonsense").train()
    with pytest.raises(ValueError, match="nonsense"):
        TrainedHead(frozen=frozen, head=head)(Batch(IMAGES))
    assert head.training


def test_harmonic_mean_by_hand_in_float32():
    sigma = np.array([[1.0, 3.0, 0.0]], np.float32)
    mean = harmonic_mean(sigma)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, 3 / (1 / (1 + 1e-6) + 1 / (3 + 1e-6) + 1e6), rtol=1e-5)


def test_embedding_norm_calls_short_embeddings_uncertain():
    estimate = EmbeddingNorm(frozen=frozen)(Batch(IMAGES))
    np.testing.assert_allclose(estimate.sigma_sq[:, 0], -np.linalg.norm(MEANS, axis=1), rtol=1e-5)
    assert estimate.sigma_sq.shape == (5, 1)
    dark = np.concatenate([IMAGES[:1] // 4, IMAGES[:1]])
    sigma_sq = EmbeddingNorm(frozen=frozen)(Batch(dark)).sigma_sq
    assert sigma_sq[0] > sigma_sq[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,1\na,2\n", r"s\.csv: line 2: two scores for 'a'"),
        ("a,1\nb,nan\n", r"s\.csv: line 2: field 2 is nan: every row needs a finite number"),
        ("a,1\nb\n", r"s\.csv: line 2: 1 fields, but the first line has 2"),
        ("path,quality\na,high\n", r"s\.csv: line 2: quality is 'high', which is not a number"),
        ("a\n", r"s\.csv: expected a name and a number in each line, got"),
        ("name,quality\n", r"s\.csv: no scores in it"),
    ],
)
def test_from_file_errors_name_the_file_and_the_line(tmp_path, text, message):
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        FromFile(path=str(path))


# What makes the expensive ones cheap enough for a test.
OPTIONS = {"ser_fiq": {"passes": 10}, "faceqan": {"passes": 2, "steps": 2}}
BACKBONES = {"iresnet": TINY, "mobilefacenet": Method("mobilefacenet"), "mbf": Method("mbf")}


def needs_only_a_backbone(name):
    parameters = inspect.signature(find("estimators", name)).parameters.values()
    return {one.name for one in parameters if one.default is one.empty} <= {"frozen", "head"}


NAMES = [name for name in available("estimators") if needs_only_a_backbone(name)]


def real_backbone(name, device="cpu", precision="auto"):
    backbone = build("models.backbones", BACKBONES[name])
    generator = torch.Generator().manual_seed(3)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):  # so that the image reaches the embedding
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (1.9 / fan_in) ** 0.5, generator=generator)
    return FrozenBackbone(backbone, device, precision)


def built(name, frozen):
    method = parse_method(name)
    method.options.update(OPTIONS.get(name, {}))
    head = Head("probability").to(frozen.device)
    return build("estimators", method, frozen=frozen, head=head)


@pytest.fixture(scope="module")
def smooth_images():
    """Four images with structure, so that no measure has a tie."""
    noise = np.random.default_rng(1).uniform(0, 255, (4, 7, 7, 3))
    images = np.stack([np.kron(one, np.ones((16, 16, 1))) for one in noise])
    shade = np.linspace(0.3, 1, 4)[:, None, None, None]
    return (images * shade).astype(np.uint8)


@pytest.fixture(scope="module", params=BACKBONES)
def whole(request, smooth_images):
    """The backbone and, by estimator, the estimate of all images at once."""
    frozen = real_backbone(request.param)
    return frozen, {name: built(name, frozen)(Batch(smooth_images)) for name in NAMES}


class OnDevice(torch.Tensor):
    """A tensor on a device without float64, as MPS is; the CPU holds and computes it."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        shape = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = cls._make_wrapper_subclass(
            cls, held.shape, **shape, dtype=held.dtype, device="lazy", requires_grad=False
        )
        made.held = held.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class WithoutFloat64(TorchDispatchMode):
    """Makes the device "lazy", which every build of PyTorch knows by name, the one above."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def computed(function, args, kwargs):
    used = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    device = kwargs.get("device") or ("lazy" if OnDevice in map(type, used) else "cpu")
    on_host = torch.device(device).type == "cpu"
    if not on_host and torch.float64 in {kwargs.get("dtype"), *(x.dtype for x in used)}:
        raise TypeError(f"the device has no float64: {function}")
    args, kwargs = tree_map_only(OnDevice, lambda x: x.held, (args, kwargs))
    given = function(*args, **kwargs | ({"device": "cpu"} if "device" in kwargs else {}))
    return given if on_host else tree_map_only(torch.Tensor, OnDevice, given)


@pytest.mark.parametrize("name", [*NAMES, "mc_dropout:form=closed_form"])
def test_a_device_without_float64_gives_the_numbers_of_the_cpu(
    name, whole, smooth_images, monkeypatch
):
    frozen, estimates = whole
    expected = estimates.get(name) or built(name, frozen)(Batch(smooth_images))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # not for "lazy"
    with WithoutFloat64():
        on_device = FrozenBackbone(copy.deepcopy(frozen.unfolded()), "lazy", "fp32")
        found = built(name, on_device)(Batch(smooth_images))
    np.testing.assert_allclose(found.sigma_sq, expected.sigma_sq, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, whole, smooth_images):
    frozen, estimates = whole
    estimate = estimates[name]
    assert estimate.mu.dtype == estimate.sigma_sq.dtype == np.float32
    assert estimate.sigma_sq.shape == (4, 1)
    assert np.isfinite(estimate.sigma_sq).all()
    assert np.diff(np.sort(estimate.sigma_sq[:, 0])).min() > 1e-4 * np.ptp(estimate.sigma_sq)
    expected = frozen(torch.from_numpy(smooth_images)).embedding.numpy()
    np.testing.assert_allclose(estimate.mu, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_care_about_its_batch(name, whole, smooth_images):
    frozen, estimates = whole
    estimator = built(name, frozen)
    parts = smooth_images[3:], smooth_images[2::-1]  # another order, in batches of 1 and 3
    turned = np.concatenate([estimator(Batch(part)).sigma_sq for part in parts])
    # The sign of a gradient near 0 is a matter of rounding, so FaceQAN gets more room.
    room = 2e-2 if name == "faceqan" else 1e-3
    np.testing.assert_allclose(turned[::-1], estimates[name].sigma_sq, rtol=room)


@pytest.mark.parametrize("name", NAMES)
def test_images_may_be_any_view_and_stay_as_they_are(name, smooth_images):
    frozen = real_backbone("iresnet")
    images = smooth_images[:3].copy()
    before = images.copy()
    mirrored = built(name, frozen)(Batch(images[:, :, ::-1])).sigma_sq
    np.testing.assert_array_equal(images, before)
    expected = built(name, frozen)(Batch(np.ascontiguousarray(images[:, :, ::-1]))).sigma_sq
    np.testing.assert_array_equal(mirrored, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("name", NAMES)
def test_cuda_agrees_with_the_cpu(name, precision, smooth_images):
    frozen = real_backbone("iresnet", "cuda", precision)
    found = built(name, frozen)(Batch(smooth_images)).sigma_sq
    expected = built(name, real_backbone("iresnet"))(Batch(smooth_images)).sigma_sq
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mc_dropout", {"rate": 0.0}, r"rate = 0\.0: the share of dropped features must lie"),
        ("mc_dropout", {"rate": math.nan}, "rate = nan"),
        ("mc_dropout", {"passes": 1}, "passes = 1: a spread needs at least 2 passes"),
        ("mc_dropout", {"form": "exact"}, "form = 'exact': must be one of sampled, closed_form"),
        ("ser_fiq", {"passes": 1}, "passes = 1: a distance needs at least 2"),
        ("ser_fiq", {"rate": 1.0}, "rate = 1.0: the share of dropped features"),
        ("faceqan", {"steps": 0}, "steps = 0: must be at least 1"),
        ("faceqan", {"epsilon": 0.0}, "epsilon = 0.0: must be above 0 and below 1"),
        ("faceqan", {"exponent": 0}, "exponent = 0: must be above 0"),
        ("brightness", {"dark": 0.8, "bright": 0.2}, "dark = 0.8, bright = 0.2: must be 0 <= dark"),
        ("brightness", {"width": 0}, "width = 0: must be above 0"),
        ("light_disagreement", {"gamma": 1.0}, "gamma = 1.0: must be above 1"),
        ("light_disagreement", {"noise": 0.0}, "noise = 0.0: must be above 0"),
    ],
)
def test_options_out_of_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        find("estimators", name)(frozen=None, **options)


def test_every_estimator_is_found_by_its_file_name():
    names = available("estimators")
    assert {"trained_head", "embedding_norm", "from_file", "mc_dropout"} <= set(names)
    assert {"ser_fiq", "grafiqs", "faceqan", "flip_disagreement"} <= set(NAMES)
    assert {"sharpness", "brightness", "contrast", "resolution"} <= set(NAMES)
    for name in set(names) - {"mc_dropout"}:  # its name says the form too
        assert find("estimators", name).name == name
