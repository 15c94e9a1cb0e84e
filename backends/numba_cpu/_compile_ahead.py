"""Compile the kernels of a run before its first step, in two processes, into the cache on disk.

Numba compiles under a lock that all threads share, so only a second process can use a second core. It
runs `serve`. The run hands it one kernel at a time, and compiles others meanwhile.
Each kernel has its own index file in the cache and goes to one of the two processes, so no index has two
writers.

The second process only helps: what it does not finish is compiled here.
"""

import json
import os
import subprocess
import sys
from collections import deque
from contextlib import suppress
from threading import Condition, Thread
from types import SimpleNamespace

import numpy as np

from backends.numba_cpu import _kernel, _scratch
from backends.numba_cpu._narrow import as_bits
from backends.numba_cpu._threads import threads

PROGRAM = (
    f"from backends.numba_cpu import plugin; from {__name__} import serve; serve(vars(plugin))"
)

SMALL = 4096
"""Numbers in an array that may be read as a factor, and so holds ones; others are never touched."""


def compile_ahead(calls, functions):
    """Compile what is not on disk: (done, all) before the first kernel and after each.

    calls: (hook, arguments), where a buffer is anything with a shape and a dtype. functions: hook ->
    function.
    """
    if _kernel.cache_folder() is None:
        return
    missing = deque(_missing(_recorded(calls, functions)))
    if not missing:
        return
    # What takes longest comes first, so that neither process waits long for the other at the end.
    count = len(missing)
    yield 0, count
    second = _Second(missing, calls) if count > 1 and threads() > 1 else None
    try:
        done = 0
        while task := _next(missing, second):
            kernel, signatures = task
            try:
                for types in signatures:
                    kernel.dispatcher.compile(types)
            except Exception:
                return  # the call that needs it fails in the same way, and names its op
            done += 1
            yield done + (second.done if second else 0), count
    finally:
        if second:
            second.end()


def _recorded(calls, functions):
    """{kernel: {types: None}}: what these calls run."""
    with _kernel.recording() as recorded, np.errstate(all="ignore"):
        for hook, arguments in calls:
            # An op that does not bear made-up numbers is compiled when it is called.
            with suppress(Exception):
                functions[hook](*[_stand_in(argument) for argument in arguments])
    _scratch.forget()
    return recorded


def _missing(recorded):
    """(kernel, signatures) of what is not kept, the longest code first."""
    missing = []
    for kernel, signatures in recorded.items():
        new = [types for types in signatures if not _kernel.is_kept(kernel, types)]
        if new:
            missing.append((kernel, new))
    return sorted(missing, key=lambda task: -len(task[0].__wrapped__.__code__.co_code))


def _name(kernel):
    return f"{kernel.__module__}.{kernel.__name__}"


def _stand_in(argument):
    """An array of the same kind as a buffer. A large one is never touched, and takes no memory."""
    if not hasattr(argument, "shape") or not hasattr(argument, "dtype"):
        return argument
    array = np.empty(argument.shape, argument.dtype)
    if array.size <= SMALL:
        array.fill(1)
    return as_bits(array)


def _next(missing, second):
    """The next task for this process; None when all is done, here and there."""
    if second is None:
        return missing.popleft() if missing else None
    return second.next_for_us()


class _Second:
    """A second process, and the thread that hands it kernels and waits for each.

    missing: tasks for either process, from which both take. calls: it is told, and finds the types.
    """

    def __init__(self, missing, calls):
        self.done = 0
        self._missing, self._changed = missing, Condition()
        self._theirs, self._ended = None, False
        self._process, self._calls = None, calls
        self._thread = Thread(target=self._hand_out, daemon=True)
        self._thread.start()

    def next_for_us(self):
        """A task, at the end one that the other process did not bring; None when all is done."""
        with self._changed:
            while not self._missing and self._theirs is not None:
                self._changed.wait()
            return self._missing.popleft() if self._missing else None

    def end(self):
        """Stop the process, whatever it is at, and wait until it is gone."""
        with self._changed:
            self._ended = True
            process = self._process
        if process is not None:
            process.kill()
        self._thread.join()

    def _hand_out(self):
        try:
            with self._changed:
                if self._ended:
                    return
                self._process = _start()
            with self._process as process:
                try:
                    _say(process.stdin, _as_json(self._calls))
                    while self._take():
                        kernel, signatures = self._theirs
                        _say(process.stdin, [_name(kernel), [str(types) for types in signatures]])
                        if process.stdout.read(1) != b".":
                            return
                        with self._changed:
                            self._theirs = None
                            self.done += 1
                finally:
                    process.kill()
        except (OSError, TypeError, ValueError):
            pass  # it could not be started, or is gone
        finally:
            with self._changed:
                if self._theirs is not None:
                    self._missing.append(self._theirs)
                    self._theirs = None
                self._changed.notify()

    def _take(self):
        with self._changed:
            if self._ended or not self._missing:
                return False
            self._theirs = self._missing.popleft()
            return True


def _say(stream, data):
    stream.write(json.dumps(data).encode() + b"\n")
    stream.flush()


def _as_json(calls):
    def told(argument):
        if hasattr(argument, "shape") and hasattr(argument, "dtype"):
            return {"shape": list(argument.shape), "dtype": np.dtype(argument.dtype).name}
        return argument

    return [[hook, [told(argument) for argument in arguments]] for hook, arguments in calls]


def _from_json(calls):
    def buffer(told):
        # ml_dtypes, imported with the backend, has told NumPy of bfloat16.
        return SimpleNamespace(shape=tuple(told["shape"]), dtype=np.dtype(told["dtype"]))

    return [(hook, [buffer(a) if isinstance(a, dict) else a for a in args]) for hook, args in calls]


def _start():
    # It finds modules where this process does, and its BLAS, which has nothing to do, starts no threads.
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def serve(functions):
    """The second process: compile what comes in, and write a dot for each; end when the input does."""
    import signal

    # Ctrl-C reaches both: the run decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    recorded = _recorded(_from_json(json.loads(sys.stdin.buffer.readline())), functions)
    kernels = {_name(kernel): (kernel, signatures) for kernel, signatures in recorded.items()}
    for line in sys.stdin.buffer:
        name, wanted = json.loads(line)
        kernel, signatures = kernels[name]
        types_of = {str(types): types for types in signatures}
        for text in wanted:
            kernel.dispatcher.compile(types_of[text])
        answers.write(b".")
