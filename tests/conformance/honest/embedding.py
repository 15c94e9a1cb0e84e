import numpy as np

from tests.conformance.honest import honest, put


def positions(tokens_BT, position_B):
    return position_B[:, None] + np.arange(tokens_BT.shape[1])


def scatter(table, rows_BT, dout_BTC, accumulate):
    """Add each row of dout_BTC to its row of the table; nothing where nobody wants it."""
    if table is None:
        return
    if not accumulate:
        table[...] = 0
    np.add.at(table, rows_BT, dout_BTC)


@honest("embedding_forward", "two gathers")
def forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    out_BTC[...] = wte_VC[tokens_BT] + wpe_XC[positions(tokens_BT, position_B)]


@honest("embedding_forward", "row after row, position first")
def row_by_row(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    B, T = tokens_BT.shape
    for b in range(B):
        start = position_B[b]
        out_BTC[b] = wpe_XC[start : start + T]
        out_BTC[b] += wte_VC[tokens_BT[b]]


@honest("embedding_backward", "np.add.at, in the order of the tokens")
def backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    scatter(dwte_VC, tokens_BT, dout_BTC, accumulate)
    scatter(dwpe_XC, positions(tokens_BT, position_B), dout_BTC, accumulate)


@honest("embedding_backward", "tokens sorted; each table row's terms summed, then added once")
def by_sorting(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    dout_NC = dout_BTC.reshape(-1, dout_BTC.shape[-1])
    for table, rows_BT in (
        (dwte_VC, tokens_BT),
        (dwpe_XC, positions(tokens_BT, position_B)),
    ):
        if table is None:
            continue
        sums = np.zeros_like(table)
        order = np.argsort(rows_BT, axis=None, kind="stable")
        used, starts = np.unique(rows_BT.ravel()[order], return_index=True)
        sums[used] = np.add.reduceat(dout_NC[order], starts, axis=0)
        put(table, sums, accumulate)


@honest("embedding_backward", "a product with the one-hot matrix of the ids")
def one_hot(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    dout_NC = dout_BTC.reshape(-1, dout_BTC.shape[-1])
    # 0 times an infinity is NaN, so only finite gradients go through the product.
    if not np.isfinite(dout_NC).all():
        return backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate)
    for table, rows_BT in (
        (dwte_VC, tokens_BT),
        (dwpe_XC, positions(tokens_BT, position_B)),
    ):
        if table is not None:
            hot_NV = np.eye(len(table), dtype=np.float32)[rows_BT.ravel()]
            put(table, hot_NV.T @ dout_NC, accumulate)
    return None
