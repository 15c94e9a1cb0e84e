# ruff: noqa: F401 - what is imported here is what the backend has.
"""The table of contents: every half-op of the backend `numba`, and what its buffers are."""

from backends.numba_cpu import _compile_ahead, _kernel, _scratch, _threads
from backends.numba_cpu._narrow import as_bits
from backends.numba_cpu.adamw import adamw
from backends.numba_cpu.adamw_master import adamw_master
from backends.numba_cpu.attention import attention_backward, attention_forward
from backends.numba_cpu.attention_decode import attention_decode
from backends.numba_cpu.cast import cast
from backends.numba_cpu.clip_scale import clip_scale
from backends.numba_cpu.cross_entropy import cross_entropy_backward, cross_entropy_forward
from backends.numba_cpu.embedding import embedding_backward, embedding_forward
from backends.numba_cpu.gelu import gelu_backward, gelu_forward
from backends.numba_cpu.guard import guard
from backends.numba_cpu.layernorm import layernorm_backward, layernorm_forward
from backends.numba_cpu.lora import lora_backward, lora_forward
from backends.numba_cpu.matmul import matmul_backward, matmul_forward
from backends.numba_cpu.matmul_cross_entropy import (
    matmul_cross_entropy_backward,
    matmul_cross_entropy_forward,
)
from backends.numba_cpu.matmul_gelu import matmul_gelu_backward, matmul_gelu_forward
from backends.numba_cpu.residual import residual_backward, residual_forward
from backends.numba_cpu.residual_layernorm import (
    residual_layernorm_backward,
    residual_layernorm_forward,
)
from backends.numba_cpu.sgd import sgd
from backends.numba_cpu.softmax import softmax_backward, softmax_forward
from backends.numba_cpu.squared_norm import squared_norm
from backends.numba_cpu.stochastic_cast import stochastic_cast
from harness import hookimpl

device = "host"
arrays = "numpy"
# bf16 is how numbers are stored: every op takes them up to float32, and rounds when it writes.
computes = {"fp32": "f32", "bf16": "f32"}


@hookimpl
def adapt(buffer):
    return as_bits(buffer)


@hookimpl
def set_threads(count):
    _threads.use_threads(count)


@hookimpl
def describe_libraries():
    return _threads.libraries()


@hookimpl
def compile_seconds():
    return _kernel.compile_seconds()


@hookimpl
def compile_ahead(calls):
    return _compile_ahead.compile_ahead(calls, globals())


@hookimpl
def scratch_bytes(op, dims, precision, most):
    return _scratch.needed(op, dims, precision, most)


@hookimpl
def lend_scratch(memory):
    _scratch.lend(memory)
