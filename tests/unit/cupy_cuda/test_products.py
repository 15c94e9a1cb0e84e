"""Matrix products of the backend `cupy`: what is asked of the library, and what it makes of it."""

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda import (
    _columns,
    _cublaslt,
    _options,
    _products,
    _scratch,
    lora,
    matmul,
    matmul_cross_entropy,
    matmul_gelu,
)
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda.on_cpu import cublas, cublaslt
from backends.cupy_cuda.on_cpu.products import COMPUTE_32F
from harness.conformance.judge import judge
from harness.errors import PluginError
from harness.ops import lora as lora_formula
from harness.ops import matmul_gelu as matmul_gelu_formula
from harness.plugins import loading as plugins

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOAT = np.dtype(np.float32)
LIBRARIES = pytest.mark.parametrize("library", ["cublaslt", "cublas"])
TYPES = pytest.mark.parametrize("dtype", [FLOAT, BF16], ids=["float32", "bfloat16"])


@pytest.fixture(autouse=True)
def defaults():
    """Each test begins with the default settings, no plans and nothing recorded."""
    _options.choose({})
    _cublaslt._plans.clear()
    cublaslt.forget()
    cublas.forget()
    yield
    _options.choose({})
    _scratch.lend(None)
    cublaslt.refuse_everything = False


def device(array):
    buffer = machine().view(machine().empty(array.nbytes), 0, array.shape, array.dtype)
    machine().from_host(buffer, np.ascontiguousarray(array))
    return buffer


def empty(*shape, dtype=FLOAT):
    """An array of the device that nobody has written: NaN."""
    return device(np.full(shape, np.nan, dtype))


def host(buffer):
    array = np.empty(buffer.shape, buffer.dtype)
    machine().to_host(array, buffer)
    return array.astype(np.float64)


def draw(rng, *shape, dtype=FLOAT):
    return device(rng.standard_normal(shape).astype(dtype))


def products(tf32=False):
    (workspace,) = _scratch.scratch(_products.WORKSPACE)
    return _products.Products(workspace, tf32)


def kept_bits(array, dtype):
    return 2.0**-8 * np.abs(array).max() if dtype == BF16 else 1e-5


@LIBRARIES
@TYPES
@pytest.mark.parametrize("how", ["nt", "nn", "tn"])
def test_products_are_those_of_row_major_arrays(rng, library, dtype, how):
    _options.choose({"matmul": library})
    M, N, K = 5, 7, 11
    a = draw(rng, *((K, M) if how == "tn" else (M, K)), dtype=dtype)
    b = draw(rng, *((N, K) if how == "nt" else (K, N)), dtype=dtype)
    out, before = empty(M, N), None
    getattr(products(), how)(out, a, b)
    left, right = (host(a).T if how == "tn" else host(a)), (host(b).T if how == "nt" else host(b))
    assert np.abs(host(out) - left @ right).max() < 1e-5
    before = host(out)
    getattr(products(), how)(out, a, b, scale=-0.5, add=True)
    assert np.abs(host(out) - (before - 0.5 * left @ right)).max() < 1e-5


@LIBRARIES
def test_some_columns_of_an_array_are_read_and_written_where_they_lie(rng, library):
    _options.choose({"matmul": library})
    a, b, out = draw(rng, 6, 20), draw(rng, 4, 9), draw(rng, 6, 10)
    before, expected = host(out), host(out)
    products().nt(_products.columns(out, 3, 4), _products.columns(a, 5, 9), b)
    expected[:, 3:7] = host(a)[:, 5:14] @ host(b).T
    assert np.abs(host(out) - expected).max() < 1e-5
    assert np.array_equal(np.delete(host(out), range(3, 7), 1), np.delete(before, range(3, 7), 1))


def test_what_the_library_is_told_is_columns_first(rng):
    out, a, b = empty(5, 7), draw(rng, 5, 11), draw(rng, 7, 11)
    products().nt(out, a, b)
    (call,) = cublaslt.calls
    told = {"type": 0, "rows": 11, "cols": 7, "ld": 11, "transposed": True}
    assert call["left"] == {**told, "pointer": b.data.ptr}, "b stands on the left, transposed"
    assert call["right"] == {**told, "cols": 5, "transposed": False, "pointer": a.data.ptr}
    assert call["out"] == {"type": 0, "rows": 7, "cols": 5, "ld": 7, "pointer": out.data.ptr}


@TYPES
def test_sums_stay_float32_however_the_work_is_cut(rng, dtype):
    products().nn(
        empty(4, 4, dtype=dtype), draw(rng, 4, 4, dtype=dtype), draw(rng, 4, 4, dtype=dtype)
    )
    (call,) = cublaslt.calls
    assert call["compute"] == COMPUTE_32F
    assert call["reductions"] == cublaslt.ReductionScheme.COMPUTE_TYPE
    _options.choose({"matmul": "cublas"})
    products().nn(
        empty(4, 4, dtype=dtype), draw(rng, 4, 4, dtype=dtype), draw(rng, 4, 4, dtype=dtype)
    )
    (call,) = cublas.calls
    assert (call["compute"], call["math"]) == (68, 16)


@LIBRARIES
def test_tf32_is_asked_for_by_its_own_functions_alone(rng, library):
    _options.choose({"matmul": library})
    x, weight = draw(rng, 4, 8), draw(rng, 6, 8)
    for function, compute in ((matmul.matmul_forward, 68), (matmul.matmul_forward_tf32, 77)):
        function(empty(4, 6), x, weight, None)
        recorded = cublaslt.calls + cublas.calls
        assert recorded[-1]["compute"] == compute
    variants = plugins.load("cupy", plugins.all_ops()).variants
    for op in ("matmul", "matmul_gelu", "matmul_cross_entropy"):
        assert {(f"{op}_forward", "tf32"), (f"{op}_backward", "tf32")} <= set(variants)


def test_one_plan_serves_equal_calls_wherever_their_arrays_lie(rng):
    for _ in range(3):
        products().nn(empty(4, 6), draw(rng, 4, 8), draw(rng, 8, 6), add=False)
    products().nn(draw(rng, 4, 6), draw(rng, 4, 8), draw(rng, 8, 6), add=True, scale=3.0)
    assert len(_cublaslt._plans) == 1
    products().nn(empty(4, 7), draw(rng, 4, 8), draw(rng, 8, 7))
    products().nn(_products.columns(empty(4, 7), 1, 6), draw(rng, 4, 8), draw(rng, 8, 6))
    assert len(_cublaslt._plans) == 3
    assert cublaslt.calls[-1]["alignments"][3] == 4, "a slice is aligned as its address is"
    assert cublaslt.calls[0]["alignments"] == (128,) * 4


def test_the_first_algorithm_is_taken_where_nothing_else_is_chosen(rng):
    products().nn(empty(4, 6), draw(rng, 4, 8), draw(rng, 8, 6))
    assert [call["algorithm"] for call in cublaslt.calls] == [0]


def test_the_fastest_algorithm_is_found_by_timing_where_that_is_chosen(rng, monkeypatch):
    _options.choose({"algorithm": "fastest"})
    seconds = {0: 3.0, 1: 1.0, 2: 2.0}

    def timed(call):
        call()
        return seconds[cublaslt.calls[-1]["algorithm"]]

    monkeypatch.setattr(machine(), "device_seconds", timed)
    a, b = draw(rng, 4, 8), draw(rng, 8, 6)
    out = draw(rng, 4, 6)
    before = host(out)
    products().nn(out, a, b, add=True)
    assert len(cublaslt.calls) == 1, "what adds is not done twice"
    assert np.abs(host(out) - (before + host(a) @ host(b))).max() < 1e-5
    products().nn(out, a, b)
    assert len(cublaslt.calls) > 3
    assert np.abs(host(out) - host(a) @ host(b)).max() < 1e-5
    cublaslt.forget()
    products().nn(out, a, b, add=True)
    assert [call["algorithm"] for call in cublaslt.calls] == [1]


def test_a_product_that_the_library_cannot_do_is_an_error_that_names_the_other(rng):
    cublaslt.refuse_everything = True
    with pytest.raises(PluginError) as caught:
        products().nn(empty(4, 6), draw(rng, 4, 8), draw(rng, 8, 6))
    assert caught.value.slug == "no-matmul-algorithm"
    assert "cupy.matmul=cublas" in str(caught.value)


def test_a_captured_product_is_done_at_each_replay_and_not_before(rng):
    assert _products.capturable()
    out, x, weight, bias = empty(4, 8), draw(rng, 4, 8), draw(rng, 8, 8), draw(rng, 8)
    matmul.matmul_forward(out, x, weight, bias)  # as a step before the capture
    cublaslt.forget()
    machine().zero(out)
    replay = machine().capture([lambda: matmul.matmul_forward(out, x, weight, bias)])
    assert not cublaslt.calls and not host(out).any()
    for _ in range(2):
        machine().from_host(x, rng.standard_normal((4, 8)).astype(np.float32))
        replay()
        assert np.abs(host(out) - (host(x) @ host(weight).T + host(bias))).max() < 1e-5
    _options.choose({"matmul": "cublas"})
    assert not _products.capturable()


def test_calls_of_one_plan_keep_each_its_own_bias(rng):
    x, weight = draw(rng, 4, 8, dtype=BF16), draw(rng, 8, 8, dtype=BF16)
    sets = [
        [*(empty(4, 8, dtype=BF16) for _ in range(2)), draw(rng, 8, dtype=BF16)] for _ in range(2)
    ]
    calls = [
        lambda out=out, pre=pre, bias=bias: matmul_gelu.matmul_gelu_forward(
            out, pre, x, weight, bias
        )
        for out, pre, bias in sets
    ]
    calls[0]()
    machine().capture(calls)()
    assert len(_cublaslt._plans) == 1
    for out, pre, bias in sets:
        wanted = matmul_gelu_formula.reference_forward(host(x), host(weight), host(bias))
        for got, reference in zip((out, pre), wanted, strict=True):
            assert np.abs(host(got) - reference).max() < kept_bits(reference, BF16)


# -- the ops ------------------------------------------------------------------------------------


def epilogues():
    return [call["epilogue"] for call in cublaslt.calls]


@TYPES
def test_matmul_is_one_call_forward_and_two_backward(rng, dtype):
    x, weight, bias = (
        draw(rng, 6, 16, dtype=dtype),
        draw(rng, 24, 16, dtype=dtype),
        draw(rng, 24, dtype=dtype),
    )
    matmul.matmul_forward(empty(6, 24, dtype=dtype), x, weight, bias)
    matmul.matmul_forward(empty(6, 24, dtype=dtype), x, weight, None)
    assert epilogues() == ["BIAS", "DEFAULT"]
    cublaslt.forget()
    dout = draw(rng, 6, 24, dtype=dtype)
    gradients = empty(6, 16, dtype=dtype), draw(rng, 24, 16), draw(rng, 24)
    matmul.matmul_backward(*gradients, dout, x, weight, True)
    assert [call["beta"] for call in cublaslt.calls] == [0.0, 1.0]
    assert [call["out"]["type"] for call in cublaslt.calls] == [14 if dtype == BF16 else 0, 0]


@pytest.mark.parametrize(
    "O, dtype, expected",
    [(16, BF16, "GELU_AUX_BIAS"), (12, BF16, "DEFAULT"), (16, FLOAT, "DEFAULT")],
)
def test_gelu_is_an_epilogue_of_bfloat16_where_rows_are_aligned(rng, O, dtype, expected):
    x, weight, bias = (
        draw(rng, 6, 8, dtype=dtype),
        draw(rng, O, 8, dtype=dtype),
        draw(rng, O, dtype=dtype),
    )
    out, pre = empty(6, O, dtype=dtype), empty(6, O, dtype=dtype)
    matmul_gelu.matmul_gelu_forward(out, pre, x, weight, bias)
    assert epilogues() == [expected]
    wanted = matmul_gelu_formula.reference_forward(host(x), host(weight), host(bias))
    for got, reference in zip((out, pre), wanted, strict=True):
        assert np.abs(host(got) - reference).max() < kept_bits(reference, dtype)


def test_what_is_done_in_chunks_of_rows_is_the_same(rng, monkeypatch):
    def run(most):
        rng = np.random.default_rng(3)
        monkeypatch.setattr(matmul_gelu, "MAX_BYTES", most)
        monkeypatch.setattr(matmul_cross_entropy, "MAX_BYTES", most)
        monkeypatch.setattr(lora, "MAX_BYTES", most)
        cublaslt.forget()
        x, weight = draw(rng, 50, 8, dtype=BF16), draw(rng, 12, 8, dtype=BF16)
        written = empty(50, 12, dtype=BF16), empty(50, 12, dtype=BF16)
        matmul_gelu.matmul_gelu_forward(*written, x, weight, None)
        targets = device(rng.integers(0, 11, 50).astype(np.int32))
        stats = empty(50), empty(50)
        matmul_cross_entropy.matmul_cross_entropy_forward(*stats, x, weight, targets, 11)
        gradients = empty(50, 8, dtype=BF16), empty(12, 8)
        inputs = draw(rng, 50), x, weight, stats[1], targets
        matmul_cross_entropy.matmul_cross_entropy_backward(*gradients, *inputs, 11, False)
        low = (
            draw(rng, 50, 2, dtype=BF16),
            x,
            draw(rng, 2, 8, dtype=BF16),
            draw(rng, 5, 2, dtype=BF16),
        )
        pair = empty(50, 8, dtype=BF16), empty(2, 8), empty(5, 2)
        dout = draw(rng, 50, 12, dtype=BF16)
        lora.lora_backward(empty(50, 12, dtype=BF16), *pair, dout, *low, 3, 0.5, False)
        return [host(array) for array in (*written, *stats, *gradients, *pair)]

    whole, calls = run(1 << 20), len(cublaslt.calls)
    pieces = run(600)
    assert len(cublaslt.calls) > 2 * calls
    for number, (one, many) in enumerate(zip(whole, pieces, strict=True)):
        assert np.abs(one - many).max() < 1e-5, number


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("most", [600, 1 << 20])
def test_ops_keep_to_the_scratch_that_they_ask_for(rng, precision, most):
    dtype = BF16 if precision == "bf16" else FLOAT
    N, I, O, R = 50, 8, 12, 2
    dims = {"N": N, "I": I, "O": O, "R": R, "S": 5, "C": I, "V": O}
    x, weight, bias = (
        draw(rng, N, I, dtype=dtype),
        draw(rng, O, I, dtype=dtype),
        draw(rng, O, dtype=dtype),
    )
    dout, targets = draw(rng, N, O, dtype=dtype), device(rng.integers(0, O, N).astype(np.int32))
    a, b, low = (draw(rng, *shape, dtype=dtype) for shape in ((R, I), (5, R), (N, R)))
    out, pre, dx = (empty(N, columns, dtype=dtype) for columns in (O, O, I))
    dweight, dbias, loss, lse = empty(O, I), empty(O), empty(N), device(np.ones(N, FLOAT))
    gradients, da, db = (dx, dweight, dbias), empty(R, I), empty(5, R)
    calls = {
        "matmul_forward": (matmul, (out, x, weight, bias)),
        "matmul_backward": (matmul, (*gradients, dout, x, weight, True)),
        "matmul_gelu_forward": (matmul_gelu, (out, pre, x, weight, bias)),
        "matmul_gelu_backward": (matmul_gelu, (*gradients, dout, pre, x, weight, False)),
        "matmul_cross_entropy_forward": (matmul_cross_entropy, (loss, lse, x, weight, targets, O)),
        "matmul_cross_entropy_backward": (
            matmul_cross_entropy,
            (dx, dweight, lse, x, weight, lse, targets, O, False),
        ),
        "lora_forward": (lora, (out, low, dout, x, a, b, 3, 2.0)),
        "lora_backward": (lora, (out, dx, da, db, dout, low, x, a, b, 3, 2.0, False)),
    }
    for hook, (module, arguments) in calls.items():
        nbytes = _scratch.needed(hook, dims, precision, most)
        guarded = machine().empty(nbytes + 128)
        machine().view(guarded, 0, (nbytes + 128,), np.uint8)
        guarded[nbytes:] = 0x5A
        _scratch.lend(machine().view(guarded, 0, (nbytes,), np.uint8))
        getattr(module, hook)(*arguments)
        assert (guarded[nbytes:] == 0x5A).all(), f"{hook} writes beyond its scratch"


@pytest.mark.parametrize("rank", [1, 4, 300])
@TYPES
def test_a_low_rank_pair_of_any_rank_adds_to_its_slice_alone(rng, dtype, rank):
    x, y = draw(rng, 3, 8, dtype=dtype), draw(rng, 3, 12, dtype=dtype)
    a, b = draw(rng, rank, 8, dtype=dtype), draw(rng, 5, rank, dtype=dtype)
    out, low = empty(3, 12, dtype=dtype), empty(3, rank, dtype=dtype)
    lora.lora_forward(out, low, y, x, a, b, 4, 0.25)
    wanted = lora_formula.reference_forward(*map(host, (y, x, a, b)), 4, 0.25)
    for got, reference in zip((out, low), wanted, strict=True):
        assert np.abs(host(got) - reference).max() < 10 * kept_bits(reference, dtype)
    assert np.array_equal(np.delete(host(out), range(4, 9), 1), np.delete(host(y), range(4, 9), 1))


@TYPES
@pytest.mark.parametrize("shape", [(1, 1), (33, 7), (100, 264), (257, 129), (513, 768)])
def test_columns_are_summed_in_float32_in_the_same_order_every_time(
    rng, same_in_every_order, dtype, shape
):
    x, before = draw(rng, *shape, dtype=dtype), rng.standard_normal(shape[1]).astype(np.float32)
    sums = empty(*_columns.sums_shape(*shape, dtype))

    def run():
        out = device(before)
        _columns.sum_columns(out, x, sums, True)
        return [host(out)]

    (out,) = same_in_every_order(run)
    assert np.abs(out - (before + host(x).sum(axis=0))).max() < 1e-4


def test_cut_up_sums_give_every_multiprocessor_work():
    _, C = _columns.sums_shape(32768, 768, BF16)
    assert C == 768
    chunks, tiles = _columns.sums_shape(32768, 768, BF16)[0], 3
    assert 4 * machine().multiprocessors - tiles < chunks * tiles <= 4 * machine().multiprocessors
    assert _columns.sums_shape(40, 768, BF16)[0] == 2, "a chunk has 32 rows, if there are as many"


@pytest.mark.parametrize(
    "hook",
    ["matmul_forward", "matmul_gelu_forward", "lora_backward", "matmul_cross_entropy_backward"],
)
def test_cublas_keeps_the_contract_without_epilogues(hook):
    _options.choose({"matmul": "cublas"})
    table = plugins.all_ops()
    verdict = judge(plugins.load("cupy", table), hook, table, precision="bf16", stop_after=1)
    assert verdict.passed, str(verdict)
    assert cublas.calls and not cublaslt.calls
