import math

import numpy as np

from tests.conformance.honest import honest, tiles

NEGATIVE = np.float32(-np.inf)


def write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    """Put the new keys and values where they belong."""
    T = qkv_BT3HD.shape[1]
    for b, first in enumerate(position_B):
        keys_BXHD[b, first : first + T] = qkv_BT3HD[b, :, 1]
        values_BXHD[b, first : first + T] = qkv_BT3HD[b, :, 2]


def softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attend(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B, *, ahead=0, factor=1):
    """Fill out from a cache that is written: query i sees the places up to first + i + ahead."""
    T, _, _, D = qkv_BT3HD.shape[1:]
    for b, first in enumerate(position_B):
        for i in range(T):
            end = max(1, first + i + 1 + ahead)
            q = qkv_BT3HD[b, i, 0] * np.float32(factor / math.sqrt(D))
            k, v = keys_BXHD[b, :end].swapaxes(0, 1), values_BXHD[b, :end].swapaxes(0, 1)
            p_HJ = softmax((k @ q[:, :, None])[..., 0])
            out_BTHD[b, i] = (p_HJ[:, None] @ v)[:, 0]


@honest("attention_decode", "one query after another, the places it sees alone")
def decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    attend(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B)


@honest("attention_decode", "the whole cache under a mask, its unseen values replaced by zeros")
def masked(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    (T, _, _, D), X = qkv_BT3HD.shape[1:], keys_BXHD.shape[1]
    last_BT = position_B[:, None] + np.arange(T)
    seen_B1TX = np.arange(X) <= last_BT[:, None, :, None]
    beyond_BX11 = (np.arange(X) > last_BT[:, -1:])[..., None, None]
    q, k = qkv_BT3HD[:, :, 0].swapaxes(1, 2), keys_BXHD.transpose(0, 2, 3, 1)
    with np.errstate(all="ignore"):
        s_BHTX = np.where(seen_B1TX, q @ k / np.float32(math.sqrt(D)), NEGATIVE)
        v = np.where(beyond_BX11, np.float32(0), values_BXHD).swapaxes(1, 2)
        out_BTHD[...] = (softmax(s_BHTX) @ v).swapaxes(1, 2)


@honest("attention_decode", "split keys: tiles of 16 by themselves, their parts put together after")
def split_keys(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    B, T, H, D = out_BTHD.shape
    for b, i, h in np.ndindex(B, T, H):
        q = qkv_BT3HD[b, i, 0, h] / np.float32(math.sqrt(D))
        tops, totals, parts = [], [], []
        for j in tiles(position_B[b] + i + 1, 16):
            s = keys_BXHD[b, j, h] @ q
            e = np.exp(s - s.max())
            tops.append(s.max())
            totals.append(e.sum())
            parts.append(e @ values_BXHD[b, j, h])
        share = np.exp(np.array(tops) - max(tops))
        out_BTHD[b, i, h] = share @ np.array(parts) / (share @ np.array(totals))
