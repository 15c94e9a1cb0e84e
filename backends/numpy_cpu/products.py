"""Matrix products that are more than one BLAS call: added to what is there, or of narrower numbers.

Where everything is float32 and the result is overwritten, an op calls `np.matmul(..., out=)` itself.
"""

import numpy as np

from backends.numpy_cpu.scratch import float32, scratch

TILE = 1 << 17
"""Numbers in a tile of the result: 512 KiB, which are added while they are in the cache."""


def multiply(out, a, b):
    """out = a · b."""
    if out.dtype == a.dtype == b.dtype == np.float32:
        np.matmul(a, b, out=out)
        return
    for tile, product in product_tiles(a, b):
        out[tile] = product


def add_product(out, a, b):
    """out += a · b, without a temporary as large as out."""
    for tile, product in product_tiles(a, b):
        np.add(out[tile], product, out=out[tile])


def product_tiles(a, b):
    """Yield a · b in pieces: where a piece stands, (rows, columns), and its float32 numbers."""
    rows, columns = a.shape[0], b.shape[1]
    narrow = not a.dtype == b.dtype == np.float32
    width = min(columns, 256 if narrow else 4096)
    height = min(rows, 256 if narrow else max(1, TILE // width))
    for left in range(0, columns, width):
        across = slice(left, min(left + width, columns))
        b_wide = float32("product.b", b[:, across])
        for top in range(0, rows, height):
            down = slice(top, min(top + height, rows))
            product = scratch("product", (down.stop - top, across.stop - left))
            np.matmul(float32("product.a", a[down]), b_wide, out=product)
            yield (down, across), product
