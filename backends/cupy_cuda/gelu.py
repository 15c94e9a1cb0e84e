"""u = sqrt(2/π) · (x + 0.044715 x³)        out = x/2 · (1 + tanh(u))

    dx = dout · (s + 2 x s (1 - s) du/dx),   s = (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u))

A thread takes 16 bytes of elements at a time; what is fused with a product is in matmul_gelu.py.
"""

from backends.cupy_cuda._launch import THREADS, Source, blocks_for, i64, of
from harness import hookimpl

_SOURCE = Source("gelu")


@hookimpl
def gelu_forward(out_NF, x_NF):
    blocks = blocks_for(x_NF.nbytes // 16 + 1)
    _SOURCE.launch("gelu_forward", of(x_NF), blocks, THREADS, out_NF, x_NF, i64(x_NF.size))


@hookimpl
def gelu_backward(dx_NF, dout_NF, x_NF):
    blocks = blocks_for(x_NF.nbytes // 16 + 1)
    _SOURCE.launch("gelu_backward", of(x_NF), blocks, THREADS, dx_NF, dout_NF, x_NF, i64(x_NF.size))
