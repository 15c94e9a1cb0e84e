"""Products by cuBLAS's gemmEx: no epilogues, no plans, and not while a graph is captured.

CuPy sets the stream, its current one, at each call. Sums stay float32 where cuBLAS cuts them into parts.
"""

from functools import cache

import numpy as np

from backends.cupy_cuda._cublaslt import COMPUTE_32F, COMPUTE_32F_FAST_TF32, TYPES
from backends.cupy_cuda._machine import machine

DISALLOW_REDUCED_PRECISION_REDUCTION = 16  # of cublasMath_t
DEFAULT_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT


def multiply(call, workspace):
    """Do a `Call` of _products.py that has no epilogue. cuBLAS has a workspace of its own."""
    assert call.epilogue == "DEFAULT", f"cuBLAS has no epilogue {call.epilogue}"
    machine().call(lambda: _run(call))


@cache
def _library():
    """The module, and the one handle of this process."""
    library = machine().library("cublas")
    handle = library.create()
    library.setMathMode(handle, DISALLOW_REDUCED_PRECISION_REDUCTION)
    return library, handle


def _run(call):
    cublas, handle = _library()
    left, right, out = call.left, call.right, call.out
    factors = np.array([call.scale, call.beta], np.float32)
    cublas.gemmEx(
        handle,
        int(left.transposed),
        int(right.transposed),
        out.rows,
        out.columns,
        left.rows if left.transposed else left.columns,
        factors.ctypes.data,
        left.pointer,
        TYPES[left.dtype],
        left.leading,
        right.pointer,
        TYPES[right.dtype],
        right.leading,
        factors.ctypes.data + factors.itemsize,
        out.pointer,
        TYPES[out.dtype],
        out.leading,
        COMPUTE_32F_FAST_TF32 if call.tf32 else COMPUTE_32F,
        DEFAULT_ALGORITHM,
    )
