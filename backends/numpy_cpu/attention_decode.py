"""keys[position + t] = k[t]        s[i,j] = q[i] · keys[j] / sqrt(D)  for j <= position + i

    values[position + t] = v[t]        p[i] = softmax(s[i])        out[i] = Σ_j p[i,j] values[j]

Rows of the batch at the same position are taken together. One query a head is two products of a
matrix and a vector, which BLAS reads from the cache where they lie; it sees the whole of what is read,
so nothing is masked. Many queries go in blocks, as those of `attention` do.

The cache is read up to the last new token and no further: beyond it may lie anything, NaN too.
"""

import math
from itertools import groupby

import numpy as np

from backends.numpy_cpu._blocks import BLOCK
from backends.numpy_cpu._products import slices
from backends.numpy_cpu._scratch import float32, float32_room, scratch
from backends.numpy_cpu.attention import attend, heads_first, not_finite, queries_in_block
from harness import hookimpl


@hookimpl
def attention_decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    T = out_BTHD.shape[1]
    one_or_many = _one_query if T == 1 else _queries
    with np.errstate(all="ignore"):
        for rows, first in _same_position(position_B.tolist()):
            qkv, end = qkv_BT3HD[rows], first + T
            keys, values = keys_BXHD[rows, :end], values_BXHD[rows, :end]
            np.copyto(keys[:, first:], qkv[:, :, 1])
            np.copyto(values[:, first:], qkv[:, :, 2])
            one_or_many(out_BTHD[rows], qkv[:, :, 0], keys, values)


def _same_position(positions):
    """Neighbouring rows with the same position: a slice of them, and the position."""
    start = 0
    for first, group in groupby(positions):
        stop = start + len(list(group))
        yield slice(start, stop), first
        start = stop


def _one_query(out_b1HD, q_b1HD, keys_bJHD, values_bJHD):
    b, J, H, D = keys_bJHD.shape
    q_bHD = scratch("attention.q_scaled", (b, H, D))
    s_bHJ = scratch("attention.s", (b, H, J))
    sums_bH1 = scratch("attention.sums", (b, H, 1))
    out_bHD = float32_room("attention.out", out_b1HD[:, 0])
    np.multiply(q_b1HD[:, 0], 1 / math.sqrt(D), out=q_bHD, dtype=np.float32)
    np.matmul(heads_first(keys_bJHD), q_bHD[..., None], out=s_bHJ[..., None])
    np.maximum.reduce(s_bHJ, axis=2, keepdims=True, out=sums_bH1)
    np.subtract(s_bHJ, sums_bH1, out=s_bHJ)
    np.exp(s_bHJ, out=s_bHJ)
    np.add.reduce(s_bHJ, axis=2, keepdims=True, out=sums_bH1)
    np.matmul(s_bHJ[:, :, None], heads_first(values_bJHD), out=out_bHD[:, :, None])
    np.divide(out_bHD, sums_bH1, out=out_b1HD[:, 0])


def _queries(out_bTHD, q_bTHD, keys_bJHD, values_bJHD):
    b, T, H, _ = out_bTHD.shape
    height = queries_in_block(T)
    heads = max(1, BLOCK // (min(T, height) * keys_bJHD.shape[1]))
    for row in range(b):
        for some in slices(H, heads):
            piece = (slice(row, row + 1), slice(None), some)
            out, q = out_bTHD[piece], heads_first(q_bTHD[piece])
            q = float32("attention.q", q)
            k, v = heads_first(keys_bJHD[piece]), heads_first(values_bJHD[piece])
            lse = scratch("attention.lse", q.shape[:3])
            attend(heads_first(out), lse, q, k, v, height)
            for head in not_finite(out[:, :, None]):
                attend(heads_first(out)[head], lse[head], q[head], k[head], v[head], 1)
