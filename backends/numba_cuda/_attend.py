"""A tile of queries goes over the keys that it sees: the online softmax, of forward and of decoding.

    top' = max(top, max_j s[j])        fade = exp(top - top')        p[j] = exp(s[j] - top')
    total' = total · fade + Σ_j p[j]        out' = out · fade + Σ_j p[j] v[j]
    at the end        out / total        lse = top + log total

Keys come N at a time. The largest score so far is subtracted; when it grows, what was added up fades by
as much. So no score is kept longer than its tile, and tiles that no query of the block sees are not
visited. The eight threads of a row find its largest score through shared memory; each keeps the sum of
its own columns until the end.
"""

from functools import lru_cache

import numpy as np
from numba import cuda

from backends.numba_cuda._flash import (
    COLUMNS,
    INFINITE,
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
    store_tile,
)
from backends.numba_cuda._math import exp, log


@lru_cache
def attend_of(W):
    """The device function for pieces of a head that are W wide."""
    OWN, PASSING, SQUARE = (W, M + PADDING), (N, W + PADDING), (N, M + PADDING)
    PART, RESULTS = W // LANES, (ROWS, W // LANES)

    @cuda.jit(device=True)
    def attend(out_TD, lse_T, q_TD, k_JD, v_JD, first, before, piece, scale):
        """M queries from `first` on; the first of all comes after `before` keys."""
        q_DM = cuda.shared.array(OWN, np.float32, 16)
        k_ND = cuda.shared.array(PASSING, np.float32, 16)
        v_ND = cuda.shared.array(PASSING, np.float32, 16)
        p_NM = cuda.shared.array(SQUARE, np.float32, 16)
        shares_ML = cuda.shared.array((M, LANES), np.float32, 16)
        part = cuda.local.array(PART, np.float32)
        s = cuda.local.array((ROWS, COLUMNS), np.float32)
        out = cuda.local.array(RESULTS, np.float32)
        top = cuda.local.array(ROWS, np.float32)
        total = cuda.local.array(ROWS, np.float32)
        T, D = q_TD.shape
        row, lane = first_row(), cuda.threadIdx.x
        position = before + first + row
        # A thread whose rows are beyond the last only helps to load.
        here = first + row < T
        last = min(first + M, T)
        stop = before + last
        # From -infinity, the first tile's fade is exp(-infinity) = 0, and no case of its own.
        if here:
            fill(out, ZERO)
            for i in range(ROWS):
                top[i], total[i] = -INFINITE, ZERO

        # No further than the last key that the block sees: the tiles beyond would be all mask.
        for start in range(0, stop, N):
            if here:
                fill(s, ZERO)
            # A piece of the head at a time: all of a wide head's tiles would not fit in shared memory.
            for column in range(0, D, W):
                cuda.syncthreads()
                if start == 0 or D > W:
                    load_own(q_DM, q_TD, first, last, column, part)
                load_passing(k_ND, k_JD, start, stop, column, part)
                if column == 0:
                    load_passing(v_ND, v_JD, start, stop, piece, part)
                cuda.syncthreads()
                if here:
                    multiply_rows(s, q_DM, k_ND, min(W, D - column))
            # Masked before the maximum: a large score that is not seen would take all others to 0.
            if here:
                for i in range(ROWS):
                    highest = -INFINITE
                    for j in range(COLUMNS):
                        seen = start + lane + LANES * j <= position + i
                        s[i, j] = s[i, j] * scale if seen else -INFINITE
                        highest = s[i, j] if s[i, j] > highest else highest
                    shares_ML[at(row + i), at(lane)] = highest
            cuda.syncthreads()
            # One maximum for the eight threads of a row: what they add up must have faded alike.
            if here:
                for i in range(ROWS):
                    highest = top[i]
                    for other in range(LANES):
                        score = shares_ML[at(row + i), at(other)]
                        highest = score if score > highest else highest
                    # Where no score is above -infinity, exp(-infinity - 0) is 0, and not NaN.
                    base = highest if highest > -INFINITE else ZERO
                    fade = exp(top[i] - base)
                    top[i] = highest
                    total[i] *= fade
                    for j in range(COLUMNS):
                        p = exp(s[i, j] - base)
                        p_NM[at(lane + LANES * j), at(row + i)] = p
                        total[i] += p
                    for j in range(out.shape[1]):
                        out[i, j] *= fade
            cuda.syncthreads()
            # After all of p is there: a thread's results need the p of the whole row, of all eight.
            if here:
                multiply_columns(out, p_NM, v_ND, min(N, stop - start))

        # The eight sums of a row are joined once, here, and not for every tile.
        if here:
            for i in range(ROWS):
                shares_ML[at(row + i), at(lane)] = total[i]
        cuda.syncthreads()
        # Divided only now: once for each result, and not once for each p of every tile.
        if here:
            for i in range(ROWS):
                together = ZERO
                for other in range(LANES):
                    together += shares_ML[at(row + i), at(other)]
                share = ONE / together
                for j in range(out.shape[1]):
                    out[i, j] *= share
                if lse_T is not None:  # noqa: SIM102 - by itself, so that it is pruned
                    if lane == 0 and piece == 0 and first + row + i < T:
                        lse_T[at(first + row + i)] = top[i] + log(together)
            store_tile(out_TD, first, piece, out, ONE)

    return attend
