"""s[i,j] = q[i] · k[j] / sqrt(D)  for j <= i        lse[i] = log Σ_j exp(s[i,j])

    p[i,j] = exp(s[i,j] - lse[i])                     out[i] = Σ_j p[i,j] v[j]

    dp[i,j] = dout[i] · v[j]      delta[i] = dout[i] · out[i]      ds = p (dp - delta[i])
    dq[i] = Σ_j ds[i,j] k[j] / sqrt(D)                dk[j] = Σ_i ds[i,j] q[i] / sqrt(D)
    dv[j] = Σ_i p[i,j] dout[i]

The T x T scores exist a tile at a time, in registers: 32 queries by 32 keys of one head, which is what a
block of 64 threads has in hand. Eight threads share four queries: each has 4 x 4 scores, and the eighth
part of the four results (`_flash.py`). Tiles above the diagonal are not visited.

    _forward            a block has 32 queries, and the keys before them pass (`_attend.py`): out, lse
    _delta              eight threads for each row of out
    _backward_keys      a block has 32 keys, and the queries after them pass: dk and dv
    _backward_queries   a block has 32 queries, and the keys before them pass: dq

The backward computes each p and dp twice, and so each sum has one owner and one order: no block adds to
what another adds to. What each takes of a multiprocessor is in experiments/numba_kernels.
"""

import math
from functools import lru_cache

import numpy as np
from numba import cuda

from backends.numba_cuda._attend import attend_of
from backends.numba_cuda._flash import (
    COLUMNS,
    LANES,
    ONE,
    PADDING,
    ROWS,
    ZERO,
    M,
    N,
    at,
    fill,
    first_row,
    load_own,
    load_passing,
    multiply_columns,
    multiply_rows,
    place_of,
    shape_for,
    store_tile,
    width_for,
)
from backends.numba_cuda._launch import launch
from backends.numba_cuda._math import exp
from backends.numba_cuda._narrow import wide
from backends.numba_cuda._scratch import room, scratch, takes
from harness import hookimpl

PARTIAL = N, LANES + 1  # rows of nine numbers begin a bank apart
QUERIES, KEYS, VALUES = 0, 1, 2
"""Where the three stand along the literal 3."""


@hookimpl
def attention_forward(out_BTHD, lse_BHT, qkv_BT3HD):
    B, T, H, D = out_BTHD.shape
    kernel = _forward_of(width_for(D))
    launch(kernel, *shape_for(B, T, H, D), out_BTHD, lse_BHT, qkv_BT3HD, 1 / math.sqrt(D))


@hookimpl
def attention_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    B, T, H, D = out_BTHD.shape
    (delta_BHT,) = scratch((B, H, T))
    launch(_delta, -(-B * T * H // N), N * LANES, delta_BHT, dout_BTHD, out_BTHD)
    arguments = dqkv_BT3HD, dout_BTHD, qkv_BT3HD, lse_BHT, delta_BHT, 1 / math.sqrt(D)
    for kernel in (_keys_of(width_for(D)), _queries_of(width_for(D))):
        launch(kernel, *shape_for(B, T, H, D), *arguments)


@takes("attention_backward")
def _backward_scratch(dims, precision, most):
    return room((dims["B"], dims["H"], dims["T"]))


@lru_cache
def _forward_of(W):
    attend = attend_of(W)

    @cuda.jit
    def _forward(out_BTHD, lse_BHT, qkv_BT3HD, scale):
        _, T, H, D = out_BTHD.shape
        # The longest rows first: the last blocks to run are short.
        block = cuda.gridDim.x - 1 - cuda.blockIdx.x
        b, h, piece, first = place_of(block, T, H, D, W)
        q_TD = qkv_BT3HD[b, :, QUERIES, h]
        k_TD = qkv_BT3HD[b, :, KEYS, h]
        v_TD = qkv_BT3HD[b, :, VALUES, h]
        attend(out_BTHD[b, :, h], lse_BHT[b, h], q_TD, k_TD, v_TD, first, 0, piece, scale)

    return _forward


@cuda.jit
def _delta(delta_BHT, dout_BTHD, out_BTHD):
    """delta[t] = dout[t] · out[t]: eight threads for a row, side by side."""
    partial_NL = cuda.shared.array(PARTIAL, np.float32)
    _, T, H, D = out_BTHD.shape
    n, lane = cuda.threadIdx.x // LANES, cuda.threadIdx.x % LANES
    row = cuda.blockIdx.x * N + n
    h, position = row % H, row // H
    b, t = position // T, position % T
    total = ZERO
    if b < out_BTHD.shape[0]:
        for d in range(lane, D, LANES):
            total += wide(dout_BTHD[b, t, h, d]) * wide(out_BTHD[b, t, h, d])
    partial_NL[n, lane] = total
    cuda.syncthreads()
    if lane == 0 and b < out_BTHD.shape[0]:
        for other in range(1, LANES):
            total += partial_NL[n, other]
        delta_BHT[b, h, t] = total


@cuda.jit(device=True)
def _probability(s, lse):
    """exp(s - lse), which is at most 1 whatever a large score's own rounding makes of it."""
    x = s - lse
    return exp(ZERO if x > ZERO else x)


@cuda.jit(device=True)
def _turn(piece, step, D, W):
    """The first column of a piece, this many columns on from `piece`, which itself comes last."""
    column = piece + W + step
    return column if column < D else column - (D + W - 1) // W * W


@lru_cache
def _keys_of(W):
    """dk and dv: N keys stay, and the queries at and after them pass, N at a time."""
    OWN, PASSING, SQUARE = (W, M + PADDING), (N, W + PADDING), (N, M + PADDING)
    PART, RESULTS = W // LANES, (ROWS, W // LANES)

    @cuda.jit
    def _backward_keys(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, lse_BHT, delta_BHT, scale):
        k_DM = cuda.shared.array(OWN, np.float32, 16)
        v_DM = cuda.shared.array(OWN, np.float32, 16)
        q_ND = cuda.shared.array(PASSING, np.float32, 16)
        dout_ND = cuda.shared.array(PASSING, np.float32, 16)
        p_NM = cuda.shared.array(SQUARE, np.float32, 16)
        ds_NM = cuda.shared.array(SQUARE, np.float32, 16)
        part = cuda.local.array(PART, np.float32)
        s = cuda.local.array((ROWS, COLUMNS), np.float32)
        dp = cuda.local.array((ROWS, COLUMNS), np.float32)
        dk = cuda.local.array(RESULTS, np.float32)
        dv = cuda.local.array(RESULTS, np.float32)
        _, T, H, D = dout_BTHD.shape
        b, h, piece, first = place_of(cuda.blockIdx.x, T, H, D, W)
        q_TD, k_TD = qkv_BT3HD[b, :, QUERIES, h], qkv_BT3HD[b, :, KEYS, h]
        v_TD, dout_TD = qkv_BT3HD[b, :, VALUES, h], dout_BTHD[b, :, h]
        row, lane = first_row(), cuda.threadIdx.x
        here, last = first + row < T, min(first + M, T)
        fill(dk, ZERO)
        fill(dv, ZERO)
        for start in range(first, T, N):
            fill(s, ZERO)
            fill(dp, ZERO)
            for step in range(0, D, W):
                # The block's own piece comes last, and stays for the products with p and ds.
                column = _turn(piece, step, D, W)
                cuda.syncthreads()
                if start == first or D > W:
                    load_own(k_DM, k_TD, first, last, column, part)
                    load_own(v_DM, v_TD, first, last, column, part)
                load_passing(q_ND, q_TD, start, T, column, part)
                load_passing(dout_ND, dout_TD, start, T, column, part)
                cuda.syncthreads()
                if here:
                    multiply_rows(s, k_DM, q_ND, min(W, D - column))
                    multiply_rows(dp, v_DM, dout_ND, min(W, D - column))
            if here:
                for j in range(COLUMNS):
                    n = lane + LANES * j
                    query = min(start + n, T - 1)
                    lse, delta = (
                        lse_BHT[at(b), at(h), at(query)],
                        delta_BHT[at(b), at(h), at(query)],
                    )
                    for i in range(ROWS):
                        seen = first + row + i <= start + n
                        p = _probability(s[i, j] * scale, lse) if seen else ZERO
                        p_NM[at(n), at(row + i)] = p
                        ds_NM[at(n), at(row + i)] = p * (dp[i, j] - delta) if seen else ZERO
            cuda.syncthreads()
            if here:
                multiply_columns(dv, p_NM, dout_ND, min(N, T - start))
                multiply_columns(dk, ds_NM, q_ND, min(N, T - start))
        store_tile(dqkv_BT3HD[b, :, KEYS, h], first, piece, dk, scale)
        store_tile(dqkv_BT3HD[b, :, VALUES, h], first, piece, dv, ONE)

    return _backward_keys


@lru_cache
def _queries_of(W):
    """dq: N queries stay, and the keys at and before them pass, N at a time."""
    OWN, PASSING, SQUARE = (W, M + PADDING), (N, W + PADDING), (N, M + PADDING)
    PART, RESULTS = W // LANES, (ROWS, W // LANES)

    @cuda.jit
    def _backward_queries(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, lse_BHT, delta_BHT, scale):
        q_DM = cuda.shared.array(OWN, np.float32, 16)
        dout_DM = cuda.shared.array(OWN, np.float32, 16)
        k_ND = cuda.shared.array(PASSING, np.float32, 16)
        v_ND = cuda.shared.array(PASSING, np.float32, 16)
        ds_NM = cuda.shared.array(SQUARE, np.float32, 16)
        part = cuda.local.array(PART, np.float32)
        s = cuda.local.array((ROWS, COLUMNS), np.float32)
        dp = cuda.local.array((ROWS, COLUMNS), np.float32)
        dq = cuda.local.array(RESULTS, np.float32)
        lse = cuda.local.array(ROWS, np.float32)
        delta = cuda.local.array(ROWS, np.float32)
        _, T, H, D = dout_BTHD.shape
        # The longest rows first: the last blocks to run are short.
        block = cuda.gridDim.x - 1 - cuda.blockIdx.x
        b, h, piece, first = place_of(block, T, H, D, W)
        q_TD, k_TD = qkv_BT3HD[b, :, QUERIES, h], qkv_BT3HD[b, :, KEYS, h]
        v_TD, dout_TD = qkv_BT3HD[b, :, VALUES, h], dout_BTHD[b, :, h]
        row, lane = first_row(), cuda.threadIdx.x
        here, stop = first + row < T, min(first + M, T)
        fill(dq, ZERO)
        for i in range(ROWS):
            query = min(first + row + i, T - 1)
            lse[i] = lse_BHT[at(b), at(h), at(query)]
            delta[i] = delta_BHT[at(b), at(h), at(query)]
        for start in range(0, stop, N):
            fill(s, ZERO)
            fill(dp, ZERO)
            for step in range(0, D, W):
                column = _turn(piece, step, D, W)
                cuda.syncthreads()
                if start == 0 or D > W:
                    load_own(q_DM, q_TD, first, stop, column, part)
                    load_own(dout_DM, dout_TD, first, stop, column, part)
                load_passing(k_ND, k_TD, start, stop, column, part)
                load_passing(v_ND, v_TD, start, stop, column, part)
                cuda.syncthreads()
                if here:
                    multiply_rows(s, q_DM, k_ND, min(W, D - column))
                    multiply_rows(dp, dout_DM, v_ND, min(W, D - column))
            if here:
                for j in range(COLUMNS):
                    n = lane + LANES * j
                    for i in range(ROWS):
                        seen = start + n <= first + row + i
                        p = _probability(s[i, j] * scale, lse[i])
                        ds_NM[at(n), at(row + i)] = p * (dp[i, j] - delta[i]) if seen else ZERO
            cuda.syncthreads()
            if here:
                multiply_columns(dq, ds_NM, k_ND, min(N, stop - start))
        store_tile(dqkv_BT3HD[b, :, QUERIES, h], first, piece, dq, scale)

    return _backward_queries
