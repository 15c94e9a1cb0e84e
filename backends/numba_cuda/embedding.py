"""out[b,t] = wte[tokens[b,t]] + wpe[position[b] + t]

    dwte[tokens[b,t]] += dout[b,t]        dwpe[position[b] + t] += dout[b,t]

Forward, a block has a row, and a thread eight numbers of it at a time (`_pieces.py`). Backward, a row of
a table is the sum of the rows of dout that looked it up, in the order of the text and without atomics:
the same bits in every run.

dwpe asks the other way round: the block of position x takes, of each sequence b, the row at
t = x - position[b].

dwte sorts the rows by token first (`_token_order.py`), so that those of one token are neighbours: a run.

    _sum_tiles      a block goes through TILE rows in that order and adds them up. A run within its tile
                    goes to the table; of a run that crosses an edge the tile's part is kept:
                    edges[tile, BEFORE] of one that began before, edges[tile, AFTER] of one that goes on
    _join_tiles     the block of the tile where a crossing run begins adds up its parts, in order

So a token that stands in every row is the work of all blocks, and its parts of one. In both, and in
dwpe's kernel, a thread has one column, and blocks in y share the columns.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import THREADS, launch, threads_for
from backends.numba_cuda._machine import machine
from backends.numba_cuda._narrow import wide
from backends.numba_cuda._pieces import AT_ONCE, piece, read, threads_for_row, write
from backends.numba_cuda._scratch import room, scratch, takes
from backends.numba_cuda._token_order import keys_shape, row_of, sort_rows, token_of
from harness import hookimpl

TILE = 32
AROUND = TILE + 2  # a tile's keys, and one on either side
BEFORE, AFTER = 0, 1
NONE = np.int64(-1)  # no key, of no token
ZERO = np.float32(0)


@hookimpl
def embedding_forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    B, T, C = out_BTC.shape
    out_NC, tokens_N = out_BTC.reshape(B * T, C), tokens_BT.reshape(B * T)
    rows = out_NC, tokens_N, position_B, wte_VC, wpe_XC
    launch(_forward, B * T, threads_for_row(C), *rows, T)


@hookimpl
def embedding_backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    if dwte_VC is not None:
        if not accumulate:
            machine().zero(dwte_VC)  # most rows of the table are of no token here
        _add_tokens(dwte_VC, dout_BTC, tokens_BT, accumulate)
    if dwpe_XC is not None:
        X, C = dwpe_XC.shape
        launch(
            _sum_positions,
            (X, _parts(C)),
            threads_for(C),
            dwpe_XC,
            dout_BTC,
            position_B,
            accumulate,
        )


def _add_tokens(dwte_VC, dout_BTC, tokens_BT, accumulate):
    B, T, C = dout_BTC.shape
    N = B * T
    keys_N, sorted_N, edges_K2C = _scratch(N, C)
    order_N = sort_rows(tokens_BT, keys_N, sorted_N)
    tiles, threads, dout_NC = edges_K2C.shape[0], threads_for(C), dout_BTC.reshape(N, C)
    sums = dwte_VC, edges_K2C, order_N
    launch(_sum_tiles, (tiles, _parts(C)), threads, *sums, dout_NC, accumulate)
    launch(_join_tiles, (tiles - 1, _parts(C)), threads, *sums, N, accumulate)


def _parts(C):
    """Blocks that share the columns."""
    return -(-C // THREADS)


def _shapes(N, C):
    return (keys_shape(N), np.int64), (keys_shape(N), np.int64), ((-(-N // TILE), 2, C), np.float32)


def _nbytes(N, C):
    return [(int(np.prod(shape)) * np.dtype(dtype).itemsize,) for shape, dtype in _shapes(N, C)]


def _scratch(N, C):
    memories = scratch(*_nbytes(N, C), dtype=np.uint8)
    shapes = _shapes(N, C)
    return [machine().view(memory, 0, *of) for memory, of in zip(memories, shapes, strict=True)]


@takes("embedding_backward")
def _room(dims, precision, most):
    return room(*_nbytes(dims["B"] * dims["T"], dims["C"]), dtype=np.uint8)


@cuda.jit
def _forward(out_NC, tokens_N, position_B, wte_VC, wpe_XC, T):
    token_K = cuda.local.array(AT_ONCE, np.float32)
    place_K = cuda.local.array(AT_ONCE, np.float32)
    n, C = cuda.blockIdx.x, out_NC.shape[1]
    token, x = tokens_N[n], position_B[n // T] + n % T
    for first in range(cuda.threadIdx.x, C, piece()):
        read(token_K, wte_VC[token], first, C, ZERO)
        read(place_K, wpe_XC[x], first, C, ZERO)
        for k in range(AT_ONCE):
            token_K[k] += place_K[k]
        write(out_NC[n], token_K, first, C)


@cuda.jit
def _sum_tiles(dwte_VC, edges_K2C, order_N, dout_NC, accumulate):
    keys = cuda.shared.array(AROUND, np.int64)
    row_K = cuda.local.array(AT_ONCE, np.float32)
    N, C = dout_NC.shape
    tile, c = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    start = tile * TILE
    count = min(TILE, N - start)
    for i in range(cuda.threadIdx.x, count + 2, cuda.blockDim.x):
        n = start + i - 1
        keys[i] = order_N[n] if 0 <= n < N else NONE
    cuda.syncthreads()
    if c < C:
        began_before = token_of(keys[0]) == token_of(keys[1])
        total = ZERO
        for first in range(0, count, AT_ONCE):
            for k in range(AT_ONCE):
                row_K[k] = wide(dout_NC[row_of(keys[min(first + k, count - 1) + 1]), c])
            for k in range(AT_ONCE):
                i = first + k + 1
                if i <= count:
                    total += row_K[k]
                    token = token_of(keys[i])
                    goes_on = token_of(keys[i + 1]) == token
                    if i == count or not goes_on:
                        if began_before:
                            edges_K2C[tile, BEFORE, c] = total
                        elif goes_on:
                            edges_K2C[tile, AFTER, c] = total
                        else:
                            _put(dwte_VC, token, c, total, accumulate)
                        began_before = False
                        total = ZERO


@cuda.jit
def _join_tiles(dwte_VC, edges_K2C, order_N, N, accumulate):
    tile, c = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    start = tile * TILE
    stop = start + TILE
    token = token_of(order_N[stop - 1])
    began_before = start > 0 and token_of(order_N[start - 1]) == token
    goes_on = token_of(order_N[stop]) == token
    if goes_on and not began_before and c < dwte_VC.shape[1]:
        # The last tile that begins with this token, by halves.
        last, beyond = tile + 1, edges_K2C.shape[0]
        while beyond - last > 1:
            middle = last + (beyond - last) // 2
            if token_of(order_N[middle * TILE]) == token:
                last = middle
            else:
                beyond = middle
        total = edges_K2C[tile, AFTER, c]
        for each in range(tile + 1, last + 1):
            total += edges_K2C[each, BEFORE, c]
        _put(dwte_VC, token, c, total, accumulate)


@cuda.jit
def _sum_positions(dwpe_XC, dout_BTC, position_B, accumulate):
    row_K = cuda.local.array(AT_ONCE, np.float32)
    B, T, C = dout_BTC.shape
    x, c = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if c < C:
        total = ZERO
        for first in range(0, B, AT_ONCE):
            for k in range(AT_ONCE):
                b = min(first + k, B - 1)
                t = x - position_B[b]
                wanted = 0 <= t < T and first + k < B
                row_K[k] = wide(dout_BTC[b, t, c]) if wanted else ZERO
            for k in range(AT_ONCE):
                total += row_K[k]
        _put(dwpe_XC, x, c, total, accumulate)


@cuda.jit(device=True)
def _put(table_VC, row, c, total, accumulate):
    table_VC[row, c] = table_VC[row, c] + total if accumulate else total
