"""s[i,j] = q[i] · k[j] / sqrt(D)  for j <= i        lse[i] = log Σ_j exp(s[i,j])

    p[i,j] = exp(s[i,j] - lse[i])                     out[i] = Σ_j p[i,j] v[j]

    dp[i,j] = dout[i] · v[j]      delta[i] = dout[i] · out[i]      ds = p (dp - delta[i])
    dq[i] = Σ_j ds[i,j] k[j] / sqrt(D)                dk[j] = Σ_i ds[i,j] q[i] / sqrt(D)
    dv[j] = Σ_i p[i,j] dout[i]

Q queries are a block, whose J keys end where the block does (`_attend.py`). The blocks of all U heads of
all sequences, one after another, are cut into as many runs of equal work as there are threads. In the
backward a head that such a cut goes through has its dk and dv summed by several threads, each for its
own queries, and then added in order. A first T, as in `qkv_T3TD`, counts threads.
"""

import math

import numpy as np
from numba import prange

from backends.numba_cpu._attend import (
    ONE,
    PADDING,
    ZERO,
    attend,
    fetch,
    finite,
    owner,
    queries_in_block,
    store,
    work,
    work_of_head,
)
from backends.numba_cpu._blas import nn, nt, tn
from backends.numba_cpu._exp_low import exp_low
from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import wide
from backends.numba_cpu._scratch import room, scratch, takes
from backends.numba_cpu._threads import threads
from harness import hookimpl


@hookimpl
def attention_forward(out_BTHD, lse_BHT, qkv_BT3HD):
    B, T, H, D = out_BTHD.shape
    qkv_T3TD, s_TQJ, mixed_TQD = scratch(*_forward_shapes(T, D))
    _forward(
        out_BTHD.reshape(B * T, H * D),
        lse_BHT.reshape(B * H, T),
        qkv_BT3HD.reshape(B * T, 3 * H * D),
        np.float32(1 / math.sqrt(D)),
        qkv_T3TD,
        s_TQJ,
        mixed_TQD,
        threads(),
    )


@hookimpl
def attention_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    B, T, H, D = out_BTHD.shape
    inputs_T4TD, sums_T22TD, s_T2JQ, dq_TQD, delta_TT = scratch(*_backward_shapes(T, D))
    _backward(
        dqkv_BT3HD.reshape(B * T, 3 * H * D),
        dout_BTHD.reshape(B * T, H * D),
        qkv_BT3HD.reshape(B * T, 3 * H * D),
        out_BTHD.reshape(B * T, H * D),
        lse_BHT.reshape(B * H, T),
        np.float32(1 / math.sqrt(D)),
        inputs_T4TD,
        sums_T22TD,
        s_T2JQ,
        dq_TQD,
        delta_TT,
        threads(),
    )


@kernel
def _forward(out_NC, lse_UT, qkv_N3C, scale, qkv_T3TD, s_TQJ, mixed_TQD, tasks):
    U, T = lse_UT.shape
    C, Q, D = out_NC.shape[1], mixed_TQD.shape[1], mixed_TQD.shape[2]
    H = C // D
    total = U * work_of_head(T, Q, 0)
    # Each thread counts through all blocks and takes its own, so no list of them is needed.
    for task in prange(tasks):
        q_TD, k_TD, v_TD = qkv_T3TD[task, 0], qkv_T3TD[task, 1], qkv_T3TD[task, 2]
        done, here = 0, -1
        for u in range(U):
            row, column = u // H * T, u % H * D
            for first in range(0, T, Q):
                stop = min(first + Q, T)
                mine = owner(done, total, tasks) == task
                done += work(first, stop, 0)
                if not mine:
                    continue
                # Once a head, for all its blocks; a factor for q spares one for each score.
                if here != u:
                    here = u
                    fetch(q_TD, qkv_N3C, row, column, scale)
                    fetch(k_TD, qkv_N3C, row, C + column, ONE)
                    fetch(v_TD, qkv_N3C, row, 2 * C + column, ONE)
                mixed_QD = mixed_TQD[task, : stop - first]
                lse_Q, q_QD = lse_UT[u, first:stop], q_TD[first:stop]
                attend(mixed_QD, lse_Q, q_QD, k_TD[:stop], v_TD[:stop], s_TQJ[task])
                store(out_NC, row + first, column, mixed_QD, ONE)


@kernel
def _backward(
    dqkv_N3C,
    dout_NC,
    qkv_N3C,
    out_NC,
    lse_UT,
    scale,
    inputs_T4TD,
    sums_T22TD,
    s_T2JQ,
    dq_TQD,
    delta_TT,
    tasks,
):
    U, T = lse_UT.shape
    C, Q, D = out_NC.shape[1], dq_TQD.shape[1], dq_TQD.shape[2]
    H = C // D
    of_head = work_of_head(T, Q, 0)
    total = U * of_head
    # Cut by queries, as in the forward: each dq has one thread, and only dk and dv may have more.
    for task in prange(tasks):
        q_TD, k_TD = inputs_T4TD[task, 0], inputs_T4TD[task, 1]
        v_TD, dout_TD = inputs_T4TD[task, 2], inputs_T4TD[task, 3]
        done, here = 0, -1
        for u in range(U):
            row, column = u // H * T, u % H * D
            # Of a head that another thread has begun, the sums wait in a place of their own.
            begun_here = owner(done, total, tasks) == task
            dk_TD, dv_TD = _sums_of(sums_T22TD[task], begun_here)
            mine = False
            for first in range(0, T, Q):
                stop = min(first + Q, T)
                mine = owner(done, total, tasks) == task
                done += work(first, stop, 0)
                if not mine:
                    continue
                # q comes scaled, so dk needs no factor; dq gets it when it is stored.
                if here != u:
                    here = u
                    fetch(q_TD, qkv_N3C, row, column, scale)
                    fetch(k_TD, qkv_N3C, row, C + column, ONE)
                    fetch(v_TD, qkv_N3C, row, 2 * C + column, ONE)
                    fetch(dout_TD, dout_NC, row, column, ONE)
                    _multiply_rows(delta_TT[task], dout_TD, out_NC, row, column)
                    dk_TD[:] = ZERO
                    dv_TD[:] = ZERO
                dq_QD = dq_TQD[task, : stop - first]
                _attend_backward(
                    dq_QD,
                    dk_TD[:stop],
                    dv_TD[:stop],
                    dout_TD[first:stop],
                    q_TD[first:stop],
                    k_TD[:stop],
                    v_TD[:stop],
                    lse_UT[u, first:stop],
                    delta_TT[task, first:stop],
                    s_T2JQ[task],
                )
                store(dqkv_N3C, row + first, column, dq_QD, scale)
            # The head was this thread's from its first block to its last: nobody adds to its sums.
            if begun_here and mine:
                store(dqkv_N3C, row, C + column, dk_TD, ONE)
                store(dqkv_N3C, row, 2 * C + column, dv_TD, ONE)
    # A loop of its own: the parts of a head that was cut are whole once all threads are through.
    for task in prange(tasks):
        for u in range(task, U, tasks):
            done = u * of_head
            begun_by = owner(done, total, tasks)
            dk_TD, dv_TD = _sums_of(sums_T22TD[begun_by], True)
            last = begun_by
            for first in range(0, T, Q):
                other = owner(done, total, tasks)
                done += work(first, min(first + Q, T), 0)
                if other != last:
                    last = other
                    dk_more_TD, dv_more_TD = _sums_of(sums_T22TD[other], False)
                    _add(dk_TD, dk_more_TD)
                    _add(dv_TD, dv_more_TD)
            if last != begun_by:
                row, column = u // H * T, u % H * D
                store(dqkv_N3C, row, C + column, dk_TD, ONE)
                store(dqkv_N3C, row, 2 * C + column, dv_TD, ONE)


@helper
def _sums_of(sums_22TD, begun_here):
    """A thread's (dk, dv): of a head that it began, or of one that it goes on with."""
    place = 1 if begun_here else 0
    return sums_22TD[place, 0], sums_22TD[place, 1]


@helper
def _attend_backward(dq_QD, dk_JD, dv_JD, dout_QD, q_QD, k_JD, v_JD, lse_Q, delta_Q, s_2JQ):
    """Fill dq, and add to dk and dv, for queries, already scaled, that are those of the last keys."""
    Q, before = q_QD.shape[0], k_JD.shape[0] - q_QD.shape[0]
    # One by one where a masked 0 would meet a NaN, as in the forward (`_attend.py`).
    height = Q if finite(q_QD) and finite(k_JD[before:]) and finite(dout_QD) else 1
    for first in range(0, Q, height):
        stop = first + height
        J = before + stop
        # Key by key: BLAS adds to dk and dv a fifth faster from there.
        p_JI, ds_JI = s_2JQ[0, :J, :height], s_2JQ[1, :J, :height]
        nt(p_JI, k_JD[:J], q_QD[first:stop], ZERO)
        nt(ds_JI, v_JD[:J], dout_QD[first:stop], ZERO)
        lse_I, delta_I = lse_Q[first:stop], delta_Q[first:stop]
        for j in range(J):
            # The first query that sees the key.
            i = max(0, j - (J - height))
            p_I, ds_I = s_2JQ[0, j, i:height], s_2JQ[1, j, i:height]
            _differentiate(p_I, ds_I, lse_I[i:], delta_I[i:])
            # The products below take whole rows: what a query does not see must add nothing.
            s_2JQ[0, j, :i] = ZERO
            s_2JQ[1, j, :i] = ZERO
        # Later queries see these keys too and add to dk and dv; dq has met all of its keys.
        nn(dv_JD[:J], p_JI, dout_QD[first:stop], ONE)
        nn(dk_JD[:J], ds_JI, q_QD[first:stop], ONE)
        tn(dq_QD[first:stop], ds_JI, k_JD[:J], ZERO)


@helper
def _differentiate(p_I, ds_I, lse_I, delta_I):
    """From a key's scores, p; from its dp, ds; each in place."""
    for i in range(p_I.size):
        p = exp_low(p_I[i] - lse_I[i])
        p_I[i] = p
        ds_I[i] = p * (ds_I[i] - delta_I[i])


@helper
def _multiply_rows(delta_T, dout_TD, out_NC, row, column):
    """delta[t] = dout[t] · out[t]"""
    T, D = dout_TD.shape
    for t in range(T):
        dout_D, out_D = dout_TD[t], out_NC[row + t, column : column + D]
        total = ZERO
        for d in range(D):
            total += dout_D[d] * wide(out_D[d])
        delta_T[t] = total


@helper
def _add(out_TD, x_TD):
    for t in range(out_TD.shape[0]):
        out_D, x_D = out_TD[t], x_TD[t]
        for d in range(x_D.size):
            out_D[d] += x_D[d]


def _forward_shapes(T, D):
    Q = queries_in_block(T, T)
    return (threads(), 3, T, D), (threads(), Q, T + PADDING), (threads(), Q, D)


def _backward_shapes(T, D):
    Q = queries_in_block(T, T)
    inputs, sums = (threads(), 4, T, D), (threads(), 2, 2, T, D)
    return inputs, sums, (threads(), 2, T, Q), (threads(), Q, D), (threads(), T)


@takes("attention_forward")
def _forward_scratch(dims, precision, most):
    return room(*_forward_shapes(dims["T"], dims["D"]))


@takes("attention_backward")
def _backward_scratch(dims, precision, most):
    return room(*_backward_shapes(dims["T"], dims["D"]))
