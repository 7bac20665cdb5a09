import pytest
import torch

from utils.device import autocast_dtype, peak_memory_gib, resolve_device

CPU = torch.device("cpu")


def test_auto_takes_what_there_is():
    expected = "cuda" if torch.cuda.is_available() else resolve_device("auto").type
    assert resolve_device("auto").type == expected


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
