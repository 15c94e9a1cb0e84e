import numpy as np

from tests.conformance.honest import gelu, matmul, put
from tests.conformance.honest import matmul_gelu as honest
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_bf16


@wrong("matmul_gelu_forward", "GELU before the bias")
def gelu_before_bias(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    matmul.forward(pre_NO, x_NI, weight_OI, None)
    gelu.forward(out_NO, pre_NO)
    if bias_O is not None:
        pre_NO += bias_O
        out_NO += bias_O


@wrong("matmul_gelu_forward", "what GELU is taken of is not kept")
def pre_not_written(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    pre = np.empty_like(pre_NO)
    honest.forward(out_NO, pre, x_NI, weight_OI, bias_O)


@wrong("matmul_gelu_forward", "kept before the bias was added")
def pre_without_bias(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    honest.forward(out_NO, pre_NO, x_NI, weight_OI, bias_O)
    matmul.forward(pre_NO, x_NI, weight_OI, None)


@wrong("matmul_gelu_forward", "the output kept in place of what GELU is taken of")
def out_kept(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    honest.forward(out_NO, pre_NO, x_NI, weight_OI, bias_O)
    pre_NO[...] = out_NO


@wrong("matmul_gelu_forward", "the bias is taken to be always there", subtle=True)
def bias_always_there(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    honest.forward(out_NO, pre_NO, x_NI, weight_OI, bias_O + np.float32(0))


@wrong("matmul_gelu_forward", "pre kept in bfloat16, GELU taken of the exact one")
def pre_rounded(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    honest.forward(out_NO, pre_NO, x_NI, weight_OI, bias_O)
    pre_NO[...] = as_bf16(pre_NO)


@wrong("matmul_gelu_backward", "dbias from dout, past GELU")
def dbias_from_dout(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    honest.backward(dx_NI, dweight_OI, None, dout_NO, pre_NO, x_NI, weight_OI, accumulate)
    put(dbias_O, dout_NO.sum(axis=0), accumulate)


@wrong("matmul_gelu_backward", "GELU's slope at its output")
def slope_at_output(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    out = np.empty_like(pre_NO)
    gelu.forward(out, pre_NO)
    honest.backward(dx_NI, dweight_OI, dbias_O, dout_NO, out, x_NI, weight_OI, accumulate)


@wrong("matmul_gelu_backward", "GELU's slope left out")
def slope_left_out(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    matmul.backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate)


@wrong(
    "matmul_gelu_backward", "dpre made where pre lies, in an input", subtle=True, law="untouched"
)
def dpre_in_place(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    gelu.with_cosh(pre_NO, dout_NO, pre_NO.copy())
    matmul.backward(dx_NI, dweight_OI, dbias_O, pre_NO, x_NI, weight_OI, accumulate)


@wrong("matmul_gelu_backward", "nothing is made where dx is None", subtle=True)
def returns_early(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    if dx_NI is None:
        return
    honest.backward(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate)
