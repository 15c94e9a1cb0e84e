import math

import numpy as np

from tests.conformance.honest import honest, tiles

NEGATIVE = np.float32(-np.inf)


def heads(x_BTHD):
    return x_BTHD.transpose(0, 2, 1, 3)


def split(qkv_BT3HD):
    """Queries, keys and values, each B H T D."""
    return (heads(qkv_BT3HD[:, :, i]) for i in range(3))


def scores(q, k):
    T, D = q.shape[-2:]
    s_BHTT = q @ k.swapaxes(-1, -2) * np.float32(1 / math.sqrt(D))
    return np.where(np.tri(T, dtype=bool), s_BHTT, NEGATIVE)


def log_sum_exp(s_BHTT):
    top_BHT1 = s_BHTT.max(axis=-1, keepdims=True)
    return np.log(np.exp(s_BHTT - top_BHT1).sum(axis=-1)) + top_BHT1[..., 0]


def pack(dqkv_BT3HD, *gradients):
    for i, gradient in enumerate(gradients):
        dqkv_BT3HD[:, :, i] = heads(gradient)


@honest("attention_forward", "the whole T x T matrix at once")
def forward(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    s_BHTT = scores(q, k)
    lse_BHT[...] = log_sum_exp(s_BHTT)
    p_BHTT = np.exp(s_BHTT - lse_BHT[..., None])
    out_BTHD[...] = heads(p_BHTT @ v)


@honest(
    "attention_forward", "flash: tiles of 16 keys, sum and output rescaled as the maximum grows"
)
def flash(out_BTHD, lse_BHT, qkv_BT3HD):
    q, k, v = split(qkv_BT3HD)
    T, D = q.shape[-2:]
    q = q * np.float32(1 / math.sqrt(D))
    top = np.full(q.shape[:-1], NEGATIVE)
    total = np.zeros_like(top)
    out = np.zeros(q.shape, np.float32)
    rows = np.arange(T)
    with np.errstate(all="ignore"):
        for j in tiles(T, 16):
            s = q @ k[:, :, j].swapaxes(-1, -2)
            s = np.where(rows[:, None] >= rows[j], s, NEGATIVE)
            higher = np.maximum(top, s.max(axis=-1))
            p = np.where(rows[:, None] >= rows[j], np.exp(s - higher[..., None]), 0)
            shrink = np.where(np.isneginf(top), 0, np.exp(top - higher))
            total = total * shrink + p.sum(axis=-1)
            out = out * shrink[..., None] + p @ v[:, :, j]
            top = higher
        lse_BHT[...] = top + np.log(total)
        out_BTHD[...] = heads(out / total[..., None])


@honest("attention_forward", "one query after another, its keys alone; quotient at the end")
def query_by_query(out_BTHD, lse_BHT, qkv_BT3HD):
    B, T, H, D = out_BTHD.shape
    for b, i, h in np.ndindex(B, T, H):
        q = qkv_BT3HD[b, i, 0, h]
        k, v = qkv_BT3HD[b, : i + 1, 1, h], qkv_BT3HD[b, : i + 1, 2, h]
        s = k @ q / np.float32(math.sqrt(D))
        top = s.max()
        e = np.exp(s - top)
        out_BTHD[b, i, h] = e @ v / e.sum()
        lse_BHT[b, h, i] = np.log(e.sum()) + top


@honest("attention_backward", "the whole T x T matrices at once")
def backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    q, k, v = split(qkv_BT3HD)
    dout, out = heads(dout_BTHD), heads(out_BTHD)
    scale = np.float32(1 / math.sqrt(q.shape[-1]))
    p_BHTT = np.exp(scores(q, k) - lse_BHT[..., None])
    dp_BHTT = dout @ v.swapaxes(-1, -2)
    ds_BHTT = p_BHTT * (dp_BHTT - (dout * out).sum(axis=-1, keepdims=True))
    dq = ds_BHTT @ k * scale
    dk = ds_BHTT.swapaxes(-1, -2) @ q * scale
    pack(dqkv_BT3HD, dq, dk, p_BHTT.swapaxes(-1, -2) @ dout)


@honest("attention_backward", "flash: tiles of 16 keys; dq adds up, dk and dv leave tile by tile")
def flash_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    q, k, v = split(qkv_BT3HD)
    dout, out = heads(dout_BTHD), heads(out_BTHD)
    T, D = q.shape[-2:]
    scale = np.float32(1 / math.sqrt(D))
    delta = (dout * out).sum(axis=-1, keepdims=True)
    dq, rows = np.zeros(q.shape, np.float32), np.arange(T)
    for j in tiles(T, 16):
        s = q @ k[:, :, j].swapaxes(-1, -2) * scale
        seen = rows[:, None] >= rows[j]
        p = np.exp(np.where(seen, s, NEGATIVE) - lse_BHT[..., None])
        ds = p * (dout @ v[:, :, j].swapaxes(-1, -2) - delta) * scale
        dq += ds @ k[:, :, j]
        dqkv_BT3HD[:, j, 1] = heads(ds.swapaxes(-1, -2) @ q)
        dqkv_BT3HD[:, j, 2] = heads(p.swapaxes(-1, -2) @ dout)
    dqkv_BT3HD[:, :, 0] = heads(dq)


@honest("attention_backward", "one query after another: its dq is made, dk and dv grow")
def query_by_query_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    B, T, H, D = dout_BTHD.shape
    scale = np.float32(1 / math.sqrt(D))
    dqkv_BT3HD[...] = 0
    for b, i, h in np.ndindex(B, T, H):
        q, k, v = (qkv_BT3HD[b, : i + 1, j, h] for j in range(3))
        dout, seen = dout_BTHD[b, i, h], dqkv_BT3HD[b, : i + 1, :, h]
        p = np.exp(k @ q[i] * scale - lse_BHT[b, h, i])
        ds = p * (v @ dout - np.dot(dout, out_BTHD[b, i, h]))
        seen[i, 0] = ds @ k * scale
        seen[:, 1] += (ds * scale)[:, None] * q[i]
        seen[:, 2] += p[:, None] * dout
