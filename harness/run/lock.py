"""Let one process at a time train a run: two that resume it at once would write over each other."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import CheckpointError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder. The lock goes with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"another process is training this run: {folder.name}",
                slug="run-in-use",
                where=folder.absolute(),
                effect="this one did nothing",
                do="wait for it, or resume=never starts a run of its own",
            ) from None
        except OSError:
            pass  # a file system without locks; then nothing is promised
        yield
    finally:
        os.close(descriptor)
