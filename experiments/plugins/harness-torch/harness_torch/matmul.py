"""out = x · weightᵀ + bias

    dx = dout · weight        dweight = doutᵀ · x        dbias = Σ_n dout

One call of the library for each product, straight to its buffer. Only a gradient of a weight made of
bfloat16 numbers passes through scratch, because its buffer is float32.
"""

import torch

from harness import hookimpl
from harness_torch import _widened
from harness_torch._processor import BF16_PRODUCTS
from harness_torch._scratch import pieces, scratch


@hookimpl
def matmul_forward(out_NO, x_NI, weight_OI, bias_O):
    if in_float32(x_NI):
        _widened.forward(out_NO, x_NI, weight_OI, bias_O)
    elif bias_O is None:
        torch.mm(x_NI, weight_OI.T, out=out_NO)
    else:
        torch.addmm(bias_O, x_NI, weight_OI.T, out=out_NO)


@hookimpl
def matmul_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    if dbias_O is not None:
        sum_rows(dbias_O, dout_NO, accumulate)
    if in_float32(x_NI):
        _widened.backward(dx_NI, dweight_OI, dout_NO, x_NI, weight_OI, accumulate)
        return
    if dx_NI is not None:
        torch.mm(dout_NO, weight_OI, out=dx_NI)
    if dweight_OI is not None:
        write_product(dweight_OI, dout_NO.T, x_NI, accumulate)


def in_float32(x_NI):
    """Whether operands must be taken up to float32 first."""
    return x_NI.dtype == torch.bfloat16 and BF16_PRODUCTS == "float32"


def write_product(out_OI, a_ON, b_NI, add):
    """out = a · b, or out += a · b, where out may be float32 and a and b bfloat16."""
    if out_OI.dtype == a_ON.dtype:
        out_OI.addmm_(a_ON, b_NI, beta=int(add))
        return
    for rows in pieces(*out_OI.shape):
        product = scratch("product", out_OI[rows].shape, a_ON.dtype)
        torch.mm(a_ON[rows], b_NI, out=product)
        write(out_OI[rows], product, add)


def sum_rows(out_O, dout_NO, add):
    """out = Σ_n dout[n], or out += Σ_n dout[n], summed in float32."""
    total = scratch("total", out_O.shape, out_O.dtype) if add else out_O
    torch.sum(dout_NO, 0, dtype=out_O.dtype, out=total)
    if add:
        out_O += total


def write(out, value, add):
    if not add:
        out.copy_(value)
        return
    # Of one dtype: PyTorch would take memory for a converted copy.
    out += (
        value if value.dtype == out.dtype else scratch("wide", value.shape, out.dtype).copy_(value)
    )
