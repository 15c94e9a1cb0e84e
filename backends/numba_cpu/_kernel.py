"""Compile a function once, and keep the machine code on disk for the next process.

`kernel` runs its `prange` loops on all threads, `helper` is inlined into kernels.

Numba's cache looks at the file of a function and not at the files of what it calls, so an edit of a
helper would leave old machine code in use. Here the cache has a folder for each state of the helpers'
files. NUMBA_CACHE_DIR is respected, as the folder around these.
"""

import hashlib
import os
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter

import numba
from numba import njit
from numba.core import event

FAST = {"contract", "nsz", "reassoc"}
"""What the compiler may change: sums in vector order, fused multiply-add. NaN and infinity stay data."""

EXACT = {"contract", "nsz"}
"""For what reordering would break: the splitting of a number into parts."""

HERE = Path(__file__).parent

_recorded = None

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set, and these kernels run compiled only: unset it")


def kernel(function):
    """A function whose `prange` loops run on all threads, without the GIL; kept on disk."""
    dispatcher = njit(parallel=True, nogil=True, error_model="numpy", fastmath=FAST)(function)
    _keep_on_disk(dispatcher)

    @wraps(function)
    def call(*arguments):
        if _recorded is None:
            return dispatcher(*arguments)
        types = tuple(dispatcher.typeof_pyval(argument) for argument in arguments)
        _recorded.setdefault(call, {})[types] = None
        return None

    call.dispatcher = dispatcher
    return call


@contextmanager
def recording():
    """Within, a kernel is not run, and its argument types are noted: {kernel: {types: None}}."""
    global _recorded
    _recorded = {}
    try:
        yield _recorded
    finally:
        _recorded = None


def is_kept(kernel, types):
    """Whether the machine code of a kernel for arguments of these types lies on disk."""
    try:
        cache = kernel.dispatcher._cache
        key = cache._index_key(types, kernel.dispatcher.targetctx.codegen())
        return key in cache._cache_file._load_index()
    except Exception:
        # These names are private to Numba. Where they changed, every kernel counts as missing.
        return False


def _keep_on_disk(dispatcher):
    folder = cache_folder()
    if folder is None:
        return  # compiled anew in each process; Numba would choose a folder without us
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
    except (OSError, RuntimeError):
        pass  # the folder was lost since: compiled anew in each process
    finally:
        numba.config.CACHE_DIR = before


def helper(function):
    """A function that kernels call, and that is inlined into them.

    A helper that is called by its name would be bound, in a process with several kernels, to the copy
    that came with the kernel loaded first. The copies differ in the last bits of what they compute.
    """
    return njit(nogil=True, error_model="numpy", fastmath=FAST, forceinline=True)(function)


def exact(function):
    """A helper whose sums are taken in the order in which they are written."""
    return njit(nogil=True, error_model="numpy", fastmath=EXACT, forceinline=True)(function)


@cache
def cache_folder():
    """Where the machine code lies: one folder for each state of the helpers; None: nowhere to write."""
    digest = hashlib.sha256()
    for file in sorted(HERE.glob("_*.py")):
        digest.update(file.read_bytes())
    folder = _base() / f"kernels-{digest.hexdigest()[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _base():
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"])
    beside = HERE / "__pycache__"
    if os.access(beside if beside.is_dir() else HERE, os.W_OK):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "gpt2-harness"


class _Clock(event.Listener):
    """The time between the outermost beginning and end of compiling, also of what is not at its end."""

    def __init__(self):
        self._depth, self._began, self._spent = 0, 0.0, 0.0

    def on_start(self, event):
        if self._depth == 0:
            self._began = perf_counter()
        self._depth += 1

    def on_end(self, event):
        self._depth -= 1
        if self._depth == 0:
            self._spent += perf_counter() - self._began

    @property
    def seconds(self):
        return self._spent + (perf_counter() - self._began if self._depth else 0.0)


_clock = _Clock()
event.register("numba:compile", _clock)


def compile_seconds():
    """Seconds spent compiling in this process; what came from disk took none."""
    return _clock.seconds
