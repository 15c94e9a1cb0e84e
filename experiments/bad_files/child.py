"""Read mutants of one format within limits of memory and time; one line of JSON for each.

Run by __main__.py, and by the tests: the limits hold for a process of its own, and a crash ends only it.
"""

import json
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from experiments.bad_files.formats import FORMATS
from experiments.bad_files.mutations import mutant
from harness.errors import HarnessError

MEMORY_BYTES = 2 << 30
TIME_S = 2.0


class TooSlow(BaseException):
    """Not an Exception: no reader may catch it by accident."""


def _too_slow(signum, frame):
    raise TooSlow


def main(name: str, seed: int, first: int, last: int) -> None:
    form = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        target = form.make(Path(folder))
        damaged_names = form.damaged(target)
        whole = {path: path.read_bytes() for path in damaged_names}
        form.read(target)  # the undamaged file is read without complaint
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        signal.signal(signal.SIGALRM, _too_slow)
        for number in range(first, last):
            path = damaged_names[number % len(damaged_names)]
            content = mutant(whole[path], seed, number)
            path.write_bytes(content)
            print(json.dumps({"number": number, **_outcome(form, target, content == whole[path])}))
            sys.stdout.flush()
            path.write_bytes(whole[path])


def _outcome(form, target, unchanged):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, TIME_S)
    try:
        form.read(target)
        found = {"outcome": "unchanged" if unchanged else "read"}
    except HarnessError as error:
        found = {"outcome": "refused", "slug": error.slug, "type": type(error).__name__}
    except TooSlow:
        found = {"outcome": "too slow"}
    except MemoryError as error:
        found = {"outcome": "out of memory", "text": str(error)[:200]}
    except Exception as error:
        found = {"outcome": "untyped", "type": type(error).__name__, "text": str(error)[:200]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return found | {"seconds": round(time.perf_counter() - start, 4), "grown_kib": grown}


if __name__ == "__main__":
    main(sys.argv[1], *(int(text) for text in sys.argv[2:5]))
