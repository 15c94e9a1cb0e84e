import numpy as np

from tests.conformance.honest import embedding, put
from tests.conformance.honest.embedding import positions
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_half


@wrong("embedding_forward", "positions begin at 0 in every row", subtle=True)
def position_ignored(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    embedding.forward(out_BTC, tokens_BT, np.zeros_like(position_B), wte_VC, wpe_XC)


@wrong("embedding_forward", "the first row's position for all rows", subtle=True)
def position_of_first_row(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    first = np.full_like(position_B, position_B[0])
    embedding.forward(out_BTC, tokens_BT, first, wte_VC, wpe_XC)


@wrong("embedding_forward", "position + 1: counted from one")
def position_from_one(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    next_XC = np.roll(wpe_XC, -1, axis=0)
    embedding.forward(out_BTC, tokens_BT, position_B, wte_VC, next_XC)


@wrong(
    "embedding_forward",
    "the position's row added into the token table",
    subtle=True,
    law="untouched",
)
def table_changed(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    embedding.forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC)
    wte_VC[tokens_BT[0, 0]] += wpe_XC[position_B[0]]


@wrong("embedding_forward", "the position's row is forgotten")
def position_forgotten(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    out_BTC[...] = wte_VC[tokens_BT]


@wrong("embedding_forward", "added to out: relies on zeros there", subtle=True)
def out_added_to(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    out_BTC += wte_VC[tokens_BT] + wpe_XC[positions(tokens_BT, position_B)]


@wrong("embedding_forward", "ids kept in one byte", subtle=True)
def ids_in_a_byte(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    embedding.forward(out_BTC, tokens_BT.astype(np.int8), position_B, wte_VC, wpe_XC)


@wrong("embedding_backward", "dwte[tokens] += dout: a repeated id counts once")
def repeated_ids_count_once(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    embedding.backward(None, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate)
    if dwte_VC is not None:
        if not accumulate:
            dwte_VC[...] = 0
        dwte_VC[tokens_BT] += dout_BTC


@wrong("embedding_backward", "rows of tokens that do not occur are left as they were", subtle=True)
def unused_rows_not_cleared(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    embedding.backward(None, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate)
    if dwte_VC is not None:
        if not accumulate:
            dwte_VC[tokens_BT] = 0
        np.add.at(dwte_VC, tokens_BT, dout_BTC)


@wrong("embedding_backward", "positions begin at 0 in every row", subtle=True)
def position_ignored_backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    start = np.zeros_like(position_B)
    embedding.backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, start, accumulate)


@wrong("embedding_backward", "each row of the batch overwrites the positions of the one before")
def positions_overwritten(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    embedding.backward(dwte_VC, None, dout_BTC, tokens_BT, position_B, accumulate)
    if dwpe_XC is not None:
        dwpe = np.zeros_like(dwpe_XC)
        dwpe[positions(tokens_BT, position_B)] = dout_BTC
        put(dwpe_XC, dwpe, accumulate)


@wrong("embedding_backward", "accumulate is ignored: always overwritten", subtle=True)
def accumulate_ignored(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    embedding.backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, False)


@wrong("embedding_backward", "returns where dwte is None, before dwpe", subtle=True)
def returns_early(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    if dwte_VC is None:
        return
    embedding.backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate)


@wrong("embedding_backward", "sums of repeated ids kept in float16")
def half_sums(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    embedding.backward(None, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate)
    if dwte_VC is not None:
        sums = np.zeros_like(dwte_VC)
        np.add.at(sums, tokens_BT, dout_BTC)
        put(dwte_VC, as_half(sums), accumulate)


@wrong("embedding_backward", "channels beyond the last whole vector of 4 are left out", subtle=True)
def channel_tail_dropped(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    dout = dout_BTC.copy()
    dout[..., dout.shape[-1] // 4 * 4 :] = 0
    embedding.backward(dwte_VC, dwpe_XC, dout, tokens_BT, position_B, accumulate)
