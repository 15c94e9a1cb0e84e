"""s[i,j] = q[i] · k[j] / sqrt(D)  for j <= i        lse[i] = log Σ_j exp(s[i,j])

    p[i,j] = exp(s[i,j] - lse[i])                     out[i] = Σ_j p[i,j] v[j]

    dp[i,j] = dout[i] · v[j]      delta[i] = dout[i] · out[i]      ds = p (dp - delta[i])
    dq[i] = Σ_j ds[i,j] k[j] / sqrt(D)                dk[j] = Σ_i ds[i,j] q[i] / sqrt(D)
    dv[j] = Σ_i p[i,j] dout[i]

Batched products over strided views: BLAS reads each head where it lies in the packed tensor, and no
head is copied. Queries go in blocks, whose keys end where the block does, so a long sequence costs
half its square; what a block may not see in its last square gets -inf added. The scores lie in memory
key by key, s_JbhI (J keys, I queries), so maxima and sums over the keys add up long rows.

A masked probability is 0, and 0 times a NaN among the values is NaN. So a head whose result is not
finite is made again in blocks of one query, which have nothing to mask: a NaN at one position reaches
the later ones, and only those.
"""

import math
from functools import cache

import numpy as np

from backends.numpy_cpu._blocks import BLOCK, in_blocks
from backends.numpy_cpu._scratch import float32, float32_room, scratch
from harness import hookimpl

MIN_QUERIES = 32
"""Queries in a block, at least. At T = 64 two blocks take 10 % less time than one."""


@hookimpl
def attention_forward(out_BTHD, lse_BHT, qkv_BT3HD):
    def piece(batch, heads):
        q, k, v = _split(qkv_BT3HD[batch, :, :, heads])
        out, lse = heads_first(out_BTHD[batch, :, heads]), lse_BHT[batch, heads]
        attend(out, lse, q, k, v, queries_in_block(q.shape[2]))
        for head in not_finite(out_BTHD[batch, :, None, heads]):
            attend(out[head], lse[head], q[head], k[head], v[head], 1)

    _in_pieces(piece, *out_BTHD.shape[:3])


@hookimpl
def attention_backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    def piece(batch, heads):
        packed = dqkv_BT3HD[batch, :, :, heads]
        gradient = float32_room("attention.dqkv", packed)
        dq, dk, dv = (heads_first(gradient[:, :, i]) for i in range(3))
        dout = float32("attention.dout", heads_first(dout_BTHD[batch, :, heads]))
        q, k, v = _split(qkv_BT3HD[batch, :, :, heads])
        out = float32("attention.out", heads_first(out_BTHD[batch, :, heads]))
        by_head = (dq, dk, dv, dout, q, k, v, out, lse_BHT[batch, heads])
        _attend_backward(*by_head, queries_in_block(q.shape[2]))
        for head in not_finite(gradient):
            _attend_backward(*(x[head] for x in by_head), 1)
        if gradient is not packed:
            np.copyto(packed, gradient)

    _in_pieces(piece, *out_BTHD.shape[:3])


def queries_in_block(T):
    """Queries in a block: few, so that few scores are masked, and not so few that calls weigh."""
    return max(MIN_QUERIES, T // 8)


def attend(out, lse, q, k, v, height):
    """Fill out and lse of some heads, (b, h, T, D) and (b, h, T); the queries are of the last keys."""
    T = q.shape[2]
    before = k.shape[2] - T
    for first in range(0, T, height):
        rows = slice(first, min(first + height, T))
        seen = slice(0, before + rows.stop)
        s_JbhI, _ = _scores(q[:, :, rows], k[:, :, seen])
        top, total = scratch("attention.sums", (2, *s_JbhI.shape[1:]))
        mixed = scratch("attention.mixed", q[:, :, rows].shape)
        np.maximum.reduce(s_JbhI, axis=0, out=top)
        np.subtract(s_JbhI, top, out=s_JbhI)
        np.exp(s_JbhI, out=s_JbhI)
        np.add.reduce(s_JbhI, axis=0, out=total)
        np.matmul(_by_query(s_JbhI), v[:, :, seen], out=mixed)
        np.divide(mixed, total[..., None], out=out[:, :, rows])
        np.log(total, out=total)
        np.add(total, top, out=lse[:, :, rows])


def _attend_backward(dq, dk, dv, dout, q, k, v, out, lse, height):
    """Fill dq, dk and dv of some heads, (b, h, T, D)."""
    T, D = q.shape[2:]
    delta = np.vecdot(dout, out, out=scratch("attention.delta", lse.shape))
    # The last block comes first: it sees every key, so it overwrites and the others add.
    for first in reversed(range(0, T, height)):
        rows, seen = slice(first, min(first + height, T)), slice(0, min(first + height, T))
        add = seen.stop < T
        p_JbhI, q_scaled = _scores(q[:, :, rows], k[:, :, seen])
        np.subtract(p_JbhI, lse[:, :, rows], out=p_JbhI)
        np.exp(p_JbhI, out=p_JbhI)
        _product(dv[:, :, seen], _by_key(p_JbhI), dout[:, :, rows], add)
        ds_JbhI = scratch("attention.ds", p_JbhI.shape)
        np.matmul(v[:, :, seen], dout[:, :, rows].swapaxes(2, 3), out=_by_key(ds_JbhI))
        np.subtract(ds_JbhI, delta[:, :, rows], out=ds_JbhI)
        np.multiply(ds_JbhI, p_JbhI, out=ds_JbhI)
        _product(dk[:, :, seen], _by_key(ds_JbhI), q_scaled, add)
        np.matmul(_by_query(ds_JbhI), k[:, :, seen], out=dq[:, :, rows])
        np.multiply(dq[:, :, rows], 1 / math.sqrt(D), out=dq[:, :, rows])


def _scores(q, k):
    """The scores of a block of queries with the keys up to its last, and the queries scaled."""
    height, D = q.shape[2:]
    q_scaled = scratch("attention.q_scaled", q.shape)
    np.multiply(q, 1 / math.sqrt(D), out=q_scaled)
    s_JbhI = scratch("attention.s", (k.shape[2], *q.shape[:3]))
    np.matmul(k, q_scaled.swapaxes(2, 3), out=_by_key(s_JbhI))
    if height > 1:
        square = s_JbhI[-height:]
        np.add(square, _future(height), out=square)
    return s_JbhI, q_scaled


def _by_key(s_JbhI):
    """The matrix of each head, keys by queries."""
    return s_JbhI.transpose(1, 2, 0, 3)


def _by_query(s_JbhI):
    """The matrix of each head, queries by keys."""
    return s_JbhI.transpose(1, 2, 3, 0)


@cache
def _future(height):
    """-inf where the key, the first axis, comes after the query, the last; 0 elsewhere."""
    return np.tril(np.full((height, height), -np.inf, np.float32), -1)[:, None, None]


def _product(out, a, b, add):
    """out = a · b, or out += a · b."""
    if not add:
        np.matmul(a, b, out=out)
        return
    product = np.matmul(a, b, out=scratch("attention.product", out.shape))
    np.add(out, product, out=out)


def not_finite(results_bTnhD):
    """The heads, as pairs of slices, in which a NaN or an infinity is among the results."""
    # Times 0, those are NaN and all others 0.
    zero_D = np.zeros(results_bTnhD.shape[4], np.float32)
    found_bTnh = np.vecdot(float32("attention.results", results_bTnhD), zero_D)
    for b, h in np.argwhere(np.add.reduce(found_bTnh, axis=(1, 2)) != 0):
        yield slice(b, b + 1), slice(h, h + 1)


def heads_first(x_bThD):
    """The same array with its heads before the positions; no copy."""
    return x_bThD.transpose(0, 2, 1, 3)


def _split(qkv_bT3hD):
    names = ("attention.q", "attention.k", "attention.v")
    return [float32(name, heads_first(qkv_bT3hD[:, :, i])) for i, name in enumerate(names)]


def _in_pieces(piece, B, T, H):
    """Call piece(batch, heads), two slices, so that the scores of each piece are about one block."""
    scores = min(T, queries_in_block(T)) * T
    heads = min(H, max(1, BLOCK // scores))
    groups = -(-H // heads)

    def some(units):
        if groups == 1:
            piece(units, slice(None))
            return
        for unit in range(units.start, units.stop):
            b, group = divmod(unit, groups)
            piece(slice(b, b + 1), slice(group * heads, (group + 1) * heads))

    in_blocks(some, B * groups, heads * scores)
