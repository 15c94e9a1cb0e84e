"""The harness's scheduler in Numba's CUDA simulator: every member of `cuda.`, in every order of threads.

What Numba's own scheduler says of the same kernels is test_simulator_against_stock.py.
"""

import importlib
import sys

import numpy as np
import pytest
from numba import config, cuda, float32, int32

from backends.numba_cuda.simulator import blocks
from backends.numba_cuda.simulator.machine import Simulator
from harness.errors import ConfigError

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)


@pytest.fixture(params=["first", "reversed", "shuffled", "shuffled:7", "races"], autouse=True)
def order(request, monkeypatch):
    monkeypatch.setenv("HARNESS_CUDASIM", request.param)
    blocks.install()
    return request.param


@cuda.jit
def _places(x_N, y_ND):
    i = cuda.grid(1)
    x_N[i] = cuda.gridsize(1)
    y_ND[i, 0], y_ND[i, 1] = cuda.threadIdx.x, cuda.blockIdx.x
    y_ND[i, 2], y_ND[i, 3] = cuda.blockDim.x, cuda.gridDim.x
    y_ND[i, 4], y_ND[i, 5] = cuda.laneid, cuda.warpsize


def test_a_thread_knows_where_it_is():
    x_N, y_ND = np.zeros(120, np.int64), np.zeros((120, 6), np.int64)
    _places[3, 40](x_N, y_ND)
    i = np.arange(120)
    assert (x_N == 120).all()
    expected = [i % 40, i // 40, 0 * i + 40, 0 * i + 3, i % 40 % 32, 0 * i + 32]
    np.testing.assert_array_equal(y_ND, np.stack(expected, axis=1))


@cuda.jit
def _planes(out_XYZ, lane_XYZ):
    x, y, z = cuda.grid(3)
    across, down, deep = cuda.gridsize(3)
    out_XYZ[x, y, z] = x + 100 * y + 10_000 * z
    lane_XYZ[x, y, z] = cuda.laneid
    assert (across, down, deep) == out_XYZ.shape
    assert cuda.grid(2) == (x, y) and cuda.gridsize(2) == (across, down)


def test_grids_have_three_axes_and_lanes_run_along_x_first():
    out_XYZ, lane_XYZ = np.zeros((6, 4, 3), np.int64), np.zeros((6, 4, 3), np.int64)
    _planes[(2, 2, 1), (3, 2, 3)](out_XYZ, lane_XYZ)
    x, y, z = np.indices(out_XYZ.shape)
    np.testing.assert_array_equal(out_XYZ, x + 100 * y + 10_000 * z)
    np.testing.assert_array_equal(lane_XYZ, (x % 3 + 3 * (y % 2 + 2 * z)) % 32)


@cuda.jit
def _turned(out_N):
    shared = cuda.shared.array(shape=(2, 8), dtype=float32)
    pairs = cuda.shared.array((8,), np.int32)
    t = cuda.threadIdx.x
    shared[0, t], pairs[t] = t, -t
    cuda.syncthreads()
    shared[1, t] = shared[0, 7 - t] + pairs[7 - t]
    cuda.syncthreads()
    out_N[cuda.grid(1)] = shared[1, (t + 1) % 8] * 10 + shared[0, t]


def test_threads_of_a_block_share_memory_across_barriers():
    out_N = np.zeros(24, np.float32)
    _turned[3, 8](out_N)
    np.testing.assert_array_equal(out_N, np.tile(np.arange(8), 3))


@cuda.jit
def _votes(out_KN, x_N):
    i = cuda.grid(1)
    out_KN[0, i] = cuda.syncthreads_count(x_N[i])
    out_KN[1, i] = cuda.syncthreads_and(x_N[i] < 5)
    out_KN[2, i] = cuda.syncthreads_or(x_N[i] > 6)


def test_threads_of_a_block_vote():
    x_N, out_KN = np.arange(8), np.zeros((3, 8), np.int64)
    _votes[2, 4](out_KN, x_N)
    np.testing.assert_array_equal(
        out_KN, [[3, 3, 3, 3, 4, 4, 4, 4], [1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]
    )


@cuda.jit
def _dynamic(out_N):
    whole = cuda.shared.array(0, np.float32)
    head, tail = whole[:4], whole[4:]
    t = cuda.threadIdx.x
    head[t], tail[t] = t, 10 * t
    cuda.syncthreads()
    out_N[t] = head[3 - t] + tail[3 - t] + whole.size


def test_dynamic_shared_memory_is_as_long_as_the_launch_says():
    out_N = np.zeros(4, np.float32)
    _dynamic[1, 4, 0, 35](out_N)
    np.testing.assert_array_equal(out_N, np.arange(4)[::-1] * 11 + 8)


@cuda.jit
def _grid_barrier(out_N, between_N):
    own = cuda.shared.array(4, int32)
    i = cuda.grid(1)
    own[cuda.threadIdx.x] = i
    between_N[i] = i
    cuda.cg.this_grid().sync()
    grid = cuda.cg.this_grid()
    other = between_N[out_N.size - 1 - i]
    grid.sync()
    between_N[i] = other + own[cuda.threadIdx.x]
    grid.sync()
    out_N[i] = between_N[out_N.size - 1 - i]


def test_blocks_of_a_grid_wait_for_each_other_and_keep_their_shared_memory():
    out_N, between_N = np.zeros(20, np.int32), np.zeros(20, np.int32)
    _grid_barrier[5, 4](out_N, between_N)
    np.testing.assert_array_equal(out_N, np.full(20, 19))


@cuda.jit
def _asks_again(out_BT):
    b, t = cuda.blockIdx.x, cuda.threadIdx.x
    for turn in range(2):
        own = cuda.shared.array(4, int32)
        if turn == 0:
            own[t] = 10 * b + t
            cuda.shared.array(0, int32)[t] = 1000 * b
        else:
            out_BT[b, t] = own[t] + cuda.shared.array(0, int32)[t]
        cuda.cg.this_grid().sync()


def test_a_block_that_asks_again_after_the_grids_barrier_gets_its_own_shared_memory():
    out_BT = np.zeros((3, 4), np.int32)
    _asks_again[3, 4, 0, 16](out_BT)
    b, t = np.indices((3, 4))
    np.testing.assert_array_equal(out_BT, 1010 * b + t)


TABLE = np.array([3, 1, 4, 1], np.float32)


@cuda.jit
def _own(out_N):
    mine = cuda.local.array(2, float32)
    table = cuda.const.array_like(TABLE)
    t = cuda.threadIdx.x
    mine[0], mine[1] = t, table[t]
    cuda.syncthreads()
    out_N[t] = mine[0] + 10 * mine[1]


def test_local_memory_is_each_threads_own_and_constants_are_everyones():
    out_N = np.zeros(4, np.float32)
    _own[1, 4](out_N)
    np.testing.assert_array_equal(out_N, np.arange(4) + 10 * TABLE)


@cuda.jit
def _atomics(sum_1, most_1, least_1, bits_1, old_N, taken_1):
    t = cuda.threadIdx.x
    old_N[t] = cuda.atomic.add(sum_1, 0, 1)
    cuda.atomic.max(most_1, 0, t)
    cuda.atomic.min(least_1, (0,), -t)
    cuda.atomic.or_(bits_1, 0, 1 << t)
    cuda.atomic.cas(taken_1, 0, 0, 7)


def test_atomic_operations_are_in_nobodys_way():
    sum_1, most_1, least_1, bits_1, taken_1 = (np.zeros(1, np.int64) for _ in range(5))
    old_N = np.zeros(8, np.int64)
    _atomics[1, 8](sum_1, most_1, least_1, bits_1, old_N, taken_1)
    assert [a[0] for a in (sum_1, most_1, least_1, bits_1, taken_1)] == [8, 7, -7, 255, 7]
    assert sorted(old_N) == list(range(8))


@cuda.jit
def _functions(out_N):
    out_N[0] = cuda.popc(7) + cuda.clz(1) + cuda.ffs(8) + cuda.brev(1 << 31)
    out_N[1] = cuda.selp(True, 2, 3) + cuda.fma(2, 3, 4)
    out_N[2] = cuda.fp16.hadd(np.float16(1), np.float16(2))
    out_N[3] = cuda.float32x2(3, 4).y + cuda.cbrt(8.0)
    cuda.threadfence()
    cuda.threadfence_block()
    cuda.threadfence_system()


def test_the_functions_of_the_module_are_all_there():
    out_N = np.zeros(4, np.float32)
    _functions[1, 1](out_N)
    np.testing.assert_allclose(out_N, [3 + 31 + 4 + 1, 12, 3, 6])


@cuda.jit(device=True)
def _through(x, times):
    return _through(x, times - 1) + cuda.threadIdx.x if times else x


@cuda.jit
def _calling(out_N):
    out_N[cuda.threadIdx.x] = _through(0, 3)


def test_device_functions_call_device_functions():
    out_N = np.zeros(4, np.float32)
    _calling[1, 4](out_N)
    np.testing.assert_array_equal(out_N, 3 * np.arange(4))


OF_ANOTHER_MODULE = """
from numba import cuda, float32

@cuda.jit(device=True)
def own_place():
    return cuda.threadIdx.x + cuda.blockIdx.x * cuda.blockDim.x

@cuda.jit(device=True)
def of_the_next(x_N):
    shared = cuda.shared.array(4, float32)
    shared[cuda.threadIdx.x] = x_N[own_place()]
    cuda.syncthreads()
    return shared[(cuda.threadIdx.x + 1) % 4]
"""


def test_device_functions_of_another_module_are_called_by_name_and_through_the_module(
    tmp_path, monkeypatch
):
    (tmp_path / "another_module.py").write_text(OF_ANOTHER_MODULE)
    (tmp_path / "with_the_kernels.py").write_text("""
import another_module
from another_module import of_the_next
from numba import cuda

@cuda.jit
def by_name(out_N, x_N):
    out_N[cuda.grid(1)] = of_the_next(x_N)

@cuda.jit
def through_the_module(out_N, x_N):
    out_N[cuda.grid(1)] = another_module.of_the_next(x_N)
""")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("another_module", "with_the_kernels"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    kernels = importlib.import_module("with_the_kernels")
    other = kernels.another_module
    kept = dict(vars(other))
    for kernel in (kernels.by_name, kernels.through_the_module):
        out_N = np.zeros(8, np.float32)
        kernel[2, 4](out_N, np.arange(8.0, dtype=np.float32))
        np.testing.assert_array_equal(out_N, [1, 2, 3, 0, 5, 6, 7, 4])
        assert all(vars(other)[name] is value for name, value in kept.items())


def test_a_kernel_in_a_function_finds_what_it_encloses():
    @cuda.jit(device=True)
    def twice(x):
        return x + x

    @cuda.jit
    def kernel(out_N):
        out_N[cuda.threadIdx.x] = twice(cuda.threadIdx.x)

    out_N = np.zeros(4, np.float32)
    kernel[1, 4](out_N)
    np.testing.assert_array_equal(out_N, 2 * np.arange(4))


@cuda.jit
def _of_tuples(out_N, pair, record_1):
    t = cuda.threadIdx.x
    out_N[t] = pair[0][t] + pair[1][t] + record_1[0].a + record_1["b"][0]


def test_arguments_are_tuples_and_records_too():
    out_N = np.zeros(4, np.float32)
    pair = cuda.to_device(np.arange(4)), cuda.to_device(np.full(4, 10))
    record_1 = np.array([(100, 1000)], np.dtype([("a", "i4"), ("b", "f4")]))
    _of_tuples[1, 4](out_N, pair, record_1)
    np.testing.assert_array_equal(out_N, np.arange(4) + 1110)


@cuda.jit
def _plain(out_N, x_N, scale):
    i = cuda.grid(1)
    if i < out_N.shape[0]:
        out_N[i] = x_N[i] * scale


def test_a_kernel_of_somebody_else_is_launched_as_numba_says():
    x_N = np.arange(10, dtype=np.float32)
    out_N = cuda.device_array_like(x_N)
    stream = cuda.stream()
    _plain[3, 4, stream](out_N, cuda.to_device(x_N), 2)
    stream.synchronize()
    np.testing.assert_array_equal(out_N.copy_to_host(), 2 * x_N)
    host_N = np.zeros(10, np.float32)
    _plain.forall(10)(host_N, x_N, 3)
    np.testing.assert_array_equal(host_N, 3 * x_N)


def test_a_launch_beside_the_stream_is_refused_while_a_graph_is_captured():
    """It would run at once, and not when the graph does; on a GPU it is on CUDA's default stream."""
    machine = Simulator()
    x_N, out_N = cuda.to_device(np.arange(4.0)), cuda.to_device(np.zeros(4))
    replay = machine.capture([lambda: machine.launch(_plain, 1, 4, (out_N, x_N, 2))])
    assert not out_N.copy_to_host().any()
    with pytest.raises(
        RuntimeError, match="_plain runs, launched beside the stream, while a graph"
    ):
        machine.capture([lambda: _plain[1, 4](out_N, x_N, 3)])
    replay()
    np.testing.assert_array_equal(out_N.copy_to_host(), 2 * np.arange(4.0))


@cuda.jit
def _fails(out_N, where):
    shared = cuda.shared.array(4, float32)
    shared[cuda.threadIdx.x] = 0
    cuda.syncthreads()
    if cuda.threadIdx.x == where and cuda.blockIdx.x == 1:
        raise ValueError("the number is odd")
    cuda.syncthreads()
    out_N[cuda.grid(1)] = 1


def test_an_error_of_a_kernel_comes_out_with_its_thread_and_block():
    with pytest.raises(ValueError, match=r"^tid=\[2, 0, 0\] ctaid=\[1, 0, 0\]: the number is odd$"):
        _fails[3, 4](np.zeros(12, np.float32), 2)


class OfTwoPartsError(Exception):
    def __init__(self, first, second):
        super().__init__(first, second)


@cuda.jit
def _fails_in_two_parts(x_N):
    raise OfTwoPartsError("one", "two")


def test_an_error_that_no_text_makes_comes_out_as_itself_with_a_note():
    with pytest.raises(OfTwoPartsError) as caught:
        _fails_in_two_parts[1, 1](np.zeros(1, np.float32))
    assert caught.value.__notes__ == ["tid=[0, 0, 0] ctaid=[0, 0, 0]"]


def test_after_an_error_nothing_is_swapped_and_the_next_launch_works():
    kept = dict(globals())
    with pytest.raises(ValueError):
        _fails[3, 4](np.zeros(12, np.float32), 2)
    assert all(globals()[name] is value for name, value in kept.items())
    test_threads_of_a_block_share_memory_across_barriers()
    test_device_functions_call_device_functions()
    out_N = np.zeros(12, np.float32)
    _fails[3, 4](out_N, 9)
    assert (out_N == 1).all()


def test_ctrl_c_in_a_kernel_is_no_error_of_the_kernel():
    @cuda.jit
    def interrupted(x_N):
        cuda.syncthreads()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted[1, 4](np.zeros(1, np.float32))
    test_threads_of_a_block_share_memory_across_barriers()


@cuda.jit
def _divides(out_N, x_N):
    out_N[0] = np.float32(1) / x_N[0]


def test_floating_point_says_nothing_but_infinite_unless_a_kernel_is_for_debugging():
    out_N = np.zeros(1, np.float32)
    _divides[1, 1](out_N, np.zeros(1, np.float32))
    assert np.isinf(out_N[0])
    with pytest.raises(FloatingPointError):
        cuda.jit(debug=True)(_divides.py_func)[1, 1](out_N, np.zeros(1, np.float32))


@pytest.mark.parametrize("word", ["fast", "shuffled:", "shuffled:x", "first:3", "1"])
def test_a_mode_that_there_is_not_is_an_error_that_lists_them(word, monkeypatch):
    monkeypatch.setenv("HARNESS_CUDASIM", word)
    with pytest.raises(ConfigError, match="first, reversed, shuffled, races, stock") as caught:
        blocks.install()
    assert caught.value.slug == "unknown-simulator-mode"


STRETCHES, BLOCKS, THREADS = 5, 4, 8
HALVES = 2  # of the stretches: a barrier of the grid lies between


@cuda.jit
def _order(threads_SBT, next_SB, blocks_HB, next_H):
    b = cuda.blockIdx.x
    for s in range(STRETCHES):
        h = s // 3
        if s % 3 == 0 and next_SB[s, b] == 0:
            blocks_HB[h, next_H[h]] = b
            next_H[h] += 1
        threads_SBT[s, b, next_SB[s, b]] = cuda.threadIdx.x
        next_SB[s, b] += 1
        if s == 2:
            cuda.cg.this_grid().sync()
        else:
            cuda.syncthreads()


def in_order_of_running():
    """(threads of each stretch and block, blocks of each half), each as it ran."""
    shapes = (STRETCHES, BLOCKS, THREADS), (STRETCHES, BLOCKS), (HALVES, BLOCKS), (HALVES,)
    arrays = [np.zeros(shape, int) for shape in shapes]
    _order[BLOCKS, THREADS](*arrays)
    return arrays[0], arrays[2]


def test_threads_and_blocks_come_in_the_order_of_the_mode_from_barrier_to_barrier(order):
    if order == "races":
        pytest.skip("this kernel is one race: it writes down who comes first")
    threads_SBT, blocks_HB = in_order_of_running()
    if order == "first":
        assert (threads_SBT == np.arange(THREADS)).all()
        assert (blocks_HB == np.arange(BLOCKS)).all()
    elif order == "reversed":
        assert (threads_SBT == np.arange(THREADS)[::-1]).all()
        assert (blocks_HB == np.arange(BLOCKS)[::-1]).all()
    else:
        assert (np.sort(threads_SBT) == np.arange(THREADS)).all()
        assert (np.sort(blocks_HB) == np.arange(BLOCKS)).all()
        # drawn anew for each block and at each barrier
        assert len({tuple(row) for row in threads_SBT.reshape(-1, THREADS).tolist()}) == 20
        assert len({tuple(row) for row in blocks_HB.tolist()}) == HALVES
        again_SBT, again_HB = in_order_of_running()  # and from a seed
        assert (again_SBT == threads_SBT).all() and (again_HB == blocks_HB).all()


def test_the_seed_of_shuffled_is_another_order(monkeypatch):
    seen = set()
    for seed in range(5):
        monkeypatch.setenv("HARNESS_CUDASIM", f"shuffled:{seed}")
        threads_SBT, _ = in_order_of_running()
        seen.add(tuple(threads_SBT.ravel().tolist()))
    assert len(seen) == 5


def test_what_is_replaced_in_numba_is_there_and_nothing_else_is_missing():
    """Three names, and what `cuda.` means in a kernel has every member that Numba's own has."""
    from numba.cuda.simulator import kernel, kernelapi

    own_manager, own_module, own_swap = blocks.STOCK
    assert own_manager.__module__ == kernel.__name__ and callable(own_manager.run)
    assert own_swap is kernelapi.swapped_cuda_module
    stock = own_module((1, 1, 1), (1, 1, 1), 0)
    ours = blocks.Cuda((1, 1, 1), (1, 1, 1), 0)
    assert own_module is kernelapi.FakeCUDAModule
    # `_shared` is a block's, and `cg` needs no object of its own.
    assert set(dir(stock)) - set(dir(ours)) == {"_shared", "_cg"}


@cuda.jit
def _gathers(out_N, x_NC, ids_N):
    i = cuda.grid(1)
    out_N[i] = x_NC[ids_N[i], ids_N[i]]


def test_an_index_may_be_a_number_of_numpys():
    out_N, x_NC = np.zeros(4), np.arange(16.0).reshape(4, 4)
    _gathers[1, 4](out_N, x_NC, np.array([3, 0, 1, 3], np.int32))
    np.testing.assert_array_equal(out_N, [15, 0, 5, 15])
