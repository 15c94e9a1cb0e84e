"""The machine that speaks to CuPy, on a CuPy whose stream does nothing until it is waited for."""

import shutil

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda import _cubin
from backends.cupy_cuda._gpu import Gpu, new_stream
from backends.cupy_cuda._launch import BF16, FLOAT, Source, i64
from harness.device.gpu import PINNED_BYTES, SLOTS
from harness.errors import PluginError, ResourceError
from tests.unit.cupy_cuda.fake_cupy import FakeStream, fake_cupy

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="kernels need g++ here")
GELU = Source("gelu")


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(_cubin, "_folder", lambda: tmp_path)
    return Gpu(fake_cupy())


def array(gpu, values):
    found = gpu.view(gpu.empty(values.nbytes), 0, values.shape, values.dtype)
    gpu.from_host(found, values)
    return found


def read(gpu, found):
    values = np.zeros(found.shape, found.dtype)
    gpu.to_host(values, found)
    return values


def test_the_machine_is_described(gpu):
    assert gpu.versions == (
        "NVIDIA H100 (compute capability 9.0), driver 12.9, CUDA runtime 12.9, CuPy 14.2.0"
    )


@pytest.mark.parametrize("dtype", [np.float32, np.int32, ml_dtypes.bfloat16])
def test_what_is_copied_to_the_device_comes_back(gpu, dtype):
    values = np.arange(24).reshape(4, 6).astype(dtype)
    np.testing.assert_array_equal(read(gpu, array(gpu, values)), values)


def test_a_host_array_may_be_reused_as_soon_as_its_copy_was_asked_for(gpu):
    values = np.ones(8, np.float32)
    there = array(gpu, values)
    values.fill(-1)
    np.testing.assert_array_equal(read(gpu, there), np.ones(8, np.float32))


def test_more_copies_than_there_are_slots_all_arrive(gpu):
    arrays = [array(gpu, np.full(4, n, np.float32)) for n in range(3 * SLOTS)]
    assert [read(gpu, a)[0] for a in arrays] == list(range(3 * SLOTS))


def test_a_copy_too_large_for_pinned_memory_arrives_whole(gpu):
    values = np.arange(PINNED_BYTES // 4 + 5, dtype=np.float32)
    np.testing.assert_array_equal(read(gpu, array(gpu, values)), values)


def test_small_copies_and_kernels_do_not_wait(gpu):
    x = array(gpu, np.ones(100, np.float32))
    out = gpu.view(gpu.empty(400), 0, (100,), np.float32)
    gpu.function(GELU, "gelu_forward", FLOAT)((1, 1, 1), (256, 1, 1), (out, x, i64(100)), 0)
    waiting = gpu.begin_read(out)
    assert gpu.waits == 0
    assert FakeStream.current.queue, "nothing has run yet"
    found = np.zeros(100, np.float32)
    waiting(found)
    np.testing.assert_allclose(found, 0.841192, rtol=1e-6)  # gelu(1)


def test_a_read_that_was_begun_shows_what_was_there_then(gpu):
    there = array(gpu, np.full(5, 1, np.float32))
    first = gpu.begin_read(there)
    gpu.from_host(there, np.full(5, 2, np.float32))
    second = gpu.begin_read(there)
    found = np.zeros((2, 5), np.float32)
    second(found[1])
    first(found[0])
    assert found[:, 0].tolist() == [1, 2]


def test_a_kernel_takes_its_defines_and_no_pointer_for_none(gpu):
    values = np.linspace(-3, 3, 64).astype(ml_dtypes.bfloat16)
    x, out = array(gpu, values), array(gpu, np.zeros_like(values))
    gpu.function(GELU, "gelu_forward", BF16)((1, 1, 1), (32, 1, 1), (out, x, i64(64)), 0)
    wide = values.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    np.testing.assert_allclose(
        read(gpu, out).astype(np.float64), wide / 2 * (1 + np.tanh(inner)), rtol=2**-8, atol=1e-6
    )


def test_zero_and_kernels_run_in_the_order_they_were_asked_for(gpu):
    there = array(gpu, np.ones(7, np.float32))
    gpu.zero(there)
    assert read(gpu, there).tolist() == [0] * 7


def test_a_captured_graph_runs_when_it_is_launched_and_not_before(gpu):
    x, out = array(gpu, np.ones(8, np.float32)), array(gpu, np.zeros(8, np.float32))
    launch = gpu.function(GELU, "gelu_forward", FLOAT)
    replay = gpu.capture([lambda: launch((1, 1, 1), (8, 1, 1), (out, x, i64(8)), 0)])
    assert read(gpu, out)[0] == 0
    replay()
    assert read(gpu, out)[0] == pytest.approx(0.841192)
    gpu.from_host(x, np.full(8, 2, np.float32))
    replay()
    assert read(gpu, out)[0] == pytest.approx(1.954598, rel=1e-6)  # gelu(2)


def test_memory_taken_in_a_capture_is_an_error(gpu):
    with pytest.raises(ResourceError) as refused:
        gpu.capture([lambda: gpu.empty(512)])
    assert refused.value.slug == "capture-took-memory"


def test_a_capture_of_no_calls_is_one_that_does_nothing(gpu):
    gpu.capture(())()
    gpu.synchronize()


def test_garbage_is_not_collected_in_a_capture_but_before(gpu):
    import gc

    found = []
    gpu.capture([lambda: found.append(gc.isenabled())])
    assert found == [False]
    assert gc.isenabled()


def test_an_error_in_a_capture_ends_it_and_is_the_error_that_is_seen(gpu):
    def broken():
        raise ValueError("the call's own")

    with pytest.raises(ValueError, match="the call's own"):
        gpu.capture([broken])
    gpu.synchronize()  # the stream goes on


def test_too_little_memory_says_how_much_there_is(gpu):
    with pytest.raises(ResourceError) as refused:
        gpu.empty(1 << 40)
    assert refused.value.slug == "device-memory-too-small"
    assert f"{1 << 28:,}" in refused.value.headline


def test_a_kernel_that_needs_much_shared_memory_is_given_it(gpu):
    launch = gpu.function(GELU, "gelu_forward", FLOAT)
    x = array(gpu, np.ones(4, np.float32))
    launch((1, 1, 1), (32, 1, 1), (x, x, i64(4)), 100 << 10)
    gpu.synchronize()


@pytest.mark.parametrize("count", [4, 4.0, True])
def test_a_number_without_a_type_of_the_kernels_is_refused(gpu, count):
    launch = gpu.function(GELU, "gelu_forward", FLOAT)
    x = array(gpu, np.ones(4, np.float32))
    with pytest.raises(AssertionError, match="gelu_forward: a number"):
        launch((1, 1, 1), (32, 1, 1), (x, x, count), 0)


def test_what_no_block_of_this_gpu_has_is_an_error_that_says_how_much_there_is(gpu):
    launch = gpu.function(GELU, "gelu_forward", FLOAT)
    x = array(gpu, np.ones(4, np.float32))
    with pytest.raises(ResourceError) as refused:
        launch((1, 1, 1), (32, 1, 1), (x, x, i64(4)), 232448)  # and the kernel's own memory
    assert refused.value.slug == "shared-memory-too-small"


def test_a_kernel_is_compiled_once_and_kept_on_disk(gpu, tmp_path):
    gpu.function(GELU, "gelu_forward", FLOAT)
    (kept,) = tmp_path.glob("gelu-*.cubin")
    before = kept.stat().st_mtime_ns
    again = Gpu(fake_cupy())
    again.function(GELU, "gelu_forward", FLOAT)
    assert kept.stat().st_mtime_ns == before
    again.function(GELU, "gelu_forward", BF16)
    assert len(list(tmp_path.glob("gelu-*.cubin"))) == 2


def test_a_kernel_that_does_not_compile_gives_the_compilers_words(gpu):
    class Broken:
        name, text = "broken", "#error"

    with pytest.raises(PluginError) as refused:
        gpu.function(Broken, "broken", FLOAT)
    assert refused.value.slug == "kernel-not-compiled"
    assert "broken.cu(1): error" in refused.value.facts["reason"]


def test_memory_is_refused_while_numba_captures_on_the_same_stream():
    cupy = fake_cupy()
    shared = new_stream(cupy)
    gpu = Gpu(cupy, shared)
    shared.capturing = True
    with pytest.raises(ResourceError) as refused:
        gpu.empty(512)
    assert refused.value.slug == "capture-took-memory"
