"""Put the rows of a text in the order of their tokens; rows of one token follow each other as they did.

    order_N = sort_rows(tokens_BT, keys_N, sorted_N)           token_of(order_N[i]), row_of(order_N[i])

A key is a token and the number of its row, token in the high half: keys are all different, and their
order is the one wanted.

    _sort_chunks    a block sorts a chunk of keys in shared memory: a bitonic network, a thread a pair
    _merge_chunks   a key's place is how many keys are less: its place in its own chunk, and one binary
                    search in each other chunk. Its SHARES threads divide the chunks among them

Nothing is counted by atomics and nothing comes back to the host.
"""

import numpy as np
from numba import cuda

from backends.numba_cuda._launch import WARP, launch

MAX_CHUNK = 2048
"""Keys that one block sorts: two for each of 1024 threads, and 16 KiB of shared memory."""

MIN_CHUNK = 2 * WARP

SHARES = 8

TOKEN = 32  # bits to the left of the row
ROW = np.int64(0x7FFFFFFF)
LAST = np.int64(0x7FFFFFFFFFFFFFFF)  # of no row: fills the last chunk


def keys_shape(N):
    """Of keys_N and of sorted_N, in int64: whole chunks."""
    return (_chunk(N) * _chunks(N),)


def sort_rows(tokens_BT, keys_N, sorted_N):
    """The keys in order; they lie in one of the two arrays."""
    N = tokens_BT.size
    chunk, chunks = _chunk(N), _chunks(N)
    launch(_sort_chunks, chunks, chunk // 2, keys_N, tokens_BT.reshape(N), chunk)
    if chunks == 1:
        return keys_N
    launch(_merge_chunks, -(-N // WARP), (WARP, SHARES), sorted_N, keys_N, N, chunk, chunks)
    return sorted_N


def _chunk(N):
    chunk = MIN_CHUNK
    while chunk < min(N, MAX_CHUNK):
        chunk *= 2
    return chunk


def _chunks(N):
    return -(-N // _chunk(N))


@cuda.jit(device=True)
def token_of(key):
    """Of a key; of -1, which is no key, a token that there is not."""
    return key >> TOKEN


@cuda.jit(device=True)
def row_of(key):
    """The number of a key's row."""
    return key & ROW


@cuda.jit
def _sort_chunks(keys_N, tokens_N, chunk):
    keys = cuda.shared.array(MAX_CHUNK, np.int64)
    start, thread = cuda.blockIdx.x * chunk, cuda.threadIdx.x
    for i in range(thread, chunk, cuda.blockDim.x):
        n = start + i
        keys[i] = (np.int64(tokens_N[n]) << TOKEN) | n if n < tokens_N.size else LAST
    run = 2
    while run <= chunk:
        apart = run // 2
        while apart > 0:
            cuda.syncthreads()
            left = 2 * thread - (thread & (apart - 1))
            right = left + apart
            upwards = (left & run) == 0
            a, b = keys[left], keys[right]
            if (a > b) == upwards:
                keys[left] = b
                keys[right] = a
            apart //= 2
        run *= 2
    cuda.syncthreads()
    for i in range(thread, chunk, cuda.blockDim.x):
        keys_N[start + i] = keys[i]


@cuda.jit
def _merge_chunks(sorted_N, keys_N, N, chunk, chunks):
    partial = cuda.shared.array((SHARES, WARP), np.int32)
    lane, share = cuda.threadIdx.x, cuda.threadIdx.y
    i = cuda.blockIdx.x * WARP + lane
    # Beyond the end a thread looks for a key all the same, since it must come to the barrier.
    key, own = keys_N[min(i, N - 1)], min(i, N - 1) // chunk
    less = 0
    for other in range(share, chunks, SHARES):
        if other != own:
            less += _count_less(keys_N, other * chunk, chunk, key)
    partial[share, lane] = less
    cuda.syncthreads()
    if share == 0 and i < N:
        place = i % chunk
        for each in range(SHARES):
            place += partial[each, lane]
        sorted_N[place] = key


@cuda.jit(device=True)
def _count_less(keys_N, start, chunk, key):
    """How many keys of a sorted chunk are less than this one."""
    less, step = 0, chunk // 2
    while step > 0:
        if keys_N[start + less + step - 1] < key:
            less += step
        step //= 2
    return less + 1 if keys_N[start + less] < key else less
