import math

import numpy as np

from tests.conformance.honest.attention_decode import attend, decode, softmax, write
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_half


@wrong("attention_decode", "a query does not see its own token")
def own_token_unseen(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    attend(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B, ahead=-1)


@wrong("attention_decode", "a query sees one place too many, the last one beyond the new tokens")
def sees_one_ahead(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    attend(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B, ahead=1)


@wrong("attention_decode", "written for one token: every new token sees all of them")
def not_causal(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    T = qkv_BT3HD.shape[1]
    for i in range(T):
        token = (slice(None), slice(i, i + 1))
        last = np.full_like(position_B, T - 1) + position_B
        attend(out_BTHD[token], keys_BXHD, values_BXHD, qkv_BT3HD[token], last)


@wrong("attention_decode", "the new keys and values are used, and not left in the cache")
def cache_not_written(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    decode(out_BTHD, keys_BXHD.copy(), values_BXHD.copy(), qkv_BT3HD, position_B)


@wrong("attention_decode", "only the first of several new tokens is left in the cache")
def first_token_cached(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    decode(out_BTHD, keys_BXHD.copy(), values_BXHD.copy(), qkv_BT3HD, position_B)
    write(keys_BXHD, values_BXHD, qkv_BT3HD[:, :1], position_B)


@wrong("attention_decode", "the cache is read before the new tokens are in it")
def read_before_written(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    with np.errstate(all="ignore"):
        attend(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)


@wrong("attention_decode", "the cache is written one place too far, where there is one")
def written_one_too_far(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    decode(out_BTHD, keys_BXHD.copy(), values_BXHD.copy(), qkv_BT3HD, position_B)
    last = keys_BXHD.shape[1] - qkv_BT3HD.shape[1]
    write(keys_BXHD, values_BXHD, qkv_BT3HD, np.minimum(position_B + 1, last))


@wrong("attention_decode", "positions begin at 0 in every row: no prefix", subtle=True)
def position_ignored(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, np.zeros_like(position_B))


@wrong("attention_decode", "the first row's position for all rows", subtle=True)
def position_of_first_row(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    first = np.full_like(position_B, position_B[0])
    decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, first)


@wrong(
    "attention_decode", "every row reads as far as the longest: what is there counts", subtle=True
)
def reads_to_the_longest(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    longest = np.full_like(position_B, position_B.max())
    attend(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, longest)


@wrong(
    "attention_decode",
    "what is not seen has probability 0, which times a NaN left in the cache is NaN",
    subtle=True,
)
def unseen_times_zero(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    (T, _, _, D), X = qkv_BT3HD.shape[1:], keys_BXHD.shape[1]
    seen_B1TX = np.arange(X) <= (position_B[:, None] + np.arange(T))[:, None, :, None]
    q, k = qkv_BT3HD[:, :, 0].swapaxes(1, 2), keys_BXHD.transpose(0, 2, 3, 1)
    s_BHTX = np.where(seen_B1TX, q @ k / np.float32(math.sqrt(D)), np.float32(-np.inf))
    out_BTHD[...] = (softmax(s_BHTX) @ values_BXHD.swapaxes(1, 2)).swapaxes(1, 2)


@wrong("attention_decode", "what lies beyond the last token is cleared")
def rest_cleared(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    for b, first in enumerate(position_B):
        keys_BXHD[b, first + qkv_BT3HD.shape[1] :] = 0


@wrong("attention_decode", "scores are not divided by sqrt(D)")
def scale_missing(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    factor = math.sqrt(qkv_BT3HD.shape[-1])
    attend(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B, factor=factor)


@wrong("attention_decode", "scores divided by sqrt(C) of all heads together")
def scale_of_all_heads(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    factor = 1 / math.sqrt(qkv_BT3HD.shape[-2])
    attend(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B, factor=factor)


@wrong("attention_decode", "keys and values change places in the cache")
def keys_and_values_swapped(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    decode(out_BTHD, values_BXHD, keys_BXHD, qkv_BT3HD, position_B)


@wrong("attention_decode", "what is added to the cache is rounded to float16")
def cache_in_half(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    qkv = qkv_BT3HD.copy()
    qkv[:, :, 1:] = as_half(qkv[:, :, 1:])
    decode(out_BTHD, keys_BXHD, values_BXHD, qkv, position_B)


@wrong("attention_decode", "places beyond the last whole tile of 4 are not read")
def last_tile_not_read(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    for i in range(qkv_BT3HD.shape[1]):
        token = (slice(None), slice(i, i + 1))
        last = np.maximum(0, (position_B + i + 1) // 4 * 4 - 1)
        attend(out_BTHD[token], keys_BXHD, values_BXHD, qkv_BT3HD[token], last)


@wrong("attention_decode", "the maximum is not subtracted", subtle=True)
def maximum_not_subtracted(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    write(keys_BXHD, values_BXHD, qkv_BT3HD, position_B)
    T, _, _, D = qkv_BT3HD.shape[1:]
    with np.errstate(all="ignore"):
        for b, first in enumerate(position_B):
            for i in range(T):
                k = keys_BXHD[b, : first + i + 1].swapaxes(0, 1)
                v = values_BXHD[b, : first + i + 1].swapaxes(0, 1)
                q = qkv_BT3HD[b, i, 0] / np.float32(math.sqrt(D))
                e_HJ = np.exp((k @ q[:, :, None])[..., 0])
                total_H1 = e_HJ.sum(axis=-1, keepdims=True)
                out_BTHD[b, i] = (e_HJ[:, None] @ v)[:, 0] / total_H1


@wrong("attention_decode", "heads beyond the last whole group of 4 are not written", subtle=True)
def last_heads_dropped(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    h = slice(0, out_BTHD.shape[2] // 4 * 4)
    cache = keys_BXHD[:, :, h], values_BXHD[:, :, h]
    decode(out_BTHD[:, :, h], *cache, qkv_BT3HD[:, :, :, h], position_B)
