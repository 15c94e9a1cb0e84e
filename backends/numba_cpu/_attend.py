"""What attention is made of: the work of a block of queries of one head, and whose it is.

A thread copies the head it is at into memory of its own, in float32: there its rows follow one another,
where in the packed tensor each lies on another page. A block of queries has its rows of scores whole, up
to its last key, and no more of the T x T matrix exists at a time.

A masked probability is 0, and 0 times a NaN is NaN. Where the rows that a block's own masked
probabilities meet hold one, its queries go one by one, which leaves nothing to mask.
"""

import numpy as np

from backends.numba_cpu._blas import nn, nt
from backends.numba_cpu._exp import exp
from backends.numba_cpu._kernel import helper
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._order import key, value

ZERO, ONE = np.float32(0), np.float32(1)

MAX_QUERIES, MIN_QUERIES = 64, 16
SCORES = 1 << 16
"""Of a block, at most, as long as it has more than the fewest queries: 256 KiB stay in L2."""

PADDING = 16
"""Numbers between rows of scores: rows of a power of two would share the same few sets of a cache."""


def queries_in_block(T, J):
    """How many of T queries, which have J keys at most, are taken together."""
    return min(T, MAX_QUERIES, max(MIN_QUERIES, SCORES // J))


@helper
def work(first, stop, before):
    """What a block of queries is counted for; `before` keys come before the first query of all."""
    return (stop - first) * (before + stop)


@helper
def work_of_head(T, Q, before):
    """The same of all its blocks."""
    total = 0
    for first in range(0, T, Q):
        total += work(first, min(first + Q, T), before)
    return total


@helper
def owner(done, total, tasks):
    """The task of the block before which so much of all work is done: neighbours go to the same."""
    return done * tasks // total


@helper
def fetch(out_ND, x_NC, first, column, factor):
    """Copy one head's rows from `first` on: D columns of x, times a factor."""
    N, D = out_ND.shape
    for n in range(N):
        x_D, out_D = x_NC[first + n, column : column + D], out_ND[n]
        for d in range(D):
            out_D[d] = wide(x_D[d]) * factor


@helper
def store(out_NC, first, column, x_ND, factor):
    """Copy one head's rows to where they belong, times a factor."""
    N, D = x_ND.shape
    for n in range(N):
        out_D, x_D = out_NC[first + n, column : column + D], x_ND[n]
        for d in range(D):
            out_D[d] = narrow(out_NC, x_D[d] * factor)


@helper
def finite(x_ND):
    """Whether there is neither a NaN nor an infinity among the numbers: times 0, those are NaN."""
    total = ZERO
    for n in range(x_ND.shape[0]):
        x_D = x_ND[n]
        for d in range(x_D.size):
            total += x_D[d] * ZERO
    return total == ZERO


@helper
def attend(out_QD, lse_Q, q_QD, k_JD, v_JD, s_QJ):
    """Fill out and lse for queries, already scaled, that are those of the last keys."""
    Q, before = q_QD.shape[0], k_JD.shape[0] - q_QD.shape[0]
    height = Q if finite(v_JD[before:]) else 1
    for first in range(0, Q, height):
        stop = first + height
        J = before + stop
        s_IJ, out_ID = s_QJ[:height, :J], out_QD[first:stop]
        nt(s_IJ, q_QD[first:stop], k_JD[:J], ZERO)
        for i in range(height):
            seen = J - height + i + 1
            lse_Q[first + i] = exponentials(s_QJ[i, :seen])
            s_QJ[i, seen:J] = ZERO
        nn(out_ID, s_IJ, v_JD[:J], ZERO)


@helper
def exponentials(s_J):
    """s = exp(s - lse) in place; returns lse."""
    top = key(s_J[0])
    for j in range(s_J.size):
        top = max(top, key(s_J[j]))
    # Subtract the row maximum first: exp overflows float32 above 88.
    maximum = value(top)
    total = ZERO
    for j in range(s_J.size):
        e = exp(s_J[j] - maximum)
        s_J[j] = e
        total += e
    share = ONE / total
    for j in range(s_J.size):
        s_J[j] *= share
    return np.log(total) + maximum
