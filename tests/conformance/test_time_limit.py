"""A kernel that does not come back is interrupted; one that is being compiled is waited for."""

import time

import pytest

from harness.conformance.time_limit import TookTooLong, time_limit


def test_what_does_not_end_is_interrupted():
    began = time.monotonic()
    with pytest.raises(TookTooLong, match=r"after 0\.2 s"), time_limit(0.2):
        time.sleep(10)
    assert time.monotonic() - began < 5


def test_time_spent_compiling_does_not_count():
    compiled = 0.0
    with time_limit(0.2, lambda: compiled):
        for _ in range(8):
            time.sleep(0.05)
            compiled += 0.05


def test_a_kernel_that_does_not_end_after_compiling_is_interrupted():
    began = time.monotonic()
    with pytest.raises(TookTooLong), time_limit(0.2, lambda: min(0.3, time.monotonic() - began)):
        time.sleep(10)
    assert 0.45 < time.monotonic() - began < 5
