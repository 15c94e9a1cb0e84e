# ruff: noqa: F401 - what is imported here is what the backend has.
"""The table of contents: every half-op of the backend `cupy`, and what its buffers are."""

from backends.cupy_cuda import _gpu_errors, _options, _products, _rates, _scratch
from backends.cupy_cuda._machine import machine
from backends.cupy_cuda._options import chosen
from backends.cupy_cuda.adamw import adamw
from backends.cupy_cuda.adamw_master import adamw_master
from backends.cupy_cuda.attention import (
    attention_backward,
    attention_backward_tf32,
    attention_forward,
    attention_forward_tf32,
)
from backends.cupy_cuda.attention_decode import attention_decode
from backends.cupy_cuda.cast import cast
from backends.cupy_cuda.clip_scale import clip_scale
from backends.cupy_cuda.cross_entropy import cross_entropy_backward, cross_entropy_forward
from backends.cupy_cuda.embedding import embedding_backward, embedding_forward
from backends.cupy_cuda.gelu import gelu_backward, gelu_forward
from backends.cupy_cuda.guard import guard
from backends.cupy_cuda.layernorm import layernorm_backward, layernorm_forward
from backends.cupy_cuda.lora import lora_backward, lora_forward
from backends.cupy_cuda.matmul import (
    matmul_backward,
    matmul_backward_tf32,
    matmul_forward,
    matmul_forward_tf32,
)
from backends.cupy_cuda.matmul_cross_entropy import (
    matmul_cross_entropy_backward,
    matmul_cross_entropy_backward_tf32,
    matmul_cross_entropy_forward,
    matmul_cross_entropy_forward_tf32,
)
from backends.cupy_cuda.matmul_gelu import (
    matmul_gelu_backward,
    matmul_gelu_backward_tf32,
    matmul_gelu_forward,
    matmul_gelu_forward_tf32,
)
from backends.cupy_cuda.residual import residual_backward, residual_forward
from backends.cupy_cuda.residual_layernorm import (
    residual_layernorm_backward,
    residual_layernorm_forward,
)
from backends.cupy_cuda.sgd import sgd
from backends.cupy_cuda.softmax import softmax_backward, softmax_forward
from backends.cupy_cuda.squared_norm import squared_norm
from backends.cupy_cuda.stochastic_cast import stochastic_cast
from harness import hookimpl

device = "cuda"
arrays = "cupy"
# tf32 is for matrix products alone; bf16 is how numbers are stored: sums and statistics are float32.
computes = {
    "fp32": "f32",
    "tf32": {
        "*": "f32",
        "attention": "tf32",
        "matmul": "tf32",
        "matmul_gelu": "tf32",
        "matmul_cross_entropy": "tf32",
    },
    # The fused ones round what stands between two products, as the two ops would.
    "bf16": {
        "*": "f32",
        "attention": "bf16",
        "matmul_gelu": "bf16",
        "matmul_cross_entropy": "bf16",
    },
}
variants = {
    ("matmul_forward", "tf32"): matmul_forward_tf32,
    ("matmul_backward", "tf32"): matmul_backward_tf32,
    ("matmul_gelu_forward", "tf32"): matmul_gelu_forward_tf32,
    ("matmul_gelu_backward", "tf32"): matmul_gelu_backward_tf32,
    ("matmul_cross_entropy_forward", "tf32"): matmul_cross_entropy_forward_tf32,
    ("matmul_cross_entropy_backward", "tf32"): matmul_cross_entropy_backward_tf32,
    ("attention_forward", "tf32"): attention_forward_tf32,
    ("attention_backward", "tf32"): attention_backward_tf32,
}
capturable = True
options = _options.CHOICES


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
    return machine().capture(calls) if _products.capturable() else None


@hookimpl
def configure(options):
    _options.choose(options)


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
    return f"{machine().versions}; matmul {chosen('matmul')}, attention {chosen('attention')}"


@hookimpl
def compile_seconds():
    return machine().compile_seconds


@hookimpl
def scratch_bytes(op, dims, precision, most):
    return _scratch.needed(op, dims, precision, most)


@hookimpl
def lend_scratch(memory):
    _scratch.lend(memory)
