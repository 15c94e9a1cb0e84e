"""out[b,t] = wte[tokens[b,t]] + wpe[position[b] + t]

    dwte[tokens[b,t]] += dout[b,t]        dwpe[position[b] + t] += dout[b,t]

The positions of a sequence follow one another, so theirs is a slice of the table. Tokens repeat:
their rows are added one at a time, in the order of the text.
"""

import numpy as np

from backends.numpy_cpu._scratch import scratch
from harness import hookimpl


@hookimpl
def embedding_forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    _, T, C = out_BTC.shape
    found_TC = scratch("embedding.found", (T, C), wte_VC.dtype)
    with np.errstate(all="ignore"):
        for out_TC, tokens_T, first in zip(out_BTC, tokens_BT, position_B.tolist(), strict=True):
            # Ids were checked where data enters; mode="raise" checks again, by way of a copy.
            np.take(wte_VC, tokens_T, axis=0, out=found_TC, mode="clip")
            np.add(found_TC, wpe_XC[first : first + T], out=out_TC)


@hookimpl
def embedding_backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    for gradient in (dwte_VC, dwpe_XC):
        if gradient is not None and not accumulate:
            gradient.fill(0)
    with np.errstate(all="ignore"):
        for dout_TC, tokens_T, first in zip(dout_BTC, tokens_BT, position_B.tolist(), strict=True):
            if dwte_VC is not None:
                _add_rows(dwte_VC, tokens_T.tolist(), dout_TC)
            if dwpe_XC is not None:
                rows = slice(first, first + len(dout_TC))
                np.add(dwpe_XC[rows], dout_TC, out=dwpe_XC[rows])


def _add_rows(table_VC, ids, rows_TC):
    # Half a microsecond a row.
    for index, row_C in zip(ids, rows_TC, strict=True):
        entry_C = table_VC[index]
        np.add(entry_C, row_C, entry_C)
