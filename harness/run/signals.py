"""Turn the first request to stop into a flag, so that a run ends at a step and with a checkpoint.

with StopRequest() as stop:
    for step in ...:
        ...
        if stop.signal is not None:
            save(...)
            sys.exit(stop.exit_code)

SIGINT    130   Ctrl-C; a second one quits at once
SIGTERM   143   a scheduler or a container ends the job
SIGUSR2    75   a scheduler warns before its time limit: requeue me
"""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR2: 75}


class StopRequest:
    """Inside its `with`, the three signals set `.signal`, and the first one decides.

    Outside the main thread Python can't handle signals, and it does nothing. A signal that was ignored
    before (a job started with nohup or in the background) stays ignored.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._interrupted = False
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int | None:
        """What the process should exit with; None if nothing was requested."""
        return None if self.signal is None else EXIT_CODES[self.signal]

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number in list(self._previous):
            self._restore(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        request = signal.Signals(number)
        if request is signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= request is signal.SIGINT
        if self.signal is None:
            self.signal = request
            again = "; Ctrl-C again quits at once" if request is signal.SIGINT else ""
            _say(f"{request.name}: stopping after this step, with a checkpoint{again}\n")

    def _restore(self, number: signal.Signals) -> None:
        previous = self._previous.pop(number, None)
        # None: the handler before ours was not installed from Python and can't be given back.
        signal.signal(number, signal.SIG_DFL if previous is None else previous)


def _say(text: str) -> None:
    # Not print: the signal may have come in the middle of one, and its buffer is not reentrant.
    with suppress(OSError):
        os.write(2, text.encode())
