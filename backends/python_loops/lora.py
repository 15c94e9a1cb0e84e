"""low[n,r] = Σ_i x[n,i] a[r,i]        out = y        out[n,first+s] += scale · Σ_r low[n,r] b[s,r]

    dlow[n,r] = scale · Σ_s dout[n,first+s] b[s,r]        dx[n,i] = Σ_r dlow[n,r] a[r,i]
    da[r,i] = Σ_n dlow[n,r] x[n,i]        db[s,r] = scale · Σ_n dout[n,first+s] low[n,r]
    dy = dout

A loop over rows: each is read once, for all that is made of it.
"""

from backends.python_loops._rows import row, start_row, write_row
from backends.python_loops.matmul import add_scaled, dot
from harness import hookimpl


@hookimpl
def lora_forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    a = [row(a_RI, r) for r in range(len(a_RI))]
    b = [row(b_SR, s) for s in range(len(b_SR))]
    for n in range(len(x_NI)):
        x, out = row(x_NI, n), row(y_NO, n)
        low = [dot(x, weights) for weights in a]
        for s, weights in enumerate(b, first):
            out[s] += scale * dot(low, weights)
        write_row(low_NR, low, n)
        write_row(out_NO, out, n)


@hookimpl
def lora_backward(
    dy_NO,
    dx_NI,
    da_RI,
    db_SR,
    dout_NO,
    low_NR,
    x_NI,
    a_RI,
    b_SR,
    first,
    scale,
    accumulate,
):
    R, S = len(a_RI), len(b_SR)
    a, b = [row(a_RI, r) for r in range(R)], [row(b_SR, s) for s in range(S)]
    da = None if da_RI is None else [start_row(da_RI, accumulate, r) for r in range(R)]
    db = None if db_SR is None else [start_row(db_SR, accumulate, s) for s in range(S)]
    for n in range(len(x_NI)):
        dout = row(dout_NO, n)
        part = [scale * dout[first + s] for s in range(S)]
        if dy_NO is not None:
            write_row(dy_NO, dout, n)
        if db is not None:
            add_outer(db, part, row(low_NR, n))
        dlow = product(part, b, R)
        if dx_NI is not None:
            write_row(dx_NI, product(dlow, a, dx_NI.shape[1]), n)
        if da is not None:
            add_outer(da, dlow, row(x_NI, n))
    for gradient, sums in ((da_RI, da), (db_SR, db)):
        for i, values in enumerate(sums or ()):
            write_row(gradient, values, i)


def product(scales, rows, width):
    """Σ_i scales[i] · rows[i], each of `width` numbers"""
    total = [0.0] * width
    for scale, values in zip(scales, rows, strict=True):
        add_scaled(total, scale, values)
    return total


def add_outer(totals, scales, values):
    """totals[i] += scales[i] · values"""
    for total, scale in zip(totals, scales, strict=True):
        add_scaled(total, scale, values)
