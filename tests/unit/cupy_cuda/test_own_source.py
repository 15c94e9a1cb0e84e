"""CUDA C++ of somebody else's, through what backends.cupy_cuda exports."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from backends.cupy_cuda import Source, i32, machine
from backends.cupy_cuda import _launch as launching
from backends.cupy_cuda._cubin import cubin
from backends.cupy_cuda._gpu import Gpu
from backends.cupy_cuda.on_cpu.machine import Cpu
from harness.errors import PluginError
from tests.unit.cupy_cuda.fake_cupy import FakeNvrtc, fake_cupy

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="kernels need g++ here")

FILL = 'extern "C" __global__ void fill(int* out_P, int p) { out_P[threadIdx.x] = VALUE + p; }'


class CUDADriverError(RuntimeError):
    """What CuPy raises for a name that a module does not have."""


def gpu_of(tmp_path, monkeypatch):
    monkeypatch.setattr("backends.cupy_cuda._cubin._folder", lambda: tmp_path)
    cupy = fake_cupy()
    cupy.cuda.driver = SimpleNamespace(CUDADriverError=CUDADriverError)
    return Gpu(cupy)


def filled(device, source):
    out = device.view(device.empty(16), 0, (4,), np.dtype(np.int32))
    device.function(source, "fill", ())((1, 1, 1), (4, 1, 1), (out, i32(1)), 0)
    values = np.zeros(4, np.int32)
    device.to_host(values, out)
    return values.tolist()


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_two_sources_of_one_name_are_two_kernels(kind, tmp_path, monkeypatch):
    device = Cpu() if kind == "cpu" else gpu_of(tmp_path, monkeypatch)
    for value in (3, 4):
        source = Source("mine", text=FILL.replace("VALUE", str(value)))
        assert filled(device, source) == [value + 1] * 4


def test_what_was_kept_on_disk_is_another_file_for_another_text(tmp_path, monkeypatch):
    monkeypatch.setattr("backends.cupy_cuda._cubin._folder", lambda: tmp_path)
    sources = [Source("mine", text=FILL.replace("VALUE", value)) for value in "34"]
    assert len({cubin(FakeNvrtc(), source, (), "sm_90") for source in sources}) == 2


def test_a_file_that_was_edited_is_compiled_anew(tmp_path):
    file = tmp_path / "mine.cu"
    for value in (3, 4):
        file.write_text(FILL.replace("VALUE", str(value)))
        assert filled(machine(), Source("mine", file=file)) == [value + 1] * 4


def test_a_header_beside_the_file_comes_before_one_of_the_backend(tmp_path):
    (tmp_path / "common.cuh").write_text("#define VALUE 7\n")
    file = tmp_path / "mine.cu"
    file.write_text(f'#include "common.cuh"\n{FILL}')
    assert filled(machine(), Source("mine", file=file)) == [8] * 4
    assert "struct Pack" in Source("mine", text='#include "common.cuh"\n').text


def test_a_header_that_is_nowhere_is_named_with_the_line_that_asks_for_it():
    with pytest.raises(PluginError) as refused:
        Source("mine", text='\n#include "commn.cuh"\n')
    assert refused.value.slug == "header-missing"
    assert refused.value.facts["where"] == "mine.cu:2"


def test_a_kernel_that_the_source_does_not_have_is_named():
    with pytest.raises(PluginError) as refused:
        Source("mine", text=FILL.replace("VALUE", "1")).launch("fil", (), 1, 4, None, i32(1))
    assert refused.value.slug == "kernel-missing"
    assert "mine.cu has no kernel called 'fil'" in str(refused.value)


def test_on_a_gpu_too(tmp_path, monkeypatch):
    gpu = gpu_of(tmp_path, monkeypatch)

    def missing(self, name):
        raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")

    monkeypatch.setattr("tests.unit.cupy_cuda.fake_cupy.FakeModule.get_function", missing)
    with pytest.raises(PluginError) as refused:
        gpu.function(Source("mine", text=FILL.replace("VALUE", "1")), "fil", ())
    assert refused.value.slug == "kernel-missing"


def test_a_source_that_does_not_compile_is_tried_once(monkeypatch):
    from backends.cupy_cuda.on_cpu import compiler

    tried = []
    really = compiler._compile
    monkeypatch.setattr(compiler, "_compile", lambda *given: tried.append(given) or really(*given))
    for _ in range(2):
        with pytest.raises(PluginError) as refused:
            Source("mine", text='extern "C" __global__ void fill() { oops; }').launch(
                "fill", (), 1, 1
            )
        assert refused.value.slug == "kernel-not-compiled"
        assert "mine.cu:1" in refused.value.facts["reason"]
    assert len(tried) == 1


def test_only_sources_of_our_own_are_compiled_by_the_tests_of_ours():
    before = list(launching.Source.every)
    Source("mine", text=FILL)
    assert launching.Source.every == before
