"""GPT-2 on an NVIDIA GPU: libraries where they are hard to beat, CUDA C++ kernels where fusing pays.

What to read here: `layernorm.py` and `cuda/layernorm.cu` side by side; `_launch.py` is all there is
between them. Without a GPU, HARNESS_CUDA_ON_CPU=1 runs the same kernels on the CPU, slowly (on_cpu/).

What is exported is for kernels of your own, in a file of yours: docs/write-a-backend/README.md.
"""

from backends.cupy_cuda._launch import Source, blocks_for, f32, i32, i64, of
from backends.cupy_cuda._machine import machine

__all__ = ["Source", "blocks_for", "f32", "i32", "i64", "machine", "of"]
