"""keys[position + t] = k[t]        s[i,j] = q[i] · keys[j] / sqrt(D)  for j <= position + i

    values[position + t] = v[t]        p[i] = softmax(s[i])        out[i] = Σ_j p[i,j] values[j]

Many queries go as those of `attention` do: a block has a tile of them, and goes over the keys that they
see (`_attend.py`). With one query for each b that would be one block a head, too few for a GPU, and all
there is to do is to read each key and each value once. There a block has a run of RUN keys of one head,
16 threads side by side along a key. A second kernel puts the runs together, a thread for each column:

    top = max_r top[r]      share[r] = exp(top[r] - top)
    out = Σ_r share[r] out[r] / Σ_r share[r] total[r]

The cache is read up to the last new token and no further: beyond it may lie anything, NaN too.
"""

import math
from functools import lru_cache

import numpy as np
from numba import cuda

from backends.numba_cuda._attend import attend_of
from backends.numba_cuda._flash import INFINITE, ZERO, at, place_of, shape_for, width_for
from backends.numba_cuda._launch import launch, threads_for
from backends.numba_cuda._math import exp
from backends.numba_cuda._narrow import narrow, wide
from backends.numba_cuda._scratch import room, scratch, takes
from harness import hookimpl

RUN = 64
"""Keys of a block that has one query: 12 heads with 1024 keys are 192 blocks of 32 KB."""

LANES, GROUPS = 16, 8
"""Threads that share a key, side by side along it, and keys that are read at the same time."""

OF_RUN = LANES * GROUPS
AT_ONCE = RUN // GROUPS
PARTIAL = RUN, LANES + 1  # rows of seventeen numbers begin a bank apart


@hookimpl
def attention_decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    B, T, H, D = out_BTHD.shape
    scale = 1 / math.sqrt(D)
    cache = keys_BXHD, values_BXHD
    _write_new(*cache, qkv_BT3HD, position_B)
    if T > 1:
        kernel = _many_queries_of(width_for(D))
        launch(kernel, *shape_for(B, T, H, D), out_BTHD, *cache, qkv_BT3HD, position_B, scale)
        return
    runs = scratch(*_shapes(B, H, D, keys_BXHD.shape[1]))
    launch(_one_query, runs[1].size, OF_RUN, *runs, *cache, qkv_BT3HD, position_B, scale)
    launch(_together, B * H, threads_for(D), out_BTHD, *runs, position_B)


@takes("attention_decode")
def _scratch(dims, precision, most):
    return room(*_shapes(*(dims[letter] for letter in "BHDX"))) if dims["T"] == 1 else 0


def _shapes(B, H, D, X):
    R = -(-X // RUN)
    return (B, H, R, D), (B, H, R), (B, H, R)


def _write_new(keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    B, T, _, H, D = qkv_BT3HD.shape
    flat = (cache.reshape(B, -1, H * D) for cache in (keys_BXHD, values_BXHD))
    launch(
        _write,
        B * T,
        threads_for(H * D),
        *flat,
        qkv_BT3HD.reshape(B, T, 3, H * D),
        position_B,
    )


@cuda.jit
def _write(keys_BXC, values_BXC, qkv_BT3C, position_B):
    """Put the new keys and values into the cache: a block for each token."""
    _, T, _, C = qkv_BT3C.shape
    b, t = cuda.blockIdx.x // T, cuda.blockIdx.x % T
    place = position_B[b] + t
    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        keys_BXC[b, place, c] = wide(qkv_BT3C[b, t, 1, c])
        values_BXC[b, place, c] = wide(qkv_BT3C[b, t, 2, c])


@lru_cache
def _many_queries_of(W):
    attend = attend_of(W)

    @cuda.jit
    def _many_queries(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B, scale):
        _, T, H, D = out_BTHD.shape
        # The longest rows first: the last blocks to run are short.
        block = cuda.gridDim.x - 1 - cuda.blockIdx.x
        b, h, piece, first = place_of(block, T, H, D, W)
        q_TD, k_XD, v_XD = qkv_BT3HD[b, :, 0, h], keys_BXHD[b, :, h], values_BXHD[b, :, h]
        attend(out_BTHD[b, :, h], None, q_TD, k_XD, v_XD, first, position_B[b], piece, scale)

    return _many_queries


@cuda.jit
def _one_query(
    outs_BHRD, tops_BHR, totals_BHR, keys_BXHD, values_BXHD, qkv_BT3HD, position_B, scale
):
    """A run of keys of one head: its largest score, its sum of exp(s - top), and that of the values."""
    partial_JL = cuda.shared.array(PARTIAL, np.float32)
    p_J = cuda.shared.array(RUN, np.float32)
    sums = cuda.shared.array(OF_RUN, np.float32)
    x = cuda.local.array(AT_ONCE, np.float32)
    _, H, R, D = outs_BHRD.shape
    r, head = cuda.blockIdx.x % R, cuda.blockIdx.x // R
    b, h, start, thread = head // H, head % H, r * RUN, cuda.threadIdx.x
    count = min(RUN, position_B[b] + 1 - start)
    if count > 0:
        q_D, k_JD, v_JD = qkv_BT3HD[b, 0, 0, h], keys_BXHD[b, start:, h], values_BXHD[b, start:, h]

        lane, group = thread % LANES, thread // LANES
        for k in range(AT_ONCE):
            x[k] = ZERO
        for d in range(lane, D, LANES):
            q = wide(q_D[at(d)])
            for k in range(AT_ONCE):
                j = min(group + GROUPS * k, count - 1)
                x[k] += q * k_JD[at(j), at(d)]
        for k in range(AT_ONCE):
            partial_JL[at(group + GROUPS * k), at(lane)] = x[k]
        cuda.syncthreads()
        if thread < RUN:
            s = ZERO
            for other in range(LANES):
                s += partial_JL[at(thread), at(other)]
            p_J[at(thread)] = s * scale if thread < count else -INFINITE
        cuda.syncthreads()
        top = -INFINITE
        for j in range(RUN):
            top = p_J[j] if p_J[j] > top else top
        cuda.syncthreads()
        if thread < RUN:
            # Where no score is above -infinity, exp(-infinity - 0) is 0, and not NaN.
            p_J[at(thread)] = exp(p_J[at(thread)] - (top if top > -INFINITE else ZERO))
        cuda.syncthreads()
        if thread == 0:
            total = ZERO
            for j in range(RUN):
                total += p_J[j]
            tops_BHR[b, h, r], totals_BHR[b, h, r] = top, total

        # As many threads side by side as there are columns, up to a warp's worth or two; then keys.
        across = 32 if D <= 32 else 64 if D <= 64 else OF_RUN
        lane, group, groups = thread % across, thread // across, OF_RUN // across
        for column in range(0, D, across):
            d = min(column + lane, D - 1)
            total = ZERO
            for first in range(group, count, groups * AT_ONCE):
                for k in range(AT_ONCE):
                    j = first + groups * k
                    x[k] = v_JD[at(j), at(d)] if j < count else ZERO
                for k in range(AT_ONCE):
                    j = min(first + groups * k, RUN - 1)
                    total += p_J[at(j)] * x[k]
            cuda.syncthreads()
            sums[at(thread)] = total
            cuda.syncthreads()
            if group == 0 and column + lane < D:
                for other in range(1, groups):
                    total += sums[at(thread + other * across)]
                outs_BHRD[b, h, r, column + lane] = total


@cuda.jit
def _together(out_BTHD, outs_BHRD, tops_BHR, totals_BHR, position_B):
    """A block puts together the runs of one head, a thread those of one column."""
    _, _, H, D = out_BTHD.shape
    b, h = cuda.blockIdx.x // H, cuda.blockIdx.x % H
    runs = position_B[b] // RUN + 1
    top = -INFINITE
    for r in range(runs):
        top = tops_BHR[b, h, r] if tops_BHR[b, h, r] > top else top
    base = top if top > -INFINITE else ZERO
    for d in range(cuda.threadIdx.x, D, cuda.blockDim.x):
        out, total = ZERO, ZERO
        for r in range(runs):
            share = exp(tops_BHR[b, h, r] - base)
            total += share * totals_BHR[b, h, r]
            out += share * outs_BHRD[b, h, r, d]
        out_BTHD[b, 0, h, d] = narrow(out_BTHD, out / total)
