"""Attention in bfloat16 by cuDNN, through its frontend: a graph of one node, built once for each shape.

cuDNN sees the packed queries, keys and values where they lie: three tensors of B x H x T x D whose rows
are 3 H D elements apart. Its statistics are our `lse`: maximum plus logarithm of the sum, natural, in
float32. The backward is asked for its deterministic way. Probabilities are rounded to bfloat16.

The calls are those that nvidia-cudnn-frontend 1.23 and 1.32 have in common.
"""

import math
from functools import cache

import numpy as np

from backends.cupy_cuda._machine import machine, planned
from backends.cupy_cuda._scratch import room, scratch
from harness.errors import PluginError

Q, K, V, OUT, LSE, DOUT, DQ, DK, DV = range(1, 10)
"""What a tensor is called in the graphs, and in what is handed to them."""

MIN_WORKSPACE = 128


def takes_shape(T, D):
    """Whether cuDNN has attention of such heads, forward and backward; of one position it has not."""
    return T > 1 and D % 8 == 0 and D <= 128


def forward(out_BTHD, lse_BHT, qkv_BT3HD):
    pointers = {**_parts(qkv_BT3HD, Q, K, V), OUT: out_BTHD.data.ptr, LSE: lse_BHT.data.ptr}
    _run(_forward_graph(machine(), *out_BTHD.shape), pointers)


def backward(dqkv_BT3HD, dout_BTHD, qkv_BT3HD, out_BTHD, lse_BHT):
    pointers = {
        **_parts(qkv_BT3HD, Q, K, V),
        **_parts(dqkv_BT3HD, DQ, DK, DV),
        OUT: out_BTHD.data.ptr,
        DOUT: dout_BTHD.data.ptr,
        LSE: lse_BHT.data.ptr,
    }
    _run(_backward_graph(machine(), *out_BTHD.shape), pointers)


def forward_bytes(dims):
    """Scratch that `forward` takes."""
    return _workspace_bytes(_forward_graph(planned(), *(dims[letter] for letter in "BTHD")))


def backward_bytes(dims):
    """Scratch that `backward` takes."""
    return _workspace_bytes(_backward_graph(planned(), *(dims[letter] for letter in "BTHD")))


def _run(graph, pointers):
    (workspace,) = scratch((_workspace_bytes(graph),), dtype=np.uint8)
    address, handle = workspace.data.ptr, _handle(machine())
    machine().call(lambda: graph.execute(pointers, address, handle=handle))


def _workspace_bytes(graph):
    return room((max(MIN_WORKSPACE, graph.get_workspace_size()),), dtype=np.uint8)


def _parts(packed_BT3HD, *names):
    """The addresses of the three parts of a packed tensor."""
    _, _, _, H, D = packed_BT3HD.shape
    start, nbytes = packed_BT3HD.data.ptr, H * D * packed_BT3HD.dtype.itemsize
    return {name: start + part * nbytes for part, name in enumerate(names)}


@cache
def _forward_graph(gpu, B, T, H, D):
    cudnn, graph = gpu.library("cudnn"), _new_graph(gpu)
    shapes = _Shapes(B, T, H, D)
    q, k, v = (shapes.given(cudnn, graph, name, shapes.packed) for name in (Q, K, V))
    out, lse = graph.sdpa(
        q=q,
        k=k,
        v=v,
        attn_scale=1 / math.sqrt(D),
        use_causal_mask=True,
        generate_stats=True,
    )
    shapes.made(cudnn, out, OUT, shapes.plain)
    shapes.made(cudnn, lse, LSE, shapes.stat)
    return _built(cudnn, graph, (B, T, H, D))


@cache
def _backward_graph(gpu, B, T, H, D):
    cudnn, graph = gpu.library("cudnn"), _new_graph(gpu)
    shapes = _Shapes(B, T, H, D)
    q, k, v = (shapes.given(cudnn, graph, name, shapes.packed) for name in (Q, K, V))
    out, dout = (shapes.given(cudnn, graph, name, shapes.plain) for name in (OUT, DOUT))
    lse = shapes.given(cudnn, graph, LSE, shapes.stat)
    gradients = graph.sdpa_backward(
        q=q,
        k=k,
        v=v,
        o=out,
        dO=dout,
        stats=lse,
        attn_scale=1 / math.sqrt(D),
        use_causal_mask=True,
        use_deterministic_algorithm=True,
    )
    for name, gradient in zip((DQ, DK, DV), gradients, strict=True):
        shapes.made(cudnn, gradient, name, shapes.packed)
    return _built(cudnn, graph, (B, T, H, D))


class _Shapes:
    """How cuDNN reads our tensors: dims in the order B, H, T, D, and strides in elements."""

    def __init__(self, B, T, H, D):
        dims = [B, H, T, D]
        self.packed = dims, [T * 3 * H * D, D, 3 * H * D, 1]
        self.plain = dims, [T * H * D, D, H * D, 1]
        self.stat = [B, H, T, 1], [H * T, T, 1, 1]

    def given(self, cudnn, graph, name, layout):
        dims, strides = layout
        dtype = self._dtype(cudnn, name)
        return graph.tensor(dim=dims, stride=strides, data_type=dtype, name=f"t{name}", uid=name)

    def made(self, cudnn, tensor, name, layout):
        dims, strides = layout
        tensor.set_output(True).set_uid(name).set_dim(dims).set_stride(strides)
        tensor.set_data_type(self._dtype(cudnn, name))

    def _dtype(self, cudnn, name):
        return cudnn.data_type.FLOAT if name == LSE else cudnn.data_type.BFLOAT16


def _new_graph(gpu):
    cudnn = gpu.library("cudnn")
    return cudnn.pygraph(
        io_data_type=cudnn.data_type.BFLOAT16,
        intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT,
        handle=_handle(gpu),
    )


def _built(cudnn, graph, shape):
    try:
        graph.build([cudnn.heur_mode.A])
    except Exception as error:  # cuDNN's own; which one differs between its versions
        B, T, H, D = shape
        raise PluginError(
            f"cuDNN refuses attention of B={B} T={T} H={H} D={D} in bfloat16",
            slug="library-refused",
            reason=f"{type(error).__name__}: {error}",
            do="cupy.attention=flash, or another version of cuDNN",
        ) from error
    return graph


@cache
def _handle(gpu):
    """cuDNN's handle, whose work goes to the machine's stream."""
    cudnn = gpu.library("cudnn")
    try:
        handle = cudnn.create_handle()
        cudnn.set_stream(handle=handle, stream=gpu.stream)
    except Exception as error:  # the frontend is there, libcudnn is not, or it does not suit it
        raise PluginError(
            "cuDNN cannot be opened",
            slug="library-missing",
            reason=f"{type(error).__name__}: {error}",
            do="cupy.attention=flash, or install nvidia-cudnn-cu12 (cu13 for CUDA 13)",
        ) from error
    return handle
