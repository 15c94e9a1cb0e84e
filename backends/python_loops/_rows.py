"""Read and write one row of a buffer: what lies along its last dimension, as a list.

A list is read three times faster than a memoryview of several dimensions, so a row that is used
more than once is read into one. Rows are found through a flat view of the same memory: in C order,
row (i, j) of a buffer of shape (I, J, W) begins at (i * J + j) * W.
"""


def row(x, *index):
    """The numbers of x[index], the index of all dimensions but the last. row(bias_C): all of it."""
    flat, start, stop = _locate(x, index)
    return flat[start:stop].tolist()


def write_row(x, values, *index):
    """x[index] = values, each rounded to x's own type."""
    flat, start, _ = _locate(x, index)
    for i, value in enumerate(values, start):
        flat[i] = value


def start_row(dx, accumulate, *index):
    """What a sum into dx[index] starts from: what is there already if `accumulate`, or zeros."""
    return row(dx, *index) if accumulate else [0.0] * dx.shape[-1]


def _locate(x, index):
    width, place = x.shape[-1], 0
    for i, size in zip(index, x.shape, strict=False):  # the last dimension has no index
        place = place * size + i
    return x.cast("B").cast(x.format), place * width, (place + 1) * width
