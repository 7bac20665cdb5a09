"""Which batches go through a prepared run, and that such a run changes nothing."""

import copy
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

from models.backbones.base import BackboneOutput
from models.frozen import (
    MOST_SIZES,
    Compiler,
    CudaGraphs,
    FixedSizes,
    FrozenBackbone,
    GraphRun,
    executed,
)

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    not (
        shutil.which(os.environ.get("CXX", "g++"))
        and Path(sysconfig.get_path("include"), "Python.h").is_file()
    ),
    reason="torch.compile needs a C++ compiler and Python's headers",
)


def forward(images):
    """A stand-in that treats every image by itself."""
    flat = images.flatten(1).float()
    return BackboneOutput(flat[:, :2] * 2, flat + 1)


class Recorder:
    """Repeats work in the same tensors, as a CUDA graph does."""

    def capture(self, work):
        output = work()

        def replay():
            for kept, new in zip(output.tensors, work().tensors, strict=True):
                kept.copy_(new)

        return replay, output


def batch(size, dtype=torch.float32):
    return torch.arange(size * 12).view(size, 3, 2, 2).to(dtype)


def expect_equal(found, images):
    for one, other in zip(found.tensors, forward(images).tensors, strict=True):
        assert torch.equal(one, other)


def test_a_graph_run_gives_what_the_plain_pass_gives_and_output_stays():
    run = GraphRun(forward, batch(4), Recorder())
    first = run(batch(4))
    expect_equal(run(batch(4) + 5), batch(4) + 5)
    expect_equal(first, batch(4))
    expect_equal(run(batch(3) + 7), batch(3) + 7)


@pytest.fixture
def prepared():
    """(sizes that were prepared, in order; sizes that ran there)."""
    return [], []


@pytest.fixture
def runs(prepared):
    sizes, ran = prepared

    def prepare(images):
        sizes.append(len(images))

        def run(images):
            ran.append((sizes[-1], len(images)))
            return forward(images)

        return run

    return FixedSizes(forward, prepare)


def test_a_run_is_prepared_once_and_serves_batches_that_fill_half_of_it(runs, prepared):
    sizes, ran = prepared
    for size in (8, 8, 5, 4, 3, 0):
        expect_equal(runs(batch(size)), batch(size))
    assert sizes == [8]
    assert ran == [(8, 8), (8, 8), (8, 5), (8, 4)]


def test_another_type_or_a_larger_batch_is_prepared_too(runs, prepared):
    sizes, _ = prepared
    runs(batch(8)), runs(batch(3, torch.uint8)), runs(batch(9)), runs(batch(20))
    assert sizes == [8, 3, 9, 20]


def test_few_sizes_are_prepared(runs, prepared):
    for size in range(1, 4 * MOST_SIZES):
        expect_equal(runs(batch(size)), batch(size))
    assert len(prepared[0]) == MOST_SIZES


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own modules, at their import
def test_what_is_compiled_gives_the_same_for_smaller_batches(caplog):
    compile_for = Compiler(forward, backend="eager")
    with caplog.at_level("INFO", logger="faceuq"):
        run = compile_for(batch(4))
    assert "compiling the backbone for 4 images at a time" in caplog.text
    expect_equal(run(batch(4)), batch(4))
    expect_equal(run(batch(3)), batch(3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiler_that_fails_is_named():
    def broken(graph, inputs):
        raise RuntimeError("no g++ here")

    with pytest.raises(ValueError, match=r"execution = 'compile' failed.*C\+\+ compiler; use 'e"):
        Compiler(forward, backend=broken)(batch(2))


def test_refused_executions(tiny):
    with pytest.raises(ValueError, match="'fast': must be one of eager, cuda_graph, compile"):
        executed(forward, "fast", CPU)
    message = "execution = 'cuda_graph' needs a CUDA device, and this runs on cpu; use 'eager' or"
    with pytest.raises(ValueError, match=message):
        FrozenBackbone(tiny, execution="cuda_graph")


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_backbone_agrees_with_the_plain_one(tiny, images):
    expected = FrozenBackbone(copy.deepcopy(tiny))(images)
    found = FrozenBackbone(tiny, execution="compile")(images)
    torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.features, expected.features, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_cuda_graph_agrees_with_eager(tiny, images, precision):
    eager = FrozenBackbone(copy.deepcopy(tiny), "cuda", precision)
    graph = FrozenBackbone(tiny, "cuda", precision, "cuda_graph")
    for size in (3, 3, 2, 1):
        some = images[:size]
        for given in (some, some.permute(0, 3, 1, 2).float().cuda()):
            found, expected = graph(given), eager(given)
            torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(found.features, expected.features, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_cuda_graphs_share_memory_and_their_outputs_stay_apart():
    graphs = CudaGraphs(torch.device("cuda"))
    small, large = (GraphRun(forward, batch(size).cuda(), graphs) for size in (2, 6))
    first = small(batch(2).cuda())
    large(batch(6).cuda() + 9)
    expect_equal(first, batch(2).cuda())
    expect_equal(small(batch(2).cuda() + 1), batch(2).cuda() + 1)


@pytest.mark.gpu
def test_cuda_graphs_outlive_those_that_were_dropped():
    graphs = CudaGraphs(torch.device("cuda"))
    for size in (2, 6, 2):
        run = GraphRun(forward, batch(size).cuda(), graphs)
        expect_equal(run(batch(size).cuda()), batch(size).cuda())
        del run


@pytest.mark.gpu
def test_a_captured_pass_lets_the_host_go_on(tiny, images, no_waiting):
    graph = FrozenBackbone(tiny, "cuda", "bf16", "cuda_graph")
    there = images.cuda()
    graph(there)
    with no_waiting():
        graph(there)
