"""Attention: causal, multi-head, on queries, keys and values packed in one tensor.

    s[i,j] = q[i] · k[j] / sqrt(D)  for j <= i       lse[i] = log sum_j exp(s[i,j])
    p[i,j] = exp(s[i,j] - lse[i])                    out[i] = sum_j p[i,j] v[j]

    dp[i,j] = dout[i] · v[j]                         ds = p * (dp - dout[i] · out[i])
    dq = ds · k / sqrt(D)       dk = dsᵀ · q / sqrt(D)       dv = pᵀ · dout

Only `lse` is saved, never the T x T matrix, so a flash attention kernel can
implement the op, and any backward works with any forward.
Source: Vaswani et al. 2017, arXiv:1706.03762; Dao et al. 2022, arXiv:2205.14135.
"""

import math

import numpy as np

from harness.contract import In, Magnitude, Out, Stat, hookspec

SHAPES = ({"B": 4, "T": 64, "H": 12, "D": 64}, {"B": 1, "T": 1024, "H": 12, "D": 64})


@hookspec
def attention_forward(out_BTHD: Out, lse_BHT: Stat, qkv_BT3HD: In) -> None:
    """Fill out_BTHD, and save lse_BHT (float32): the log of each row's sum of exponentials.

    qkv_BT3HD: queries, keys and values, in this order along the literal 3. Position i attends to
    positions 0 .. i of its own sequence.
    """


@hookspec
def attention_backward(
    dqkv_BT3HD: Out, dout_BTHD: In, qkv_BT3HD: In, out_BTHD: In, lse_BHT: Stat
) -> None:
    """Fill dqkv_BT3HD: the gradients of queries, keys and values, packed as they were.

    out_BTHD and lse_BHT are what a forward saved, on any backend.
    """


def _heads(x_BTHD):
    return x_BTHD.transpose(0, 2, 1, 3)


def _split(qkv_BT3HD):
    return (_heads(qkv_BT3HD[:, :, i]) for i in range(3))


def _scores(q_BHTD, k_BHTD):
    T, D = q_BHTD.shape[-2:]
    s_BHTT = q_BHTD @ k_BHTD.swapaxes(-1, -2) / math.sqrt(D)
    return np.where(np.tri(T, dtype=bool), s_BHTT, -np.inf)


def reference_forward(qkv_BT3HD):
    q, k, v = _split(qkv_BT3HD)
    s_BHTT = _scores(q, k)
    top_BHT1 = s_BHTT.max(axis=-1, keepdims=True)
    lse_BHT = np.log(np.exp(s_BHTT - top_BHT1).sum(axis=-1)) + top_BHT1[..., 0]
    p_BHTT = np.exp(s_BHTT - lse_BHT[..., None])
    return _heads(p_BHTT @ v), lse_BHT


def reference_backward(dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    q, k, v = _split(qkv_BT3HD)
    dout, out = _heads(dout_BTHD), _heads(out_BTHD)
    scale = 1 / math.sqrt(q.shape[-1])
    p_BHTT = np.exp(_scores(q, k) - lse_BHT[..., None])
    dp_BHTT = dout @ v.swapaxes(-1, -2)
    ds_BHTT = p_BHTT * (dp_BHTT - (dout * out).sum(axis=-1, keepdims=True))
    dq = ds_BHTT @ k * scale
    dk = ds_BHTT.swapaxes(-1, -2) @ q * scale
    dv = p_BHTT.swapaxes(-1, -2) @ dout
    return (np.stack([_heads(dq), _heads(dk), _heads(dv)], axis=2),)


# Where float32 scores are this large, their own rounding is of order 1 and exp multiplies by it.
SCORE_ROUNDING = 2.0**-22


def _condition(q, k):
    """1 + 2 max |score|, by row: how much the exponential amplifies the scores' rounding.

    Beyond 2^22 that is no longer linear: an honest kernel's exp(s - lse) is off by a factor.
    """
    T, D = q.shape[-2:]
    size_BHTT = np.abs(q) @ np.abs(k).swapaxes(-1, -2) / math.sqrt(D)
    size_BHT1 = np.where(np.tri(T, dtype=bool), size_BHTT, 0).max(axis=-1, keepdims=True)
    return 1 + 2 * size_BHT1 * np.exp(np.minimum(SCORE_ROUNDING * size_BHT1, 40))


def magnitude_forward(qkv_BT3HD):
    q, k, v = _split(qkv_BT3HD)
    _, lse_BHT = reference_forward(qkv_BT3HD)
    p_BHTT = np.exp(_scores(q, k) - lse_BHT[..., None])
    condition_BHT1 = _condition(q, k)
    n = sum(q.shape[-2:])
    S_out = _heads(p_BHTT @ np.abs(v) * condition_BHT1)
    return Magnitude(S_out, n), Magnitude(condition_BHT1[..., 0], n)


def magnitude_backward(dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    """dq and dk are two products in a row, dout · v and ds · q: their condition is one more.

    With u the roundoff of operands, dp is off by 2u, ds and q by u each, and p by 2u |score|: together
    4u + 2u |score|, of which 2u (1 + 2 |score|) is too little for small scores. For dv it is enough.
    """
    q, k, v = _split(qkv_BT3HD)
    dout, out = np.abs(_heads(dout_BTHD)), np.abs(_heads(out_BTHD))
    scale = 1 / math.sqrt(q.shape[-1])
    p_BHTT = np.exp(_scores(q, k) - lse_BHT[..., None])
    condition_BHT1 = _condition(q, k)
    dp_BHTT = dout @ np.abs(v).swapaxes(-1, -2) + (dout * out).sum(axis=-1, keepdims=True)
    ds_BHTT = p_BHTT * (1 + condition_BHT1) * dp_BHTT
    dq = ds_BHTT @ np.abs(k) * scale
    dk = ds_BHTT.swapaxes(-1, -2) @ np.abs(q) * scale
    dv = (p_BHTT * condition_BHT1).swapaxes(-1, -2) @ dout
    S = np.stack([_heads(dq), _heads(dk), _heads(dv)], axis=2)
    return (Magnitude(S, sum(q.shape[-2:])),)


def flops_forward(B, T, H, D):
    # Two products over the T (T + 1) / 2 pairs that are not masked.
    return 2 * 2 * B * H * D * (T * (T + 1) // 2)


def flops_backward(B, T, H, D):
    # Five: the scores again, dp, dq, dk and dv.
    return 5 * 2 * B * H * D * (T * (T + 1) // 2)
