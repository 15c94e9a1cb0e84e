"""The kernels that go over rows, where the cases of conformance are too small or do not look.

The referee is the float64 formula of harness/ops, within conformance's own tolerance.
"""

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda import _scratch, layernorm
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda.cross_entropy import cross_entropy_backward, cross_entropy_forward
from backends.cupy_cuda.layernorm import layernorm_backward, layernorm_forward
from backends.cupy_cuda.residual import residual_backward, residual_forward
from backends.cupy_cuda.residual_layernorm import (
    residual_layernorm_backward,
    residual_layernorm_forward,
)
from backends.cupy_cuda.softmax import softmax_backward, softmax_forward
from harness.conformance.tolerance import error_in_tolerances, tolerance
from harness.ops import cross_entropy as cross_entropy_op
from harness.ops import residual_layernorm as residual_layernorm_op
from harness.ops import softmax as softmax_op

FLOAT, BF16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)
EPS = 1e-5
dtypes = pytest.mark.parametrize("dtype", [FLOAT, BF16], ids=["fp32", "bf16"])


def put(array, skip=0):
    """A copy on the device, which begins `skip` elements after an aligned address."""
    here, start = machine(), skip * array.dtype.itemsize
    buffer = here.view(here.empty(array.nbytes + start), start, array.shape, array.dtype)
    here.from_host(buffer, array)
    return buffer


def empty(shape, dtype=FLOAT, skip=0):
    return put(np.full(shape, np.nan, dtype), skip)


def get(buffer):
    """A copy on the host."""
    array = np.empty(buffer.shape, buffer.dtype)
    machine().to_host(array, buffer)
    return array


def assert_near(buffers, references, magnitudes):
    for number, (buffer, reference, magnitude) in enumerate(
        zip(buffers, references, magnitudes, strict=True)
    ):
        allowed = tolerance(reference, magnitude, buffer.dtype, "f32")
        error = error_in_tolerances(get(buffer), reference, allowed)
        assert error.max() <= 1, f"result {number} is {error.max():.3g} tolerances off"


def normal(rng, *shape, dtype=FLOAT):
    return rng.normal(size=shape).astype(dtype)


def wide(*arrays):
    return [array.astype(np.float64) for array in arrays]


def rows_of(rng, N, C, dtype):
    """a, b, weight, bias; the rows of a have means of their own."""
    a = (rng.normal(size=(N, C)) + 3 * rng.normal(size=(N, 1))).astype(dtype)
    return a, *(normal(rng, *shape, dtype=dtype) for shape in [(N, C), (C,), (C,)])


def forward(a, b, weight, bias, over_a=False):
    """sum, out, mean and rstd of residual_layernorm_forward; over_a: with the sum in a's memory."""
    N, dtype = len(a), a.dtype
    a = put(a)
    results = [a if over_a else empty(a.shape, dtype), empty(a.shape, dtype), empty(N), empty(N)]
    residual_layernorm_forward(*results, a, put(b), put(weight), put(bias), EPS)
    return results


def backward_inputs(rng, N, C, dtype):
    """dsum, dout, sum, weight, mean, rstd."""
    total, _, weight, bias = rows_of(rng, N, C, dtype)
    reference = residual_layernorm_op.layernorm.reference_forward(*wide(total, weight, bias), EPS)
    statistics = [statistic.astype(np.float32) for statistic in reference[1:]]
    return (
        normal(rng, N, C, dtype=dtype),
        normal(rng, N, C, dtype=dtype),
        total,
        weight,
        *statistics,
    )


def backward(inputs, without=()):
    """da, dweight and dbias, or None for those that are not wanted."""
    N, C = inputs[1].shape
    shapes = {"da": (N, C), "dweight": (C,), "dbias": (C,)}
    results = [
        None if name in without else empty(shape, inputs[1].dtype if name == "da" else FLOAT)
        for name, shape in shapes.items()
    ]
    residual_layernorm_backward(*results, *map(put, inputs), False)
    return results


def assert_layernorm_is_right(rng, N, C, dtype):
    given = rows_of(rng, N, C, dtype)
    results = forward(*given, over_a=True)
    arrays = wide(*given)
    assert_near(
        results,
        residual_layernorm_op.reference_forward(*arrays, EPS),
        residual_layernorm_op.magnitude_forward(*arrays, EPS),
    )
    inputs = backward_inputs(rng, N, C, dtype)
    arrays = wide(*inputs)
    assert_near(
        backward(inputs),
        residual_layernorm_op.reference_backward(*arrays),
        residual_layernorm_op.magnitude_backward(*arrays),
    )


# -- layernorm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [1600, 4096, 4099, 8192, 12304])
@dtypes
def test_a_row_may_be_longer_than_a_block_holds(rng, C, dtype):
    assert_layernorm_is_right(rng, 3, C, dtype)


@dtypes
def test_some_of_those_rows_are_longer(dtype):
    assert layernorm.held(1600, dtype.itemsize).parts == 1
    assert layernorm.held(4099, dtype.itemsize).parts == 2  # one element at a time
    assert layernorm.held(12304, dtype.itemsize).parts == 2


@pytest.mark.parametrize("C", [24, 33, 768])
@dtypes
def test_blocks_go_on_where_there_are_more_rows_than_the_grid_has(rng, C, dtype):
    row = layernorm.held(C, dtype.itemsize)
    N = 2 * row.blocks(10**6) * row.together + 3
    assert_layernorm_is_right(rng, N, C, dtype)


@pytest.mark.parametrize("itemsize", [2, 4])
def test_every_length_of_row_has_a_kernel_that_is_compiled_in_tests(itemsize):
    element = {4: layernorm.FLOAT, 2: layernorm.BF16}[itemsize]
    for C in [*range(1, 3000), 2**14, 2**16 - 8, 50257, 50304]:
        row = layernorm.held(C, itemsize)
        assert element + row.defines in layernorm._SOURCE.variants, f"C={C}"
        assert row.threads * row.together <= layernorm.MAX_THREADS


@dtypes
def test_layernorm_is_the_same_in_every_order(rng, same_in_every_order, dtype):
    # Rows of several warps, some without a row of their own in the last round.
    given, inputs = rows_of(rng, 37, 1032, dtype), backward_inputs(rng, 37, 1032, dtype)
    same_in_every_order(lambda: [*map(get, forward(*given)), *map(get, backward(inputs))])


def test_a_forward_is_one_launch_and_a_backward_two(rng):
    given, inputs = rows_of(rng, 5, 40, FLOAT), backward_inputs(rng, 5, 40, FLOAT)

    def launches(call):
        before = machine().launches.total()
        call()
        return machine().launches.total() - before

    a, b, weight, bias = map(put, given)
    out, mean, rstd = empty((5, 40)), empty(5), empty(5)
    assert launches(lambda: layernorm_forward(out, mean, rstd, a, weight, bias, EPS)) == 1
    assert launches(lambda: forward(*given)) == 1
    assert launches(lambda: backward(inputs)) == 2
    assert launches(lambda: backward(inputs, without=["dbias"])) == 2
    assert launches(lambda: backward(inputs, without=["dweight", "dbias"])) == 1
    assert launches(lambda: residual_forward(out, a, b)) == 1
    assert launches(lambda: residual_backward(out, empty((5, 40)), a)) == 1
    assert launches(lambda: residual_backward(None, None, a)) == 0


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", FLOAT), ("tf32", FLOAT), ("bf16", BF16)])
@pytest.mark.parametrize("C", [33, 768])
def test_the_scratch_that_is_asked_for_is_enough(rng, precision, dtype, C):
    _, *inputs = backward_inputs(rng, 70, C, dtype)
    nbytes = _scratch.needed("layernorm_backward", {"N": 70, "C": C}, precision, 0)
    fence = 4096
    memory = put(np.full(nbytes + fence, 7, np.uint8))
    dx, dweight, dbias = empty((70, C), dtype), empty(C), empty(C)
    _scratch.lend(machine().view(memory, 0, (nbytes,), np.uint8))
    try:
        layernorm_backward(dx, dweight, dbias, *map(put, inputs), False)
    finally:
        _scratch.lend(None)
    assert (get(memory)[nbytes:] == 7).all()
    assert (get(memory)[: 4 * C] != 7).any(), "the sums of the blocks were put elsewhere"


# -- cross_entropy and softmax --------------------------------------------------------------------


def classified(rng, N, V, vocab_size, dtype):
    """logits, whose padding is NaN, and targets, of which the second is ignored."""
    logits = (5 * rng.normal(size=(N, V))).astype(dtype)
    logits[:, vocab_size:] = np.nan
    targets = rng.integers(0, vocab_size, N).astype(np.int32)
    targets[1] = -1
    return logits, targets


def losses(logits, targets, vocab_size, skip=0):
    loss, lse = empty(len(logits)), empty(len(logits))
    cross_entropy_forward(loss, lse, put(logits, skip), put(targets), vocab_size)
    return loss, lse


ROWS = [(4, 3, 3), (4, 1030, 1021), (3, 2061, 2050), (3, 8200, 8199), (3, 9001, 5)]


@pytest.mark.parametrize(("N", "V", "vocab_size"), ROWS)
@pytest.mark.parametrize("skip", [0, 1, 3])
@dtypes
def test_rows_of_logits_may_begin_anywhere(rng, N, V, vocab_size, skip, dtype):
    logits, targets = classified(rng, N, V, vocab_size, dtype)
    (exact,) = wide(logits)
    assert_near(
        losses(logits, targets, vocab_size, skip),
        cross_entropy_op.reference_forward(exact, targets, vocab_size),
        cross_entropy_op.magnitude_forward(exact, targets, vocab_size),
    )
    probs = empty(logits.shape, dtype, skip)
    softmax_forward(probs, put(logits, 2), vocab_size)
    reference = softmax_op.reference_forward(exact, vocab_size)
    assert_near([probs], reference, softmax_op.magnitude_forward(exact, vocab_size))


@pytest.mark.parametrize(("N", "V", "vocab_size"), ROWS)
@dtypes
def test_a_gradient_is_the_same_wherever_its_rows_begin(rng, N, V, vocab_size, dtype):
    logits, targets = classified(rng, N, V, vocab_size, dtype)
    logits[1] = np.nan  # the ignored row
    dloss = normal(rng, N)
    dloss[1] = np.nan
    clean = wide(logits)[0]
    clean[1] = 0
    lse = cross_entropy_op.reference_forward(clean, targets, vocab_size)[1].astype(np.float32)

    def gradient(skip, own_skip):
        given = put(logits, own_skip)
        dlogits = given if skip is None else empty(logits.shape, dtype, skip)
        cross_entropy_backward(dlogits, put(dloss), given, put(lse), put(targets), vocab_size)
        return dlogits

    aligned = gradient(0, 0)
    exact, found = clean, get(aligned).astype(np.float64)
    assert not found[1].any()
    assert not found[:, vocab_size:].any()
    kept = dloss.astype(np.float64)
    kept[1] = 0
    arguments = kept, exact, lse.astype(np.float64), targets, vocab_size
    reference = cross_entropy_op.reference_backward(*arguments)
    assert_near([aligned], reference, cross_entropy_op.magnitude_backward(*arguments))
    for skips in [(None, 0), (None, 3), (1, 1), (1, 2)]:
        assert get(gradient(*skips)).tobytes() == get(aligned).tobytes(), skips


@pytest.mark.parametrize(("N", "V", "vocab_size"), ROWS)
@pytest.mark.parametrize("skips", [(0, 0, 0), (1, 1, 1), (1, 1, 2), (1, 2, 2)])
def test_softmax_backward_wherever_its_rows_begin(rng, N, V, vocab_size, skips):
    probs = rng.random((N, V)).astype(np.float32) / vocab_size
    dprobs = normal(rng, N, V)
    dprobs[:, vocab_size:] = np.nan
    dlogits = empty((N, V), FLOAT, skips[0])
    softmax_backward(dlogits, put(dprobs, skips[1]), put(probs, skips[2]), vocab_size)
    arguments = *wide(dprobs, probs), vocab_size
    reference = softmax_op.reference_backward(*arguments)
    assert_near([dlogits], reference, softmax_op.magnitude_backward(*arguments))


def test_most_logits_may_be_minus_infinity(rng):
    logits = np.full((2, 5000), -np.inf, np.float32)
    logits[0, 4321], logits[1, :] = 2.5, -np.inf
    loss, lse = map(get, losses(logits, np.array([4321, -1], np.int32), 5000))
    assert lse.tolist() == [2.5, -np.inf]
    assert loss.tolist() == [0, 0]


def test_logits_may_be_as_large_as_float32_is(rng):
    logits = np.full((1, 300), -3e38, np.float32)
    logits[0, 7] = 3e38
    loss, lse = map(get, losses(logits, np.array([7], np.int32), 300))
    assert loss == 0
    assert lse == np.float32(3e38)


# 7700: threads that would have a fourth pack find it just beyond their row.
@pytest.mark.parametrize("V", [100, 7700, 9001])
@dtypes
def test_losses_are_the_same_in_every_order(rng, same_in_every_order, V, dtype):
    logits, targets = classified(rng, 11, V, V - 3, dtype)
    same_in_every_order(lambda: map(get, losses(logits, targets, V - 3)))


@pytest.mark.parametrize("V", [100, 7700])
@dtypes
def test_gradients_of_logits_are_the_same_in_every_order(rng, same_in_every_order, V, dtype):
    logits, targets = classified(rng, 5, V, V - 3, dtype)
    dloss, lse = normal(rng, 5), get(losses(logits, targets, V - 3)[1])

    def gradient():
        dlogits, given = empty(logits.shape, dtype), map(put, (dloss, logits, lse, targets))
        cross_entropy_backward(dlogits, *given, V - 3)
        return [get(dlogits)]

    same_in_every_order(gradient)
