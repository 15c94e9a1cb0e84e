"""Do a piece of work block after block, so that its scratch arrays stay in the cache.

Measured on two cores of an EPYC, 1 MiB of L2 each:

* gelu_forward of (256, 3072) takes 1.10 ms in blocks of 16 Ki numbers, 0.86 of 64 Ki, 0.81 of 96 Ki:
  what each call of a ufunc costs weighs more than what falls out of L2.
* adamw takes 1.66 ns a parameter on one thread and 0.94 on two: ufuncs release the GIL.
* Forward and backward of GPT-2 124M take 1.46 s with a second thread nowhere but in the optimizer, and
  1.58 s with one in every op: after a product the threads of BLAS spin for a while, on that core.
"""

import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import numpy as np
from threadpoolctl import threadpool_info

BLOCK = 96 << 10
"""Numbers in a block: 384 KiB in float32."""

WORTH_SHARING = 4 << 20
"""Numbers from which on another thread brings more than it costs to wake it."""

MAX_THREADS = 4
"""Of ten microseconds in a ufunc and one between two, that one is under the GIL."""


def rows_per_block(width):
    """Rows of `width` numbers in one block."""
    return max(1, round(BLOCK / width))


def in_blocks(work, rows, width):
    """Call work(slice) for consecutive slices of 0 .. rows. width: numbers in a row."""
    _run(work, slice(0, rows), rows_per_block(width))


def in_blocks_on_all_cores(work, size):
    """The same for a flat run of numbers; a long one is shared among threads: as many as BLAS has,
    unless another number was set.

    work must write only what belongs to its slice. The blocks depend on the size alone, and so the
    results do not depend on the number of threads.
    """
    threads = _threads() if size >= WORTH_SHARING else 1
    share = -(-size // (threads * BLOCK)) * BLOCK
    first, *others = [slice(i, min(i + share, size)) for i in range(0, size, share)]
    running = [_pool().submit(_run, work, other, BLOCK) for other in others]
    try:
        _run(work, first, BLOCK)
    finally:
        wait(running)
    for thread in running:
        thread.result()  # raises what the thread raised


def _run(work, share, height):
    # NaN and infinities are data. Each thread has a setting of its own for what it warns of.
    with np.errstate(all="ignore"):
        for start in range(share.start, share.stop, height):
            work(slice(start, min(start + height, share.stop)))


def use_threads(count):
    """Share long runs among this many threads from now on, MAX_THREADS at most."""
    global _count
    if count != _count:
        _count = count
        _threads.cache_clear()
        # The threads of a pool that nobody holds any more end by themselves.
        _pool.cache_clear()


_count = None


@cache
def _threads():
    if _count is not None:
        return min(_count, MAX_THREADS)
    blas = [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]
    return min(max(blas, default=1), MAX_THREADS)


@cache
def _pool():
    return ThreadPoolExecutor(_threads() - 1, thread_name_prefix="numpy-blocks")


# A child process inherits the pool without its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
