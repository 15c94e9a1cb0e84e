"""Matrix products of row-major tiles by BLAS, callable from compiled code: one thread, in place.

    nt(out_MN, a_MK, b_NK, beta)    out = a · bᵀ + beta · out
    nn(out_MN, a_MK, b_KN, beta)    out = a · b  + beta · out
    tn(out_MN, a_KM, b_KN, beta)    out = aᵀ · b + beta · out

Tiles are float32 and may be parts of wider arrays; only their rows must be contiguous. SciPy exports the
address of BLAS's own sgemm (`scipy.linalg.cython_blas`), so no Python object stands in between. BLAS
counts columns first: the row-major out = a · bᵀ is its outᵀ = b · aᵀ.
"""

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from backends.numba_cpu._kernel import helper

SYMBOL = "harness_sgemm"
llvm.add_symbol(SYMBOL, get_cython_function_address("scipy.linalg.cython_blas", "sgemm"))

AS_IS, TRANSPOSED = np.int64(ord("N")), np.int64(ord("T"))


@helper
def nt(out_MN, a_MK, b_NK, beta):
    _product(TRANSPOSED, AS_IS, b_NK, a_MK, out_MN, a_MK.shape[1], beta)


@helper
def nn(out_MN, a_MK, b_KN, beta):
    _product(AS_IS, AS_IS, b_KN, a_MK, out_MN, a_MK.shape[1], beta)


@helper
def tn(out_MN, a_KM, b_KN, beta):
    _product(AS_IS, TRANSPOSED, b_KN, a_KM, out_MN, a_KM.shape[0], beta)


@helper
def _product(how_b, how_a, b, a, out_MN, K, beta):
    M, N = out_MN.shape
    if M == 0 or N == 0:
        return
    where_b, where_a, where_out = b.ctypes.data, a.ctypes.data, out_MN.ctypes.data
    # A leading dimension is the distance of two rows, and of a single row at least its length.
    row_b, row_a, row_out = _row(b), _row(a), _row(out_MN)
    _sgemm(how_b, how_a, N, M, K, where_b, row_b, where_a, row_a, beta, where_out, row_out)


@helper
def _row(x):
    return max(x.strides[0] // x.itemsize, x.shape[1], 1)


@intrinsic
def _sgemm(typing, how_b, how_a, N, M, K, b, row_b, a, row_a, beta, out, row_out):
    """sgemm(transb, transa, n, m, k, 1, b, ldb, a, lda, beta, c, ldc), as Fortran passes it."""
    kinds = (how_b, how_a, N, M, K, b, row_b, a, row_a, beta, out, row_out)
    signature = types.void(*kinds)

    def generate(context, builder, signature, values):
        pointer = ir.IntType(8).as_pointer()

        def convert(index, kind):
            return context.cast(builder, values[index], signature.args[index], kind)

        def on_the_stack(value):
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        def letter(index):
            return on_the_stack(builder.trunc(convert(index, types.int64), ir.IntType(8)))

        def size(index):
            return on_the_stack(convert(index, types.int32))

        def address(index):
            return builder.inttoptr(convert(index, types.uintp), pointer)

        one = on_the_stack(ir.Constant(ir.FloatType(), 1.0))
        scale = on_the_stack(convert(9, types.float32))
        shape = [size(2), size(3), size(4)]
        operands = [address(5), size(6), address(7), size(8)]
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 13)
        sgemm = cgutils.get_or_insert_function(builder.module, kind, SYMBOL)
        builder.call(
            sgemm,
            [letter(0), letter(1), *shape, one, *operands, scale, address(10), size(11)],
        )
        return context.get_dummy_value()

    return signature, generate
