"""keys[position + t] = k[t]        s[i,j] = q[i] · keys[j] / sqrt(D)  for j <= position + i

    values[position + t] = v[t]        p[i] = softmax(s[i])        out[i] = Σ_j p[i,j] values[j]

A block for each query and head, whose warps share out the keys; the cache is float32, and so is every
sum. One kernel writes the new keys and values, the next reads the cache up to the last of them.
"""

import math

from backends.cupy_cuda._launch import Source, blocks_for, f32, i32, i64, of
from harness import hookimpl

_SOURCE = Source("attention_decode")

THREADS = 256
"""Of a block: eight warps; see cuda/attention_decode.cu."""


@hookimpl
def attention_decode(out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B):
    B, T, H, D = out_BTHD.shape
    X, new = keys_BXHD.shape[1], out_BTHD.size
    _SOURCE.launch(
        "attention_decode_store", of(qkv_BT3HD), blocks_for(new), THREADS,
        keys_BXHD, values_BXHD, qkv_BT3HD, position_B, i64(new), i32(T), i32(X), i32(H * D),
    )  # fmt: skip
    _SOURCE.launch(
        "attention_decode", of(qkv_BT3HD), B * T * H, THREADS,
        out_BTHD, keys_BXHD, values_BXHD, qkv_BT3HD, position_B,
        i32(T), i32(X), i32(H), i32(D), f32(1 / math.sqrt(D)), shared_bytes=4 * D,
    )  # fmt: skip
