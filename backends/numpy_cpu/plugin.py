"""The table of contents: what this backend has, one file for each op."""

from backends.numpy_cpu.adamw import adamw
from backends.numpy_cpu.attention import attention_backward, attention_forward
from backends.numpy_cpu.cast import cast
from backends.numpy_cpu.cross_entropy import cross_entropy_backward, cross_entropy_forward
from backends.numpy_cpu.embedding import embedding_backward, embedding_forward
from backends.numpy_cpu.gelu import gelu_backward, gelu_forward
from backends.numpy_cpu.layernorm import layernorm_backward, layernorm_forward
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

device = "host"
arrays = "numpy"
# bf16 is how buffers are stored; every op takes them up to float32 and rounds once, when it writes.
computes = {"fp32": "f32", "bf16": "f32"}

__all__ = [
    "adamw",
    "attention_backward",
    "attention_forward",
    "cast",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "embedding_backward",
    "embedding_forward",
    "gelu_backward",
    "gelu_forward",
    "layernorm_backward",
    "layernorm_forward",
    "matmul_backward",
    "matmul_cross_entropy_backward",
    "matmul_cross_entropy_forward",
    "matmul_forward",
    "matmul_gelu_backward",
    "matmul_gelu_forward",
    "residual_backward",
    "residual_forward",
    "residual_layernorm_backward",
    "residual_layernorm_forward",
    "sgd",
    "softmax_backward",
    "softmax_forward",
    "squared_norm",
]
