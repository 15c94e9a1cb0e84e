"""The formulas as loops: what each op does, with nothing between the reader and the arithmetic.

Read a file here beside the formula in `harness/ops`, then the same file in a faster backend: what
the faster one does in one call, this one does an element at a time. What it teaches:

* An op is loops over the letters of its arguments: `out_NC[n, c] = a_NC[n, c] + b_NC[n, c]`.
* A row is all that most kernels need at once: normalisation, softmax and attention read a row,
  reduce it to a number or two, and write a row. Fusing two ops is making one loop of two.
* Sums are kept in Python's float, a C double, and rounded to float32 when they are written, once.
* IEEE arithmetic has an answer to everything, and Python has not: `_ieee.py` holds the differences.

Buffers are memoryviews: `x_NC[n, c]` is a number, `x_NC.shape` the sizes, and arithmetic they have
none. A number that is too large for float32 becomes infinity when it is written. All this is a
thousand times slower than NumPy, and more, so train with it only what is tiny.
"""
