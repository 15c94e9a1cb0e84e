"""Embedding: a row of the token table plus a row of the position table.

    out[b,t] = wte[tokens[b,t]] + wpe[position[b] + t]

`position[b]` is the position of the first token of row b: 0 in training, the length of the cached
prefix in generation. Ids are checked where data enters, not here.
Source: Radford et al. 2019 (GPT-2); llm.c, encoder_forward.
"""

import numpy as np

from harness.contract import Acc, Ids, In, Magnitude, Out, Param, hookspec

SHAPES = ({"B": 4, "T": 64, "C": 768, "V": 50304, "X": 1024},)


@hookspec
def embedding_forward(
    out_BTC: Out, tokens_BT: Ids, position_B: Ids, wte_VC: Param, wpe_XC: Param
) -> None:
    """Fill out_BTC with wte_VC[tokens_BT] + wpe_XC[position_B + t].

    tokens_BT: in 0 .. V-1.  position_B: position of each row's first token; position + T <= X.
    Every element of out_BTC is overwritten; the tables are read only.
    """


@hookspec
def embedding_backward(
    dwte_VC: Acc | None,
    dwpe_XC: Acc | None,
    dout_BTC: In,
    tokens_BT: Ids,
    position_B: Ids,
    accumulate: bool,
) -> None:
    """Sum the rows of dout_BTC that each table row was used for.

    A token or a position that occurs several times receives the sum; one that does not occur, zero.
    Both gradients are overwritten whole, or added to if `accumulate`; either may be None.
    """


def example_inputs(rng, dims, settings):
    B, T, V, X = (dims[letter] for letter in "BTVX")
    return {
        "tokens_BT": rng.integers(0, V, size=(B, T)),
        "position_B": rng.integers(0, X - T + 1, size=B),
    }


def _positions(tokens_BT, position_B):
    return position_B[:, None] + np.arange(tokens_BT.shape[1])


def reference_forward(tokens_BT, position_B, wte_VC, wpe_XC):
    return (wte_VC[tokens_BT] + wpe_XC[_positions(tokens_BT, position_B)],)


def _scatter(dout_BTC, rows_BT, count):
    """The table of `count` rows that each row of dout_BTC is added to; None where nobody wants it."""
    if count is None:
        return None
    table = np.zeros((count, dout_BTC.shape[-1]))
    np.add.at(table, rows_BT, dout_BTC)
    return table


def reference_backward(dout_BTC, tokens_BT, position_B, V, X):
    positions_BT = _positions(tokens_BT, position_B)
    return _scatter(dout_BTC, tokens_BT, V), _scatter(dout_BTC, positions_BT, X)


def magnitude_forward(tokens_BT, position_B, wte_VC, wpe_XC):
    (S,) = reference_forward(tokens_BT, position_B, np.abs(wte_VC), np.abs(wpe_XC))
    return (Magnitude(S, 1),)


def magnitude_backward(dout_BTC, tokens_BT, position_B, V, X):
    S_wte, S_wpe = reference_backward(np.abs(dout_BTC), tokens_BT, position_B, V, X)
    return Magnitude(S_wte, tokens_BT.size), Magnitude(S_wpe, tokens_BT.size)


def flops_forward(B, T, C):
    return B * T * C


def flops_backward(B, T, C):
    return 2 * B * T * C


def bytes_forward(B, T, C):
    # A gather: two rows read and one written for each token, whatever the size of the tables.
    return 4 * (3 * B * T * C + B * T + B)


def bytes_backward(B, T, C, V, X):
    # dout once, the used rows read and written, and both gradients cleared.
    return 4 * (B * T * C + 4 * B * T * C + (V + X) * C + B * T + B)
