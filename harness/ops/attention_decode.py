"""Attention of new tokens with those before them, whose keys and values a cache holds.

    keys[b, position[b] + t] = k[b,t]            values[b, position[b] + t] = v[b,t]
    s[i,j] = q[i] · keys[j] / sqrt(D)            for j <= position[b] + i
    p[i,j] = exp(s[i,j]) / sum_j exp(s[i,j])     out[i] = sum_j p[i,j] values[j]

The T new tokens of row b stand at position[b], position[b] + 1, ...; the cache holds what came before.
What it holds beyond the last of them is never read, so rows of unequal length share one
cache. With position 0 and an empty cache this is the forward of `attention`.
Source: Shazeer 2019, arXiv:1911.02150, section 2.3 (incremental decoding).
"""

import math

import numpy as np

from harness.contract import Ids, In, Magnitude, Out, State, hookspec

SHAPES = (
    {"B": 1, "T": 1, "H": 12, "D": 64, "X": 1024},
    {"B": 8, "T": 1, "H": 12, "D": 64, "X": 1024},
    {"B": 1, "T": 256, "H": 12, "D": 64, "X": 1024},
)


@hookspec
def attention_decode(
    out_BTHD: Out, keys_BXHD: State, values_BXHD: State, qkv_BT3HD: In, position_B: Ids
) -> None:
    """Write the new keys and values into the cache, and fill out_BTHD.

    keys_BXHD, values_BXHD: the cache, float32. Of row b, the places position_B[b] .. position_B[b] +
    T - 1 are overwritten; all others stay as they are, and those after them are not read.
    qkv_BT3HD: queries, keys and values of the new tokens, in this order along the literal 3.
    position_B: how many tokens of each row the cache holds; position + T <= X.
    """


def example_inputs(rng, dims, settings):
    return {"position_B": rng.integers(0, dims["X"] - dims["T"] + 1, size=dims["B"])}


def never_read(position_B, B, T, X):
    beyond_BX = np.arange(X) >= position_B[:, None] + T
    return {"keys_BXHD": beyond_BX, "values_BXHD": beyond_BX}


def _written(cache_BXHD, new_BTHD, position_B):
    cache_BXHD = cache_BXHD.copy()
    for cache_XHD, new_THD, first in zip(cache_BXHD, new_BTHD, position_B, strict=True):
        cache_XHD[first : first + len(new_THD)] = new_THD
    return cache_BXHD


def _by_head(x_THD):
    return x_THD.swapaxes(0, 1)


def _rows(keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    """Of each row of the batch: q, and the keys and values up to its last, by head; what q[i] sees."""
    T = qkv_BT3HD.shape[1]
    for b, first in enumerate(position_B):
        end = first + T
        seen_TJ = np.arange(end) <= first + np.arange(T)[:, None]
        q, k, v = qkv_BT3HD[b, :, 0], keys_BXHD[b, :end], values_BXHD[b, :end]
        yield _by_head(q), _by_head(k), _by_head(v), seen_TJ


def _probabilities(q_HTD, k_HJD, seen_TJ):
    s_HTJ = q_HTD @ k_HJD.swapaxes(-1, -2) / math.sqrt(q_HTD.shape[-1])
    s_HTJ = np.where(seen_TJ, s_HTJ, -np.inf)
    e_HTJ = np.exp(s_HTJ - s_HTJ.max(axis=-1, keepdims=True))
    return e_HTJ / e_HTJ.sum(axis=-1, keepdims=True)


def reference_forward(keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    keys = _written(keys_BXHD, qkv_BT3HD[:, :, 1], position_B)
    values = _written(values_BXHD, qkv_BT3HD[:, :, 2], position_B)
    out = [
        _by_head(_probabilities(q, k, seen) @ v)
        for q, k, v, seen in _rows(keys, values, qkv_BT3HD, position_B)
    ]
    return np.stack(out), keys, values


# Where float32 scores are this large, their own rounding is of order 1 and exp multiplies by it.
SCORE_ROUNDING = 2.0**-22


def magnitude_forward(keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    keys = _written(keys_BXHD, qkv_BT3HD[:, :, 1], position_B)
    values = _written(values_BXHD, qkv_BT3HD[:, :, 2], position_B)
    S_out, longest = [], 0
    for q, k, v, seen in _rows(keys, values, qkv_BT3HD, position_B):
        D = q.shape[-1]
        size_HTJ = np.abs(q) @ np.abs(k).swapaxes(-1, -2) / math.sqrt(D)
        size_HT1 = np.where(seen, size_HTJ, 0).max(axis=-1, keepdims=True)
        condition_HT1 = 1 + 2 * size_HT1 * np.exp(np.minimum(SCORE_ROUNDING * size_HT1, 40))
        S_out.append(_by_head(_probabilities(q, k, seen) @ np.abs(v) * condition_HT1))
        longest = max(longest, seen.shape[1] + D)
    # The cache holds what it was given: nothing there is computed.
    return Magnitude(np.stack(S_out), longest), Magnitude(0, 1), Magnitude(0, 1)


def flops_forward(B, T, X, H, D):
    # At most: with the cache full, the last query sees X places and the first X - T + 1.
    return 2 * 2 * B * H * D * (T * max(T, X) - T * (T - 1) // 2)


def bytes_forward(B, T, X, H, D):
    # At most: both halves of the cache read once, T places of each written.
    return 4 * (2 * B * X * H * D + 6 * B * T * H * D + B)
