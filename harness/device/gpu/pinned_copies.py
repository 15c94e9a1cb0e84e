"""Copies between the host and a GPU, through pinned memory, in the order of one stream.

    class Gpu(PinnedCopies): ...        from_host, to_host, begin_read, synchronize

A GPU reads the host's memory by itself only where its pages are pinned. So an array goes to a slot of
pinned memory first, and the host goes on while the GPU fetches it. A slot is used again once the event
after its copy has passed. Only to_host, synchronize and the reading of a begun read wait.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.contract import Shape

PINNED_BYTES = 4 << 20
"""A copy to the device of at most this many bytes goes through pinned memory; a larger one waits."""

SLOTS = 32
"""Copies under way at a time, before the oldest is waited for."""


class Slot:
    """Pinned memory that a copy passes through, and the event that says when it has.

    event: of the backend's library, with `synchronize`. pinned: nbytes -> pinned memory.
    """

    def __init__(self, event: Any, pinned: Callable[[int], Any]) -> None:
        self.event, self._pinned = event, pinned
        self._nbytes, self._memory = 0, None

    def wait(self) -> None:
        """Until the copy that the event was recorded after has passed."""
        self.event.synchronize()

    def numpy(self, shape: Shape, dtype: Any) -> np.ndarray:
        """The memory as a NumPy array; it grows where it must."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if nbytes > self._nbytes:
            self._memory = self._pinned(nbytes)
            self._nbytes = nbytes
        return np.ndarray(shape, dtype, self._memory)


class PinnedCopies:
    """The device's hooks that copy and wait. `copies` and `waits` count what the host did.

    A backend says how, below: a slot of its library's memory, copies that its stream is asked for.
    """

    def __init__(self) -> None:
        self.copies = self.waits = 0
        self._outgoing = deque(self._new_slot() for _ in range(SLOTS))
        self._incoming: list[Slot] = []  # slots that no read holds

    def _new_slot(self) -> Slot:
        raise NotImplementedError

    def _record(self, event: Any) -> None:
        """Record an event on the stream."""
        raise NotImplementedError

    def _wait(self) -> None:
        """Wait for the stream."""
        raise NotImplementedError

    def _copy_to_device(self, buffer: Any, array: np.ndarray) -> None:
        """Ask the stream for a copy of all of an array."""
        raise NotImplementedError

    def _copy_to_host(self, array: np.ndarray, buffer: Any) -> None:
        """Ask the stream for a copy that fills an array."""
        raise NotImplementedError

    def _as_on_device(self, array: np.ndarray) -> np.ndarray:
        """The host's array with the dtype that a buffer of it has; no copy."""
        return array

    def from_host(self, buffer: Any, array: np.ndarray) -> None:
        array = self._as_on_device(np.ascontiguousarray(array))
        assert (array.dtype, array.size) == (buffer.dtype, buffer.size), "of one dtype and size"
        self.copies += 1
        if array.nbytes > PINNED_BYTES:
            self._copy_to_device(buffer, array)
            self._wait()
            return
        slot = self._outgoing.popleft()
        slot.wait()
        staged = slot.numpy(array.shape, array.dtype)
        np.copyto(staged, array)
        self._copy_to_device(buffer, staged)
        self._record(slot.event)
        self._outgoing.append(slot)

    def to_host(self, array: np.ndarray, buffer: Any) -> None:
        array = self._as_on_device(array)
        assert (array.dtype, array.size) == (buffer.dtype, buffer.size), "of one dtype and size"
        assert array.flags.c_contiguous, "the host's array is contiguous"
        self.copies += 1
        self.waits += 1
        self._copy_to_host(array, buffer)
        self._wait()

    def begin_read(self, buffer: Any) -> Callable[[np.ndarray], None]:
        """Begin a copy to pinned memory; the function returned waits for it alone."""
        slot = self._incoming.pop() if self._incoming else self._new_slot()
        staged = slot.numpy(buffer.shape, buffer.dtype)
        self.copies += 1
        self._copy_to_host(staged, buffer)
        self._record(slot.event)

        def read(array: np.ndarray) -> None:
            slot.wait()
            np.copyto(self._as_on_device(array), staged, casting="no")
            self._incoming.append(slot)

        return read

    def synchronize(self) -> None:
        """Wait until everything that was asked of the stream is done."""
        self.waits += 1
        self._wait()
