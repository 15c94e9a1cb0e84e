"""out = a + b        da = dout        db = dout

Each element is read before it is written, so out may be a or b itself.
"""

from harness import hookimpl


@hookimpl
def residual_forward(out_NC, a_NC, b_NC):
    N, C = out_NC.shape
    for n in range(N):
        for c in range(C):
            out_NC[n, c] = a_NC[n, c] + b_NC[n, c]


@hookimpl
def residual_backward(da_NC, db_NC, dout_NC):
    N, C = dout_NC.shape
    for d_NC in (da_NC, db_NC):
        if d_NC is None:
            continue
        for n in range(N):
            for c in range(C):
                d_NC[n, c] = dout_NC[n, c]
