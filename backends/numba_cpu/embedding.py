"""out[b,t] = wte[tokens[b,t]] + wpe[position[b] + t]

    dwte[tokens[b,t]] += dout[b,t]        dwpe[position[b] + t] += dout[b,t]

Backward, each thread owns some columns of both tables and goes through all tokens: a token that occurs
twice is added twice by the same thread, in the order of the text.
"""

from numba import prange

from backends.numba_cpu._kernel import helper, kernel
from backends.numba_cpu._narrow import narrow, wide
from backends.numba_cpu._threads import threads
from backends.numba_cpu._tiles import coarse_part, part
from harness import hookimpl


@hookimpl
def embedding_forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    _forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC, threads())


@hookimpl
def embedding_backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    for gradient in (dwte_VC, dwpe_XC):
        if gradient is not None and not accumulate:
            _clear(gradient, threads())
    if dwte_VC is not None:
        _add_tokens(dwte_VC, dout_BTC, tokens_BT, threads())
    if dwpe_XC is not None:
        _add_positions(dwpe_XC, dout_BTC, position_B, threads())


@kernel
def _forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC, tasks):
    B, T, _ = out_BTC.shape
    for task in prange(tasks):
        start, stop = part(B * T, tasks, task)
        for n in range(start, stop):
            b, t = n // T, n % T
            _sum(out_BTC[b, t], wte_VC[tokens_BT[b, t]], wpe_XC[position_B[b] + t])


@helper
def _sum(out_C, a_C, b_C):
    for c in range(out_C.size):
        out_C[c] = narrow(out_C, wide(a_C[c]) + wide(b_C[c]))


@kernel
def _clear(table_VC, tasks):
    for task in prange(tasks):
        start, stop = part(table_VC.shape[0], tasks, task)
        table_VC[start:stop] = 0


@kernel
def _add_tokens(table_VC, dout_BTC, tokens_BT, tasks):
    """Add each row of dout to the row of its token."""
    B, T, C = dout_BTC.shape
    for task in prange(tasks):
        left, right = coarse_part(C, tasks, task)
        for b in range(B):
            for t in range(T):
                _add(table_VC[tokens_BT[b, t], left:right], dout_BTC[b, t, left:right])


@kernel
def _add_positions(table_XC, dout_BTC, position_B, tasks):
    """Add each row of dout to the row of its position."""
    B, T, C = dout_BTC.shape
    for task in prange(tasks):
        left, right = coarse_part(C, tasks, task)
        for b in range(B):
            for t in range(T):
                _add(table_XC[position_B[b] + t, left:right], dout_BTC[b, t, left:right])


@helper
def _add(out_C, x_C):
    for c in range(out_C.size):
        out_C[c] += wide(x_C[c])
