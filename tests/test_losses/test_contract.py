"""What every file of losses/ promises, whichever losses there are."""

import pytest
import torch

from losses.base import Centres, GenuinePairLoss, LossResult, genuine_pairs
from utils.config import Method
from utils.methods import available, build


@pytest.fixture(params=available("losses"))
def loss(request):
    built = build("losses", Method(request.param))
    forward, every = built.forward, torch.eye(16)[:3]

    def informed(embedding, raw, labels, *rows, **options):  # the same opinion of every image
        teacher = torch.full((len(labels),), 0.3)
        own = Centres(every[labels], every)
        return forward(embedding, raw, labels, *rows, teacher=teacher, centres=own, **options)

    if built.needs_teacher or built.needs_centres:
        built.forward = informed
    return built


@pytest.fixture
def batch(loss, make_batch):
    """Six images; one column for each, or as many as dimensions where the loss asks for them."""
    embedding, raw, labels = make_batch(11, [0, 0, 1, 1, 1, 2], dimension=16, columns=16)
    embedding, raw = embedding.float(), raw.float()
    try:
        loss.check(embedding, raw[:, :1])
    except ValueError:
        return embedding, raw, labels
    return embedding, raw[:, :1], labels


def test_accepts_a_known_output_and_has_no_parameters(loss):
    assert loss.accepts
    assert loss.accepts <= {"probability", "variance"}
    assert list(loss.parameters()) == []
    assert isinstance(loss.summary, str)


def test_result_and_the_order_of_the_log_line(loss, batch):
    result = loss(*batch)
    assert isinstance(result, LossResult)
    assert result.loss.shape == ()
    first, *_, last = result.stats
    assert (first, last) == ("cos", "uloss")
    assert result.stats["cos"].shape == (4,)
    assert result.stats["uloss"] == result.loss
    assert not any(value.requires_grad for value in result.stats.values())


def test_gradient_reaches_the_head_and_not_the_embedding(loss, batch):
    embedding, raw, labels = (tensor.clone() for tensor in batch)
    embedding.requires_grad_()
    raw.requires_grad_()
    loss(embedding, raw, labels).loss.backward()
    assert embedding.grad is None
    assert raw.grad.abs().sum() > 0
    if isinstance(loss, GenuinePairLoss) and not loss.needs_whole_batch:
        assert raw.grad[5].abs().sum() == 0, "the only image of its identity has no pair"


def test_length_of_embeddings_and_order_of_images_do_not_matter(loss, batch):
    embedding, raw, labels = batch
    order = torch.tensor([3, 5, 0, 4, 1, 2])
    lengths = torch.linspace(0.5, 40, 6)[:, None]
    again = loss((embedding * lengths)[order], raw[order], labels[order]).loss
    torch.testing.assert_close(loss(embedding, raw, labels).loss, again, rtol=1e-5, atol=1e-6)


def test_half_precision_is_computed_in_float32(loss, batch):
    embedding, raw, labels = batch
    half = loss(embedding.bfloat16(), raw.bfloat16(), labels).loss
    single = loss(embedding.bfloat16().float(), raw.bfloat16().float(), labels).loss
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, single)


def test_pairs_may_be_found_beforehand_and_statistics_left_out(loss, batch):
    embedding, raw, labels = batch
    rows = torch.tensor([0, 1, 2, 3, 3, 5])  # 3 and 4 are copies
    plain = loss(embedding, raw, labels, rows)
    lean = loss(embedding, raw, labels, pairs=genuine_pairs(labels, rows), with_stats=False)
    assert lean.loss == plain.loss
    assert lean.stats == {}
    assert plain.loss != loss(embedding, raw, labels).loss
