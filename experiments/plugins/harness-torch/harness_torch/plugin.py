# ruff: noqa: F401 - what is imported here is what the backend has.
"""The table of contents: every half-op of the backend `torch`, and what its buffers are."""

import torch

from harness import hookimpl
from harness_torch._processor import BF16_PRODUCTS, describe
from harness_torch._tensors import tensor
from harness_torch.cast import cast
from harness_torch.matmul import matmul_backward, matmul_forward

device = "host"
arrays = "torch"
# A product in bfloat16 is rounded to it, a gradient of a weight too, though its buffer is float32.
computes = {"fp32": "f32", "bf16": {"bfloat16": "bf16", "float32": "f32"}[BF16_PRODUCTS]}


@hookimpl
def adapt(buffer):
    return tensor(buffer)


@hookimpl
def set_threads(count):
    torch.set_num_threads(count)


@hookimpl
def describe_libraries():
    return describe()
