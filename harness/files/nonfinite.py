"""Find the first NaN or infinity of an array: what is stored, and what is read again, is finite."""

import numpy as np

FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
"""The dtypes, by NumPy's names, that have such values."""

BLOCK = 1 << 20
"""Elements at a time: all at once would need the array's size in booleans once more."""


def first_nonfinite(array: np.ndarray) -> tuple[int, ...] | None:
    """The index of the first NaN or infinity in array; None if all of it is finite."""
    if array.dtype.name not in FLOATS:
        return None
    flat = np.asarray(array, order="C").reshape(-1)
    for start in range(0, flat.size, BLOCK):
        finite = np.isfinite(flat[start : start + BLOCK])
        if not finite.all():
            first = start + int(np.argmin(finite))
            return tuple(int(i) for i in np.unravel_index(first, array.shape))
    return None
