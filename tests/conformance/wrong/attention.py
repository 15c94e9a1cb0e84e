import math

import numpy as np

from tests.conformance.honest import attention, tiles
from tests.conformance.honest.attention import (
    NEGATIVE,
    heads,
    log_sum_exp,
    pack,
    scores,
    split,
)
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_tf32


def finish(out_BTHD, lse_BHT, s_BHTT, v):
    """Save lse and write the output, from masked scores."""
    lse_BHT[...] = log_sum_exp(s_BHTT)
    out_BTHD[...] = heads(np.exp(s_BHTT - lse_BHT[..., None]) @ v)


def masked(s_BHTT, seen_TT):
    return np.where(seen_TT, s_BHTT, NEGATIVE)


@wrong("attention_forward", "scores are not divided by sqrt(D)")
def scale_missing(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    finish(out_BTHD, lse_BHT, scores(q, k) * np.float32(math.sqrt(q.shape[-1])), v)


@wrong("attention_forward", "scores divided by D")
def scale_is_d(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    finish(out_BTHD, lse_BHT, scores(q, k) / np.float32(math.sqrt(q.shape[-1])), v)


@wrong("attention_forward", "the mask is one off: the next position is seen")
def sees_one_ahead(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    T, D = q.shape[-2:]
    s_BHTT = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(D))
    finish(out_BTHD, lse_BHT, masked(s_BHTT, np.tri(T, k=1, dtype=bool)), v)


@wrong("attention_forward", "no mask at all")
def not_causal(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    finish(out_BTHD, lse_BHT, q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(q.shape[-1])), v)


@wrong("attention_forward", "the mask is skipped in a last tile that is not whole", subtle=True)
def last_tile_not_masked(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    T, D = q.shape[-2:]
    seen = np.tri(T, dtype=bool)
    start = T // 8 * 8
    seen[start:, start:] = True
    s_BHTT = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(D))
    finish(out_BTHD, lse_BHT, masked(s_BHTT, seen), v)


@wrong("attention_forward", "keys of the last partial tile of 4 are never read", subtle=True)
def last_keys_dropped(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    T = q.shape[-2]
    seen = np.arange(T) < max(1, T // 4 * 4)
    finish(out_BTHD, lse_BHT, masked(scores(q, k), seen), v)


@wrong("attention_forward", "lse without the maximum added back")
def lse_without_maximum(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, _ = split(qkv_BT3HD)
    attention.forward(out_BTHD, lse_BHT, qkv_BT3HD)
    lse_BHT -= scores(q, k).max(axis=-1)


@wrong("attention_forward", "the maximum is not subtracted", subtle=True)
def maximum_not_subtracted(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    with np.errstate(all="ignore"):
        e_BHTT = np.exp(scores(q, k))
        total_BHT = e_BHTT.sum(axis=-1)
        lse_BHT[...] = np.log(total_BHT)
        out_BTHD[...] = heads(e_BHTT @ v / total_BHT[..., None])


@wrong("attention_forward", "heads and channels change places wherever H == D", subtle=True)
def strides_mixed_up(out_BTHD, lse_BHT, qkv_BT3HD):
    H, D = qkv_BT3HD.shape[-2:]
    qkv = np.ascontiguousarray(qkv_BT3HD.swapaxes(-1, -2)) if H == D else qkv_BT3HD
    attention.forward(out_BTHD, lse_BHT, qkv)


@wrong("attention_forward", "queries and keys change places")
def queries_and_keys_swapped(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    finish(out_BTHD, lse_BHT, scores(k, q), v)


@wrong("attention_forward", "the scale of D = 64 written down as 0.125")
def scale_of_gpt2(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    factor = np.float32(0.125 * math.sqrt(q.shape[-1]))
    finish(out_BTHD, lse_BHT, scores(q, k) * factor, v)


@wrong("attention_forward", "the scale of D = 16 written down as 0.25", subtle=True)
def scale_of_the_test(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    factor = np.float32(0.25 * math.sqrt(q.shape[-1]))
    finish(out_BTHD, lse_BHT, scores(q, k) * factor, v)


@wrong(
    "attention_forward",
    "flash: the output is not rescaled when the maximum grows",
    subtle=True,
)
def output_not_rescaled(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    s = scores(q, k)
    top, out, total = np.full(s.shape[:-1], NEGATIVE), 0, 0
    with np.errstate(all="ignore"):
        for j in tiles(s.shape[-1], 32):
            higher = np.maximum(top, s[..., j].max(axis=-1))
            p = np.exp(s[..., j] - higher[..., None])
            total = total * np.exp(top - higher) + p.sum(axis=-1)
            out = out + p @ v[:, :, j]
            top = higher
    lse_BHT[...] = top + np.log(total)
    out_BTHD[...] = heads(out / total[..., None])


@wrong("attention_forward", "a mask of -10000, which huge scores outweigh", subtle=True)
def mask_is_finite(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    T, D = q.shape[-2:]
    s_BHTT = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(D))
    finish(out_BTHD, lse_BHT, np.where(np.tri(T, dtype=bool), s_BHTT, s_BHTT - 10000), v)


@wrong("attention_forward", "lse in units of log2, as exp2 left it")
def lse_in_bits(out_BTHD, lse_BHT, qkv_BT3HD):
    attention.forward(out_BTHD, lse_BHT, qkv_BT3HD)
    lse_BHT *= np.float32(1 / math.log(2))


@wrong("attention_forward", "tensor cores: operands rounded to TF32, and not declared")
def undeclared_tf32(out_BTHD, lse_BHT, qkv_BT3HD):
    attention.forward(out_BTHD, lse_BHT, as_tf32(qkv_BT3HD))


@wrong(
    "attention_forward",
    "the queries are scaled where they lie, in the input",
    subtle=True,
    law="untouched",
)
def queries_scaled_in_place(out_BTHD, lse_BHT, qkv_BT3HD):
    attention.forward(out_BTHD, lse_BHT, qkv_BT3HD)
    qkv_BT3HD[:, :, 0] *= np.float32(1 / math.sqrt(qkv_BT3HD.shape[-1]))


def gradients(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT, *, delta=True, dq=1, dk=1, dv=1):
    """The honest backward, with a factor for each gradient, and the delta term or none."""
    out = out_BTHD if delta else np.zeros_like(out_BTHD)
    attention.backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out, lse_BHT)
    for i, factor in enumerate((dq, dk, dv)):
        dqkv_BT3HD[:, :, i] *= np.float32(factor)


@wrong("attention_backward", "the delta term, dout · out, is missing")
def delta_missing(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    gradients(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT, delta=False)


@wrong("attention_backward", "dk is not scaled by 1 / sqrt(D)")
def dk_not_scaled(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    D = qkv_BT3HD.shape[-1]
    gradients(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT, dk=math.sqrt(D))


@wrong("attention_backward", "dq is scaled twice")
def dq_scaled_twice(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    D = qkv_BT3HD.shape[-1]
    gradients(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT, dq=1 / math.sqrt(D))


@wrong("attention_backward", "lse ignored: p made again without the maximum", subtle=True)
def probabilities_without_maximum(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    q, k, _ = split(qkv_BT3HD)
    with np.errstate(all="ignore"):
        lse = np.log(np.exp(scores(q, k)).sum(axis=-1))
        attention.backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse)


@wrong(
    "attention_backward",
    "dk and dv of a tile of queries overwrite those of the one before",
    subtle=True,
)
def last_queries_only(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    dout = dout_BTHD.copy()
    attention.backward(dqkv_BT3HD, dout, qkv_BT3HD, out_BTHD, lse_BHT)
    dq = dqkv_BT3HD[:, :, 0].copy()
    start = (dout.shape[1] - 1) // 32 * 32
    dout[:, :start] = 0
    attention.backward(dqkv_BT3HD, dout, qkv_BT3HD, out_BTHD, lse_BHT)
    dqkv_BT3HD[:, :, 0] = dq


@wrong("attention_backward", "no mask: gradients flow from the past to the future")
def not_causal_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    q, k, v = split(qkv_BT3HD)
    dout, out = heads(dout_BTHD), heads(out_BTHD)
    scale = np.float32(1 / math.sqrt(q.shape[-1]))
    with np.errstate(all="ignore"):
        p_BHTT = np.exp(q @ k.swapaxes(-1, -2) * scale - lse_BHT[..., None])
        delta = (dout * out).sum(axis=-1, keepdims=True)
        ds_BHTT = p_BHTT * (dout @ v.swapaxes(-1, -2) - delta) * scale
        dv = p_BHTT.swapaxes(-1, -2) @ dout
        pack(dqkv_BT3HD, ds_BHTT @ k, ds_BHTT.swapaxes(-1, -2) @ q, dv)


@wrong("attention_backward", "added to dqkv: relies on zeros there", subtle=True)
def dqkv_added_to(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    dqkv = np.empty_like(dqkv_BT3HD)
    attention.backward(dqkv, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT)
    dqkv_BT3HD += dqkv


@wrong("attention_backward", "heads beyond the last whole group of 4 are not written", subtle=True)
def last_heads_dropped(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    h = slice(0, dout_BTHD.shape[2] // 4 * 4)
    attention.backward(
        dqkv_BT3HD[:, :, :, h],
        dout_BTHD[:, :, h],
        qkv_BT3HD[:, :, :, h],
        out_BTHD[:, :, h],
        lse_BHT[:, h],
    )


@wrong("attention_backward", "dk and dv change places")
def dk_and_dv_swapped(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    attention.backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT)
    dqkv_BT3HD[:, :, 1:] = dqkv_BT3HD[:, :, :0:-1].copy()
