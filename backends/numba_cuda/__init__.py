"""GPT-2 on an NVIDIA GPU, every op a kernel written in Python with Numba.

What to read here: `gelu.py`, `squared_norm.py`, `softmax.py`, `layernorm.py`, `_products.py` (which is
matmul), `attention.py`; docs/numba-cuda.md says what for. Without a GPU, NUMBA_ENABLE_CUDASIM=1 runs the
same kernels in a simulator, slowly (simulator/).

What is exported is for kernels of your own, in a file of yours: docs/tutorial/your-first-kernel.md.
"""

from backends.numba_cuda._block import MAX_THREADS, block_max, block_sum
from backends.numba_cuda._launch import blocks_for, launch, threads_for
from backends.numba_cuda._machine import machine
from backends.numba_cuda._math import exp, log, sqrt, tanh
from backends.numba_cuda._narrow import narrow, wide
from backends.numba_cuda.simulator.traffic import counted

__all__ = [
    "MAX_THREADS",
    "block_max",
    "block_sum",
    "blocks_for",
    "counted",
    "exp",
    "launch",
    "log",
    "machine",
    "narrow",
    "sqrt",
    "tanh",
    "threads_for",
    "wide",
]
