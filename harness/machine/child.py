"""A process that works for us: start it, ask it, limit its time, end it.

It has a process group of its own. Ctrl-C reaches only us, and we end the group: whatever the process has
started ends with it.
"""

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from harness import ROOT

PATIENCE_S = 5.0
LAST_BYTES = 8192


class Child:
    """A started process. Raises OSError where it cannot be started.

    asks: we ask, and it answers each line of its standard input with a line of standard output.
    Otherwise it has no input, and its output is captured with its errors. environment: all of it; None
    for ours.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, *, asks: bool
    ) -> None:
        # Closed by end().
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._buffer = b""
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if asks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if asks else self._errors,
                stderr=self._errors,
                env=None if environment is None else dict(environment),
                process_group=0,
            )
        except OSError:
            self._errors.close()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, line: str, limit_s: float | None = None) -> str:
        """Send a line, and wait for the answer; empty where the process ended without one."""
        return self.receive(limit_s) if self.send(line) else ""

    def send(self, line: str) -> bool:
        """Send a line, and say whether the process was there to take it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def receive(self, limit_s: float | None = None) -> str:
        """The next line of its output, empty at its end. Raises TimeoutError after limit_s."""
        assert self.process.stdout is not None
        end = None if limit_s is None else time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            left_s = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([self.process.stdout], [], [], left_s)[0]:
                raise TimeoutError(f"no answer within {limit_s:g} s")
            found = os.read(self.process.stdout.fileno(), 1 << 16)
            if not found:
                return ""
            self._buffer += found
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("utf-8", "replace")

    def last_lines(self, count: int) -> list[str]:
        """The last lines of its standard error."""
        return last_lines_of(self._errors, count)

    def wait(self) -> str:
        """Wait for its end, and say how it ended."""
        return how_it_ended(self.process.wait())

    def end(self, patience_s: float = PATIENCE_S, *, terminate: bool = False) -> None:
        """End it and its group: close its input, or send SIGTERM; after patience_s, SIGKILL."""
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):  # it died with something unread
                if stream is not None:
                    stream.close()
        if terminate and self.process.poll() is None:
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        # Even if it ended by itself: what it had started may still be there.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._errors.close()


def environment_with_harness() -> dict[str, str]:
    """Our environment, with the harness on PYTHONPATH: any Python then finds it where we did."""
    environment = dict(os.environ)
    places = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    return environment


def how_it_ended(code: int) -> str:
    """A process's return code in words."""
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def last_lines_of(file: IO[bytes], count: int) -> list[str]:
    """The last lines of a file that a process writes its errors to."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
    return file.read().decode("utf-8", "replace").strip().splitlines()[-count:]
