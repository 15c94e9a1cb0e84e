"""Name the op, backend and line when a half-op raises in the middle of a run."""

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

from harness.errors import HarnessError, PluginError
from harness.plugins.loading import Backend


@contextmanager
def naming_the_op(backends: Iterable[Backend], wrappers: Iterable[Any] = ()) -> Iterator[None]:
    """Turn what a plugin's code raises, or its exit, into a PluginError; leave all else as it is."""
    try:
        yield
    except (HarnessError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        culprit = _culprit(error, list(backends), list(wrappers))
        if culprit is None:
            raise
        who, path = culprit
        frames = traceback.extract_tb(error.__traceback__)
        # The plugin's own line says more than that of a library which it called.
        own, last = [frame for frame in frames if frame.filename == path][-1], frames[-1]
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise PluginError(
            f"{who} raised {text.splitlines()[0]}",
            slug="op-raised",
            where=f"{own.filename}:{own.lineno}",
            inside=None if last is own else f"{last.filename}:{last.lineno}",
            effect="the update was not made; weights and checkpoints hold what they held",
            do="HARNESS_TRACEBACK=1 shows the whole traceback",
        ) from error


def _culprit(
    error: BaseException, backends: list[Backend], wrappers: list[Any]
) -> tuple[str, str] | None:
    """What the innermost frame that belongs to a plugin computes, and the file of that frame."""
    hooks: dict[CodeType, str] = {}
    files: dict[str | None, str] = {}
    for backend in backends:
        if isinstance(backend.module, ModuleType):  # not the formulas of the core
            for hook, function in backend.functions.items():
                hooks[function.__code__] = f"{hook} of backend '{backend.name}'"
                # A captured step runs the kernels of a file, and not the function that launched them.
                files[function.__code__.co_filename] = f"backend '{backend.name}'"
    files |= {getattr(w, "__file__", None): f"the wrapper {w.__name__}" for w in wrappers}
    named = in_file = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if code in hooks:
            named = hooks[code], code.co_filename
        elif code.co_filename in files:
            in_file = files[code.co_filename], code.co_filename
    return named or in_file
