"""Memory that is needed in between: taken once, kept, and small because large operands are cut."""

import math

import torch

PIECE = 4 << 20
"""Numbers in a piece of a weight: 16 MiB in float32, of which GPT-2 124M's layers need one."""

_kept: dict[tuple[str, torch.dtype], torch.Tensor] = {}


def scratch(name, shape, dtype):
    """An uninitialised tensor, on memory that the next call with this name and dtype will reuse."""
    numbers = math.prod(shape)
    memory = _kept.get((name, dtype))
    if memory is None or memory.numel() < numbers:
        memory = _kept[name, dtype] = torch.empty(numbers, dtype=dtype)
    return memory[:numbers].view(shape)


def pieces(rows, width):
    """0 .. rows in as few equal slices as keep each to a piece."""
    return slices(rows, max(1, -(-rows // -(-rows * width // PIECE))))


def slices(size, step):
    """0 .. size as consecutive slices of `step`; the last may be shorter."""
    for first in range(0, size, step):
        yield slice(first, min(first + step, size))
