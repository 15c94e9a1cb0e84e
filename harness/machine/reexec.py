"""Start the same command again without OPENBLAS_CORETYPE, where `blas_kernel=library` asks for it.

The variable is read when NumPy is loaded, so a process cannot take it back. It is left out of the new
process only; the user's environment is never changed. The new process is told by NOTE what was left out,
and never starts another.
"""

import os
import sys
from collections.abc import Sequence

from harness.errors import ConfigError, ResourceError

CORETYPE = "OPENBLAS_CORETYPE"
NOTE = "HARNESS_STARTED_AGAIN_WITHOUT"

_left_out: str | None = None


def left_out() -> str | None:
    """What this process was started again without, `OPENBLAS_CORETYPE=Haswell`; None: it was not."""
    global _left_out
    # Taken out at once: what this process starts in turn was not started again by it.
    _left_out = os.environ.pop(NOTE, None) or _left_out
    return _left_out


def start_again_if_asked(blas_kernels: Sequence[str], *, is_command: bool) -> None:
    """Replace this process; or return where that was not asked for, is not needed, or is already done.

    blas_kernels: the setting of each run that this process is to do. is_command: the process is the
    command itself; one that merely calls us is never replaced.
    """
    if len(set(blas_kernels)) > 1:
        raise ConfigError(
            "the runs of a sweep share one process, and blas_kernel decides how that is started",
            slug="blas-kernel-swept",
            found=", ".join(sorted(set(blas_kernels))),
            do="two sweeps, one with blas_kernel=library",
        )
    done_before = left_out() is not None
    value = os.environ.get(CORETYPE)
    if done_before or not is_command or "library" not in blas_kernels or not value:
        return
    environment = {name: text for name, text in os.environ.items() if name != CORETYPE}
    environment[NOTE] = f"{CORETYPE}={value}"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError as error:
        raise ResourceError(
            f"{sys.executable} cannot be started again",
            slug="not-started-again",
            found=error,
            do=f"env -u {CORETYPE} COMMAND, without blas_kernel=library",
        ) from error
