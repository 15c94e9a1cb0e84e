"""Count what kernels load and store, element by element.

    from backends.numba_cuda import counted

    with counted() as traffic:
        layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, 1e-5)
    traffic.loads["x_NC"]                         elements of it, by the argument's name
    traffic.loaded_bytes, traffic.stored_bytes    of global memory
    traffic.kernels["_forward"].loads["x_NC"]     the same for one kernel
    traffic.shared.loads["partial"]               shared memory, which is not among the others

An atomic operation is a load and a store. There are no caches here: an element that is read twice counts
twice.
"""

from collections import Counter, defaultdict
from contextlib import contextmanager

from backends.numba_cuda._compiled import SIMULATED
from harness.errors import ConfigError


class Counts:
    """Elements by array, and bytes."""

    def __init__(self):
        self.loads, self.stores = Counter(), Counter()
        self.loaded_bytes = self.stored_bytes = 0

    def __str__(self):
        names = {**self.loads, **self.stores}
        width = max(map(len, names), default=0)
        rows = [
            f"{name:<{width}}  {self.loads[name]:>12,} loads  {self.stores[name]:>12,} stores"
            for name in names
        ]
        return "\n".join(
            [*rows, f"{self.loaded_bytes:,} bytes loaded, {self.stored_bytes:,} bytes stored"]
        )


class Traffic(Counts):
    """Those of global memory, of all kernels together; `kernels` has them one by one."""

    def __init__(self):
        super().__init__()
        self.kernels, self.shared = defaultdict(Counts), Counts()


active = []
"""What counts now: a Traffic for each `with` that is open."""


@contextmanager
def counted():
    """Count the traffic of the kernels that run inside. Only in the simulator."""
    from backends.numba_cuda.simulator.mode import VARIABLE, mode

    if not SIMULATED or mode().word == "stock":
        raise ConfigError(
            "loads and stores are counted in the harness's CUDA simulator alone",
            slug="counted-in-the-simulator",
            found=f"{VARIABLE}=stock" if SIMULATED else "kernels that are compiled for a GPU",
            do=f"set NUMBA_ENABLE_CUDASIM=1, and leave {VARIABLE}=stock away",
        )
    from backends.numba_cuda.simulator.blocks import install

    install()
    traffic = Traffic()
    active.append(traffic)
    try:
        yield traffic
    finally:
        active.remove(traffic)


class Counting:
    """The watcher of a launch that adds to a Traffic."""

    def __init__(self, traffic, kernel):
        self._shared = (traffic.shared,)
        self._global = traffic, traffic.kernels[kernel]

    def load(self, array, index):
        from backends.numba_cuda.simulator.arrays import SHARED, named

        for counts in self._shared if array.space is SHARED else self._global:
            counts.loads[named(array)] += 1
            counts.loaded_bytes += array.itemsize

    def store(self, array, index):
        from backends.numba_cuda.simulator.arrays import SHARED, named

        elements = array.plain[index].size
        for counts in self._shared if array.space is SHARED else self._global:
            counts.stores[named(array)] += elements
            counts.stored_bytes += elements * array.itemsize

    def atomic(self, array, index):
        self.load(array, index)
        self.store(array, index)

    def begin_block(self, place):
        pass

    def barrier(self):
        pass

    def grid_barrier(self):
        pass
