"""keys[position + t] = k[t]        s[i,j] = q[i] · keys[j] / sqrt(D)  for j <= position + i

    values[position + t] = v[t]        p[i,j] = exp(s[i,j] - lse[i])        out[i] = Σ_j p[i,j] values[j]

The cache is written first; then every query reads it from 0 to its own place, and what lies beyond
is never touched. No mask: the end of a loop.
"""

import math
from itertools import product

from backends.python_loops._rows import row, write_row
from backends.python_loops.cross_entropy import log_sum_exp
from backends.python_loops.matmul import add_scaled, dot
from harness import hookimpl

Q, K, V = 0, 1, 2  # places along the literal 3 of qkv_BT3HD


@hookimpl
def attention_decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    B, T, H, D = out_BTHD.shape
    scale = 1 / math.sqrt(D)
    for b, h in product(range(B), range(H)):
        first = position_B[b]
        for t in range(T):
            write_row(keys_BXHD, row(qkv_BT3HD, b, t, K, h), b, first + t, h)
            write_row(values_BXHD, row(qkv_BT3HD, b, t, V, h), b, first + t, h)
        k = [row(keys_BXHD, b, j, h) for j in range(first + T)]
        v = [row(values_BXHD, b, j, h) for j in range(first + T)]
        for i in range(T):
            q, seen = row(qkv_BT3HD, b, i, Q, h), first + i + 1
            s = [dot(q, k[j]) * scale for j in range(seen)]
            lse = log_sum_exp(s)
            out = [0.0] * D
            for j in range(seen):
                add_scaled(out, math.exp(s[j] - lse), v[j])
            write_row(out_BTHD, out, b, i, h)
