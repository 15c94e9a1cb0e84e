"""cuBLAS in NumPy: `cupy_backends.cuda.libs.cublas`, as far as this backend uses it.

The names, arguments and numbers are CuPy's own. calls: what was asked for; forget() empties it.
"""

from itertools import count

import numpy as np

from backends.cupy_cuda.on_cpu.products import (
    COMPUTE_32F,
    COMPUTE_32F_FAST_TF32,
    CUDA_R_32F,
    DTYPES,
    INVALID_VALUE,
    NOT_SUPPORTED,
    column_major,
    numbers_at,
    operand,
)

calls = []
_handles = {}
_numbers = count(1)


class CUBLASError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(f"status {status}")


def forget():
    calls.clear()


def create():
    handle = next(_numbers)
    _handles[handle] = 0
    return handle


def destroy(handle):
    del _handles[handle]


def setMathMode(handle, mode):  # noqa: N802 - as CuPy calls it
    if mode not in (0, 16):
        raise CUBLASError(INVALID_VALUE)
    _handles[handle] = mode


def gemmEx(  # noqa: N802 - as CuPy calls it
    handle,
    transa,
    transb,
    m,
    n,
    k,
    alpha,
    A,
    Atype,
    lda,
    B,
    Btype,
    ldb,
    beta,
    C,
    Ctype,
    ldc,
    computeType,
    algo,
):
    assert handle in _handles, "no such handle"
    left = {"type": Atype, "rows": k if transa else m, "cols": m if transa else k, "ld": lda}
    right = {"type": Btype, "rows": n if transb else k, "cols": k if transb else n, "ld": ldb}
    out = {"type": Ctype, "rows": m, "cols": n, "ld": ldc}
    _check(left, right, out, computeType, (A, B, C))
    scale, share = (float(numbers_at(at, np.float32, 1)[0]) for at in (alpha, beta))
    calls.append(
        {
            "left": {**left, "transposed": bool(transa), "pointer": A},
            "right": {**right, "transposed": bool(transb), "pointer": B},
            "out": {**out, "pointer": C},
            "compute": computeType,
            "scale": scale,
            "beta": share,
            "math": _handles[handle],
            "algorithm": algo,
        }
    )
    tf32 = computeType == COMPUTE_32F_FAST_TF32
    a, b, c = map(column_major, (A, B, C), (left, right, out))
    with np.errstate(all="ignore"):
        product = operand(a, transa, tf32) @ operand(b, transb, tf32)
        result = np.float32(scale) * product
        if share:
            result += np.float32(share) * c.astype(np.float32)
        c[...] = result


def _check(left, right, out, compute, addresses):
    if any(matrix["ld"] < max(1, matrix["rows"]) for matrix in (left, right, out)):
        raise CUBLASError(INVALID_VALUE)
    if min(out["rows"], out["cols"], left["rows"]) < 1 or not all(addresses):
        raise CUBLASError(INVALID_VALUE)
    same = left["type"] == right["type"] and left["type"] in DTYPES
    if not same or out["type"] not in (left["type"], CUDA_R_32F):
        raise CUBLASError(NOT_SUPPORTED)
    if compute not in (COMPUTE_32F, COMPUTE_32F_FAST_TF32):
        raise CUBLASError(NOT_SUPPORTED)
    if compute == COMPUTE_32F_FAST_TF32 and left["type"] != CUDA_R_32F:
        raise CUBLASError(NOT_SUPPORTED)
