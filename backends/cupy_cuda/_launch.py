"""Say which kernel runs, over which grid, on what.

    _SOURCE = Source("gelu")                                    # cuda/gelu.cu
    _SOURCE.launch("gelu_forward", of(x_NF), blocks_for(n), THREADS, out_NF, x_NF, i64(n))

A source is compiled when first launched, once for each set of defines. Arguments are arrays (their
address is passed), None (a null pointer), and NumPy scalars of the kernel's own types: i32, i64, f32.
"""

from pathlib import Path
from typing import ClassVar

import ml_dtypes
import numpy as np

from backends.cupy_cuda._machine import machine
from harness.errors import PluginError

FOLDER = Path(__file__).parent / "cuda"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ELEMENTS = {np.dtype(np.float32): "float", BFLOAT16: "bf16"}

i32, i64, f32 = np.int32, np.int64, np.float32

THREADS = 256
"""Of a block, where nothing says otherwise."""

BLOCKS_PER_MULTIPROCESSOR = 8
"""Of kernels that go on at a stride of the whole grid: enough to fill the machine at 256 threads."""


def of(array):
    """The defines of a kernel whose elements are of this array's dtype."""
    return (("ELEMENT", ELEMENTS[np.dtype(array.dtype)]),)


FLOAT, BF16 = (("ELEMENT", "float"),), (("ELEMENT", "bf16"),)


class Source:
    """One file of CUDA C++: `cuda/NAME.cu`, or text or a file of somebody else's, who names it.

    variants: the sets of defines that tests compile ours with.
    """

    every: ClassVar["list[Source]"] = []
    """Ours."""

    def __init__(self, name, variants=(FLOAT, BF16), *, text=None, file=None):
        assert text is None or file is None, "one of the two"
        self.name, self.variants = name, variants
        # What is compiled is known by this text, and not by the name alone.
        self.text = with_headers(
            text or Path(file or FOLDER / f"{name}.cu").read_text(encoding="utf-8"),
            f"{name}.cu",
            FOLDER if file is None else Path(file).parent,
        )
        if text is None and file is None:
            Source.every.append(self)

    def launch(self, name, defines, grid, block, *arguments, shared_bytes=0):
        """Run a kernel. grid, block: a count, or up to three. defines: pairs of name and text."""
        function = machine().function(self, name, defines)
        function(_three(grid), _three(block), arguments, shared_bytes)


def _three(extent):
    return (extent, 1, 1) if isinstance(extent, int) else (*extent, 1, 1)[:3]


def with_headers(text, name, folder):
    """A source with its headers in place: nothing is looked for when it is compiled.

    A header is looked for in this folder, then among our own.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith('#include "'):
            header = line.split('"')[1]
            places = dict.fromkeys((Path(folder), FOLDER))
            found = next((place for place in places if (place / header).exists()), None)
            if found is None:
                raise PluginError(
                    f"{name} includes {header}, and there is no such file",
                    slug="header-missing",
                    where=f"{name}:{number}",
                    looked_in=", then ".join(map(str, places)),
                )
            inside = (found / header).read_text(encoding="utf-8")
            lines += [f'#line 1 "{header}"', with_headers(inside, header, found)]
            lines += [f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def blocks_for(count, threads=THREADS):
    """Blocks of a kernel whose threads go on at a stride of the grid, for this many pieces of work."""
    most = machine().multiprocessors * BLOCKS_PER_MULTIPROCESSOR
    return max(1, min(most, -(-count // threads)))
