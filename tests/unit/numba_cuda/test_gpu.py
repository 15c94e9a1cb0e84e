"""The machine that speaks to Numba and the driver, on a driver whose stream is a queue."""

import gc
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

from backends.numba_cuda._driver import Driver, DriverError
from backends.numba_cuda._gpu import Gpu, new_stream
from harness.device.gpu import PINNED_BYTES, SLOTS
from harness.errors import ResourceError
from tests.unit.numba_cuda.fake_cuda import STREAM, CUresult, FakeBinding, FakeCuda, FakeKernel


@pytest.fixture
def binding():
    return FakeBinding()


@pytest.fixture
def cuda(binding):
    return FakeCuda(binding)


@pytest.fixture
def gpu(cuda, binding):
    driver = Driver(binding)
    return Gpu(cuda, driver, new_stream(cuda, driver))


def array(gpu, values, offset=0):
    found = gpu.view(gpu.empty(offset + values.nbytes), offset, values.shape, values.dtype)
    gpu.from_host(found, values)
    return found


def read(gpu, found, dtype=np.float32):
    values = np.zeros(found.shape, dtype)
    gpu.to_host(values, found)
    return values


def test_its_stream_does_not_wait_for_the_default_one(gpu, binding):
    assert binding.said == [("create", 1)] and gpu.stream == STREAM


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(4, 6), (), (0,), (1, 1, 3)])
def test_what_is_copied_to_the_device_comes_back(gpu, shape, dtype):
    values = (np.arange(np.prod(shape)) + 1).reshape(shape).astype(dtype)
    there = array(gpu, values, offset=256)
    assert there.dtype == (np.uint16 if dtype == ml_dtypes.bfloat16 else dtype)
    np.testing.assert_array_equal(read(gpu, there, dtype), values)


def test_an_array_of_the_device_is_without_gaps_where_it_was_asked_for(gpu):
    memory = gpu.empty(4096)
    found = gpu.view(memory, 512, (3, 4), np.float32)
    assert found.strides == (16, 4)
    begin, start = (a.__cuda_array_interface__["data"][0] for a in (memory, found))
    assert start - begin == 512


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
    expected = values.copy()
    there = array(gpu, values)
    values.fill(-1)  # it may be reused as soon as the call is back
    np.testing.assert_array_equal(read(gpu, there), expected)


def test_a_read_that_was_begun_shows_what_was_there_then_and_only_it_waits(gpu, binding):
    there = array(gpu, np.full(5, 1, np.float32))
    first = gpu.begin_read(there)
    gpu.from_host(there, np.full(5, 2, np.float32))
    gpu.zero(there)
    second = gpu.begin_read(there)
    assert binding.queue and gpu.waits == 0
    found = np.full((2, 5), -1, np.float32)
    second(found[1])
    first(found[0])
    assert found[:, 0].tolist() == [1, 0]


def test_a_launch_is_on_the_stream_and_waits_for_nothing(gpu, cuda, binding):
    there = array(gpu, np.zeros(3, np.float32))
    done = []
    kernel = FakeKernel(cuda, lambda out: done.append(out))
    gpu.launch(kernel, (2, 3), 64, [there])
    assert binding.said[-1] == ("kernel", (2, 3), 64, f"stream {STREAM:#x}")
    assert ("wait", STREAM) not in binding.said and not done
    gpu.synchronize()
    assert done == [there]


@pytest.mark.parametrize("grid", [0, (4, 0)])
def test_a_grid_of_no_blocks_is_no_launch(gpu, cuda, binding, grid):
    gpu.launch(FakeKernel(cuda, None), grid, 64, [1])
    assert binding.said == [("create", 1)]


def test_an_argument_that_is_none_can_be_handed_over(gpu, cuda):
    kernel = FakeKernel(cuda, lambda *_: None)
    gpu.launch(kernel, 1, 32, [None])
    gpu.launch(kernel, 1, 32, [1])
    (extension,) = kernel.extensions
    assert kernel.overloads == {(type(None),): [extension]}, "it stood there when it was compiled"
    assert extension.prepare_args("its type", 4, stream=0, retr=[]) == ("its type", 4)
    kind, value = extension.prepare_args("none", None, stream=0, retr=[])
    assert (str(kind), value) == ("uint64", 0)


def test_only_compiling_counts_as_compiling(gpu, cuda):
    kernel = FakeKernel(cuda, lambda *_: None)
    gpu.launch(kernel, 1, 32, [1])
    spent = gpu.compile_seconds
    assert spent > 0
    gpu.launch(kernel, 1, 32, [2])
    assert gpu.compile_seconds == spent


def test_a_captured_graph_runs_when_it_is_launched_and_not_before(gpu, cuda, binding):
    there = array(gpu, np.ones(4, np.float32))
    gpu.synchronize()
    before = len(binding.said)
    done = []
    kernel = FakeKernel(cuda, lambda: done.append("kernel"))
    replay = gpu.capture([lambda: gpu.zero(there), lambda: gpu.launch(kernel, 1, 32, [])])
    assert [words[0] for words in binding.said[before:]] == [
        *("begin", "memset", "kernel", "end"),
        *("instantiate", "destroy", "upload"),
    ]
    assert read(gpu, there)[0] == 1 and not done
    replay()
    replay()
    assert read(gpu, there)[0] == 0 and done == ["kernel", "kernel"]
    del replay
    assert binding.said[-1] == ("destroy", "ready graph0")


def test_memory_taken_in_a_capture_is_an_error_whoever_takes_it(gpu, cuda, binding):
    for take in (lambda: gpu.empty(512), lambda: cuda.device_array(4, np.float32)):
        with pytest.raises(ResourceError) as refused:
            gpu.capture([take])
        assert refused.value.slug == "capture-took-memory"
        assert [words[0] for words in binding.said[-3:]] == ["begin", "end", "destroy"]
        gpu.empty(16)
        gpu.synchronize()  # the stream goes on


def test_a_capture_of_no_calls_is_one_that_does_nothing(gpu, binding):
    gpu.capture(())()
    assert binding.said == [("create", 1)]


def test_garbage_is_not_collected_in_a_capture_and_memory_is_not_given_back(gpu, cuda):
    found = []
    gpu.capture([lambda: found.append((gc.isenabled(), cuda.current_context().held))])
    assert found == [(False, True)]
    assert gc.isenabled()


def test_an_error_in_a_capture_ends_it_and_is_the_error_that_is_seen(gpu):
    def broken():
        raise ValueError("the call's own")

    with pytest.raises(ValueError, match="the call's own"):
        gpu.capture([broken])
    gpu.synchronize()
    assert gpu.capture([lambda: None])() is None


def test_too_little_memory_says_how_much_there_is(gpu):
    with pytest.raises(ResourceError) as refused:
        gpu.empty(1 << 40)
    assert refused.value.slug == "device-memory-too-small"
    assert f"{1 << 28:,}" in refused.value.headline


def test_an_error_of_the_driver_is_raised_by_its_names(binding):
    binding.cuInit = lambda flags: (CUresult.CUDA_ERROR_NOT_INITIALIZED,)
    with pytest.raises(DriverError, match="cuInit: CUDA_ERROR_NOT_INITIALIZED"):
        Driver(binding).cuInit(0)


@dataclass
class Foreign:
    """An array of CuPy's."""

    values: np.ndarray

    @property
    def __cuda_array_interface__(self):
        return {"data": (self.values.ctypes.data, False), "stream": 1}

    def __getattr__(self, name):
        return getattr(self.values, name)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, ml_dtypes.bfloat16])
def test_an_array_of_cupys_is_taken_where_it_lies(gpu, dtype):
    foreign = Foreign(np.arange(6).reshape(2, 3).astype(dtype))
    found = gpu.adapt(foreign)
    assert found.shape == (2, 3)
    assert found.dtype == (np.uint16 if dtype == ml_dtypes.bfloat16 else dtype)
    gpu.from_host(found, np.full((2, 3), 7, dtype))
    gpu.synchronize()
    assert (foreign.values == 7).all()
    assert gpu.adapt(found) is found


def test_memory_of_cupys_can_be_seen_in_part(gpu):
    lent = Foreign(np.zeros(64, np.uint8))
    part = gpu.view(lent, 16, (2,), np.float32)
    gpu.from_host(part, np.ones(2, np.float32))
    gpu.synchronize()
    assert lent.values.view(np.float32).tolist() == [0] * 4 + [1, 1] + [0] * 10


def test_the_time_of_the_device_is_that_between_two_events(gpu, binding):
    assert gpu.device_seconds(lambda: binding.said.append("the call")) == 2.5e-3
    stream = f"stream {STREAM:#x}"
    assert binding.said[-3:] == [("event", stream), "the call", ("event", stream)]


def test_memory_is_refused_while_cupy_captures_on_the_same_stream(cuda, binding):
    driver = Driver(binding)
    shared = new_stream(cuda, driver)
    gpu = Gpu(cuda, driver, shared)
    shared.capturing = True
    with pytest.raises(ResourceError) as refused:
        gpu.empty(512)
    assert refused.value.slug == "capture-took-memory"
