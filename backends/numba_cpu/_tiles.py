"""Share work among threads: a run of numbers in parts, a matrix in tiles. The same parts in every call.

    for task in prange(tasks):
        start, stop = part(size, tasks, task)

Slice what a task works on and loop over it from 0: in `for p in range(start, stop): x[p]` Numba must ask
whether p is negative, and the compiler then takes one number at a time (AdamW: 5 times as long).

`tasks` is the number of threads, which the caller passes: a kernel that asks Numba for it cannot be kept
on disk.
"""

from backends.numba_cpu._kernel import helper

GRAIN = 16
"""Where a matrix is cut: numbers of one vector register of the widest kind."""


@helper
def part(size, tasks, task):
    """The slice of 0 .. size that is the task's: (start, stop)."""
    return size * task // tasks, size * (task + 1) // tasks


@helper
def coarse_part(size, tasks, task):
    """The same, cut at multiples of GRAIN only."""
    grains = -(-size // GRAIN)
    start, stop = part(grains, tasks, task)
    return min(start * GRAIN, size), min(stop * GRAIN, size)


@helper
def rows_of_grid(M, N, tasks):
    """How many rows of tiles an M x N result is cut into, of `tasks` tiles in all.

    Each tile reads its rows of one operand and its columns of the other; M / rows + N / columns is the
    least where the tiles are nearly square.
    """
    best, least = 1, M + N / tasks
    for rows in range(2, tasks + 1):
        if tasks % rows == 0 and M / rows + N / (tasks // rows) < least:
            best, least = rows, M / rows + N / (tasks // rows)
    return best


@helper
def tile(M, N, tasks, task):
    """The task's tile of an M x N result: (top, bottom, left, right)."""
    rows = rows_of_grid(M, N, tasks)
    columns = tasks // rows
    top, bottom = coarse_part(M, rows, task // columns)
    left, right = coarse_part(N, columns, task % columns)
    return top, bottom, left, right
