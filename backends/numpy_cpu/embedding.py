"""out[b,t] = wte[tokens[b,t]] + wpe[position[b] + t]; dwte[tokens[b,t]] += dout[b,t], dwpe likewise.

The positions of a sequence are consecutive, so theirs is a slice. The gradient of the token table is a
loop over tokens that adds one row at a time: in the order of the tokens, and right where one repeats.
"""

import numpy as np

from backends.numpy_cpu.scratch import scratch
from harness import hookimpl


@hookimpl
def embedding_forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    _, T, C = out_BTC.shape
    found_TC = scratch("embedding.found", (T, C), wte_VC.dtype)
    with np.errstate(all="ignore"):
        for out_TC, tokens_T, start in zip(out_BTC, tokens_BT, position_B.tolist(), strict=True):
            # Ids are checked where data enters; mode="raise" would check again, by way of a copy.
            np.take(wte_VC, tokens_T, axis=0, out=found_TC, mode="clip")
            np.add(found_TC, wpe_XC[start : start + T], out=out_TC)


@hookimpl
def embedding_backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    _, T, C = dout_BTC.shape
    if not accumulate:
        for gradient in (dwte_VC, dwpe_XC):
            if gradient is not None:
                gradient.fill(0)
    with np.errstate(all="ignore"):
        if dwte_VC is not None:
            add = np.add
            for row, dout_C in zip(tokens_BT.ravel().tolist(), dout_BTC.reshape(-1, C)):
                row_C = dwte_VC[row]
                add(row_C, dout_C, row_C)
        if dwpe_XC is not None:
            for start, dout_TC in zip(position_B.tolist(), dout_BTC, strict=True):
                rows_TC = dwpe_XC[start : start + T]
                np.add(rows_TC, dout_TC, out=rows_TC)
