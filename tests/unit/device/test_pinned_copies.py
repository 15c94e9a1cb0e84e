"""Copies pass through pinned memory in order, and no slot is used again before its copy has passed."""

import numpy as np
import pytest

from harness.device.gpu import PINNED_BYTES, SLOTS, PinnedCopies, Slot


class Event:
    """Passes, with all that was asked before it, once it is waited for."""

    def __init__(self, gpu):
        self._gpu, self._asked = gpu, 0

    def record(self):
        self._asked = len(self._gpu.asked)

    def synchronize(self):
        self._gpu.do(self._asked)


class Late(PinnedCopies):
    """Memory of NumPy's, and a stream that does nothing before it must."""

    def __init__(self):
        self.asked, self.done, self.pinned = [], 0, []
        super().__init__()

    def do(self, count):
        for copy in self.asked[self.done : count]:
            copy()
        self.done = max(self.done, count)

    def _new_slot(self):
        return Slot(Event(self), self._pin)

    def _pin(self, nbytes):
        self.pinned.append(nbytes)
        return np.empty(nbytes, np.uint8)

    def _record(self, event):
        event.record()

    def _wait(self):
        self.do(len(self.asked))

    def _copy_to_device(self, buffer, array):
        self.asked.append(lambda: np.copyto(buffer, array))

    def _copy_to_host(self, array, buffer):
        self.asked.append(lambda: np.copyto(array, buffer))


@pytest.fixture
def gpu():
    return Late()


def test_an_array_may_change_as_soon_as_its_copy_was_asked_for(gpu):
    array, buffer = np.full(4, 1.0), np.zeros(4)
    gpu.from_host(buffer, array)
    array[:] = 2
    assert gpu.done == 0
    gpu.synchronize()
    assert buffer.tolist() == [1] * 4


def test_a_slot_is_waited_for_once_all_are_under_way(gpu):
    buffers = [np.zeros(1) for _ in range(SLOTS + 1)]
    for number, buffer in enumerate(buffers[:SLOTS]):
        gpu.from_host(buffer, np.full(1, float(number)))
    assert gpu.done == 0
    gpu.from_host(buffers[SLOTS], np.full(1, float(SLOTS)))
    assert gpu.done == 1  # the oldest, and no other
    gpu.synchronize()
    assert [buffer[0] for buffer in buffers] == list(range(SLOTS + 1))


def test_a_large_array_takes_no_pinned_memory_and_is_waited_for(gpu):
    for more, done in ((0, 0), (1, 2)):
        array = np.ones(PINNED_BYTES + more, np.uint8)
        gpu.from_host(np.zeros_like(array), array)
        assert gpu.done == done
    assert gpu.pinned == [PINNED_BYTES]


def test_a_begun_read_is_of_what_was_there_and_gives_its_memory_back(gpu):
    buffer, array = np.full(4, 1.0), np.zeros(4)
    for _ in range(3):
        read = gpu.begin_read(buffer)
        gpu.from_host(buffer, buffer + 1)
        read(array)
        gpu.synchronize()
    assert array.tolist() == [3] * 4
    assert len(gpu.pinned) == 3 + 1  # a slot for each copy to the device; one for all reads


def test_the_memory_of_a_slot_grows_and_never_shrinks(gpu):
    slot = gpu._new_slot()
    for shape in ((2, 3), (), (6,), (0,), (7,)):
        assert slot.numpy(shape, np.float32).shape == shape
    assert gpu.pinned == [24, 28]


def test_what_is_not_of_one_dtype_and_size_is_refused(gpu):
    with pytest.raises(AssertionError):
        gpu.from_host(np.zeros(4), np.zeros(4, np.float32))
    with pytest.raises(AssertionError):
        gpu.to_host(np.zeros(3), np.zeros(4))


def test_copies_and_waits_are_counted(gpu):
    buffer, array = np.zeros(4), np.zeros(4)
    gpu.from_host(buffer, array)
    gpu.begin_read(buffer)(array)
    gpu.to_host(array, buffer)
    gpu.synchronize()
    assert (gpu.copies, gpu.waits) == (3, 2)
