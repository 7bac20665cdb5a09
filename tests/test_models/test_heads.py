"""What every head promises, and the original's names, starts, outputs, gradients, statistics."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2, chi2_contingency
from torch import nn

from models.backbones.base import BackboneOutput
from models.heads.base import Dropout, cell_averages, to_sigma_sq
from models.heads.fc2 import FC2Head
from models.heads.gap_fc2 import GapFC2Head
from models.heads.linear import LinearHead
from models.heads.multi_layer import MultiLayerHead
from utils.config import Method
from utils.methods import available, build

REAL, TINY = (512, 7, 7), (4, 3, 3)
PUBLISHED = {
    "head_fc2_prob": (FC2Head, {"output": "probability"}),
    "head_fc2_sigma_512_1": (FC2Head, {"output": "variance"}),
    "head_fc2_sigma_256_512": (FC2Head, {"output": "variance", "hidden": 256, "dim": 512}),
    "head_linear_prob": (LinearHead, {"output": "probability"}),
    "head_linear_sigma": (LinearHead, {"output": "variance"}),
    "head_fc2_gap_sigma": (GapFC2Head, {"output": "variance"}),
}
TINY_HEADS = {
    "head_fc2_prob": (FC2Head, {"output": "probability", "hidden": 5}),
    "head_fc2_sigma": (FC2Head, {"output": "variance", "hidden": 5, "dim": 3}),
    "head_linear_prob": (LinearHead, {"output": "probability"}),
    "head_linear_sigma": (LinearHead, {"output": "variance", "dim": 3}),
    "head_fc2_gap_sigma": (GapFC2Head, {"output": "variance", "hidden": 5, "dim": 2}),
}
ADDED = {"head_linear_sigma": 1e-6}  # what the original adds to the variance
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def _output(features, embedding_size=2):
    return BackboneOutput(torch.zeros(len(features), embedding_size), features)


# --- the contract, for any class in models/heads -----------------------------------------------


@pytest.mark.parametrize("name", available("models.heads"))
def test_a_head_gives_one_number_or_one_per_dimension_for_any_feature_map(name):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 112, 112, 3), dtype=torch.uint8, generator=generator)
    embedding, features, stages = (torch.randn(5, size, generator=generator) for size in (7, 36, 9))
    sizes = {"features_shape": (6, 2, 3), "embedding_size": 7, "stages_size": 9}
    built = []
    for output in ("probability", "variance"):
        for options in ({}, {"dim": 7}):
            method = Method(name, output=output, **options)
            try:
                head = build("models.heads", method, **sizes)
            except ValueError:  # the other output, or no choice of columns
                continue
            raw = head(BackboneOutput(embedding, features, images, stages))
            assert head.output == output
            assert raw.shape == (5, options.get("dim", raw.shape[1]))
            assert raw.std(dim=0).min() > 0
            assert set(head.starting_from(head.state_dict())) == set(head.state_dict())
            built.append((output, raw.shape[1]))
    assert built
    if name != "student":
        assert built == [("probability", 1), ("variance", 1), ("variance", 7)]


def test_multi_layer_is_fc2_on_the_map_and_the_averages_of_the_stages():
    sizes = {"features_shape": (6, 2, 3), "stages_size": 9}
    head = MultiLayerHead(output="variance", hidden=4, dim=2, log_norm=1.0, dropout=0.5, **sizes)
    embedding, features, stages = (torch.randn(5, size) for size in (7, 36, 9))
    whole = torch.cat([features, stages], dim=1)
    plain = FC2Head(output="variance", features_shape=(45, 1, 1), hidden=4, dim=2, log_norm=1.0)
    plain.load_state_dict(head.state_dict())
    expected = plain.eval()(BackboneOutput(embedding, whole))
    assert torch.equal(head.eval()(BackboneOutput(embedding, features, None, stages)), expected)
    with pytest.raises(ValueError, match="head 'multi_layer': dropout = 1.0: must be in"):
        MultiLayerHead(output="variance", dropout=1.0, **sizes)


# --- those of the original ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(golden):
    return json.loads((golden / "heads.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_and_start_are_the_originals(name, published):
    kind, options = PUBLISHED[name]
    head = kind(features_shape=REAL, **options)
    state = head.state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == published[name]["keys"]
    assert [key for key, _ in head.named_parameters()] == published[name]["parameters"]
    initial = {key: state[key].item() for key in ("gamma", "beta") if key in state}
    assert initial == pytest.approx(published[name]["initial"], rel=1e-6)


@pytest.fixture(scope="module")
def features(iresnet18, iresnet18_images):
    with torch.no_grad():
        return iresnet18(iresnet18.preprocessing(iresnet18_images)).features


def _head_draw(random, name, shape):
    if name == "gamma":
        return random.uniform(0.5, 1.0, shape)
    if name == "beta":
        return -random.uniform(0.5, 1.0, shape)
    if name.endswith(".weight"):
        return random.uniform(0.8, 1.2, shape)
    return random.normal(0, 0.1, shape)


@pytest.mark.parametrize("name", PUBLISHED)
def test_outputs_at_real_size(name, published, features, fill):
    kind, options = PUBLISHED[name]
    head = kind(features_shape=REAL, **options)
    fill(head, _head_draw)
    with torch.no_grad():
        sigma_sq = to_sigma_sq(head.eval()(_output(features)), head.output)
    expected = np.array(published[name]["output_on_iresnet18_features"])
    np.testing.assert_allclose(sigma_sq[:, :8] + ADDED.get(name, 0), expected, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def tiny_reference(golden):
    with np.load(golden / "heads_tiny.npz") as file:
        return {key: torch.from_numpy(value) for key, value in file.items()}


def _stored(reference, prefix):
    return {key.removeprefix(prefix): v for key, v in reference.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", TINY_HEADS)
def test_eval_mode_and_a_training_step_are_as_recorded(name, tiny_reference):
    kind, options = TINY_HEADS[name]
    head = kind(features_shape=TINY, **options)
    head.load_state_dict(_stored(tiny_reference, f"{name}/w/"))

    def run(features):
        return to_sigma_sq(head(_output(features.flatten(1))), head.output) + ADDED.get(name, 0)

    features = tiny_reference[f"{name}/input"].clone().requires_grad_()
    head.eval()
    torch.testing.assert_close(run(features), tiny_reference[f"{name}/output_eval"], **CLOSE)
    head.train()
    sigma_sq = run(features)
    torch.testing.assert_close(sigma_sq, tiny_reference[f"{name}/output_train"], **CLOSE)
    (sigma_sq * tiny_reference[f"{name}/upstream"]).sum().backward()
    expected_input = tiny_reference[f"{name}/grad_input_train"]
    torch.testing.assert_close(features.grad, expected_input, rtol=1e-4, atol=1e-6)
    for key, parameter in head.named_parameters():
        expected = tiny_reference[f"{name}/grad/{key}"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=2e-6, msg=key)
    statistics = _stored(tiny_reference, f"{name}/after_train/")
    assert len(statistics) == sum("running" in k or "tracked" in k for k in head.state_dict())
    for key, expected in statistics.items():
        torch.testing.assert_close(head.state_dict()[key], expected, **CLOSE)


# --- options -----------------------------------------------------------------------------------


def test_pooling_averages_each_channel():
    head = GapFC2Head(output="probability", features_shape=(2, 2, 2), hidden=2).eval()
    with torch.no_grad():
        for layer in (head.layers[2], head.layers[5]):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
    raw = head(_output(torch.tensor([[1.0, 2, 3, 6, 100, 100, 100, 100]])))
    assert raw.item() == pytest.approx(3 / math.sqrt(1 + 1e-5))


@pytest.mark.parametrize(
    ("names", "options", "text"),
    [
        ("fc2 gap_fc2 gap_linear linear", {"output": "sigma"}, "output = 'sigma': must be one of"),
        ("fc2 gap_fc2 gap_linear linear", {"dim": 2}, "dim = 2: a probability head has one"),
        ("fc2 gap_fc2 gap_linear linear", {"output": "variance", "dim": 0}, "dim = 0: must be at"),
        ("fc2 gap_fc2", {"hidden": 0}, "hidden = 0: must be at least 1"),
        ("fc2 gap_linear", {"log_norm": -1.0}, "log_norm = -1.0: must be at least 0"),
        ("fc2", {"dropout": 1.0}, r"dropout = 1.0: must be in \[0, 1\)"),
        ("gap_linear", {"asymmetry": True}, "asymmetry = True: a map of 1 column has no two sides"),
        ("gap_linear", {"grid": 0}, "grid = 0: must be at least 1 and at most the side"),
        ("gap_linear", {"grid": 2}, "grid = 2: must be at least 1 and at most the side"),
    ],
)
def test_wrong_options_are_refused(names, options, text):
    for name in names.split():
        method = Method(name, **{"output": "probability", **options})
        with pytest.raises(ValueError, match=f"head '{name}': {text}"):
            build("models.heads", method, features_shape=(4, 3, 1))


def _backbone_output(batch=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embedding = 5 * torch.randn(batch, 8, generator=generator)
    return BackboneOutput(embedding, torch.randn(batch, 2 * 7 * 7, generator=generator))


@pytest.mark.parametrize(("output", "dim"), [("probability", 1), ("variance", 3)])
def test_log_norm_subtracts_the_standardised_log_length(output, dim):
    torch.manual_seed(0)
    options = {"hidden": 4, "dim": dim, "log_norm": 0.7}
    head = FC2Head(output=output, features_shape=(2, 7, 7), **options).double().train()
    batch = _backbone_output().map(torch.Tensor.double)
    length = batch.embedding.square().sum(dim=1).sqrt().log()
    standard = (length - length.mean()) / (length.var(unbiased=False) + 1e-5).sqrt()
    expected = head.layers(batch.features) - 0.7 * standard[:, None]
    if output == "variance":
        expected = head.gamma * expected + head.beta
    torch.testing.assert_close(head(batch), expected)


def test_a_short_embedding_is_less_certain_and_an_empty_one_is_no_error():
    head = FC2Head(output="probability", features_shape=(2, 7, 7), hidden=4, log_norm=1.0).eval()
    embedding = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    raw = head(BackboneOutput(embedding, torch.zeros(3, 98)))[:, 0]
    assert raw[0] < raw[1] < raw[2] < float("inf")


def test_dropout_acts_in_training_only_and_adds_no_tensors():
    torch.manual_seed(0)
    head = FC2Head(output="probability", features_shape=(2, 7, 7), hidden=4, dropout=0.5)
    batch = _backbone_output()
    assert not torch.equal(head.train()(batch), head(batch))
    assert torch.equal(head.eval()(batch), head(batch))
    assert {name.split(".")[0] for name in head.state_dict()} == {"layers"}


def _mask(rows=64, size=100, rate=0.3, key=(0, 0, 1), first=0):
    layer = Dropout(rate).train()
    layer.draw = key, first
    return layer(torch.ones(rows, size))


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.1])
def test_masks_have_their_rate_in_rows_and_columns_and_keep_the_mean(rate):
    mask = _mask(2000, 200, rate)
    kept = 1 - round(rate * 2**16) / 2**16
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / kept).item()}
    for axis in (0, 1):
        counts, trials = (mask > 0).sum(axis).double(), mask.shape[axis]
        squares = (counts - trials * kept).square().sum() / (trials * kept * (1 - kept))
        assert 1e-3 < chi2.sf(squares, len(counts)) < 1 - 1e-3


OTHERS = {
    "step": {"key": (0, 1, 1)},
    "head": {"key": (1, 0, 1)},
    "layer": {"key": (0, 0, 2)},
    "row": {"first": 1},
    "column": {},
}


@pytest.mark.parametrize("rate", [0.5, 0.3])
@pytest.mark.parametrize("other", OTHERS)
def test_masks_of_other_heads_steps_and_places_are_independent(other, rate):
    """Over 2 x 2 counts of kept and dropped in pairs of places, chi-square of one degree."""
    first = _mask(500, 200, rate) > 0
    second = first.roll(1, 1) if other == "column" else _mask(500, 200, rate, **OTHERS[other]) > 0
    table = [[(a & b).sum().item() for b in (second, ~second)] for a in (first, ~first)]
    assert chi2_contingency(table, correction=False).pvalue > 1e-3


@pytest.mark.parametrize(
    ("rate", "known"),
    [
        (0.3, "1011010101110111001001111111111001101"),
        (0.5, "0101100111100010111110100011001001101"),
    ],
)
def test_a_mask_is_the_same_for_any_share_of_the_batch_and_on_any_machine(rate, known):
    whole = _mask(12, 37, rate)
    shares = [_mask(4, 37, rate, first=first) for first in (0, 4, 8)]
    assert torch.equal(whole, torch.cat(shares))
    assert "".join(map(str, (whole[0] > 0).int().tolist())) == known
    assert torch.equal(_mask(12, 37, rate=1e-6), torch.ones(12, 37))


def test_a_mask_passes_gradients_to_what_it_kept():
    layer, batch = Dropout(0.3), torch.randn(4, 3, 5, requires_grad=True)
    layer.draw = (0, 0, 1), 0
    layer.train()(batch).sum().backward()
    assert torch.equal(batch.grad.flatten(1), _mask(4, 15))
    assert torch.equal(layer.eval()(batch), batch)


def _gap_linear(shape, **options):
    torch.manual_seed(0)
    method = Method("gap_linear", output="probability", log_norm=0.0, **options)
    return build("models.heads", method, features_shape=shape).eval()


@pytest.mark.parametrize(("shape", "grid"), [((4, 7, 7), 3), ((3, 4, 7), 2), ((2, 5, 5), 5)])
def test_cells_are_those_of_pytorchs_adaptive_pooling(shape, grid):
    maps = torch.rand(2, *shape)
    expected = F.adaptive_avg_pool2d(maps, grid).flatten(1)
    torch.testing.assert_close(cell_averages(maps, grid), expected)
    head = _gap_linear(shape, grid=grid, asymmetry=True)
    assert head.layer.in_features == shape[0] * (grid**2 + 1)


def test_asymmetry_adds_the_mean_difference_of_the_two_sides():
    head = _gap_linear((2, 1, 3), asymmetry=True)
    maps = torch.tensor([[[[1.0, 5.0, 4.0]], [[2.0, 7.0, 2.0]]]])
    nn.init.constant_(head.layer.bias, 0.25)
    with torch.no_grad():
        head.layer.weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
        raw = head(_output(maps.flatten(1)))
        mirrored = head(_output(maps.flip(3).flatten(1)))
    # averages 10/3 and 11/3; differences (3 + 0 + 3) / 3 and 0; BatchNorm starts at mean 0, var 1
    expected = (10 / 3 + 10 * 11 / 3 + 100 * 2) / math.sqrt(4 * (1 + 1e-5)) + 0.25
    assert raw.item() == pytest.approx(expected, rel=1e-6)
    assert mirrored.item() == pytest.approx(expected, rel=1e-6)
    assert _gap_linear(TINY).layer.weight.shape == (1, 4)
