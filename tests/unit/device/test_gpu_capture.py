"""While a graph is captured no garbage is collected, and after it whatever was set before holds."""

import gc
import weakref

import pytest

from harness.device.gpu import no_garbage_collected


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_rests_in_a_capture_and_then_is_as_it_was(collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError), no_garbage_collected():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()


class Garbage:
    """What only the collector finds."""

    def __init__(self):
        self.itself = self


def test_garbage_that_is_there_is_collected_before_a_capture():
    gone = weakref.ref(Garbage())
    with no_garbage_collected():
        assert gone() is None
