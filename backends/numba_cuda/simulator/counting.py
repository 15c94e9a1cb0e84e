"""What a launch counts: elements of each array that a kernel loads and stores, and their bytes."""

from collections import Counter, defaultdict

from backends.numba_cuda.simulator.arrays import SHARED, named


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


class Counting:
    """The watcher of a launch that adds to a Traffic."""

    def __init__(self, traffic, kernel):
        self._shared = (traffic.shared,)
        self._global = traffic, traffic.kernels[kernel]

    def load(self, array, index):
        for counts in self._shared if array.space is SHARED else self._global:
            counts.loads[named(array)] += 1
            counts.loaded_bytes += array.itemsize

    def store(self, array, index):
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
