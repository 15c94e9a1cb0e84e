"""pre[n,o] = Σ_i x[n,i] weight[o,i] + bias[o]        out = gelu(pre)

    dpre = dout · gelu'(pre)        dx[n,i] = Σ_o dpre[n,o] weight[o,i]
    dweight[o,i] = Σ_n dpre[n,o] x[n,i]        dbias[o] = Σ_n dpre[n,o]

GELU is taken of each dot product as it is made; the backward makes `dpre` an element, then a column
at a time, and never holds it whole.
"""

from backends.python_loops._rows import row, start_row, write_row
from backends.python_loops.gelu import gelu, gelu_slope
from backends.python_loops.matmul import add_scaled, dot
from harness import hookimpl


@hookimpl
def matmul_gelu_forward(out_NO, pre_NO, x_NI, weight_OI, bias_O):
    N, O = out_NO.shape
    for o in range(O):
        weight = row(weight_OI, o)
        bias = 0.0 if bias_O is None else bias_O[o]
        for n in range(N):
            pre_NO[n, o] = dot(row(x_NI, n), weight) + bias
            # Of pre as it was rounded: the backward will see the same number.
            out_NO[n, o] = gelu(pre_NO[n, o])


@hookimpl
def matmul_gelu_backward(
    dx_NI,
    dweight_OI,
    dbias_O,
    dout_NO,
    pre_NO,
    x_NI,
    weight_OI,
    accumulate,
):
    N, O = dout_NO.shape
    if dx_NI is not None:
        for n in range(N):
            dx = start_row(dx_NI, False)
            for o in range(O):
                dpre = dout_NO[n, o] * gelu_slope(pre_NO[n, o])
                add_scaled(dx, dpre, row(weight_OI, o))
            write_row(dx_NI, dx, n)
    if dweight_OI is None and dbias_O is None:
        return
    for o in range(O):
        dpre = [dout_NO[n, o] * gelu_slope(pre_NO[n, o]) for n in range(N)]
        if dweight_OI is not None:
            dweight = start_row(dweight_OI, accumulate, o)
            for n in range(N):
                add_scaled(dweight, dpre[n], row(x_NI, n))
            write_row(dweight_OI, dweight, o)
        if dbias_O is not None:
            dbias_O[o] = sum(dpre) + (dbias_O[o] if accumulate else 0.0)
