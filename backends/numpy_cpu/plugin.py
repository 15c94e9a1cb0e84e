# ruff: noqa: F401 - what is imported here is what the backend has.
"""The table of contents: every half-op of the backend `numpy`, and what its buffers are."""

from backends.numpy_cpu import _blocks
from backends.numpy_cpu.adamw import adamw
from backends.numpy_cpu.adamw_master import adamw_master
from backends.numpy_cpu.attention import attention_backward, attention_forward
from backends.numpy_cpu.attention_decode import attention_decode
from backends.numpy_cpu.cast import cast
from backends.numpy_cpu.clip_scale import clip_scale
from backends.numpy_cpu.cross_entropy import cross_entropy_backward, cross_entropy_forward
from backends.numpy_cpu.embedding import embedding_backward, embedding_forward
from backends.numpy_cpu.gelu import gelu_backward, gelu_forward
from backends.numpy_cpu.guard import guard
from backends.numpy_cpu.layernorm import layernorm_backward, layernorm_forward
from backends.numpy_cpu.lora import lora_backward, lora_forward
from backends.numpy_cpu.matmul import matmul_backward, matmul_forward
from backends.numpy_cpu.matmul_cross_entropy import (
    matmul_cross_entropy_backward,
    matmul_cross_entropy_forward,
)
from backends.numpy_cpu.matmul_gelu import matmul_gelu_backward, matmul_gelu_forward
from backends.numpy_cpu.residual import residual_backward, residual_forward
from backends.numpy_cpu.residual_layernorm import (
    residual_layernorm_backward,
    residual_layernorm_forward,
)
from backends.numpy_cpu.sgd import sgd
from backends.numpy_cpu.softmax import softmax_backward, softmax_forward
from backends.numpy_cpu.squared_norm import squared_norm
from backends.numpy_cpu.stochastic_cast import stochastic_cast
from harness import hookimpl
from harness.machine.blas import describe

device = "host"
arrays = "numpy"
# bf16 is how numbers are stored: every op takes them up to float32, and rounds when it writes.
computes = {"fp32": "f32", "bf16": "f32"}


@hookimpl
def set_threads(count):
    """Of the ops that go through memory on several cores; BLAS was told by the core."""
    _blocks.use_threads(count)


@hookimpl
def describe_libraries():
    return describe("numpy")
