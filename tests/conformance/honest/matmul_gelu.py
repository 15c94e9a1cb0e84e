import numpy as np

from tests.conformance.honest import gelu, honest, matmul, tiles


@honest("matmul_gelu_forward", "matmul, then GELU")
def forward(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    matmul.forward(pre_NO, x_NI, weight_OI, bias_O)
    gelu.forward(out_NO, pre_NO)


@honest("matmul_gelu_forward", "tiles of 8 rows, each made and used at once")
def by_rows(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    for n in tiles(len(x_NI), 8):
        matmul.sequential(pre_NO[n], x_NI[n], weight_OI, bias_O)
        gelu.logistic(out_NO[n], pre_NO[n])


@honest("matmul_gelu_backward", "GELU's backward, then matmul's")
def backward(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    dpre_NO = np.empty_like(pre_NO)
    gelu.backward(dpre_NO, dout_NO, pre_NO)
    matmul.backward(dx_NI, dweight_OI, dbias_O, dpre_NO, x_NI, weight_OI, accumulate)


@honest("matmul_gelu_backward", "1 / cosh^2, and row after row into the gradients")
def by_rows_backward(dx_NI, dweight_OI, dbias_O, dout_NO, pre_NO, x_NI, weight_OI, accumulate):
    dpre_NO = np.empty_like(pre_NO)
    gelu.with_cosh(dpre_NO, dout_NO, pre_NO)
    matmul.row_by_row(dx_NI, dweight_OI, dbias_O, dpre_NO, x_NI, weight_OI, accumulate)
