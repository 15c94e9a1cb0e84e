"""s[i,j] = q[i] · k[j] / sqrt(D)  for j <= i        lse[i] = log Σ_j exp(s[i,j])

    p[i,j] = exp(s[i,j] - lse[i])                     out[i] = Σ_j p[i,j] v[j]

    dp[i,j] = dout[i] · v[j]      delta[i] = dout[i] · out[i]      ds = p (dp - delta[i])
    dq[i] = Σ_j ds[i,j] k[j] / sqrt(D)                dk[j] = Σ_i ds[i,j] q[i] / sqrt(D)
    dv[j] = Σ_i p[i,j] dout[i]

The mask is the end of a loop: j runs to i, and what comes after is never read. Of the T x T scores
one row exists at a time in the forward, and one number in the backward.
"""

import math
from itertools import product

from backends.python_loops._ieee import exp
from backends.python_loops._rows import row, write_row
from backends.python_loops.cross_entropy import log_sum_exp
from backends.python_loops.matmul import add_scaled, dot
from harness import hookimpl

Q, K, V = 0, 1, 2  # places along the literal 3 of qkv_BT3HD


@hookimpl
def attention_forward(out_BTHD, lse_BHT, qkv_BT3HD):
    B, T, H, D = out_BTHD.shape
    scale = 1 / math.sqrt(D)
    for b, h in product(range(B), range(H)):
        k = [row(qkv_BT3HD, b, j, K, h) for j in range(T)]
        v = [row(qkv_BT3HD, b, j, V, h) for j in range(T)]
        for i in range(T):
            q = row(qkv_BT3HD, b, i, Q, h)
            s = [dot(q, k[j]) * scale for j in range(i + 1)]
            lse = log_sum_exp(s)
            out = [0.0] * D
            for j in range(i + 1):
                p = math.exp(s[j] - lse)
                add_scaled(out, p, v[j])
            write_row(out_BTHD, out, b, i, h)
            lse_BHT[b, h, i] = lse


@hookimpl
def attention_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    B, T, H, D = out_BTHD.shape
    scale = 1 / math.sqrt(D)
    for b, h in product(range(B), range(H)):
        k = [row(qkv_BT3HD, b, j, K, h) for j in range(T)]
        v = [row(qkv_BT3HD, b, j, V, h) for j in range(T)]
        dk = [[0.0] * D for _ in range(T)]
        dv = [[0.0] * D for _ in range(T)]
        for i in range(T):
            q, dout = row(qkv_BT3HD, b, i, Q, h), row(dout_BTHD, b, i, h)
            lse, delta = lse_BHT[b, h, i], dot(dout, row(out_BTHD, b, i, h))
            dq = [0.0] * D
            for j in range(i + 1):
                p = exp(dot(q, k[j]) * scale - lse)
                ds = p * (dot(dout, v[j]) - delta)
                add_scaled(dq, ds * scale, k[j])
                add_scaled(dk[j], ds * scale, q)
                add_scaled(dv[j], p, dout)
            write_row(dqkv_BT3HD, dq, b, i, Q, h)
        for j in range(T):
            write_row(dqkv_BT3HD, dk[j], b, j, K, h)
            write_row(dqkv_BT3HD, dv[j], b, j, V, h)
