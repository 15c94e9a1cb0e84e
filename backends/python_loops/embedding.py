"""out[b,t] = wte[tokens[b,t]] + wpe[position[b] + t]

    dwte[w] = Σ dout[b,t] where tokens[b,t] = w      dwpe[x] = Σ dout[b,t] where position[b] + t = x

The backward asks of each table row where it was used, and sums those rows of dout: a row that
occurs often is written once all the same.
"""

from collections import defaultdict
from itertools import product

from backends.python_loops._rows import row, start_row, write_row
from backends.python_loops.matmul import add_scaled
from harness import hookimpl


@hookimpl
def embedding_forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    B, T, C = out_BTC.shape
    for b, t in product(range(B), range(T)):
        token, position = tokens_BT[b, t], position_B[b] + t
        for c in range(C):
            out_BTC[b, t, c] = wte_VC[token, c] + wpe_XC[position, c]


@hookimpl
def embedding_backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    B, T, _ = dout_BTC.shape
    uses_of_token, uses_of_position = defaultdict(list), defaultdict(list)
    for b, t in product(range(B), range(T)):
        uses_of_token[tokens_BT[b, t]].append((b, t))
        uses_of_position[position_B[b] + t].append((b, t))
    if dwte_VC is not None:
        sum_uses(dwte_VC, uses_of_token, dout_BTC, accumulate)
    if dwpe_XC is not None:
        sum_uses(dwpe_XC, uses_of_position, dout_BTC, accumulate)


def sum_uses(dtable, uses, dout_BTC, accumulate):
    """dtable[r] = Σ dout[b,t] over the (b, t) in uses[r]. If accumulating, other rows stay."""
    for r in uses if accumulate else range(len(dtable)):
        total = start_row(dtable, accumulate, r)
        for b, t in uses.get(r, ()):
            add_scaled(total, 1.0, row(dout_BTC, b, t))
        write_row(dtable, total, r)
