"""Matrix products that are more than one BLAS call: added to what is there, or of bfloat16 numbers."""

import numpy as np

from backends.numpy_cpu._scratch import float32, scratch

TILE = 96 << 10
"""Numbers in a piece of a result: 384 KiB, which are added while they are in the cache."""

NARROW_TILE = 256
"""Rows and columns of a piece whose operands must be taken up to float32 first."""


def multiply(out, a, b, add=False):
    """out = a · b, or out += a · b; without a temporary as large as out."""
    if not add and out.dtype == a.dtype == b.dtype == np.float32:
        np.matmul(a, b, out=out)
        return
    for piece, product in product_pieces(a, b):
        if add:
            np.add(out[piece], product, out=out[piece])
        else:
            out[piece] = product


def product_pieces(a, b):
    """Yield a · b piece by piece: where it stands, (rows, columns), and its float32 numbers."""
    height, width = _piece_shape(a, b)
    for columns in slices(b.shape[1], width):
        wide_b = float32("product.b", b[:, columns])
        for rows in slices(a.shape[0], height):
            wide_a = float32("product.a", a[rows])
            product = scratch("product", (wide_a.shape[0], wide_b.shape[1]))
            np.matmul(wide_a, wide_b, out=product)
            yield (rows, columns), product


def _piece_shape(a, b):
    if a.dtype == b.dtype == np.float32:
        width = min(b.shape[1], 4096)
        return TILE // width, width
    return NARROW_TILE, NARROW_TILE


def slices(size, step):
    """0 .. size as consecutive slices of `step`; the last may be shorter."""
    for first in range(0, size, step):
        yield slice(first, min(first + step, size))
