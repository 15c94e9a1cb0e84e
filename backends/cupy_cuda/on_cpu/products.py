"""A matrix product as CUDA's libraries make it, in NumPy; `cublaslt.py` and `cublas.py` speak for them.

Matrices are column-major at an address: {"type", "rows", "cols", "ld"}. Numbers are multiplied as the
compute type says, summed in float32, and rounded once. What the libraries refuse is refused here, and
some of what they only might: an epilogue or a combination of types that nobody is known to run.

A description is cuBLASLt's: attribute -> its value.
"""

import ctypes
from enum import IntEnum

import ml_dtypes
import numpy as np

CUDA_R_32F, CUDA_R_16BF = 0, 14
COMPUTE_32F, COMPUTE_32F_FAST_TF32 = 68, 77
DTYPES = {CUDA_R_32F: np.dtype(np.float32), CUDA_R_16BF: np.dtype(ml_dtypes.bfloat16)}
INVALID_VALUE, NOT_SUPPORTED = 7, 15

Epilogue = IntEnum(
    "Epilogue",
    {
        "DEFAULT": 1,
        "BIAS": 4,
        "GELU_AUX": 160,
        "GELU_AUX_BIAS": 164,
        "DGELU": 192,
        "DGELU_BGRAD": 208,
        "BGRADA": 256,
        "BGRADB": 512,
    },
)

AUX = (Epilogue.GELU_AUX, Epilogue.GELU_AUX_BIAS, Epilogue.DGELU, Epilogue.DGELU_BGRAD)
READS_OR_WRITES_A_VECTOR = (
    Epilogue.BIAS,
    Epilogue.GELU_AUX_BIAS,
    Epilogue.DGELU_BGRAD,
    Epilogue.BGRADA,
    Epilogue.BGRADB,
)


def unsupported(description, A, B, C, D):
    """Why a product is refused, or None."""
    if description["COMPUTE_TYPE"] not in (COMPUTE_32F, COMPUTE_32F_FAST_TF32):
        return "compute type"
    if description["SCALE_TYPE"] != CUDA_R_32F or description["POINTER_MODE"] != 0:
        return "scale type or pointer mode"
    if A["type"] != B["type"] or A["type"] not in DTYPES or C["type"] != D["type"]:
        return "types of A and B, or of C and D"
    if D["type"] not in (A["type"], CUDA_R_32F):
        return "type of D"
    if description["COMPUTE_TYPE"] == COMPUTE_32F_FAST_TF32 and A["type"] != CUDA_R_32F:
        return "TF32 of numbers that are not float32"
    if any(layout["ld"] < layout["rows"] or layout["cols"] < 1 for layout in (A, B, C, D)):
        return "leading dimension"
    m, k = (A["rows"], A["cols"])[:: -1 if description["TRANSA"] else 1]
    other_k, n = (B["rows"], B["cols"])[:: -1 if description["TRANSB"] else 1]
    if k != other_k or (D["rows"], D["cols"]) != (m, n) or (C["rows"], C["cols"]) != (m, n):
        return "shapes"
    return _unsupported_epilogue(description, A, D)


def _unsupported_epilogue(description, A, D):
    epilogue = description["EPILOGUE"]
    if epilogue not in set(Epilogue):
        return "epilogue"
    if epilogue in READS_OR_WRITES_A_VECTOR and not description["BIAS_POINTER"]:
        return "no bias pointer"
    if description["BIAS_DATA_TYPE"] not in (-1, D["type"]):
        return "bias of another type than D"
    if epilogue in AUX:
        ld = description["EPILOGUE_AUX_LD"]
        if not description["EPILOGUE_AUX_POINTER"] or ld < D["rows"] or ld % 8:
            return "auxiliary pointer or leading dimension"
        if D["type"] != CUDA_R_16BF or description["EPILOGUE_AUX_DATA_TYPE"] not in (-1, D["type"]):
            return "GELU of float32"  # not promised: no project is known to run it
    if epilogue == Epilogue.BGRADA and description["TRANSA"]:
        return "sums of a transposed A"  # as it is used for gradients of weights
    if epilogue == Epilogue.BGRADB and not description["TRANSB"]:
        return "sums of a B that is not transposed"
    return None


def column_major(address, layout):
    """The matrix at an address, which can be written."""
    dtype, rows, cols, ld = DTYPES[layout["type"]], layout["rows"], layout["cols"], layout["ld"]
    numbers = numbers_at(address, dtype, (cols - 1) * ld + rows)
    strides = (dtype.itemsize, ld * dtype.itemsize)
    return np.lib.stride_tricks.as_strided(numbers, (rows, cols), strides)


def operand(matrix, transposed, tf32):
    """The float32 numbers that are multiplied; tf32 keeps ten bits of them, ties away from zero."""
    matrix = (matrix.T if transposed else matrix).astype(np.float32)
    if not tf32:
        return matrix
    bits = np.ascontiguousarray(matrix).view(np.uint32)
    rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(matrix), rounded, matrix)


def with_epilogue(description, x, A, B, dtype):
    """What the epilogue makes of the float32 results; it may write beside them."""
    epilogue = Epilogue(description["EPILOGUE"])
    rows, cols = x.shape
    bias = description["BIAS_POINTER"]
    if epilogue in (Epilogue.BIAS, Epilogue.GELU_AUX_BIAS):
        x = x + numbers_at(bias, dtype, rows).astype(np.float32)[:, None]
    if epilogue in AUX:
        shape = {"rows": rows, "cols": cols, "ld": description["EPILOGUE_AUX_LD"]}
        type_of = {dtype: number for number, dtype in DTYPES.items()}
        aux = column_major(description["EPILOGUE_AUX_POINTER"], {**shape, "type": type_of[dtype]})
        if epilogue in (Epilogue.GELU_AUX, Epilogue.GELU_AUX_BIAS):
            aux[...] = x
            x = x * _share(x)
        else:
            x = x * _slope(aux.astype(np.float32))
    sums = {Epilogue.DGELU_BGRAD: x, Epilogue.BGRADA: A, Epilogue.BGRADB: B.T}.get(epilogue)
    if sums is not None:
        numbers_at(bias, dtype, len(sums))[:] = sums.sum(axis=1)
    return x


def _share(x):
    u = np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * (1 + np.tanh(u))


def _slope(x):
    s = _share(x)
    return s + x * 2 * s * (1 - s) * np.float32(0.7978845608028654) * (
        1 + np.float32(3 * 0.044715) * x * x
    )


def numbers_at(address, dtype, size):
    """So many numbers at an address, which can be written."""
    dtype = np.dtype(dtype)
    if not address or not size:
        assert not size, "a null pointer"
        return np.empty(0, dtype)
    memory = (ctypes.c_char * (int(size) * dtype.itemsize)).from_address(address)
    return np.frombuffer(memory, dtype)
