"""What is missing on the way to a GPU is one error that says what to do, and names the simulator."""

import sys

import pytest

from backends.numba_cuda import _gpu_errors
from harness.errors import ConfigError, PluginError, ResourceError
from tests.unit.numba_cuda.fake_cuda import CUresult, FakeBinding

SIMULATOR = "NUMBA_ENABLE_CUDASIM=1 runs the same kernels in Numba's simulator"


class NoDriver(FakeBinding):
    def cuDriverGetVersion(self):  # noqa: N802 - the driver's own name
        raise RuntimeError('"cuda" is an NVIDIA driver library')


def test_a_machine_with_a_new_driver_and_gpu_is_accepted():
    _gpu_errors.check_driver(FakeBinding())
    _gpu_errors.check_device("NVIDIA H100", (9, 0))


@pytest.mark.parametrize(
    ("driver", "slug", "said"),
    [
        (NoDriver(), "no-gpu", "no NVIDIA driver"),
        (FakeBinding(version=11080), "driver-too-old", "CUDA 11.8"),
        (FakeBinding(started=CUresult.CUDA_ERROR_NO_DEVICE), "no-gpu", "CUDA_VISIBLE_DEVICES"),
        (FakeBinding(devices=0), "no-gpu", "CUDA_VISIBLE_DEVICES"),
        (FakeBinding(started=CUresult.CUDA_ERROR_NOT_INITIALIZED), "no-gpu", "NOT_INITIALIZED"),
    ],
    ids=["no driver", "old driver", "no gpu", "none is seen", "broken"],
)
def test_a_machine_that_will_not_do_is_refused_with_what_it_has(driver, slug, said):
    with pytest.raises(ResourceError) as refused:
        _gpu_errors.check_driver(driver)
    assert refused.value.slug == slug
    assert said in refused.value.render() and SIMULATOR in refused.value.render()


def test_an_old_gpu_is_refused_by_name():
    with pytest.raises(ResourceError) as refused:
        _gpu_errors.check_device("GTX 1080", (6, 1))
    assert refused.value.slug == "gpu-too-old"
    assert "GTX 1080" in refused.value.render() and SIMULATOR in refused.value.render()


def test_bf16_needs_a_gpu_that_rounds_to_it():
    with pytest.raises(ConfigError) as refused:
        _gpu_errors.check_precision("Tesla V100", (7, 0), "bf16")
    assert refused.value.slug == "precision-needs-newer-gpu"
    _gpu_errors.check_precision("Tesla V100", (7, 0), "fp32")
    _gpu_errors.check_precision("A100", (8, 0), "bf16")


@pytest.mark.parametrize("missing", ["numba_cuda", "cuda.bindings"])
def test_without_numba_cuda_the_error_names_the_extra_and_the_simulator(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)  # importing it now raises ImportError
    monkeypatch.setattr(_gpu_errors, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(PluginError) as refused:
        _gpu_errors.checked_numba_cuda()
    assert refused.value.slug == "library-missing"
    assert "gpt2-harness[cuda12]" in refused.value.facts["do"]
    assert SIMULATOR in refused.value.facts["do"]
