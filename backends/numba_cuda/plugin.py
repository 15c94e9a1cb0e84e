# ruff: noqa: F401 - what is imported here is what the backend has.
"""The table of contents: every half-op of the backend `numba_cuda`, and what its buffers are."""

from backends.numba_cuda import _scratch
from backends.numba_cuda._compiled import SIMULATED
from backends.numba_cuda._machine import machine
from backends.numba_cuda.gelu import gelu_backward, gelu_forward
from backends.numba_cuda.layernorm import layernorm_forward
from harness import hookimpl

device = "cuda"
arrays = "numba"
# Sums and statistics are float32; bf16 is how numbers are stored.
computes = {"fp32": "f32", "bf16": "f32"}
capturable = True


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
def device_seconds(call):
    return machine().device_seconds(call)


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
