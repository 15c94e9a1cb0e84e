# ruff: noqa: N801 - the names are cuDNN's.
"""cuDNN's frontend on the CPU: the names that `_cudnn.py` uses, computed with NumPy.

A graph is read as it was described: by pointers, dims and strides, so that a wrong one gives wrong
numbers. What cuDNN refuses is refused (cudnn-frontend 1.23, scaled_dot_product_flash_attention.h):
other dtypes, heads that are no multiple of 8, last strides other than 1, a single position, pointers
off 16 bytes. Probabilities, and gradients of scores, are rounded to bfloat16 where they are multiplied.
The workspace is overwritten. `executed` keeps what was run, the latest last.
"""

import ctypes
import enum

import ml_dtypes
import numpy as np

executed = []
"""(kind, shape B H T D) of every graph that was executed."""


class data_type(enum.Enum):
    FLOAT = "float32"
    BFLOAT16 = "bfloat16"


class heur_mode(enum.Enum):
    A = 0
    B = 1
    FALLBACK = 2


class cudnnGraphNotSupportedError(Exception):
    pass


class Handle:
    stream = None


def create_handle():
    return Handle()


def set_stream(handle, stream):
    handle.stream = stream


class Tensor:
    def __init__(self, dim=None, stride=None, dtype=None, uid=None):
        self.dim, self.stride, self.dtype, self.uid, self.output = dim, stride, dtype, uid, False

    def set_output(self, value):
        self.output = value
        return self

    def set_uid(self, uid):
        self.uid = uid
        return self

    def set_dim(self, dim):
        self.dim = dim
        return self

    def set_stride(self, stride):
        self.stride = stride
        return self

    def set_data_type(self, data_type):
        self.dtype = data_type
        return self

    def at(self, pointers):
        """The numbers that lie there, as an array of dims and strides."""
        address = pointers[self.uid]
        _support(address % 16 == 0, f"tensor {self.uid} is not aligned to 16 bytes")
        wide = self.dtype is data_type.FLOAT
        kind, dtype = (ctypes.c_uint32, np.float32) if wide else (ctypes.c_uint16, _BFLOAT16)
        span = 1 + sum((n - 1) * step for n, step in zip(self.dim, self.stride, strict=True))
        flat = np.frombuffer((kind * span).from_address(address), dtype)
        steps = [step * flat.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(flat, self.dim, steps)


_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class pygraph:
    def __init__(
        self,
        name="graph",
        io_data_type=None,
        intermediate_data_type=None,
        compute_data_type=None,
        handle=None,
    ):
        assert io_data_type is data_type.BFLOAT16
        assert intermediate_data_type is compute_data_type is data_type.FLOAT
        self.handle = handle
        self._tensors, self._built = [], False

    def tensor(self, dim, stride, data_type=None, name="", uid=-1):
        tensor = Tensor(dim, stride, data_type, uid)
        self._tensors.append(tensor)
        return tensor

    def sdpa(self, q, k, v, *, attn_scale, use_causal_mask, generate_stats):
        assert use_causal_mask, "only causal attention is known here"
        assert generate_stats, "only training is known here"
        self._kind, self._given, self._scale = "sdpa", (q, k, v), attn_scale
        self._made = (Tensor(), Tensor())
        return list(self._made)

    def sdpa_backward(
        self, q, k, v, o, dO, stats, *, attn_scale, use_causal_mask, use_deterministic_algorithm
    ):
        assert use_causal_mask, "only causal attention is known here"
        assert use_deterministic_algorithm, "the same arguments must give the same bits"
        self._kind, self._given, self._scale = "backward", (q, k, v, o, dO, stats), attn_scale
        self._made = (Tensor(), Tensor(), Tensor())
        return list(self._made)

    def build(self, heuristics):
        assert heuristics == [heur_mode.A]
        tensors = [*self._given, *self._made]
        _support(len({tensor.uid for tensor in tensors}) == len(tensors), "uids are not distinct")
        for tensor in tensors:
            _support(tensor.dtype is not None and len(tensor.dim) == 4, "a tensor is not described")
            _support(tensor.stride[3] == 1, "the last stride is not 1")
        _, _, T, D = self._given[0].dim
        _support(T > 1, "s_q = s_kv = 1 is not supported")
        _support(D % 8 == 0 and D <= 128, "hidden_dim is not a multiple of 8, at most 128")
        self._built = True

    def get_workspace_size(self):
        assert self._built
        B, H, T, D = self._given[0].dim
        return 0 if self._kind == "sdpa" else 4 * B * H * T * (D + 1)

    def execute(self, pointers, workspace, handle=None):
        assert self._built
        assert handle is self.handle, "another handle than the graph was built with"
        assert handle.stream is not None, "the handle has no stream"
        ctypes.memset(workspace, 0xFF, self.get_workspace_size())
        given = [np.asarray(tensor.at(pointers)).astype(np.float32) for tensor in self._given]
        compute = _forward if self._kind == "sdpa" else _backward
        for tensor, values in zip(self._made, compute(*given, self._scale), strict=True):
            if tensor.output:
                there = tensor.at(pointers)
                there[...] = values.astype(there.dtype)
        executed.append((self._kind, tuple(self._given[0].dim)))


def _support(condition, why):
    if not condition:
        raise cudnnGraphNotSupportedError(why)


def _rounded(x):
    return x.astype(_BFLOAT16).astype(np.float32)


def _scores(q, k, scale):
    s = q @ k.swapaxes(-1, -2) * np.float32(scale)
    return np.where(np.tri(s.shape[-1], dtype=bool), s, np.float32(-np.inf))


def _forward(q, k, v, scale):
    with np.errstate(all="ignore"):
        s = _scores(q, k, scale)
        top = s.max(axis=-1, keepdims=True)
        e = np.exp(s - top)
        total = e.sum(axis=-1, keepdims=True)
        return _rounded(e) @ v / total, top + np.log(total)


def _backward(q, k, v, out, dout, stats, scale):
    scale = np.float32(scale)
    with np.errstate(all="ignore"):
        p = np.exp(np.minimum(_scores(q, k, scale) - stats, 0))
        delta = (dout * out).sum(axis=-1, keepdims=True)
        ds = _rounded(p * (dout @ v.swapaxes(-1, -2) - delta))
        dv = _rounded(p).swapaxes(-1, -2) @ dout
        return ds @ k * scale, ds.swapaxes(-1, -2) @ q * scale, dv
