"""Keep the machine code of this backend's kernels on disk, for the next process.

Numba's cache looks at the file of a kernel and not at the files of what it calls, so an edit of a helper
would leave old machine code in use. Here the cache has a folder for each state of the backend's files.
NUMBA_CACHE_DIR is respected, as the folder around these. A kernel of anyone else's file is compiled anew
in each process, unless it says `@cuda.jit(cache=True)`: then by Numba's own rule.
"""

import hashlib
import os
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

HERE = Path(__file__).resolve().parent
OPS = HERE.parents[1] / "harness" / "ops"  # of whose constants the kernels take some


def keep(kernel):
    """Let a kernel that nothing has compiled yet be read from disk, or written there once compiled."""
    if Path(kernel.py_func.__code__.co_filename).resolve().parent != HERE:
        return
    folder = cache_folder()
    if folder is None:
        return  # compiled anew in each process; Numba would choose a folder without us
    from numba.cuda.core import config

    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        kernel.enable_caching()
    except (OSError, RuntimeError):
        return  # the folder was lost since
    finally:
        config.CACHE_DIR = before
    kernel._cache.save_overload = _one_at_a_time(kernel._cache.save_overload, folder)


def was_compiled(kernel, types):
    """Whether this process has compiled a kernel for these types; else it came from disk."""
    return bool(kernel.stats.cache_misses.get(types))


@cache
def cache_folder():
    """Where the machine code lies: one folder for each state of the sources; None: nowhere to write."""
    digest = hashlib.sha256()
    for file in sorted((*HERE.glob("*.py"), *OPS.glob("*.py"))):
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


def _one_at_a_time(save, folder):
    """Two processes that save at once would give their files one name, and one would get the other's."""

    def saved(types, kernel):
        # A full disk is no reason to stop; Windows has no fcntl.
        with suppress(OSError, ImportError), _locked(folder / "lock"):
            save(types, kernel)

    return saved


@contextmanager
def _locked(path):
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
