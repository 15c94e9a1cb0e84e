"""Kernels for the tests of the suite: an honest matmul and gelu of NumPy, and single faults in them."""

import numpy as np


def matmul(out_NO, x_NI, weight_OI, bias_O):
    np.matmul(x_NI, weight_OI.T, out=out_NO)
    if bias_O is not None:
        np.add(out_NO, bias_O, out=out_NO)


def matmul_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    pairs = (
        (dx_NI, lambda: dout_NO @ weight_OI, False),
        (dweight_OI, lambda: dout_NO.T @ x_NI, accumulate),
        (dbias_O, lambda: dout_NO.sum(axis=0), accumulate),
    )
    for gradient, compute, add in pairs:
        if gradient is not None:
            gradient[...] = compute() + (gradient if add else 0)


def as_tf32(x):
    """Rounded to the 10 bits of mantissa that a tensor core reads."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def matmul_tf32(out_NO, x_NI, weight_OI, bias_O):
    matmul(out_NO, as_tf32(x_NI), as_tf32(weight_OI), bias_O)


def writing_zeros(half):
    """A kernel of any half-op that fills its outputs with zeros."""
    outputs = [a.name in {o.name for o in half.signature.outputs} for a in half.signature.arguments]

    def kernel(*arguments):
        for argument, is_output in zip(arguments, outputs, strict=True):
            if is_output and argument is not None:
                argument[...] = 0

    return kernel
