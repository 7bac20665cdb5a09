import copy

import numpy as np
import pytest
import torch
from torch import nn

from estimators.base import Batch, build_estimator
from models.backbones.base import Backbone
from models.frozen import Compiler, FrozenBackbone
from models.heads.fc2 import FC2Head
from utils.config import Method


def test_train_cannot_undo_eval_mode(tiny, images):
    frozen = FrozenBackbone(tiny.train())
    around = nn.ModuleList([frozen, nn.Dropout()])
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    first = frozen(images)
    around.train()
    assert around[1].training
    assert not any(layer.training for layer in frozen.modules())
    frozen.backbone.train()
    again = frozen(images)
    assert torch.equal(again.embedding, first.embedding)
    for name, tensor in tiny.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_no_graph_but_a_head_can_learn_from_it(tiny, images):
    frozen = FrozenBackbone(tiny)
    assert not any(weight.requires_grad for weight in frozen.parameters())
    output = frozen(images.permute(0, 3, 1, 2).float().requires_grad_())
    assert not output.embedding.requires_grad
    assert not output.features.requires_grad
    head = FC2Head(output="probability", features_shape=frozen.features_shape, hidden=4)
    head(output).sum().backward()
    assert head.layers[1].weight.grad is not None
    assert all(weight.grad is None for weight in frozen.parameters())


def averages(net, images):
    """The reference, stage by stage: (B, S)."""
    maps, means = net.prelu(net.bn1(net.conv1(net.preprocessing(images)))), []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        maps = stage(maps)
        means.append(maps.mean(dim=(2, 3)))
    return torch.cat(means, dim=1)


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-6), ("bf16", 1e-2)])
def test_stages_are_given_once_somebody_asked(tiny, images, precision, within):
    many = torch.cat([images, images.flip(1)] * 4)  # several chunks of a CPU
    expected = averages(copy.deepcopy(tiny), many)
    frozen = FrozenBackbone(tiny, precision=precision)
    before = frozen(many)
    assert before.stages is None
    assert frozen.give_stages() == frozen.give_stages() == (4, 6, 8, 8)
    after = frozen(many)
    torch.testing.assert_close(after.stages, expected, rtol=within, atol=within)
    assert torch.equal(after.features, before.features)
    assert torch.equal(after.embedding, before.embedding)
    assert torch.equal(after.map(lambda part: part[3:5]).stages, after.stages[3:5])
    assert frozen.unfolded()(frozen.preprocessing(images)).stages is None


def test_stages_of_a_compiled_backbone_and_of_one_that_names_none(tiny, images, monkeypatch):
    frozen = FrozenBackbone(tiny)
    frozen.give_stages()
    expected = frozen(images).stages
    run = Compiler(frozen._run, backend="eager")(images)
    torch.testing.assert_close(run(images[:2]).stages, expected[:2])
    monkeypatch.setattr(type(tiny), "stages", ())
    with pytest.raises(ValueError, match="IResNet does not name its stages"):
        FrozenBackbone(copy.deepcopy(frozen.unfolded())).give_stages()


def test_unknown_precision(tiny):
    with pytest.raises(ValueError, match="precision = 'fp8': must be one of auto, fp32, bf16"):
        FrozenBackbone(tiny, precision="fp8")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "fp32", "fp16"])
def test_cuda_agrees_with_the_cpu(tiny, images, precision):
    expected = FrozenBackbone(tiny)(images).embedding
    output = FrozenBackbone(tiny, "cuda", precision)(images)
    assert output.embedding.device.type == output.features.device.type == "cuda"
    assert torch.cosine_similarity(output.embedding.cpu(), expected).min() > 0.999


def test_the_backbone_before_folding_is_kept(tiny, images):
    expected = copy.deepcopy(tiny)
    frozen = FrozenBackbone(tiny)
    unfolded = frozen.unfolded()
    norms = [
        sum(isinstance(one, nn.BatchNorm2d) for one in net.modules())
        for net in (expected, unfolded, frozen.backbone)
    ]
    assert norms[0] == norms[1] > norms[2]
    assert not unfolded.training
    assert not any(weight.requires_grad for weight in unfolded.parameters())
    state = unfolded.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state[name], tensor), name
    pixels = frozen.preprocessing(images)
    torch.testing.assert_close(
        unfolded(pixels).embedding, frozen(images).embedding, rtol=1e-5, atol=1e-5
    )


def test_what_folding_leaves_is_not_stored_twice(tiny):
    frozen = FrozenBackbone(tiny)
    assert frozen.unfolded().fc.weight is frozen.backbone.fc.weight
    kept = sum(weight.numel() for weight in tiny.parameters())
    assert sum(weight.numel() for weight in frozen.parameters()) == kept


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_converted_beforehand_are_those_of_autocast(tiny, images, precision):
    plain = copy.deepcopy(tiny)
    plain.fold()
    plain.to(memory_format=torch.channels_last)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    pixels = plain.preprocessing(images).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        expected = plain(pixels)
    frozen = FrozenBackbone(tiny, precision=precision)
    found = frozen(images)
    assert torch.equal(found.embedding, expected.embedding.float())
    assert torch.equal(found.features, expected.features.float())
    names = set(frozen.state_dict())
    assert names == {f"backbone.{name}" for name in tiny.state_dict()}
    assert {weight.dtype for weight in frozen.parameters()} == {torch.float32}


def test_layers_run_channels_last_in_the_chosen_type(tiny, images):
    frozen, seen = FrozenBackbone(tiny, precision="bf16"), []

    def look(module, inputs, output):
        seen.append((output.dtype, output.is_contiguous(memory_format=torch.channels_last)))

    handle = nn.modules.module.register_module_forward_hook(
        lambda module, *rest: look(module, *rest) if isinstance(module, nn.Conv2d) else None
    )
    try:
        frozen(images)
    finally:
        handle.remove()
    assert len(seen) > 10
    assert set(seen) == {(torch.bfloat16, True)}


class Foreign(Backbone):
    """Somebody else's network: a tail of convolutions, without Linear and BatchNorm1d."""

    def __init__(self):
        super().__init__()
        self.embedding_size, self.features_shape = 6, (4, 7, 7)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 16, stride=16), nn.BatchNorm2d(4), nn.PReLU(4))
        self.pool = nn.Sequential(nn.Conv2d(4, 6, 7, bias=False), nn.BatchNorm2d(6), nn.PReLU(6))

    def feature_map(self, images):
        return self.body(images)

    def tail(self, features, batch_norm=True):
        maps = self.pool[0](features.unflatten(1, self.features_shape))
        return (self.pool[2](self.pool[1](maps)) if batch_norm else maps).flatten(1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_foreign_tail_stays_as_it_is_and_float32(precision, images):
    torch.manual_seed(0)
    foreign = Foreign().eval()
    with torch.no_grad():
        expected = foreign(foreign.preprocessing(images)).embedding
    frozen = FrozenBackbone(foreign, precision=precision)
    assert isinstance(frozen.backbone.body[1], nn.Identity)
    assert isinstance(frozen.backbone.pool[1], nn.BatchNorm2d)
    tolerance = {"fp32": 1e-5, "bf16": 5e-2}[precision]
    torch.testing.assert_close(frozen(images).embedding, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["embedding_norm", "mc_dropout", "ser_fiq", "grafiqs", "faceqan"])
def test_scores_work_on_a_foreign_backbone(name, images):
    estimator = build_estimator(Method(name), frozen=FrozenBackbone(Foreign()))
    estimate = estimator(Batch(images.numpy()))
    assert (estimate.mu.shape, estimate.sigma_sq.shape) == ((3, 6), (3, 1))
    assert np.isfinite(estimate.sigma_sq).all()


def test_a_foreign_tail_that_is_not_affine_is_refused_where_a_matrix_is_needed(images):
    method = Method("mc_dropout", form="closed_form")
    estimator = build_estimator(method, frozen=FrozenBackbone(Foreign()))
    with pytest.raises(ValueError, match="backbone Foreign: its tail is not affine"):
        estimator(Batch(images.numpy()))
