"""Matrix products of row-major arrays, by the library that `cupy.matmul` chose.

    nt(out_MN, a_MK, b_NK)    out = a · bᵀ        nn(out_MN, a_MK, b_KN)    out = a · b
    tn(out_MN, a_KM, b_KN)    out = aᵀ · b

cuBLAS counts columns first: what is (rows, columns) here is its transpose there. So a row-major
out = a · b is the library's outᵀ = bᵀ · aᵀ, with b on the left, and nothing is moved:

    ours   out (M, N)     left of the library's product    right             its result
    nt     a · bᵀ         b seen as (K, N), transposed     a seen as (K, M)  (N, M)
    nn     a · b          b seen as (N, K)                 a seen as (K, M)  (N, M)
    tn     aᵀ · b         b seen as (N, K)                 a seen as (M, K), transposed

That is said once, in `_call`. A bias of N numbers is one for each row of the library's result, which is
what its epilogues add. Sums are float32 whatever the operands are.
"""

from dataclasses import dataclass, field

import numpy as np

from backends.cupy_cuda import _cublas, _cublaslt
from backends.cupy_cuda._launch import BFLOAT16, THREADS, Source, i64, of
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda._options import chosen
from harness.device import ALIGNMENT

WORKSPACE = (8 << 20,)
"""float32 numbers, 32 MiB: what NVIDIA recommends for cuBLAS on an H100; scratch of every op here."""

AUX_MULTIPLE = 8
"""Numbers: the rows of what GELU is taken of, written by an epilogue, are a multiple of it."""

LIBRARIES = {"cublaslt": _cublaslt, "cublas": _cublas}

_BIAS = Source("bias")


def capturable():
    """Whether a graph may hold the products: CuPy refuses cuBLAS while one is captured."""
    return chosen("matmul") == "cublaslt"


@dataclass(frozen=True)
class Matrix:
    """Numbers of an array of the device, or of some of its columns. row: from one row to the next."""

    pointer: int
    rows: int
    columns: int
    row: int
    dtype: np.dtype


def matrix(array):
    """The whole of an array of two axes."""
    if isinstance(array, Matrix):
        return array
    rows, columns = array.shape
    return Matrix(array.data.ptr, rows, columns, columns, np.dtype(array.dtype))


def columns(array, first, count):
    """Some columns of an array, where they lie."""
    pointer = array.data.ptr + first * array.dtype.itemsize
    return Matrix(pointer, array.shape[0], count, array.shape[1], np.dtype(array.dtype))


def rows(array, start, stop):
    """Some rows of an array, as an array."""
    shape = (stop - start, *array.shape[1:])
    offset = start * (array.nbytes // array.shape[0])
    return machine().view(array, offset, shape, np.dtype(array.dtype))


@dataclass(frozen=True)
class Operand:
    """A matrix as the library sees it: columns first. leading: numbers from one column to the next."""

    pointer: int = field(compare=False)
    rows: int
    columns: int
    leading: int
    dtype: np.dtype
    transposed: bool
    alignment: int

    @classmethod
    def of(cls, matrix, transposed=False):
        # More than the arena promises would make plans depend on where a buffer happens to lie.
        alignment = min(ALIGNMENT, matrix.pointer & -matrix.pointer)
        shape = matrix.columns, matrix.rows, matrix.row
        return cls(matrix.pointer, *shape, matrix.dtype, transposed, alignment)


@dataclass(frozen=True)
class Call:
    """out = scale · left · right + beta · out, and an epilogue. Calls are equal if one plan does them.

    epilogue: of cublasLtEpilogue_t, by name. bias, aux: the addresses of what it reads or writes beside.
    """

    left: Operand
    right: Operand
    out: Operand
    tf32: bool
    epilogue: str = "DEFAULT"
    bias: int = field(default=0, compare=False)
    aux: int = field(default=0, compare=False)
    scale: float = field(default=1.0, compare=False)
    beta: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Products:
    """workspace: an array of WORKSPACE float32 numbers. tf32: float32 operands may be rounded to it."""

    workspace: object
    tf32: bool = False

    def nt(self, out_MN, a_MK, b_NK, *, bias_N=None, pre_MN=None, scale=1.0, add=False):
        """out = scale · a · bᵀ; + out if `add`, + bias; if `pre` is given, it is that, and out its GELU.

        pre needs what `takes_gelu` asks for. Without `pre`, a bias needs out to be a whole array.
        """
        epilogue, beta = _epilogue(bias_N, pre_MN), float(add)
        if epilogue == "BIAS" and chosen("matmul") != "cublaslt":
            assert not add, "out holds the bias"
            fill_rows(out_MN, bias_N)
            epilogue, beta = "DEFAULT", 1.0
        call = self._call("nt", out_MN, a_MK, b_NK)
        self._multiply(call, epilogue, _address(bias_N), _address(pre_MN), scale, beta)

    def nn(self, out_MN, a_MK, b_KN, *, scale=1.0, add=False):
        """out = scale · a · b; + out if `add`."""
        self._multiply(self._call("nn", out_MN, a_MK, b_KN), scale=scale, beta=float(add))

    def tn(self, out_MN, a_KM, b_KN, *, scale=1.0, add=False):
        """out = scale · aᵀ · b; + out if `add`."""
        self._multiply(self._call("tn", out_MN, a_KM, b_KN), scale=scale, beta=float(add))

    def _call(self, how, out, a, b):
        left = Operand.of(matrix(b), transposed=how == "nt")
        right = Operand.of(matrix(a), transposed=how == "tn")
        assert left.dtype == right.dtype, f"operands are {right.dtype} and {left.dtype}"
        return left, right, Operand.of(matrix(out))

    def _multiply(self, operands, epilogue="DEFAULT", bias=0, aux=0, scale=1.0, beta=0.0):
        tf32 = self.tf32 and operands[0].dtype == np.float32
        call = Call(*operands, tf32, epilogue, bias, aux, float(scale), beta)
        LIBRARIES[chosen("matmul")].multiply(call, self.workspace)


def takes_gelu(dtype, columns):
    """Whether an epilogue may write `pre` and its GELU: of bfloat16, in rows of a multiple of 8.

    Of float32 the library promises nothing, and its kernels are no faster than one of our own.
    """
    aligned = columns % AUX_MULTIPLE == 0
    return chosen("matmul") == "cublaslt" and dtype == BFLOAT16 and aligned


def fill_rows(out_NC, bias_C):
    """Every row of out is the bias: then a product is added to it, and rounded once."""
    N, C = out_NC.shape
    _BIAS.launch("fill_rows", of(out_NC), _blocks(N), THREADS, out_NC, bias_C, i64(N), i64(C))


def bias_gelu(out_NC, pre_NC, product_NC, bias_C):
    """pre = product + bias, out = gelu(pre). product: float32, and may be pre's memory."""
    N, C = out_NC.shape
    sizes = i64(N), i64(C)
    arguments = out_NC, pre_NC, product_NC, bias_C
    _BIAS.launch("bias_gelu", of(out_NC), _blocks(N), THREADS, *arguments, *sizes)


def _blocks(rows):
    """Of kernels whose blocks do whole rows, one after the other."""
    return max(1, min(rows, machine().multiprocessors * 16))


def _epilogue(bias, pre):
    if pre is not None:
        return "GELU_AUX" if bias is None else "GELU_AUX_BIAS"
    return "DEFAULT" if bias is None else "BIAS"


def _address(array):
    return 0 if array is None else array.data.ptr
