"""Say what is wrong with a kernel, and where: kernel, line, block and threads."""

import math
from pathlib import Path

from backends.numba_cuda.simulator.arrays import SIMULATORS, line_of
from harness.errors import HarnessError, PluginError


def located(error, grid):
    """An error of a kernel with its thread and block: itself, or one of its kind as Numba has it."""
    cuda = grid.cuda
    if isinstance(error, HarnessError):
        if "thread" not in error.facts and "threads" not in error.facts:
            error.facts.update(
                kernel=grid.function.__name__,
                where=_line(error.__traceback__),
                thread=str(cuda.threadIdx),
                block=str(cuda.blockIdx),
            )
        return error
    place = f"tid={list(cuda.threadIdx)} ctaid={list(cuda.blockIdx)}"
    try:
        named = type(error)(f"{place}: {error}" if str(error) else place)
    except TypeError:  # it wants other arguments than a text
        error.add_note(place)
        return error
    return named.with_traceback(error.__traceback__)


def launchable(grid):
    """Raise PluginError for more blocks or threads than a GPU takes, or no threads at all."""
    check_launch(grid.function.__name__, grid.cuda.gridDim, grid.cuda.blockDim)


def check_launch(name, blocks, block):
    """The same, of a kernel's name and both triples; Numba itself stumbles on blocks below 0."""
    if (
        math.prod(block) > MAX_THREADS
        or not all(1 <= count <= most for count, most in zip(block, MAX_BLOCK, strict=True))
        or not all(0 <= count <= most for count, most in zip(blocks, MAX_GRID, strict=True))
    ):
        raise PluginError(
            f"{name}: no GPU takes {tuple(blocks)} blocks of {tuple(block)} threads",
            slug="kernel-launch",
            expected=f"1 to {MAX_THREADS} threads of a block, {MAX_BLOCK} by axis; {MAX_GRID} blocks",
        )


# Of every compute capability that Numba compiles for: CUDA's programming guide, "compute capabilities".
MAX_THREADS, MAX_BLOCK, MAX_GRID = 1024, (1024, 1024, 64), (2**31 - 1, 65535, 65535)


def same_barrier(block):
    """Raise PluginError unless every thread of a block waits at one barrier."""
    grid = block.grid
    kernel = grid.function.__code__
    if len(block.waiting) == len(grid.threads):
        first, _ = block.waiting[0]
        place = _place(first.gr_frame, kernel)
        if _all_at(place, block.waiting):
            return
    at = {}
    for worker, thread in block.waiting:
        at.setdefault(_place(worker.gr_frame, kernel), []).append(thread)
    waiting = {id(thread) for threads in at.values() for thread in threads}
    ended = [thread for thread in grid.threads if id(thread) not in waiting]
    size = grid.cuda.blockDim
    lines = [f"{_these(who, size)} wait at {spelled(place)}" for place, who in at.items()]
    if ended:
        lines.append(f"{_these(ended, size)} have ended")
    raise PluginError(
        f"{grid.function.__name__}: the threads of a block do not all reach one barrier",
        slug="kernel-barrier",
        block=block.place,
        threads="\n".join(lines),
        effect="what a GPU does then is undefined",
        do="let every thread of the block come to every cuda.syncthreads()",
    )


def grid_diverged(grid, waiting, blocks):
    ended = [block.place for block in blocks if block not in waiting]
    return PluginError(
        f"{grid.function.__name__}: not every block reaches the grid's barrier",
        slug="kernel-barrier",
        threads=f"of {len(blocks)} blocks {len(waiting)} wait, and "
        f"{_these(ended, grid.cuda.gridDim)} have ended",
        effect="a GPU would wait for ever",
    )


def _these(places, size):
    """Threads of a block, or blocks of a grid, in a few words."""
    most = 4
    if size.y == size.z == 1:
        names = _ranges(sorted(place.x for place in places))
    else:
        names = [str(place) for place in sorted(places, key=lambda p: (p.z, p.y, p.x))]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _ranges(numbers):
    runs = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{a}" if a == b else f"{a}-{b}" for a, b in runs]


def _place(frame, kernel):
    """Where a frame is, and where it was called from, out to the kernel."""
    if frame.f_code is kernel:
        return ((kernel, frame.f_lasti),)
    place = []
    while frame.f_code is not kernel:
        place.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return (*place, (kernel, frame.f_lasti))


def _all_at(place, waiting):
    """Whether all of those are at one place: at every barrier, so it is written to be quick."""
    for worker, _ in waiting:
        frame = worker.gr_frame
        for code, instruction in place:
            if frame.f_lasti != instruction or frame.f_code is not code:
                return False
            frame = frame.f_back
    return True


def spelled(place):
    """The lines of a place: the innermost that is of no simulator, and those that called it."""
    lines = [
        f"{Path(code.co_filename).name}:{line_of(code, instruction)}"
        for code, instruction in place
        if Path(code.co_filename).parent != OURS
    ]
    return ", called from ".join(lines)


OURS = Path(__file__).parent


def _line(traceback):
    """The innermost line of a traceback that is of no simulator."""
    place = None
    while traceback is not None:
        frame = traceback.tb_frame
        if not frame.f_globals["__name__"].startswith(SIMULATORS):
            place = frame.f_code, traceback.tb_lasti
        traceback = traceback.tb_next
    return place and spelled([place])
