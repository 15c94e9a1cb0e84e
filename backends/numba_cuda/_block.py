"""What the threads of a block find out together, through shared memory.

    partial = cuda.shared.array(MOST_THREADS, np.float32)      in the kernel, on a line of its own
    total = block_sum(mine, partial)                           every thread gets the same bits

A tree: the upper half of the threads hands its numbers to the lower half, until one is left. The block
has a power of two of threads in x, and every one of them calls it.
"""

from numba import cuda

MOST_THREADS = 256
"""Of a block that a tree goes over; what `partial` is long."""


@cuda.jit(device=True)
def block_sum(mine, partial):
    """Σ mine over the block's threads, in the order of the tree."""
    thread = cuda.threadIdx.x
    partial[thread] = mine
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            partial[thread] += partial[thread + half]
        cuda.syncthreads()
        half //= 2
    total = partial[0]
    cuda.syncthreads()  # partial may be written again as soon as this returns
    return total


@cuda.jit(device=True)
def block_max(mine, partial):
    """The largest over the block's threads; a NaN of any is the answer."""
    thread = cuda.threadIdx.x
    partial[thread] = mine
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            other = partial[thread + half]
            # `not (other <= ...)` and not `other > ...`: a NaN wins.
            if not (other <= partial[thread]) and partial[thread] == partial[thread]:
                partial[thread] = other
        cuda.syncthreads()
        half //= 2
    top = partial[0]
    cuda.syncthreads()
    return top
