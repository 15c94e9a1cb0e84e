"""One pool of threads: Numba's. BLAS is called from it, one tile a thread, and has no pool of its own.

After a product the threads of a BLAS wait for the next one by spinning, for milliseconds, on the cores
that the kernel after it would use. A BLAS that runs one thread a call never does.
"""

from contextlib import suppress
from pathlib import Path

import numba
import scipy.linalg.cython_blas  # noqa: F401 - loads the library that is held to one thread
from threadpoolctl import ThreadpoolController

from backends.numba_cpu._kernel import cache_folder


def threads():
    """How many threads kernels are to share their work among; they are told, as their last argument."""
    return numba.get_num_threads()


def use_threads(count):
    """Compute with this many threads; at most as many as Numba has started."""
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    for library in _scipy_blas():
        library.set_num_threads(1)


def libraries():
    """Numba, its threading layer and threads; the BLAS it calls, and that library's kernel type."""
    layer = numba.config.THREADING_LAYER
    with suppress(ValueError):  # the layer is chosen when the first kernel runs
        layer = numba.threading_layer()
    lines = [f"Numba {numba.__version__}: {numba.get_num_threads()} threads ({layer})"]
    for library in _scipy_blas():
        info = library.info()
        lines.append(
            f"SciPy's {info['internal_api']} {info['version']}: kernels {info['architecture']}, "
            "one thread a tile"
        )
    if cache_folder() is None:
        lines.append("nowhere to keep machine code, so each run compiles it (NUMBA_CACHE_DIR)")
    return "; ".join(lines)


def _scipy_blas():
    """The BLAS that SciPy calls: its own, or where it brings none the one that it shares with NumPy.

    On macOS that may be the system's, which cannot be told.
    """
    found = [c for c in ThreadpoolController().lib_controllers if c.user_api == "blas"]
    own = [c for c in found if "scipy" in Path(c.filepath).parent.as_posix()]
    return own or found


use_threads(numba.get_num_threads())
