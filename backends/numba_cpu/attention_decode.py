"""keys[position + t] = k[t]        s[i,j] = q[i] · keys[j] / sqrt(D)  for j <= position + i

    values[position + t] = v[t]        p[i] = softmax(s[i])        out[i] = Σ_j p[i,j] values[j]

One query a row reads each key and each value once, and memory is the limit: a thread has some heads that
lie side by side in the cache, and goes through the places in order. Many queries go in blocks, as those
of `attention` do.

The cache is read up to the last new token and no further: beyond it may lie anything, NaN too.
"""

import math

import numpy as np
from numba import prange

from backends.numba_cpu._attend import (
    ONE,
    PADDING,
    ZERO,
    attend,
    exponentials,
    fetch,
    owner,
    queries_in_block,
    store,
    work,
    work_of_head,
)
from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._scratch import room, scratch, takes
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import part
from harness import hookimpl


@hookimpl
def attention_decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    B, T, H, D = out_BTHD.shape
    X = keys_BXHD.shape[1]
    scale = np.float32(1 / math.sqrt(D))
    arrays = (
        out_BTHD.reshape(B * T, H * D),
        keys_BXHD.reshape(B * X, H * D),
        values_BXHD.reshape(B * X, H * D),
        qkv_BT3HD.reshape(B * T, 3 * H * D),
        position_B,
    )
    _write(*arrays[1:], threads())
    rooms = scratch(*_shapes(T, H, D, X))
    one_or_many = _one_query if T == 1 else _queries
    one_or_many(*arrays, scale, *rooms, threads())


@kernel
def _write(keys_NC, values_NC, qkv_N3C, position_B, tasks):
    """Put the new keys and values into the cache."""
    B, C = position_B.size, keys_NC.shape[1]
    T, X = qkv_N3C.shape[0] // B, keys_NC.shape[0] // B
    for task in prange(tasks):
        start, stop = part(B * T, tasks, task)
        for n in range(start, stop):
            b, t = n // T, n % T
            place = b * X + position_B[b] + t
            _copy(keys_NC[place], qkv_N3C[n, C : 2 * C])
            _copy(values_NC[place], qkv_N3C[n, 2 * C :])


@helper
def _copy(out_C, x_C):
    for c in range(out_C.size):
        out_C[c] = wide(x_C[c])


@kernel
def _one_query(out_BC, keys_NC, values_NC, qkv_B3C, position_B, scale, s_THX, mixed_T2C, tasks):
    B, C = out_BC.shape
    H, X = s_THX.shape[1], s_THX.shape[2] - PADDING
    D = C // H
    total = 0
    for b in range(B):
        total += H * (position_B[b] + 1)
    for task in prange(tasks):
        done = 0
        for b in range(B):
            J = position_B[b] + 1
            heads, left = 0, 0
            for h in range(H):
                if owner(done, total, tasks) == task:
                    left = left if heads else h
                    heads += 1
                done += J
            if heads:
                here = slice(left * D, (left + heads) * D)
                q_C, mixed_C = mixed_T2C[task, 0, here], mixed_T2C[task, 1, here]
                _scale(q_C, qkv_B3C[b, here], scale)
                cache = slice(b * X, b * X + J)
                _look_up(mixed_C, q_C, keys_NC[cache], values_NC[cache], s_THX[task], left, heads)
                _round(out_BC[b, here], mixed_C)


@helper
def _look_up(mixed_C, q_C, keys_JC, values_JC, s_HX, left, heads):
    """Fill mixed for some heads of one row, side by side."""
    J, D = keys_JC.shape[0], q_C.size // heads
    start, stop = left * D, (left + heads) * D
    for j in range(J):
        keys_C = keys_JC[j, start:stop]
        for h in range(heads):
            s_HX[h, j] = _dot(q_C[h * D : (h + 1) * D], keys_C[h * D : (h + 1) * D])
    for h in range(heads):
        exponentials(s_HX[h, :J])
    mixed_C[:] = ZERO
    for j in range(J):
        values_C = values_JC[j, start:stop]
        for h in range(heads):
            here = slice(h * D, (h + 1) * D)
            _add(mixed_C[here], values_C[here], s_HX[h, j])


@helper
def _dot(a_D, b_D):
    total = ZERO
    for d in range(a_D.size):
        total += a_D[d] * b_D[d]
    return total


@helper
def _add(out_D, x_D, factor):
    for d in range(out_D.size):
        out_D[d] += factor * x_D[d]


@helper
def _scale(out_C, x_C, factor):
    for c in range(out_C.size):
        out_C[c] = wide(x_C[c]) * factor


@helper
def _round(out_C, x_C):
    for c in range(out_C.size):
        out_C[c] = narrow(out_C, x_C[c])


@kernel
def _queries(
    out_NC,
    keys_NC,
    values_NC,
    qkv_N3C,
    position_B,
    scale,
    cache_T2XD,
    s_TQX,
    queries_T2QD,
    lse_TQ,
    tasks,
):
    B, C = position_B.size, out_NC.shape[1]
    T, X = out_NC.shape[0] // B, keys_NC.shape[0] // B
    Q, D = queries_T2QD.shape[2], queries_T2QD.shape[3]
    H = C // D
    total = 0
    for b in range(B):
        total += H * work_of_head(T, Q, position_B[b])
    for task in prange(tasks):
        done, here = 0, -1
        for u in range(B * H):
            b, column = u // H, u % H * D
            before = position_B[b]
            k_JD, v_JD = cache_T2XD[task, 0, : before + T], cache_T2XD[task, 1, : before + T]
            for first in range(0, T, Q):
                stop = min(first + Q, T)
                mine = owner(done, total, tasks) == task
                done += work(first, stop, before)
                if not mine:
                    continue
                if here != u:
                    here = u
                    fetch(k_JD, keys_NC, b * X, column, ONE)
                    fetch(v_JD, values_NC, b * X, column, ONE)
                q_QD = queries_T2QD[task, 0, : stop - first]
                mixed_QD = queries_T2QD[task, 1, : stop - first]
                J = before + stop
                fetch(q_QD, qkv_N3C, b * T + first, column, scale)
                attend(mixed_QD, lse_TQ[task], q_QD, k_JD[:J], v_JD[:J], s_TQX[task])
                store(out_NC, b * T + first, column, mixed_QD, ONE)


def _shapes(T, H, D, X):
    if T == 1:
        return (threads(), H, X + PADDING), (threads(), 2, H * D)
    Q = queries_in_block(T, X)
    queries = (threads(), 2, Q, D)
    return (threads(), 2, X, D), (threads(), Q, X + PADDING), queries, (threads(), Q)


@takes("attention_decode")
def _scratch(dims, precision, most):
    return room(*_shapes(*(dims[letter] for letter in "THDX")))
