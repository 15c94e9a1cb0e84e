"""What a GPU would not forgive, or never say, is an error here, with kernel, lines and threads."""

import re

import numpy as np
import pytest
from numba import config, cuda, float32

from backends.numba_cuda.simulator import blocks
from backends.numba_cuda.simulator.machine import Simulator
from harness.errors import PluginError

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)


@pytest.fixture(params=["first", "reversed", "shuffled", "races"], autouse=True)
def order(request, monkeypatch):
    monkeypatch.setenv("HARNESS_CUDASIM", request.param)
    blocks.install()
    return request.param


@pytest.fixture
def races(monkeypatch):
    monkeypatch.setenv("HARNESS_CUDASIM", "races")


def line(kernel, text):
    """The line of a kernel that has this text, as errors spell it."""
    code = kernel.py_func.__code__
    with open(code.co_filename) as source:
        lines = source.read().splitlines()
    number = next(
        n for n, words in enumerate(lines, 1) if n > code.co_firstlineno and text in words
    )
    return f"test_simulator_faults.py:{number}"


def fault(slug, kernel, launch, *arguments):
    with pytest.raises(PluginError) as caught:
        kernel[launch](*arguments)
    assert caught.value.slug == slug
    return caught.value


# -- barriers -----------------------------------------------------------------------------------


@cuda.jit
def _some_leave(out_N):
    if cuda.threadIdx.x >= 5:
        return
    cuda.syncthreads()
    out_N[cuda.threadIdx.x] = 1


def test_a_barrier_that_some_threads_never_reach_is_an_error():
    error = fault("kernel-barrier", _some_leave, (1, 8), np.zeros(8))
    assert "_some_leave" in error.headline
    assert error.facts["threads"] == (
        f"0-4 wait at {line(_some_leave, 'syncthreads')}\n5-7 have ended"
    )
    assert error.facts["block"] == "(0, 0, 0)"


@cuda.jit
def _two_barriers(out_N):
    if cuda.threadIdx.x % 2:
        cuda.syncthreads()  # the odd ones
    else:
        cuda.syncthreads()  # the even ones
    out_N[cuda.threadIdx.x] = 1


def test_threads_at_two_barriers_are_an_error():
    error = fault("kernel-barrier", _two_barriers, (2, 8), np.zeros(8))
    assert set(error.facts["threads"].splitlines()) == {
        f"1, 3, 5, 7 wait at {line(_two_barriers, 'the odd')}",
        f"0, 2, 4, 6 wait at {line(_two_barriers, 'the even')}",
    }


@cuda.jit(device=True)
def _meet():
    cuda.syncthreads()


@cuda.jit
def _two_calls(out_N):
    if cuda.threadIdx.y:
        _meet()  # from here
    else:
        _meet()  # from there


def test_one_barrier_that_is_called_from_two_lines_is_an_error():
    error = fault("kernel-barrier", _two_calls, (1, (1, 2)), np.zeros(8))
    barrier = line(_meet, "syncthreads")
    assert set(error.facts["threads"].splitlines()) == {
        f"(0, 0, 0) wait at {barrier}, called from {line(_two_calls, 'from there')}",
        f"(0, 1, 0) wait at {barrier}, called from {line(_two_calls, 'from here')}",
    }


@cuda.jit
def _leave_later(out_N):
    for turn in range(3):
        if turn > cuda.threadIdx.x:
            return
        cuda.syncthreads()


def test_threads_that_leave_after_a_few_barriers_are_missed_too():
    error = fault("kernel-barrier", _leave_later, (1, 4), np.zeros(8))
    assert error.facts["threads"].endswith("0 have ended")


@cuda.jit
def _votes_and_waits(out_N):
    if cuda.threadIdx.x:
        cuda.syncthreads_count(1)
    else:
        cuda.syncthreads()


def test_a_vote_is_another_barrier():
    fault("kernel-barrier", _votes_and_waits, (1, 2), np.zeros(8))


@cuda.jit
def _one_block_waits(out_N):
    if cuda.blockIdx.x == 1:
        cuda.cg.this_grid().sync()


def test_a_barrier_of_the_grid_that_a_block_never_reaches_is_an_error():
    error = fault("kernel-barrier", _one_block_waits, (3, 2), np.zeros(8))
    assert error.facts["threads"] == "of 3 blocks 1 wait, and 0, 2 have ended"


# -- indices ------------------------------------------------------------------------------------


@cuda.jit
def _reads(out_N, x_NC, i, j):
    out_N[0] = x_NC[i, j]


@cuda.jit
def _reads_row(out_N, x_NC, i, j):
    row = x_NC[i]
    out_N[0] = row[j]


@cuda.jit
def _writes(out_N, x_NC, i, j):
    x_NC[i, j] = 1


@pytest.mark.parametrize("kernel", [_reads, _reads_row, _writes])
@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (2, 0), (0, 3), (0, np.int32(-3))])
def test_an_index_that_is_not_within_its_array_is_an_error_that_names_it(kernel, place):
    error = fault("kernel-index", kernel, (1, 1), np.zeros(1), np.zeros((2, 3)), *place)
    assert isinstance(error, IndexError)
    assert re.search(r"not within x_NC of shape \((2, 3|3,)\)", error.headline)
    assert error.facts["kernel"] == kernel.py_func.__name__
    assert error.facts["where"].startswith("test_simulator_faults.py:")
    assert error.facts["thread"] == error.facts["block"] == "(0, 0, 0)"


@cuda.jit
def _of_shared(out_N, i):
    partial = cuda.shared.array(4, float32)
    partial[i] = 1


@cuda.jit
def _of_local(out_N, i):
    mine = cuda.local.array((4,), float32)
    mine[i] = 1


@pytest.mark.parametrize("kernel, name", [(_of_shared, "partial"), (_of_local, "mine")])
@pytest.mark.parametrize("i", [-1, 4])
def test_an_array_of_the_kernel_is_named_as_its_line_names_it(kernel, name, i, order):
    if kernel is _of_local and order == "first":
        pytest.skip("a local array is NumPy's own there: the next test")
    error = fault("kernel-index", kernel, (1, 1), np.zeros(1), i)
    assert error.headline == f"index {i} is not within {name} of shape (4,)"


def test_a_local_array_is_numpys_own_in_the_mode_first(order):
    if order != "first":
        pytest.skip("it is looked at in this mode: the test before")
    with pytest.raises(IndexError, match=r"^tid=\[0, 0, 0\] ctaid=\[0, 0, 0\]: index 4 is out of"):
        _of_local[1, 1](np.zeros(1), 4)


@cuda.jit
def _slices(out_N, x_N):
    part = x_N[2:-1]
    part[:] = 5
    out_N[0] = part.size + part.shape[-1]


def test_a_slice_may_count_from_the_end():
    out_N, x_N = np.zeros(1), np.zeros(6)
    _slices[1, 1](out_N, x_N)
    assert out_N[0] == 6
    np.testing.assert_array_equal(x_N, [0, 0, 5, 5, 5, 0])


# -- shared memory and launches -----------------------------------------------------------------


@cuda.jit
def _before_written(out_BN):
    partial = cuda.shared.array(4, float32)
    mine = cuda.local.array(4, float32)
    out_BN[cuda.blockIdx.x, cuda.threadIdx.x] = partial[cuda.threadIdx.x] + mine[0]
    cuda.syncthreads()
    partial[cuda.threadIdx.x] = mine[0] = 1


def test_shared_and_local_memory_is_nan_when_a_block_begins(order):
    if order == "races":
        error = fault("kernel-shared-memory", _before_written, (2, 4), np.zeros((2, 4)))
        assert "partial[0] is read before" in error.headline
        return
    out_BN = np.zeros((2, 4))
    _before_written[2, 4](out_BN)
    assert np.isnan(out_BN).all()


@cuda.jit
def _on_one_line(out_N):
    a = cuda.shared.array(4, float32); b = cuda.shared.array(4, float32)  # fmt: skip # noqa: E702
    a[0] = b[0] = 1


def test_two_shared_arrays_on_one_line_are_an_error():
    error = fault("kernel-shared-memory", _on_one_line, (1, 1), np.zeros(1))
    assert error.facts["do"] == "write them on two lines"
    assert error.facts["where"] == line(_on_one_line, "a = cuda")


@cuda.jit
def _too_much(out_N):
    one = cuda.shared.array((64, 64), float32)
    two = cuda.shared.array((128, 65), float32)
    one[0, 0] = two[0, 0] = 1


def test_more_shared_memory_than_a_gpu_compiles_is_an_error():
    error = fault("kernel-shared-memory", _too_much, (1, 1), np.zeros(1))
    assert "49664 bytes" in error.headline and "two" in error.headline


@pytest.mark.parametrize(
    "launch",
    [(1, 1025), (1, (33, 32)), (1, (1, 1, 65)), ((1, 65536), 1), ((1, 1, 65536), 1), (1, 0)],
)
def test_more_than_a_gpu_launches_is_an_error(launch):
    error = fault("kernel-launch", _writes, launch, np.zeros(1), np.zeros((1, 1)), 0, 0)
    assert "_writes" in error.headline


def test_less_than_no_blocks_is_an_error_with_the_name_of_the_kernel():
    with pytest.raises(PluginError, match="_writes: no GPU takes") as caught:
        Simulator().launch(_writes, -1, 1, (np.zeros(1), np.zeros((1, 1)), 0, 0))
    assert caught.value.slug == "kernel-launch"


# -- races --------------------------------------------------------------------------------------


@cuda.jit
def _no_barrier(out_N):
    partial = cuda.shared.array(8, float32)
    t = cuda.threadIdx.x
    partial[t] = t
    cuda.syncthreads()
    partial[t] += partial[t ^ 1]
    cuda.syncthreads()
    out_N[t] = partial[t]


def test_a_load_and_a_store_with_no_barrier_between_them_are_a_race(races):
    error = fault("kernel-race", _no_barrier, (1, 8), np.zeros(8))
    assert "_no_barrier: two threads touch partial[0]" in error.headline
    where = line(_no_barrier, "partial[t] +=")
    assert error.facts["threads"] == (
        f"thread (0, 0, 0) of block (0, 0, 0) writes it at {where}\n"
        f"thread (1, 0, 0) of block (0, 0, 0) reads it at {where}"
    )


@cuda.jit
def _everyone_writes(out_N):
    out_N[0] = 1


def test_two_stores_of_one_element_are_a_race_though_the_number_be_the_same(races):
    fault("kernel-race", _everyone_writes, (1, 2), np.zeros(8))


@cuda.jit
def _blocks_share(out_N, x_N):
    t = cuda.threadIdx.x
    if cuda.blockIdx.x == 0:
        x_N[t] = 1
    cuda.syncthreads()
    out_N[cuda.grid(1)] = x_N[t]


def test_a_barrier_of_the_block_is_none_between_blocks(races):
    error = fault("kernel-race", _blocks_share, (2, 4), np.zeros(8), np.zeros(4))
    assert "two blocks touch x_N[0]" in error.headline


def test_two_arguments_that_are_one_memory_are_one_memory(races):
    x_N = cuda.to_device(np.zeros(8))
    _blocks_share[1, 4](x_N[4:], x_N)
    error = fault("kernel-race", _blocks_share, (1, 4), x_N[1:], x_N)
    assert "two threads touch" in error.headline


@cuda.jit
def _in_the_middle_of_three(out_N, x_N):
    t = cuda.threadIdx.x
    if t < 2:
        out_N[t] = x_N[0]
    if t == 1:
        x_N[0] = 1


def test_one_who_read_and_then_writes_meets_the_other_who_read(races):
    fault("kernel-race", _in_the_middle_of_three, (1, 3), np.zeros(8), np.zeros(1))


@cuda.jit
def _atomic_and_plain(out_N, sum_1):
    cuda.atomic.add(sum_1, 0, 1)
    out_N[cuda.grid(1)] = sum_1[0]


def test_an_atomic_operation_and_a_plain_load_are_a_race(races):
    fault("kernel-race", _atomic_and_plain, (1, 2), np.zeros(8), np.zeros(1))


@cuda.jit
def _whole_row(out_NC):
    out_NC[cuda.threadIdx.x // 2, :] = 1


def test_a_slice_that_is_written_is_all_of_its_elements(races):
    error = fault("kernel-race", _whole_row, (1, 4), np.zeros((2, 3)))
    assert "out_NC[0, " in error.headline
