"""LoRA: what a low-rank pair adds to a linear layer's outputs, or to a slice of them.

    low = x · aᵀ        out = y        out[:, first:first+S] += scale * low · bᵀ

    dy = dout           dlow = scale * dout[:, first:first+S] · b
    dx = dlow · a       da = dlowᵀ · x       db = scale * dout[:, first:first+S]ᵀ · low

y are the outputs of a layer whose own weight is frozen. A slice is what addresses q, k or v in the
packed weight of GPT-2's attention.
Source: Hu et al. 2021, arXiv:2106.09685.
"""

import numpy as np

from harness.contract import Acc, In, Kept, Magnitude, Out, Param, hookspec

# Rank 4 on one of q, k, v in the packed 3 C outputs, and on a whole attention projection.
SHAPES = (
    {"N": 256, "O": 2304, "R": 4, "I": 768, "S": 768},
    {"N": 256, "O": 768, "R": 4, "I": 768, "S": 768},
)
MAY_ALIAS = {
    "lora_forward": (("out_NO", "y_NO"),),
    "lora_backward": (("dy_NO", "dout_NO"),),
}


@hookspec
def lora_forward(
    out_NO: Out,
    low_NR: Kept,
    y_NO: In,
    x_NI: In,
    a_RI: Param,
    b_SR: Param,
    first: int,
    scale: float,
) -> None:
    """Fill low_NR with x_NI · a_RIᵀ, and out_NO with y_NO plus scale * low · b_SRᵀ in its slice.

    first: where the slice of S columns begins; first + S is at most O. Other columns are copies.
    out_NO may share the memory of y_NO.
    """


@hookspec
def lora_backward(
    dy_NO: Out | None,
    dx_NI: Out | None,
    da_RI: Acc | None,
    db_SR: Acc | None,
    dout_NO: In,
    low_NR: In,
    x_NI: In,
    a_RI: Param,
    b_SR: Param,
    first: int,
    scale: float,
    accumulate: bool,
) -> None:
    """Fill dy_NO and dx_NI; overwrite da_RI and db_SR, or add to them if `accumulate`.

    dx_NI is what flows through the pair alone. low_NR is what a forward kept, on any backend.
    Each of the four may be None. dy_NO may share the memory of dout_NO.
    """


def example_settings(dims):
    O, S = dims["O"], dims["S"]
    if S > O:
        raise ValueError(f"a slice of {S} columns does not fit into {O}")
    # Somewhere from the first place to the last, as the other sizes have it.
    return {"first": (dims["N"] + dims["I"]) % (O - S + 1), "scale": 1.5}


def reference_forward(y_NO, x_NI, a_RI, b_SR, first, scale):
    low_NR = x_NI @ a_RI.T
    out_NO = y_NO.copy()
    out_NO[:, first : first + len(b_SR)] += scale * (low_NR @ b_SR.T)
    return out_NO, low_NR


def reference_backward(dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale):
    dout_NS = dout_NO[:, first : first + len(b_SR)]
    dlow_NR = scale * (dout_NS @ b_SR)
    return dout_NO, dlow_NR @ a_RI, dlow_NR.T @ x_NI, scale * (dout_NS.T @ low_NR)


def magnitude_forward(y_NO, x_NI, a_RI, b_SR, first, scale):
    x, a, b = np.abs(x_NI), np.abs(a_RI), np.abs(b_SR)
    low_NR = x @ a.T
    # Beyond the slice nothing is computed: a copy is exact.
    S = np.zeros_like(y_NO)
    part = slice(first, first + len(b))
    S[:, part] = np.abs(y_NO[:, part]) + abs(scale) * (low_NR @ b.T)
    I, R = x.shape[1], len(a)
    return Magnitude(S, I + R), Magnitude(low_NR, I)


def magnitude_backward(dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale):
    N, (S, R) = len(x_NI), b_SR.shape
    dout, low, x, a, b = (np.abs(array) for array in (dout_NO, low_NR, x_NI, a_RI, b_SR))
    _, dx_NI, da_RI, db_SR = reference_backward(dout, low, x, a, b, first, abs(scale))
    dy = Magnitude(np.zeros_like(dout_NO), 1)  # a copy rounds nothing
    return dy, Magnitude(dx_NI, S + R), Magnitude(da_RI, S + N), Magnitude(db_SR, N)


def flops_forward(N, I, R, S):
    return 2 * N * R * (I + S) + 2 * N * S


def flops_backward(N, I, R, S):
    return 4 * N * R * (I + S)
