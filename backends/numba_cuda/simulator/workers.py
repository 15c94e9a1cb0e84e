"""Greenlets that run the threads of blocks, kept from one launch to the next.

To make one takes as long as tens of switches: each has a stack of Python's of its own.
"""

import threading

import numpy as np
from greenlet import getcurrent, greenlet

ENDED = object()
"""What a switch to a worker brings where its work is done, or an error. At a barrier it brings ()."""


class Workers:
    """Those of one launch."""

    def __init__(self):
        self._busy, self._idle, self._host = set(), _idle(), getcurrent()

    def lend(self):
        """A worker, which does what is handed to its `switch`."""
        worker = self._idle.pop() if self._idle else _new()
        worker.parent = self._host
        self._busy.add(worker)
        return worker

    def take_back(self, worker, outcome):
        """A worker whose switch brought something. Raises that, where it is an error."""
        self._busy.remove(worker)
        self._idle.append(worker)
        if outcome is not ENDED:
            raise outcome

    def stop(self):
        """End all that wait: one of them failed."""
        for worker in self._busy:
            worker.throw()
        self._busy.clear()


_of_thread = threading.local()


def _idle():
    try:
        return _of_thread.idle
    except AttributeError:
        _of_thread.idle = []
        return _of_thread.idle


def _new():
    worker = greenlet(_serve)
    worker.switch()
    return worker


def _serve():
    me, outcome = getcurrent(), None
    # A warning or an error of floating point is nothing that CUDA knows of.
    with np.errstate(all="ignore"):
        while True:
            work = me.parent.switch(outcome)
            try:
                work()
                outcome = ENDED
            except Exception as error:
                outcome = error
            del work
