"""Interrupt a kernel that does not come back. Where signals cannot (Windows, threads), do nothing."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

MIN_S = 0.01
"""A clock may run this much behind the alarm's."""


class TookTooLong(AssertionError):  # noqa: N818  (says what happened)
    """A kernel was still running when its time was over."""


@contextmanager
def time_limit(limit_s: float, compiling: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
    """Raise TookTooLong in this thread after limit_s seconds. An outer alarm goes on afterwards.

    compiling: the seconds spent compiling so far, which do not count.
    """
    usable = hasattr(signal, "setitimer") and (
        threading.current_thread() is threading.main_thread()
    )
    if not usable:
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        left = limit_s + (compiling() - compiled) - (time.monotonic() - began)
        if left > MIN_S:
            signal.setitimer(signal.ITIMER_REAL, left)
            return
        raise TookTooLong(f"it was still running after {limit_s:g} s")

    began, compiled = time.monotonic(), compiling()
    previous = signal.signal(signal.SIGALRM, interrupt)
    outer_s, _ = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if outer_s:
            left = max(1e-3, outer_s - (time.monotonic() - began))
            signal.setitimer(signal.ITIMER_REAL, left)
