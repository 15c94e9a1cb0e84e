"""See the harness's buffers as PyTorch's tensors: the same memory, no copy."""

import ctypes

import ml_dtypes
import numpy as np
import torch

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def tensor(array):
    """A NumPy array as a tensor on the same memory; bfloat16 as bfloat16."""
    if not array.flags.writeable:
        array = _as_if_writeable(array)
    if array.dtype == BFLOAT16:
        # NumPy has no bfloat16 of its own, so neither from_numpy nor DLPack takes it: its bits do.
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _as_if_writeable(array):
    """The same memory again: a tensor cannot be read-only, and the ops write only their outputs."""
    if array.size == 0:
        return array.copy()
    bytes_of = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    bytes_of.owner = array  # what borrows the memory keeps it
    return np.frombuffer(bytes_of, array.dtype).reshape(array.shape)
