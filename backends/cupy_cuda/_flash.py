"""Attention by our own kernels, a tile of queries and a tile of keys at a time.

In float32 (fused multiply-adds), in TF32 and in bfloat16 (tensor cores). A kernel is compiled for heads
as wide as 16, 32, 64 or 128; a narrower one is filled up with zeros, and wider ones go a slow way, a
warp for each row of scores. No T x T matrix is made, no block adds to what another adds to, and the
same arguments give the same bits.
"""

import math

from backends.cupy_cuda._launch import BFLOAT16, THREADS, Source, blocks_for, f32, i32, i64, of
from backends.cupy_cuda._scratch import room, scratch

M = 64
"""Rows of a tile that a block has for itself; see cuda/flash.cuh."""

WIDTHS = (16, 32, 64, 128)
WIDEST = WIDTHS[-1]
ARITHMETICS = {
    "f32": (("ELEMENT", "float"),),
    "tf32": (("ELEMENT", "float"), ("TENSOR_CORES", "1"), ("TF32", "1")),
    "bf16": (("ELEMENT", "bf16"), ("TENSOR_CORES", "1")),
}
_VARIANTS = tuple(
    (*arithmetic, ("D_MAX", str(width))) for arithmetic in ARITHMETICS.values() for width in WIDTHS
)
_FORWARD = Source("attention_forward", variants=_VARIANTS)
_BACKWARD = Source("attention_backward", variants=_VARIANTS)
_WIDE = Source("attention_wide")


def flash_forward(out_BTHD, lse_BHT, qkv_BT3HD, arithmetic):
    """attention_forward in an arithmetic of ARITHMETICS, that of the array's dtype."""
    B, T, H, D = out_BTHD.shape
    arguments = (out_BTHD, lse_BHT, qkv_BT3HD, i32(T), i32(H), i32(D), _scale(D))
    if D > WIDEST:
        grid = B * T * H
        _WIDE.launch("attention_forward_wide", of(out_BTHD), grid, 32, *arguments)
        return
    tiles = _Tiles(B, T, H, D, arithmetic)
    tiles.launch(_FORWARD, "attention_forward", arguments, tiles.bytes(own=1, passing=2))


def flash_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT, arithmetic):
    """attention_backward in an arithmetic of ARITHMETICS."""
    B, T, H, D = out_BTHD.shape
    (delta_BHT,) = scratch((B, H, T))
    sizes = i32(T), i32(H), i32(D)
    rows = B * T * H
    tiles = _Tiles(B, T, H, D, arithmetic)
    _BACKWARD.launch(
        "attention_delta", tiles.defines, blocks_for(rows * 32), THREADS,
        delta_BHT, dout_BTHD, out_BTHD, i64(rows), *sizes,
    )  # fmt: skip
    arguments = (dqkv_BT3HD, dout_BTHD, qkv_BT3HD, lse_BHT, delta_BHT, *sizes, _scale(D))
    if D > WIDEST:
        for name in ("attention_backward_keys_wide", "attention_backward_queries_wide"):
            _WIDE.launch(name, of(out_BTHD), rows, 32, *arguments)
        return
    keys, queries = (tiles.bytes(own=2, passing=2, floats=n) for n in (2 * tiles.N, 2 * M))
    tiles.launch(_BACKWARD, "attention_backward_keys", arguments, keys)
    tiles.launch(_BACKWARD, "attention_backward_queries", arguments, queries)


def flash_bytes(dims):
    """Scratch that flash_backward takes."""
    return room((dims["B"], dims["H"], dims["T"]))


class _Tiles:
    """How a kernel goes over the heads: its defines, its grid, and the memory that a block shares."""

    def __init__(self, B, T, H, D, arithmetic):
        self.arithmetic = arithmetic
        self.width = next((width for width in WIDTHS if width >= D), WIDEST)
        self.N = 32 if self.width > 64 else 64
        self.grid = B * H * -(-T // M)
        self.defines = (*ARITHMETICS[arithmetic], ("D_MAX", str(self.width)))

    def bytes(self, *, own, passing, floats=0):
        """Of tiles: so many of M rows, so many of N, and some floats; rows are padded."""
        cores = self.arithmetic != "f32"
        stride = self.width + (8 if cores else 4)
        itemsize = 2 if self.arithmetic == "bf16" else 4
        between = 0 if cores else M * (self.N + 4)
        return (own * M + passing * self.N) * stride * itemsize + 4 * (floats + between)

    def launch(self, source, name, arguments, shared_bytes):
        threads = 256 if self.arithmetic == "f32" else 128
        source.launch(name, self.defines, self.grid, threads, *arguments, shared_bytes=shared_bytes)


def arithmetic_of(array):
    """What an array of this dtype is computed in, where nothing else was asked for."""
    return "bf16" if array.dtype == BFLOAT16 else "f32"


def _scale(D):
    return f32(1 / math.sqrt(D))
