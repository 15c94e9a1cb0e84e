import numpy as np

from tests.conformance.honest import honest, put, tiles


@honest("matmul_forward", "one BLAS call, then the bias")
def forward(out_NO, x_NI, weight_OI, bias_O):
    np.matmul(x_NI, weight_OI.T, out=out_NO)
    if bias_O is not None:
        out_NO += bias_O


@honest("matmul_forward", "one input feature after another; the sum begins with the bias")
def sequential(out_NO, x_NI, weight_OI, bias_O):
    out_NO[...] = 0 if bias_O is None else bias_O
    for i in range(x_NI.shape[1]):
        out_NO += x_NI[:, i, None] * weight_OI[:, i]


@honest("matmul_forward", "tiles of 16 along I, their sums added")
def blocked(out_NO, x_NI, weight_OI, bias_O):
    out_NO[...] = 0
    for i in tiles(x_NI.shape[1], 16):
        out_NO += x_NI[:, i] @ weight_OI[:, i].T
    if bias_O is not None:
        out_NO += bias_O


@honest("matmul_forward", "Kahan's compensated sum")
def kahan(out_NO, x_NI, weight_OI, bias_O):
    out_NO[...] = 0
    lost = np.zeros_like(out_NO)
    for i in range(x_NI.shape[1]):
        term = x_NI[:, i, None] * weight_OI[:, i] - lost
        total = out_NO + term
        lost = (total - out_NO) - term
        # An infinite sum has lost nothing that can be given back.
        lost[~np.isfinite(lost)] = 0
        out_NO[...] = total
    if bias_O is not None:
        out_NO += bias_O


@honest("matmul_backward", "one BLAS call each")
def backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    put(dx_NI, dout_NO @ weight_OI)
    put(dweight_OI, dout_NO.T @ x_NI, accumulate)
    put(dbias_O, dout_NO.sum(axis=0), accumulate)


@honest("matmul_backward", "row after row, added straight into the gradients' buffers")
def row_by_row(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    for gradient in (dweight_OI, dbias_O):
        if gradient is not None and not accumulate:
            gradient[...] = 0
    if dx_NI is not None:
        dx_NI[...] = 0
        for o in range(weight_OI.shape[0]):
            dx_NI += dout_NO[:, o, None] * weight_OI[o]
    for dout, x in zip(dout_NO, x_NI, strict=True):
        put(dweight_OI, dout[:, None] * x, True)
        put(dbias_O, dout, True)


@honest("matmul_backward", "tiles of 8 rows; the bias gradient as a product with ones")
def blocked_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    N = len(x_NI)
    put(dx_NI, np.einsum("no,oi->ni", dout_NO, weight_OI))
    put(dweight_OI, sum(dout_NO[n].T @ x_NI[n] for n in tiles(N, 8)), accumulate)
    put(dbias_O, np.ones(N, np.float32) @ dout_NO, accumulate)
