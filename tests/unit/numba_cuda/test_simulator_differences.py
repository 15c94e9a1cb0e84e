"""What docs/cuda-simulator.md says of the simulator, of Numba's own and of compiled kernels: both sides.

The stock simulator runs in a process of its own. The compiled side is PTX, where numba-cuda is installed
(its compiler needs no GPU), or `numba.njit`, which types a function as `cuda.jit` does.
"""

import inspect
import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from textwrap import dedent

import numba
import numpy as np
import pytest
from numba import config, cuda, float32

from backends.numba_cuda.simulator import blocks
from harness.errors import ConfigError, PluginError

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.setenv("HARNESS_CUDASIM", "first")
    blocks.install()


def in_a_process(tmp_path, code, **environment):
    """Run lines of Python that see `cuda` and `np` by themselves."""
    path = tmp_path / "lines.py"
    path.write_text("import json\nimport numpy as np\nfrom numba import cuda\n" + code)
    return subprocess.run(
        [sys.executable, "-W", "ignore", path],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """What the kernels of STOCK write where Numba's own scheduler is left in place."""
    code = """
from backends.numba_cuda.simulator import blocks
blocks.install()
out = {}
"""
    for name, (lines, call) in STOCK.items():
        code += dedent(lines) + f"out_N = np.zeros(4)\n{call}\nout[{name!r}] = out_N.tolist()\n"
    code += "print(json.dumps(out))"
    done = in_a_process(tmp_path_factory.mktemp("stock"), code, HARNESS_CUDASIM="stock")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ptx(tmp_path_factory):
    """The kernels of COMPILED as PTX for sm_80, by numba-cuda's compiler; or its error."""
    if find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed: it compiles to PTX")
    code = """
import math
from numba import float32
import numba.cuda.dispatcher as dispatcher
from numba.cuda.types import *
class Device:
    compute_capability = (8, 0)
dispatcher.get_current_device = lambda: Device
TILE = 8
LINES = 2, TILE
out = {}
def compiled(function, *types):
    try:
        how = dict(cc=(8, 0), output="ptx", device=False, abi="numba")
        return cuda.compile(function, void(*types), **how)[0]
    except Exception as error:
        return type(error).__name__
"""
    for kernel, types in COMPILED:
        name = kernel.py_func.__name__
        source = dedent(inspect.getsource(kernel.py_func)).replace("@cuda.jit", "", 1)
        code += f"{source}out[{name!r}] = compiled({name}, {types})\n"
    code += "print(json.dumps(out))"
    done = in_a_process(tmp_path_factory.mktemp("ptx"), code, NUMBA_ENABLE_CUDASIM="0")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


STOCK = {
    "shuffles": (
        """
        @cuda.jit
        def shuffles(out_N):
            for i, name in enumerate(("shfl_sync", "ballot_sync", "syncwarp", "grid")):
                out_N[i] = hasattr(cuda, name)
        """,
        "shuffles[1, 1](out_N)",
    ),
    "on one line": (
        """
        @cuda.jit
        def on_one_line(out_N):
            a = cuda.shared.array(4, np.float32); b = cuda.shared.array(4, np.float32)
            a[0] = 1
            b[0] = 2
            out_N[0] = a[0]
        """,
        "on_one_line[1, 1](out_N)",
    ),
    "remembered": (
        """
        from numba import float32
        @cuda.jit
        def remembered(out_N):
            out_N[0] = cuda.shared.array(0, float32).size
        """,
        "remembered[1, 1, 0, 64](out_N); remembered[1, 1](out_N)",
    ),
    "some leave": (
        """
        @cuda.jit
        def some_leave(out_N):
            if cuda.threadIdx.x > 1:
                return
            cuda.syncthreads()
            out_N[cuda.threadIdx.x] = 1
        """,
        "some_leave[1, 4](out_N)",
    ),
    "negative": (
        """
        @cuda.jit
        def negative(out_N, x_N):
            out_N[0] = x_N[-1]
        """,
        "negative[1, 1](out_N, np.arange(4.0))",
    ),
    "too many": (
        """
        @cuda.jit
        def too_many(out_N):
            cuda.atomic.add(out_N, 0, 1)
        """,
        "too_many[1, (1, 1, 65)](out_N)",
    ),
    "handed round": (
        """
        @cuda.jit
        def handed_round(out_N, between_N):
            between_N[cuda.grid(1)] = cuda.grid(1)
            cuda.cg.this_grid().sync()
            out_N[cuda.grid(1)] = between_N[1 - cuda.grid(1)]
        """,
        "handed_round[2, 1](out_N, np.full(2, 9))",
    ),
}


# -- what is not there --------------------------------------------------------------------------


@cuda.jit
def _shuffles(out_N):
    out_N[cuda.threadIdx.x] = cuda.shfl_down_sync(0xFFFFFFFF, cuda.threadIdx.x, 1)


def test_there_are_no_shuffles_in_either_simulator(stock):
    with pytest.raises(AttributeError, match="shfl_down_sync"):
        _shuffles[1, 4](np.zeros(4))
    assert stock["shuffles"] == [0, 0, 0, 1]


def test_a_gpu_has_shuffles(ptx):
    assert "shfl.sync" in ptx["_shuffles"]


# -- shared memory ------------------------------------------------------------------------------


@cuda.jit
def _on_one_line(out_N):
    a = cuda.shared.array(4, float32); b = cuda.shared.array(4, float32)  # fmt: skip # noqa: E702
    a[cuda.threadIdx.x] = 1
    b[cuda.threadIdx.x] = 2
    cuda.syncthreads()
    out_N[0] = a[cuda.threadIdx.x ^ 1] + b[cuda.threadIdx.x ^ 1]


def test_two_shared_arrays_on_one_line_are_one_in_the_stock_simulator_and_an_error_here(stock):
    assert stock["on one line"][0] == 2  # what was written to b is in a
    with pytest.raises(PluginError, match="two shared arrays are asked for on one line"):
        _on_one_line[1, 1](np.zeros(1))


def test_two_shared_arrays_on_one_line_are_two_on_a_gpu(ptx):
    lines = ptx["_on_one_line"].splitlines()
    assert len([line for line in lines if ".shared .align" in line]) == 2


@cuda.jit
def _left_over(out_BN):
    partial = cuda.shared.array(4, float32)
    out_BN[cuda.blockIdx.x, cuda.threadIdx.x] = partial[cuda.threadIdx.x]


def test_shared_memory_is_nan_at_first():
    out_BN = np.zeros((2, 4), np.float32)
    _left_over[2, 4](out_BN)
    assert np.isnan(out_BN).all()


@cuda.jit
def _of_any_size(out_N, n):
    partial = cuda.shared.array(n, float32)
    partial[0] = 3
    out_N[0] = partial[0]


def test_the_size_of_a_shared_array_may_be_any_number_in_a_simulator():
    out_N = np.zeros(1)
    _of_any_size[1, 1](out_N, 5)
    assert out_N[0] == 3


TILE = 8
LINES = 2, TILE


@cuda.jit
def _of_names(out_N):
    square = cuda.shared.array((TILE, TILE), float32)
    lines = cuda.local.array(LINES, float32)
    square[0, 0] = lines[0, 0] = 1
    out_N[0] = square[0, 0] + lines[0, 0]


@cuda.jit
def _of_a_sum(out_N):
    padded = cuda.shared.array(TILE + 2, float32)
    padded[0] = 2
    out_N[0] = padded[0]


@cuda.jit
def _local_of_a_sum(out_N):
    padded = cuda.local.array((TILE + 2,), float32)
    padded[0] = 2
    out_N[0] = padded[0]


@pytest.mark.parametrize("kernel", [_of_names, _of_a_sum, _local_of_a_sum])
def test_the_size_of_an_array_may_be_computed_in_a_simulator(kernel):
    out_N = np.zeros(1)
    kernel[1, 1](out_N)
    assert out_N[0] == 2


def test_the_size_of_an_array_is_a_number_or_a_name_of_the_module_on_a_gpu(ptx):
    assert ".entry" in ptx["_of_names"]
    for kernel in ("_of_any_size", "_of_a_sum", "_local_of_a_sum"):
        assert ptx[kernel] == "TypingError"


@cuda.jit
def _remembered(out_N):
    out_N[0] = cuda.shared.array(0, float32).size


def test_dynamic_shared_memory_of_a_launch_is_remembered_by_both_simulators(stock):
    assert stock["remembered"][0] == 16
    out_N = np.zeros(1)
    _remembered[1, 1, 0, 64](out_N)
    _remembered[1, 1](out_N)
    assert out_N[0] == 16


# -- barriers and order -------------------------------------------------------------------------


def test_a_barrier_that_some_never_reach_is_nothing_to_the_stock_simulator(stock):
    # test_simulator_faults.py has what it is here: an error
    assert stock["some leave"] == [1, 1, 0, 0]


@cuda.jit
def _warp_tree(out_N):
    partial = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    partial[t] = 1
    cuda.syncthreads()
    for half in (16, 8, 4, 2, 1):
        if t < half:
            partial[t] += partial[t + half]
    out_N[t] = partial[0]


def test_threads_of_a_warp_do_not_run_in_step_and_races_says_so(monkeypatch):
    out_N = np.zeros(32)
    _warp_tree[1, 32](out_N)
    assert out_N[0] != 32
    monkeypatch.setenv("HARNESS_CUDASIM", "races")
    with pytest.raises(PluginError, match="nothing says which of them is first"):
        _warp_tree[1, 32](out_N)


@cuda.jit
def _handed_on(out_N, data_1, done_1):
    if cuda.blockIdx.x == 0:
        data_1[0] = 5
        cuda.threadfence()
        cuda.atomic.add(done_1, 0, 1)
    elif cuda.atomic.add(done_1, 0, 0) == 1:
        out_N[0] = data_1[0]


def test_blocks_that_hand_on_by_a_fence_and_a_counter_depend_on_the_order(monkeypatch):
    for mode, expected in [("first", 5), ("reversed", 0)]:
        monkeypatch.setenv("HARNESS_CUDASIM", mode)
        out_N = np.zeros(1)
        _handed_on[2, 1](out_N, np.zeros(1), np.zeros(1, np.int32))
        assert out_N[0] == expected
    monkeypatch.setenv("HARNESS_CUDASIM", "races")
    with pytest.raises(PluginError, match="two blocks touch data_1"):
        _handed_on[2, 1](out_N, np.zeros(1), np.zeros(1, np.int32))


# -- numbers ------------------------------------------------------------------------------------


def _added(a, b):
    return a + b


def _with_a_float(x):
    return x * 0.1


@cuda.jit
def _adds(out_N, a, b):
    out_N[0] = a + b


@cuda.jit
def _scales(out_N, x_N):
    out_N[0] = x_N[0] * 0.1


@cuda.jit
def _exponential(out_N, x_N):
    out_N[0] = math.exp(x_N[0])


@cuda.jit
def _multiplies_and_adds(out_N, x_N):
    out_N[0] = x_N[0] * x_N[1] + x_N[2]


def test_uint32_wraps_in_the_simulator_and_is_64_bits_long_where_it_is_compiled():
    big = np.uint32(2**32 - 1)
    out_N = np.zeros(1, np.uint64)
    _adds[1, 1](out_N, big, np.uint32(1))
    assert out_N[0] == 0
    assert numba.njit(_added)(big, np.uint32(1)) == 2**32


def test_a_float_of_python_is_float32_beside_one_in_the_simulator_and_float64_where_it_is_compiled():
    compiled = numba.njit(_with_a_float)
    compiled(np.float32(1))
    (signature,) = compiled.overloads.values()
    assert str(signature.signature.return_type) == "float64"
    out_N, third = np.zeros(1), np.float32(1 / 3)
    _scales[1, 1](out_N, np.full(1, third))
    assert out_N[0] == float(third * np.float32(0.1)) != float(third) * 0.1


def test_a_float_of_python_is_double_precision_on_a_gpu(ptx):
    assert "mul.f64" in ptx["_scales"]


def test_math_exp_raises_in_the_simulator_and_is_infinite_where_it_is_compiled():
    with pytest.raises(OverflowError):
        _exponential[1, 1](np.zeros(1), np.full(1, 1000.0))
    assert numba.njit(lambda x: math.exp(x))(1000.0) == math.inf


def test_a_product_and_a_sum_round_once_on_a_gpu(ptx):
    assert "fma.rn.f32" in ptx["_multiplies_and_adds"]


def test_a_product_and_a_sum_round_twice_in_the_simulator():
    tiny = np.float32(2**-13)
    x_N = np.array([1 + tiny, 1 - tiny, -1], np.float32)
    out_N = np.zeros(1, np.float32)
    _multiplies_and_adds[1, 1](out_N, x_N)
    assert out_N[0] == 0  # with one rounding: -2**-26


# -- arrays and functions -----------------------------------------------------------------------


def _last(x_N, i):
    return x_N[i]


@cuda.jit
def _reads(out_N, x_N, i):
    out_N[0] = x_N[i]


@cuda.jit
def _reads_its_own(out_N):
    mine = cuda.local.array(4, float32)
    mine[3] = 7
    out_N[0] = mine[-1]


def test_a_negative_index_of_a_local_array_is_an_error_in_strict_modes_alone(monkeypatch):
    out_N = np.zeros(1)
    _reads_its_own[1, 1](out_N)
    assert out_N[0] == 7
    for mode in ("reversed", "shuffled", "races"):
        monkeypatch.setenv("HARNESS_CUDASIM", mode)
        with pytest.raises(PluginError, match="index -1 is not within mine"):
            _reads_its_own[1, 1](out_N)


def test_a_negative_index_is_an_error_here_and_counts_from_the_end_where_it_is_compiled(stock):
    x_N = np.arange(4.0)
    with pytest.raises(PluginError, match="index -1 is not within x_N"):
        _reads[1, 1](np.zeros(1), x_N, -1)
    assert numba.njit(_last)(x_N, -1) == 3
    assert stock["negative"][0] == 3


def test_an_index_is_not_looked_at_on_a_gpu(ptx):
    words = ptx["_reads"]
    assert "setp" not in words and "trap" not in words


def _not_jitted(x):
    return x + 1


@cuda.jit
def _calls_a_plain_function(out_N):
    out_N[0] = _not_jitted(1)


def test_any_function_may_be_called_in_the_simulator_and_only_compiled_ones_elsewhere():
    out_N = np.zeros(1)
    _calls_a_plain_function[1, 1](out_N)
    assert out_N[0] == 2
    with pytest.raises(numba.TypingError):
        numba.njit(_calls_a_plain_function.py_func)(out_N)


def test_more_threads_than_a_gpu_has_are_nothing_to_the_stock_simulator(stock):
    # test_simulator_faults.py has what it is here: an error
    assert stock["too many"][0] == 65


def test_blocks_do_not_wait_for_each_other_in_the_stock_simulator(stock):
    # the first has gone on when the second writes; test_simulator.py has it wait
    assert stock["handed round"][:2] == [9, 0]


COMPILED = [
    (_shuffles, "float32[:]"),
    (_on_one_line, "float32[:]"),
    (_of_any_size, "float32[:], int64"),
    (_of_names, "float32[:]"),
    (_of_a_sum, "float32[:]"),
    (_local_of_a_sum, "float32[:]"),
    (_scales, "float32[:], float32[:]"),
    (_multiplies_and_adds, "float32[:], float32[:]"),
    (_reads, "float32[:], float32[:], uint64"),
]


# -- counting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting", [{"NUMBA_ENABLE_CUDASIM": "0"}, {"HARNESS_CUDASIM": "stock"}], ids=str
)
def test_counting_where_nothing_is_counted_is_an_error(tmp_path, setting):
    code = "from backends.numba_cuda import counted\nwith counted(): pass"
    done = in_a_process(tmp_path, code, **setting)
    assert ConfigError.__name__ in done.stderr
    assert "are counted in the harness's CUDA simulator alone" in done.stderr
