import numpy as np

from tests.conformance.honest import honest, layernorm, put


@honest("residual_layernorm_forward", "the sum, then its LayerNorm")
def forward(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    np.add(a_NC, b_NC, out=sum_NC)
    layernorm.forward(out_NC, mean_N, rstd_N, sum_NC, weight_C, bias_C, eps)


@honest("residual_layernorm_forward", "row after row, while the row is warm; Welford")
def row_by_row(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    for n in range(len(a_NC)):
        row = slice(n, n + 1)
        sum_NC[row] = a_NC[row] + b_NC[row]
        layernorm.welford(out_NC[row], mean_N[row], rstd_N[row], sum_NC[row], weight_C, bias_C, eps)


@honest("residual_layernorm_forward", "the sum kept in double for the statistics")
def in_double(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    total = a_NC.astype(np.float64) + b_NC
    layernorm.in_double(out_NC, mean_N, rstd_N, total, weight_C, bias_C, eps)
    sum_NC[...] = total


@honest("residual_layernorm_backward", "LayerNorm's backward, then dsum")
def backward(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    layernorm.backward(
        da_NC, dweight_C, dbias_C, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )
    if da_NC is not None and dsum_NC is not None:
        da_NC += dsum_NC


@honest("residual_layernorm_backward", "dsum first; LayerNorm's part added to it")
def dsum_first(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    dx_NC = None if da_NC is None else np.empty_like(da_NC)
    layernorm.rearranged(
        dx_NC, dweight_C, dbias_C, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )
    if da_NC is not None:
        put(da_NC, np.float32(0) if dsum_NC is None else dsum_NC)
        da_NC += dx_NC
