# ruff: noqa: F401 - what is imported here is what the backend has.
"""The table of contents: every half-op of the backend `cupy`, and what its buffers are."""

from backends.cupy_cuda import _options, _scratch
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda.gelu import gelu_backward, gelu_forward
from harness import hookimpl

device = "cuda"
arrays = "cupy"
# tf32 is for matrix products alone; bf16 is how numbers are stored: sums and statistics are float32.
computes = {"fp32": "f32", "tf32": {"*": "f32"}, "bf16": {"*": "f32"}}
capturable = True
options = _options.CHOICES


@hookimpl
def empty(nbytes):
    return machine().empty(nbytes)


@hookimpl
def view(memory, offset, shape, dtype):
    return machine().view(memory, offset, shape, dtype)


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
def configure(options):
    _options.choose(options)


@hookimpl
def scratch_bytes(op, dims, precision, most):
    return _scratch.needed(op, dims, precision, most)


@hookimpl
def lend_scratch(memory):
    _scratch.lend(memory)
