import numpy as np

from tests.conformance.honest import honest, put, tiles


@honest("lora_forward", "two BLAS calls, then a slice of the copy")
def forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    low = x_NI @ a_RI.T
    out_NO[...] = y_NO
    out_NO[:, first : first + len(b_SR)] += np.float32(scale) * (low @ b_SR.T)
    low_NR[...] = low


@honest("lora_forward", "the pair multiplied out to a weight first; tiles of 8 rows")
def as_one_weight(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    weight_SI = (np.float32(scale) * b_SR) @ a_RI
    out_NO[...] = y_NO
    for n in tiles(len(x_NI), 8):
        low_NR[n] = x_NI[n] @ a_RI.T
        out_NO[n, first : first + len(b_SR)] += x_NI[n] @ weight_SI.T


@honest("lora_forward", "the outputs' columns one after another, rank by rank")
def column_by_column(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    low = x_NI @ (np.float32(scale) * a_RI).T
    out_NO[...] = y_NO
    for s, weights in enumerate(b_SR, first):
        for r, weight in enumerate(weights):
            out_NO[:, s] += low[:, r] * weight
    low_NR[...] = x_NI @ a_RI.T


@honest("lora_backward", "one BLAS call each")
def backward(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    dout_NS = np.float32(scale) * dout_NO[:, first : first + len(b_SR)]
    dlow_NR = dout_NS @ b_SR
    put(dy_NO, dout_NO)
    put(dx_NI, dlow_NR @ a_RI)
    put(da_RI, dlow_NR.T @ x_NI, accumulate)
    put(db_SR, dout_NS.T @ low_NR, accumulate)


@honest("lora_backward", "row after row, added straight into the gradients' buffers")
def row_by_row(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    for gradient in (da_RI, db_SR):
        if gradient is not None and not accumulate:
            gradient[...] = 0
    for n, x in enumerate(x_NI):
        dout = dout_NO[n, first : first + len(b_SR)].copy()
        dlow = np.float32(scale) * (dout @ b_SR)
        if dy_NO is not None:
            dy_NO[n] = dout_NO[n]
        if dx_NI is not None:
            dx_NI[n] = dlow @ a_RI
        put(da_RI, dlow[:, None] * x, True)
        put(db_SR, np.float32(scale) * dout[:, None] * low_NR[n], True)
