"""The heads of the original: its names, starts, outputs, gradients and statistics."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from models.heads.fc2 import FC2Head
from models.heads.gap_fc2 import GapFC2Head
from models.heads.linear import LinearHead
from models.output import BackboneOutput, to_sigma_sq
from utils.config import Method
from utils.methods import available, build, find

REAL = (512, 7, 7)
PUBLISHED = {
    "head_fc2_prob": lambda: FC2Head(output="probability", features_shape=REAL),
    "head_fc2_sigma_512_1": lambda: FC2Head(output="variance", features_shape=REAL),
    "head_fc2_sigma_256_512": lambda: FC2Head(
        output="variance", features_shape=REAL, hidden=256, dim=512
    ),
    "head_linear_prob": lambda: LinearHead(output="probability", features_shape=REAL),
    "head_linear_sigma": lambda: LinearHead(output="variance", features_shape=REAL),
    "head_fc2_gap_sigma": lambda: GapFC2Head(output="variance", features_shape=REAL),
}
TINY = (4, 3, 3)
TINY_HEADS = {
    "head_fc2_prob": lambda: FC2Head(output="probability", features_shape=TINY, hidden=5),
    "head_fc2_sigma": lambda: FC2Head(output="variance", features_shape=TINY, hidden=5, dim=3),
    "head_linear_prob": lambda: LinearHead(output="probability", features_shape=TINY),
    "head_linear_sigma": lambda: LinearHead(output="variance", features_shape=TINY, dim=3),
    "head_fc2_gap_sigma": lambda: GapFC2Head(
        output="variance", features_shape=TINY, hidden=5, dim=2
    ),
}
ON_FEATURES = [
    name for name in available("models.heads") if find("models.heads", name).reads == "features"
]
ADDED = {"head_linear_sigma": 1e-6}  # what the original adds to the variance
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def _output(features: torch.Tensor) -> BackboneOutput:
    return BackboneOutput(torch.zeros(len(features), 2), features)


@pytest.fixture(scope="module")
def published(golden):
    return json.loads((golden / "heads.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_and_start_are_the_originals(name, published):
    head = PUBLISHED[name]()
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
    head = PUBLISHED[name]()
    fill(head, _head_draw)
    with torch.no_grad():
        got = to_sigma_sq(head.eval()(_output(features)), head.output)
    expected = np.array(published[name]["output_on_iresnet18_features"])
    np.testing.assert_allclose(got[:, :8] + ADDED.get(name, 0), expected, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def tiny_reference(golden):
    with np.load(golden / "heads_tiny.npz") as file:
        return {key: torch.from_numpy(value) for key, value in file.items()}


def _tiny(name, reference):
    head = TINY_HEADS[name]()
    weights = f"{name}/w/"
    state = {key.removeprefix(weights): v for key, v in reference.items() if weights in key}
    head.load_state_dict(state)
    return head


@pytest.mark.parametrize("name", TINY_HEADS)
def test_output_in_eval_mode(name, tiny_reference):
    head = _tiny(name, tiny_reference).eval()
    features = tiny_reference[f"{name}/input"].flatten(1)
    got = to_sigma_sq(head(_output(features)), head.output) + ADDED.get(name, 0)
    torch.testing.assert_close(got, tiny_reference[f"{name}/output_eval"], **CLOSE)


@pytest.mark.parametrize("name", TINY_HEADS)
def test_a_training_step_gives_the_same_output_gradients_and_statistics(name, tiny_reference):
    head = _tiny(name, tiny_reference).train()
    features = tiny_reference[f"{name}/input"].clone().requires_grad_()
    got = to_sigma_sq(head(_output(features.flatten(1))), head.output) + ADDED.get(name, 0)
    torch.testing.assert_close(got, tiny_reference[f"{name}/output_train"], **CLOSE)
    (got * tiny_reference[f"{name}/upstream"]).sum().backward()
    expected_input = tiny_reference[f"{name}/grad_input_train"]
    torch.testing.assert_close(features.grad, expected_input, rtol=1e-4, atol=1e-6)
    for key, parameter in head.named_parameters():
        expected = tiny_reference[f"{name}/grad/{key}"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=2e-6, msg=key)
    after = f"{name}/after_train/"
    statistics = {key.removeprefix(after): v for key, v in tiny_reference.items() if after in key}
    assert len(statistics) == sum("running" in k or "tracked" in k for k in head.state_dict())
    for key, expected in statistics.items():
        torch.testing.assert_close(head.state_dict()[key], expected, **CLOSE)


@pytest.mark.parametrize("output", ["probability", "variance"])
@pytest.mark.parametrize("name", ON_FEATURES)
def test_every_head_has_both_outputs_for_any_feature_map(name, output):
    """Heads that read images have their own tests (test_student.py)."""
    head = build("models.heads", Method(name, output=output), features_shape=(6, 2, 3))
    assert head.output == output
    raw = head(_output(torch.randn(5, 36, generator=torch.Generator().manual_seed(0))))
    assert raw.shape == (5, 1)
    assert raw.std() > 0


@pytest.mark.parametrize("name", ON_FEATURES)
def test_a_variance_head_can_have_one_output_per_dimension(name):
    method = Method(name, output="variance", dim=7)
    head = build("models.heads", method, features_shape=(6, 2, 3), embedding_size=7)
    assert head(_output(torch.randn(4, 36))).shape == (4, 7)


def test_pooling_averages_each_channel():
    head = GapFC2Head(output="probability", features_shape=(2, 2, 2), hidden=2).eval()
    with torch.no_grad():
        for layer in (head.layers[2], head.layers[5]):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
    raw = head(_output(torch.tensor([[1.0, 2, 3, 6, 100, 100, 100, 100]])))
    assert raw.item() == pytest.approx(3 / math.sqrt(1 + 1e-5))


def test_default_widths():
    def width(output):
        return FC2Head(output=output, features_shape=(2, 2, 2)).layers[1].out_features

    assert (width("probability"), width("variance")) == (256, 512)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_wrong_options_are_refused(name):
    def make(**options):
        build("models.heads", Method(name, **options), features_shape=(2, 2, 2))

    with pytest.raises(ValueError, match=rf"head '{name}': output = 'sigma': must be one of"):
        make(output="sigma")
    with pytest.raises(ValueError, match=r"dim = 2: a probability head has one output"):
        make(output="probability", dim=2)
    with pytest.raises(ValueError, match=r"dim = 0: must be at least 1"):
        make(output="variance", dim=0)


@pytest.mark.parametrize("head", [FC2Head, GapFC2Head])
def test_a_width_of_zero_is_refused(head):
    with pytest.raises(ValueError, match="hidden = 0: must be at least 1"):
        head(output="variance", features_shape=TINY, hidden=0)


def _backbone_output(batch=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embedding = 5 * torch.randn(batch, 8, generator=generator)
    return BackboneOutput(embedding, torch.randn(batch, 2 * 7 * 7, generator=generator))


@pytest.mark.parametrize(("output", "dim"), [("probability", 1), ("variance", 3)])
def test_log_norm_subtracts_the_standardised_log_length(output, dim):
    torch.manual_seed(0)
    head = FC2Head(
        output=output, features_shape=(2, 7, 7), hidden=4, dim=dim, log_norm=0.7
    ).double()
    given = _backbone_output().map(torch.Tensor.double)
    head.train()
    plain = head.layers(given.features)
    length = given.embedding.square().sum(dim=1).sqrt().log()
    standard = (length - length.mean()) / (length.var(unbiased=False) + 1e-5).sqrt()
    expected = plain - 0.7 * standard[:, None]
    if output == "variance":
        expected = head.gamma * expected + head.beta
    torch.testing.assert_close(head(given), expected)


def test_a_short_embedding_is_less_certain_and_an_empty_one_is_no_error():
    head = FC2Head(output="probability", features_shape=(2, 7, 7), hidden=4, log_norm=1.0).eval()
    features = torch.zeros(3, 98)
    embedding = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    raw = head(BackboneOutput(embedding, features))[:, 0]
    assert raw[0] < raw[1] < raw[2] < float("inf")


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    head = FC2Head(output="probability", features_shape=(2, 7, 7), hidden=4, dropout=0.5)
    given = _backbone_output()
    assert not torch.equal(head.train()(given), head(given))
    assert torch.equal(head.eval()(given), head(given))


def test_without_the_options_there_are_only_the_original_names():
    head = FC2Head(output="probability", features_shape=(2, 7, 7), hidden=4)
    assert {name.split(".")[0] for name in head.state_dict()} == {"layers"}


@pytest.mark.parametrize(
    ("option", "text"),
    [({"log_norm": -1.0}, "log_norm = -1.0"), ({"dropout": 1.0}, r"dropout = 1.0: must be in")],
)
def test_fc2_options_out_of_range(option, text):
    with pytest.raises(ValueError, match=text):
        FC2Head(output="probability", features_shape=(2, 7, 7), **option)


def _gap_linear(shape, **options):
    torch.manual_seed(0)
    method = Method("gap_linear", output="probability", log_norm=0.0, **options)
    return build("models.heads", method, features_shape=shape).eval()


def test_asymmetry_adds_the_mean_difference_of_the_two_sides():
    head = _gap_linear((2, 1, 3), asymmetry=True)
    maps = torch.tensor([[[[1.0, 5.0, 4.0]], [[2.0, 7.0, 2.0]]]])
    nn.init.constant_(head.layer.bias, 0.25)
    with torch.no_grad():
        head.layer.weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
        raw = head(_output(maps.flatten(1)))
    # averages 10/3 and 11/3; differences (3 + 0 + 3) / 3 and 0; BatchNorm starts at mean 0, var 1
    expected = (10 / 3 + 10 * 11 / 3 + 100 * 2) / math.sqrt(4 * (1 + 1e-5)) + 0.25
    assert raw.item() == pytest.approx(expected, rel=1e-6)


def test_asymmetry_does_not_depend_on_which_side():
    head, maps = _gap_linear(TINY, asymmetry=True), torch.randn(5, *TINY)
    with torch.no_grad():
        torch.testing.assert_close(
            head(_output(maps.flatten(1))), head(_output(maps.flip(3).flatten(1)))
        )


def test_without_asymmetry_the_tensors_are_as_before():
    assert _gap_linear(TINY).layer.weight.shape == (1, 4)
    assert _gap_linear(TINY, asymmetry=True).layer.weight.shape == (1, 8)


def test_one_column_has_no_two_sides():
    with pytest.raises(ValueError, match="asymmetry = True: a map of 1 column has no two sides"):
        _gap_linear((4, 3, 1), asymmetry=True)
