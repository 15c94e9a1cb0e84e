"""Attention by our own kernels: tiles and their edges, the way by shape, one answer in every order."""

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda import _options, _scratch
from backends.cupy_cuda._flash import flash_backward, flash_forward
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda.attention import attention_backward, attention_forward
from backends.cupy_cuda.attention_decode import attention_decode
from backends.cupy_cuda.on_cpu import cudnn
from harness.ops.attention import (
    magnitude_backward,
    magnitude_forward,
    reference_backward,
    reference_forward,
)

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Of an element's magnitude: float32 sums of 200 terms; operands rounded to 11 and to 8 bits.
CLOSE = {"f32": 2.0**-20, "tf32": 2.0**-9, "bf16": 2.0**-6}


def to_device(array):
    buffer = machine().view(machine().empty(array.nbytes), 0, array.shape, array.dtype)
    machine().from_host(buffer, array)
    return buffer


def to_host(buffer):
    array = np.empty(buffer.shape, buffer.dtype)
    machine().to_host(array, buffer)
    return array


def poisoned(shape, dtype):
    return to_device(np.full(shape, np.nan, dtype))


class Attention:
    """One problem: rounded inputs, and what float64 makes of them."""

    def __init__(self, arithmetic, B, T, H, D, seed=3):
        rng = np.random.default_rng(seed)
        self.arithmetic, self.shape = arithmetic, (B, T, H, D)
        self.dtype = BFLOAT16 if arithmetic == "bf16" else np.dtype(np.float32)
        self.qkv = rng.normal(size=(B, T, 3, H, D)).astype(self.dtype)
        self.dout = rng.normal(size=self.shape).astype(self.dtype)
        exact = self.qkv.astype(np.float64)
        out, lse = reference_forward(exact)
        self.wanted = out, lse
        self.sizes = [m.S for m in magnitude_forward(exact)]
        self.saved = out.astype(self.dtype), lse.astype(np.float32)
        given = self.dout.astype(np.float64), exact, *(a.astype(np.float64) for a in self.saved)
        (self.wanted_dqkv,) = reference_backward(*given)
        self.size_dqkv = magnitude_backward(*given)[0].S

    def forward(self):
        B, T, H, _ = self.shape
        out, lse = poisoned(self.shape, self.dtype), poisoned((B, H, T), np.dtype(np.float32))
        flash_forward(out, lse, to_device(self.qkv), self.arithmetic)
        return to_host(out), to_host(lse)

    def backward(self):
        dqkv = poisoned(self.qkv.shape, self.dtype)
        given = map(to_device, (self.dout, self.qkv, *self.saved))
        flash_backward(dqkv, *given, self.arithmetic)
        return (to_host(dqkv),)

    def off(self):
        """The largest error of each output, in its element's magnitude."""
        pairs = zip(self.forward(), self.wanted, self.sizes, strict=True)
        errors = [np.max(np.abs(a.astype(np.float64) - r) / S) for a, r, S in pairs]
        (dqkv,) = self.backward()
        error = np.abs(dqkv.astype(np.float64) - self.wanted_dqkv) / self.size_dqkv
        return [*errors, *(np.max(error[:, :, part]) for part in range(3))]


@pytest.mark.parametrize("arithmetic", CLOSE)
@pytest.mark.parametrize("T", [63, 64, 65, 127, 129])
def test_either_side_of_a_tiles_edge_the_kernels_agree_with_float64(arithmetic, T):
    assert max(Attention(arithmetic, 1, T, 1, 16).off()) < CLOSE[arithmetic]


@pytest.mark.parametrize("arithmetic", CLOSE)
def test_several_tiles_of_several_heads_give_the_same_bits_in_every_order(
    arithmetic, same_in_every_order
):
    attention = Attention(arithmetic, 1, 200, 2, 64)
    same_in_every_order(lambda: (*attention.forward(), *attention.backward()))
    assert max(attention.off()) < CLOSE[arithmetic]


@pytest.mark.parametrize("D", [1, 17, 33, 129, 257])
def test_a_head_may_have_any_width(D):
    assert max(Attention("f32", 2, 5, 3, D).off()) < CLOSE["f32"]


def test_tf32_is_nearer_than_bf16_and_further_than_float32():
    attention = Attention("f32", 1, 65, 1, 64)
    errors = []
    for arithmetic in ("f32", "tf32"):
        attention.arithmetic = arithmetic
        errors.append(attention.off()[0])
    assert errors[0] < 2.0**-20 < errors[1] < 2.0**-9


def test_a_later_tile_with_a_far_larger_score_takes_over():
    attention = Attention("f32", 1, 130, 1, 16)
    attention.qkv[0, 128, 1] *= 100  # the key of the third tile's first position
    attention.wanted = reference_forward(attention.qkv.astype(np.float64))
    (out, lse), (wanted, wanted_lse) = attention.forward(), attention.wanted
    np.testing.assert_allclose(out, wanted, atol=1e-5)  # float32, scores up to some hundreds
    np.testing.assert_allclose(lse, wanted_lse, rtol=1e-5)


def test_a_nan_reaches_later_positions_of_its_head_alone():
    attention = Attention("f32", 2, 70, 2, 16)
    attention.qkv[1, 66, 0, 1, 3] = np.nan  # a query: it reaches its own row only
    out, _ = attention.forward()
    assert np.isnan(out[1, 66, 1]).all()
    out[1, 66, 1] = 0
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("option", "shape", "by_cudnn"),
    [
        ("cudnn", (1, 3, 2, 16), True),
        ("cudnn", (1, 3, 2, 12), False),
        ("cudnn", (1, 1, 2, 16), False),
        ("cudnn", (1, 2, 1, 136), False),
        ("flash", (1, 3, 2, 16), False),
    ],
)
def test_cudnn_has_the_shapes_that_it_can_and_flash_the_others(option, shape, by_cudnn):
    attention = Attention("bf16", *shape)
    B, T, H, _ = shape
    out, lse = poisoned(shape, BFLOAT16), poisoned((B, H, T), np.dtype(np.float32))
    dqkv, qkv = poisoned(attention.qkv.shape, BFLOAT16), to_device(attention.qkv)
    before = len(cudnn.executed)
    _options.choose({"attention": option})
    try:
        attention_forward(out, lse, qkv)
        attention_backward(dqkv, to_device(attention.dout), qkv, out, lse)
        dims = dict(zip("BTHD", shape, strict=True))
        room = [
            _scratch.needed(f"attention_{half}", dims, "bf16", 1 << 30)
            for half in ("forward", "backward")
        ]
    finally:
        _options.choose({})
    assert len(cudnn.executed) - before == (2 if by_cudnn else 0)
    assert (room[0] > 0) == by_cudnn and room[1] > 0
    assert np.isfinite(to_host(dqkv).astype(np.float32)).all()


def test_decoding_reads_a_row_of_the_cache_up_to_its_own_last_token(same_in_every_order):
    B, T, H, D, X = 2, 1, 2, 8, 300
    rng = np.random.default_rng(1)
    position = np.array([270, 3], np.int32)
    keys, values = rng.normal(size=(2, B, X, H, D)).astype(np.float32)
    for b, first in enumerate(position):
        keys[b, first:] = values[b, first:] = np.nan
    qkv = rng.normal(size=(B, T, 3, H, D)).astype(np.float32)

    def decode():
        caches = to_device(keys), to_device(values)
        out = poisoned((B, T, H, D), np.dtype(np.float32))
        attention_decode(out, *caches, to_device(qkv), to_device(position))
        return [to_host(out)]

    (out,) = same_in_every_order(decode)
    for b, first in enumerate(position):
        seen = np.zeros((1, first + 1, 3, H, D))
        seen[0, :first, 1], seen[0, :first, 2] = keys[b, :first], values[b, :first]
        seen[0, first] = qkv[b, 0]
        wanted, _ = reference_forward(seen)
        np.testing.assert_allclose(out[b, 0], wanted[0, -1], atol=1e-6)  # sums of 271 terms
