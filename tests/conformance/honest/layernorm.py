import numpy as np

from tests.conformance.honest import honest, put, tiles


@honest("layernorm_forward", "two passes over the row, whole arrays")
def forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    mean_N[...] = x_NC.mean(axis=-1)
    centred_NC = x_NC - mean_N[:, None]
    rstd_N[...] = 1 / np.sqrt((centred_NC**2).mean(axis=-1) + np.float32(eps))
    out_NC[...] = centred_NC * rstd_N[:, None] * weight_C + bias_C


@honest("layernorm_forward", "Welford's running mean and variance in float32")
def welford(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    N, C = x_NC.shape
    mean = np.zeros(N, np.float32)
    squares = np.zeros(N, np.float32)
    for c in range(C):
        delta = x_NC[:, c] - mean
        mean += delta / np.float32(c + 1)
        squares += delta * (x_NC[:, c] - mean)
    mean_N[...] = mean
    rstd_N[...] = 1 / np.sqrt(squares / np.float32(C) + np.float32(eps))
    out_NC[...] = (x_NC - mean[:, None]) * rstd_N[:, None] * weight_C + bias_C


@honest(
    "layernorm_forward", "variance about the row's first element, corrected by the mean's shift"
)
def shifted(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    first_N1 = x_NC[:, :1]
    shift_N1 = (x_NC - first_N1).mean(axis=-1, keepdims=True)
    centred_NC = (x_NC - first_N1) - shift_N1
    # Chan et al.: what rounding left in the mean of the centred row is taken out of the variance.
    variance_N = (centred_NC**2).mean(axis=-1) - centred_NC.mean(axis=-1) ** 2
    mean_N[...] = (first_N1 + shift_N1)[:, 0]
    rstd_N[...] = 1 / np.sqrt(variance_N + np.float32(eps))
    out_NC[...] = centred_NC * rstd_N[:, None] * weight_C + bias_C


@honest("layernorm_forward", "sums one element after another in float32")
def sequential(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    N, C = x_NC.shape
    total = np.zeros(N, np.float32)
    for c in range(C):
        total += x_NC[:, c]
    mean_N[...] = total / np.float32(C)
    total[...] = 0
    for c in range(C):
        total += (x_NC[:, c] - mean_N) ** 2
    rstd_N[...] = 1 / np.sqrt(total / np.float32(C) + np.float32(eps))
    out_NC[...] = (x_NC - mean_N[:, None]) * rstd_N[:, None] * weight_C + bias_C


@honest("layernorm_forward", "everything in float64, rounded once")
def in_double(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    x = x_NC.astype(np.float64)
    mean = x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + eps)
    mean_N[...], rstd_N[...] = mean[:, 0], rstd[:, 0]
    out_NC[...] = (x - mean) * rstd * weight_C + bias_C


@honest("layernorm_backward", "two row means, whole arrays")
def backward(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate):
    xhat_NC = (x_NC - mean_N[:, None]) * rstd_N[:, None]
    dxhat_NC = dout_NC * weight_C
    mean_dxhat_N1 = dxhat_NC.mean(axis=-1, keepdims=True)
    mean_dxhat_xhat_N1 = (dxhat_NC * xhat_NC).mean(axis=-1, keepdims=True)
    put(dx_NC, rstd_N[:, None] * (dxhat_NC - mean_dxhat_N1 - xhat_NC * mean_dxhat_xhat_N1))
    put(dweight_C, (dout_NC * xhat_NC).sum(axis=0), accumulate)
    put(dbias_C, dout_NC.sum(axis=0), accumulate)


@honest("layernorm_backward", "dx scaled by rstd / C at the end; gradients summed by tiles of rows")
def rearranged(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate):
    N, C = x_NC.shape
    xhat_NC = x_NC * rstd_N[:, None] - (mean_N * rstd_N)[:, None]
    dxhat_NC = dout_NC * weight_C
    a_N1 = dxhat_NC.sum(axis=-1, keepdims=True)
    b_N1 = (dxhat_NC * xhat_NC).sum(axis=-1, keepdims=True)
    scale_N1 = rstd_N[:, None] / np.float32(C)
    put(dx_NC, scale_N1 * (np.float32(C) * dxhat_NC - a_N1 - xhat_NC * b_N1))
    dweight, dbias = np.zeros((2, C), np.float32)
    for rows in tiles(N, 4):
        dweight += (dout_NC[rows] * xhat_NC[rows]).sum(axis=0)
        dbias += dout_NC[rows].sum(axis=0)
    put(dweight_C, dweight, accumulate)
    put(dbias_C, dbias, accumulate)


@honest("layernorm_backward", "row after row, added straight into the gradients' buffers")
def row_by_row(dx_NC, dweight_C, dbias_C, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate):
    for gradient in (dweight_C, dbias_C):
        if gradient is not None and not accumulate:
            gradient[...] = 0
    for n in range(len(x_NC)):
        xhat = (x_NC[n] - mean_N[n]) * rstd_N[n]
        dxhat = dout_NC[n] * weight_C
        if dx_NC is not None:
            dx_NC[n] = rstd_N[n] * (dxhat - (dxhat.mean() + xhat * (dxhat * xhat).mean()))
        put(dweight_C, dout_NC[n] * xhat, True)
        put(dbias_C, dout_NC[n], True)
