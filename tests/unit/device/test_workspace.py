"""A backend's side of scratch: what is asked for, what is lent, and what is the backend's own."""

import numpy as np
import pytest

from harness.device import ALIGNMENT, HOST, Workspace, room


@pytest.fixture
def memory():
    return Workspace(HOST.empty, HOST.view)


def test_a_half_op_needs_what_its_function_says_and_any_other_nothing(memory):
    @memory.takes("gelu_forward", "gelu_backward")
    def _room(dims, precision, most):
        return room((dims["N"], 3)) + most

    assert memory.needed("gelu_backward", {"N": 100}, "fp32", 7) == 1280 + 7
    assert memory.needed("softmax_forward", {"N": 100}, "fp32", 7) == 0


def test_arrays_lie_side_by_side_in_what_is_lent_each_aligned(memory):
    lent = HOST.empty(room((100,), (3, 5)))
    memory.lend(lent)
    first, second = memory.scratch((100,), (3, 5))
    assert (first.shape, second.shape) == ((100,), (3, 5))
    assert np.may_share_memory(first, lent)
    assert np.may_share_memory(second, lent)
    assert not np.may_share_memory(first, second)
    assert second.ctypes.data % ALIGNMENT == 0


def test_too_little_that_is_lent_is_refused(memory):
    memory.lend(HOST.empty(room((100,))))
    with pytest.raises(AssertionError, match="were planned"):
        memory.scratch((200,))


def test_memory_of_its_own_is_kept_and_grows(memory):
    (small,) = memory.scratch((10,))
    (again,) = memory.scratch((10,))
    assert np.may_share_memory(small, again)
    (large,) = memory.scratch((1000,))
    assert large.size == 1000
    assert np.may_share_memory(memory.scratch((10,))[0], large)


def test_what_works_in_pieces_sees_all_that_is_lent_or_its_own_limit(memory):
    assert memory.available(512) == 512
    memory.lend(HOST.empty(4096))
    assert memory.available(512) == 4096
    memory.lend(None)
    assert memory.available(512) == 512
