import numpy as np
import pytest
import torch

from utils.device import all_to_device, autocast_dtype, peak_memory_gib, resolve_device, to_device

CPU = torch.device("cpu")


def test_auto_takes_what_there_is():
    assert torch.cuda.is_available() == (resolve_device("auto").type == "cuda")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", ""])
def test_not_a_device(name):
    with pytest.raises(ValueError, match="use auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_absent():
    with pytest.raises(ValueError, match="'cuda:3': this machine has no such device"):
        resolve_device("cuda:3")


def test_precision_on_a_cpu():
    assert autocast_dtype(CPU, "auto") is None
    assert autocast_dtype(CPU, "fp32") is None
    assert autocast_dtype(CPU, "bf16") is torch.bfloat16
    assert autocast_dtype(torch.device("cuda"), "fp16") is torch.float16


def test_memory_of_this_process_is_plausible():
    assert 0.05 < peak_memory_gib(CPU) < 64


ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.array([0.5, -1.5, 3.25], np.float32),
    np.array([True, False, True]),
    np.arange(5, dtype=np.uint8)[::2],
    np.array([[2**40, -7]]).T,
    np.array([1e-300]),
]


def assert_same(tensors, arrays):
    assert len(tensors) == len(arrays)
    for tensor, array in zip(tensors, arrays, strict=True):
        assert tensor.dtype == torch.from_numpy(np.empty(0, array.dtype)).dtype
        np.testing.assert_array_equal(tensor.cpu().numpy(), array)


def test_the_cpu_shares_memory():
    array = np.zeros(3)
    to_device(array, CPU)[1] = 4.0
    assert array.tolist() == [0.0, 4.0, 0.0]


@pytest.mark.parametrize("order", [1, -1])
def test_many_arrays_keep_their_values_shapes_and_types(order):
    arrays = ARRAYS[::order]
    tensors = all_to_device(arrays, CPU)
    assert_same(tensors, arrays)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    assert all_to_device([], CPU) == []


@pytest.mark.gpu
def test_cuda_gets_arrays_without_a_wait(no_waiting):
    device = torch.device("cuda")
    to_device(ARRAYS[0], device)
    with no_waiting():
        one, tensors = to_device(ARRAYS[0], device), all_to_device(ARRAYS, device)
    assert_same([one, *tensors], [ARRAYS[0], *ARRAYS])
