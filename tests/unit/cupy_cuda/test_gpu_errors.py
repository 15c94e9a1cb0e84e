"""What is missing on the way to a GPU is one clear error that says what to do."""

import sys

import pytest

from backends.cupy_cuda import _gpu_errors
from harness.errors import ConfigError, PluginError, ResourceError
from tests.unit.cupy_cuda.fake_cupy import FakeRuntime, missing


def test_a_machine_with_a_new_driver_and_gpu_is_accepted():
    _gpu_errors.check_runtime(FakeRuntime())


@pytest.mark.parametrize(
    ("runtime", "slug", "said"),
    [
        (FakeRuntime(driver=0), "no-gpu", "no NVIDIA driver"),
        (FakeRuntime(driver=11080), "driver-too-old", "CUDA 11.8"),
        (FakeRuntime(gpus=0), "no-gpu", "CUDA_VISIBLE_DEVICES"),
        (FakeRuntime(capability=(6, 1), name="GTX 1080"), "gpu-too-old", "6.1"),
    ],
    ids=["no driver", "old driver", "no gpu", "old gpu"],
)
def test_a_machine_that_will_not_do_is_refused_with_what_it_has(runtime, slug, said):
    with pytest.raises(ResourceError) as refused:
        _gpu_errors.check_runtime(runtime)
    assert refused.value.slug == slug
    assert said in refused.value.render()
    assert "do" in refused.value.facts


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_a_precision_that_the_card_has_no_arithmetic_for_is_refused(precision):
    with pytest.raises(ConfigError) as refused:
        _gpu_errors.check_precision("Tesla V100", (7, 0), precision)
    assert refused.value.slug == "precision-needs-newer-gpu"
    assert "Tesla V100, 7.0" in refused.value.render()
    _gpu_errors.check_precision("Tesla V100", (7, 0), "fp32")
    _gpu_errors.check_precision("A100", (8, 0), precision)


@pytest.mark.parametrize(
    ("library", "module", "otherwise"),
    [
        ("cublaslt", "nvmath.bindings.cublasLt", "cupy.matmul=cublas"),
        ("cublas", "cupy_backends.cuda.libs.cublas", "cupy.matmul=cublaslt"),
        ("cudnn", "cudnn", "cupy.attention=flash"),
    ],
)
def test_a_missing_library_is_refused_and_the_other_way_is_named(
    library, module, otherwise, monkeypatch
):
    monkeypatch.setattr(_gpu_errors, "import_module", missing(module))
    with pytest.raises(PluginError) as refused:
        _gpu_errors.library(library)
    assert refused.value.slug == "library-missing"
    assert otherwise in refused.value.facts["do"]


def test_a_library_that_is_there_is_returned(monkeypatch):
    monkeypatch.setattr(_gpu_errors, "import_module", missing())
    assert _gpu_errors.library("cublaslt").get_version() == 0


def test_without_cupy_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it now raises ImportError
    with pytest.raises(PluginError) as refused:
        _gpu_errors.checked_cupy()
    assert refused.value.slug == "library-missing"
    assert "gpt2-harness[cuda12]" in refused.value.facts["do"]
