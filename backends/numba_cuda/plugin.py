# ruff: noqa: F401 - what is imported here is what the backend has.
"""The table of contents: every half-op of the backend `numba_cuda`, and what its buffers are."""

from backends.numba_cuda import _gpu_errors, _rates, _scratch
from backends.numba_cuda._compiled import SIMULATED
from backends.numba_cuda._machine import machine
from backends.numba_cuda.adamw import adamw
from backends.numba_cuda.adamw_master import adamw_master
from backends.numba_cuda.attention import attention_backward, attention_forward
from backends.numba_cuda.attention_decode import attention_decode
from backends.numba_cuda.cast import cast
from backends.numba_cuda.clip_scale import clip_scale
from backends.numba_cuda.cross_entropy import cross_entropy_backward, cross_entropy_forward
from backends.numba_cuda.embedding import embedding_backward, embedding_forward
from backends.numba_cuda.gelu import gelu_backward, gelu_forward
from backends.numba_cuda.guard import guard
from backends.numba_cuda.layernorm import layernorm_backward, layernorm_forward
from backends.numba_cuda.lora import lora_backward, lora_forward
from backends.numba_cuda.matmul import matmul_backward, matmul_forward
from backends.numba_cuda.matmul_cross_entropy import (
    matmul_cross_entropy_backward,
    matmul_cross_entropy_forward,
)
from backends.numba_cuda.matmul_gelu import matmul_gelu_backward, matmul_gelu_forward
from backends.numba_cuda.residual import residual_backward, residual_forward
from backends.numba_cuda.residual_layernorm import (
    residual_layernorm_backward,
    residual_layernorm_forward,
)
from backends.numba_cuda.sgd import sgd
from backends.numba_cuda.softmax import softmax_backward, softmax_forward
from backends.numba_cuda.squared_norm import squared_norm
from backends.numba_cuda.stochastic_cast import stochastic_cast
from harness import hookimpl

device = "cuda"
arrays = "numba"
# Sums and statistics are float32; bf16 is how numbers are stored.
computes = {"fp32": "f32", "bf16": "f32"}
capturable = True
slow = "one thread at a time in the simulator" if SIMULATED else ""


@hookimpl
def empty(nbytes):
    return machine().empty(nbytes)


@hookimpl
def view(memory, offset, shape, dtype):
    return machine().view(memory, offset, shape, dtype)


@hookimpl
def adapt(buffer):
    return machine().adapt(buffer)


@hookimpl
def from_host(buffer, array):
    machine().from_host(buffer, array)


@hookimpl
def to_host(array, buffer):
    machine().to_host(array, buffer)


@hookimpl
def zero(buffer):
    machine().zero(buffer)


@hookimpl
def synchronize():
    machine().synchronize()


@hookimpl
def begin_read(buffer):
    return machine().begin_read(buffer)


@hookimpl
def free_bytes():
    return machine().free_bytes()


@hookimpl
def capture(calls):
    return machine().capture(calls)


@hookimpl
def check_precision(precision):
    _gpu_errors.check_precision(machine().name, machine().capability, precision)


@hookimpl
def device_seconds(call):
    return machine().device_seconds(call)


@hookimpl
def measure_rates():
    return _rates.measure()


@hookimpl
def describe_libraries():
    return machine().versions


@hookimpl
def compile_seconds():
    return machine().compile_seconds


@hookimpl
def scratch_bytes(op, dims, precision, most):
    return _scratch.needed(op, dims, precision, most)


@hookimpl
def lend_scratch(memory):
    _scratch.lend(memory)
