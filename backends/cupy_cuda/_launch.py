"""Say which kernel runs, over which grid, on what.

    _SOURCE = Source("gelu")                                    # cuda/gelu.cu
    _SOURCE.launch("gelu_forward", of(x_NF), blocks_for(n), 256, out_NF, x_NF, i64(n))

A source is compiled when first launched, once for each set of defines. Arguments are arrays (their
address is passed), None (a null pointer), and NumPy scalars of the kernel's own types: i32, i64, f32.
"""

from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np

from backends.cupy_cuda._machine import machine

FOLDER = Path(__file__).parent / "cuda"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ELEMENTS = {np.dtype(np.float32): "float", BFLOAT16: "bf16"}

i32, i64, f32 = np.int32, np.int64, np.float32

COMPILE_OPTIONS = ("-std=c++17",)
"""Of nvrtc, beside the architecture and the defines: IEEE arithmetic, denormal numbers included."""

THREADS = 256
"""Of a block, where nothing says otherwise."""

BLOCKS_PER_MULTIPROCESSOR = 8
"""Of kernels that go on at a stride of the whole grid: enough to fill the machine at 256 threads."""


def of(array):
    """The defines of a kernel whose elements are of this array's dtype."""
    return (("ELEMENT", ELEMENTS[np.dtype(array.dtype)]),)


FLOAT, BF16 = (("ELEMENT", "float"),), (("ELEMENT", "bf16"),)


class Source:
    """One file of CUDA C++. variants: the sets of defines that tests compile it with."""

    every: "list[Source]" = []

    def __init__(self, name, variants=(FLOAT, BF16)):
        self.file = FOLDER / f"{name}.cu"
        self.name, self.variants = name, variants
        Source.every.append(self)

    @property
    def text(self):
        """The source with its own headers in place: nothing is looked for when it is compiled."""
        return with_headers(self.file)

    def launch(self, name, defines, grid, block, *arguments, shared_bytes=0):
        """Run a kernel. grid, block: a count, or up to three. defines: pairs of name and text."""
        function = machine().function(self, name, defines)
        function(_three(grid), _three(block), arguments, shared_bytes)


def _three(extent):
    extent = (extent,) if isinstance(extent, int) else tuple(extent)
    return extent + (1,) * (3 - len(extent))


@cache
def with_headers(file):
    lines = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith('#include "'):
            name = line.split('"')[1]
            header = file.parent / name if (file.parent / name).exists() else FOLDER / name
            lines += [f'#line 1 "{header.name}"', with_headers(header)]
            lines += [f'#line {number + 1} "{file.name}"']
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def blocks_for(count, threads=THREADS):
    """Blocks of a kernel whose threads go on at a stride of the grid, for this many pieces of work."""
    most = machine().multiprocessors * BLOCKS_PER_MULTIPROCESSOR
    return max(1, min(most, -(-count // threads)))
