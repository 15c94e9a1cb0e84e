# ruff: noqa: F401 - what is imported here is what the backend has.
"""The table of contents: every half-op of the backend `python`, and what its buffers are."""

from backends.python_loops.adamw import adamw
from backends.python_loops.adamw_master import adamw_master
from backends.python_loops.attention import attention_backward, attention_forward
from backends.python_loops.attention_decode import attention_decode
from backends.python_loops.cast import cast
from backends.python_loops.clip_scale import clip_scale
from backends.python_loops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from backends.python_loops.embedding import embedding_backward, embedding_forward
from backends.python_loops.gelu import gelu_backward, gelu_forward
from backends.python_loops.guard import guard
from backends.python_loops.layernorm import layernorm_backward, layernorm_forward
from backends.python_loops.lora import lora_backward, lora_forward
from backends.python_loops.matmul import matmul_backward, matmul_forward
from backends.python_loops.matmul_cross_entropy import (
    matmul_cross_entropy_backward,
    matmul_cross_entropy_forward,
)
from backends.python_loops.matmul_gelu import matmul_gelu_backward, matmul_gelu_forward
from backends.python_loops.residual import residual_backward, residual_forward
from backends.python_loops.residual_layernorm import (
    residual_layernorm_backward,
    residual_layernorm_forward,
)
from backends.python_loops.sgd import sgd
from backends.python_loops.softmax import softmax_backward, softmax_forward
from backends.python_loops.squared_norm import squared_norm
from backends.python_loops.stochastic_cast import stochastic_cast

device = "host"
arrays = "memoryview"
computes = {"fp32": "f32"}  # at least: sums are kept in double, and written as float32
