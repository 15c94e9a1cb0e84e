"""out[b,t] = wte[tokens[b,t]] + wpe[position[b] + t]

    dwte[tokens[b,t]] += dout[b,t]        dwpe[position[b] + t] += dout[b,t]

Forward, a warp copies a row. Backward, the rows of dout are sorted by token on the device, and added up
tile by tile of the sorted order: no atomics, the same bits in every run (cuda/embedding.cu).
"""

from backends.cupy_cuda._launch import ELEMENTS, THREADS, Source, blocks_for, i32, of
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda._scratch import room, scratch, takes
from harness import hookimpl

VARIANTS = tuple(
    (("ELEMENT", element), ("WIDTH", width))
    for element in ELEMENTS.values()
    for width in ("1", "4")
)

_SOURCE = Source("embedding", VARIANTS)

TILE, SHARE = 32, 8  # as in embedding.cu
MAX_CHUNK = 2048  # keys that one block sorts, two a thread
KEY_BYTES = 8


@hookimpl
def embedding_forward(out_BTC, tokens_BT, position_B, wte_VC, wpe_XC):
    B, T, C = out_BTC.shape
    arrays = (out_BTC, tokens_BT, position_B, wte_VC, wpe_XC)
    sizes = (i32(B * T), i32(T), i32(C))
    blocks = blocks_for(B * T * 32)
    _SOURCE.launch("embedding_forward", _defines(out_BTC), blocks, THREADS, *arrays, *sizes)


@hookimpl
def embedding_backward(dwte_VC, dwpe_XC, dout_BTC, tokens_BT, position_B, accumulate):
    if dwte_VC is not None:
        if not accumulate:
            machine().zero(dwte_VC)  # most rows of the table are of no token here
        _add_tokens(dwte_VC, dout_BTC, tokens_BT, accumulate)
    if dwpe_XC is not None:
        _add_positions(dwpe_XC, dout_BTC, position_B, accumulate)


def _add_tokens(dwte_VC, dout_BTC, tokens_BT, accumulate):
    B, T, C = dout_BTC.shape
    N, defines = B * T, _defines(dout_BTC)
    keys_N2, sorted_N2, edges_K2C = scratch(*_shapes(N, C))
    chunk, chunks = _chunks(N)
    _SOURCE.launch(
        "sort_chunks",
        defines,
        chunks,
        chunk // 2,
        keys_N2,
        tokens_BT,
        i32(N),
        i32(chunk),
        shared_bytes=KEY_BYTES * chunk,
    )
    if chunks == 1:
        sorted_N2 = keys_N2
    else:
        blocks = -(-N * SHARE // THREADS)
        sizes = (i32(N), i32(chunk), i32(chunks))
        _SOURCE.launch("merge_chunks", defines, blocks, THREADS, sorted_N2, keys_N2, *sizes)
    tiles = -(-N // TILE)
    parts, threads = _columns(C)
    sizes = (i32(N), i32(C), i32(accumulate))
    arrays = (dwte_VC, edges_K2C, sorted_N2, dout_BTC)
    _SOURCE.launch("sum_tiles", defines, (tiles, parts), threads, *arrays, *sizes)
    if tiles > 1:
        arrays = (dwte_VC, edges_K2C, sorted_N2)
        _SOURCE.launch("join_tiles", defines, (tiles - 1, parts), threads, *arrays, *sizes)


def _add_positions(dwpe_XC, dout_BTC, position_B, accumulate):
    B, T, C = dout_BTC.shape
    X = dwpe_XC.shape[0]
    parts, threads = _columns(C)
    arrays = (dwpe_XC, dout_BTC, position_B)
    sizes = (i32(B), i32(T), i32(C), i32(accumulate))
    _SOURCE.launch("sum_positions", _defines(dout_BTC), (X, parts), threads, *arrays, *sizes)


def _defines(x_BTC):
    return (*of(x_BTC), ("WIDTH", str(_width(x_BTC.shape[-1]))))


def _width(C):
    """Columns of a thread."""
    return 1 if C % 4 else 4


def _columns(C):
    """Blocks that share the columns, and whole warps for those of each."""
    wanted = -(-C // _width(C))
    parts = -(-wanted // THREADS)
    return parts, -(-wanted // (32 * parts)) * 32


def _chunks(N):
    """Keys in each of the chunks that are sorted first, a power of two; and how many chunks."""
    chunk = 64
    while chunk < min(N, MAX_CHUNK):
        chunk *= 2
    return chunk, -(-N // chunk)


def _shapes(N, C):
    """Of scratch: keys by chunk and sorted, in words of four bytes, and the parts of runs."""
    chunk, chunks = _chunks(N)
    return (chunk * chunks, 2), (chunk * chunks, 2), (-(-N // TILE), 2, C)


@takes("embedding_backward")
def _room(dims, precision, most):
    return room(*_shapes(dims["B"] * dims["T"], dims["C"]))
