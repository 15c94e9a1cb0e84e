"""out[n,o] = Σ_i x[n,i] weight[o,i] + bias[o]

    dx[n,i] = Σ_o dout[n,o] weight[o,i]       dweight[o,i] = Σ_n dout[n,o] x[n,i]
    dbias[o] = Σ_n dout[n,o]

Both operands are read by rows, as they lie: the forward is dot products of rows, and the backward
sums of scaled rows.
"""

from backends.python_loops._rows import row, start_row, write_row
from harness import hookimpl


@hookimpl
def matmul_forward(out_NO, x_NI, weight_OI, bias_O):
    N, O = out_NO.shape
    for o in range(O):
        weight = row(weight_OI, o)
        bias = 0.0 if bias_O is None else bias_O[o]
        for n in range(N):
            out_NO[n, o] = dot(row(x_NI, n), weight) + bias


@hookimpl
def matmul_backward(dx_NI, dweight_OI, dbias_O, dout_NO, x_NI, weight_OI, accumulate):
    N, O = dout_NO.shape
    if dx_NI is not None:
        for n in range(N):
            dx = start_row(dx_NI, False)
            for o in range(O):
                add_scaled(dx, dout_NO[n, o], row(weight_OI, o))
            write_row(dx_NI, dx, n)
    if dweight_OI is not None:
        for o in range(O):
            dweight = start_row(dweight_OI, accumulate, o)
            for n in range(N):
                add_scaled(dweight, dout_NO[n, o], row(x_NI, n))
            write_row(dweight_OI, dweight, o)
    if dbias_O is not None:
        dbias = start_row(dbias_O, accumulate)
        for n in range(N):
            add_scaled(dbias, 1.0, row(dout_NO, n))
        write_row(dbias_O, dbias)


def dot(a, b):
    """Σ_i a[i] b[i]"""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += x * y
    return total


def add_scaled(total, scale, x):
    """total[i] += scale · x[i]"""
    for i, value in enumerate(x):
        total[i] += scale * value
