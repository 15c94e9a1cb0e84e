"""The formulas as calls on whole arrays: vectorised NumPy that finds its numbers in the cache.

What it teaches:

* A matrix product is one BLAS call, in place: `np.matmul(x, weight.T, out=out)`. The products are
  four fifths of a GPT-2 step, and nothing here can make them faster.
* The rest is traffic. `0.5 * x * (1 + np.tanh(u))` makes a temporary as large as x for each operator,
  and each goes to memory and back. Here an op goes through its rows in blocks (`_blocks.py`), with a
  few scratch arrays that stay in the L2 cache and are kept for the next call (`_scratch.py`).
* Ufuncs release the GIL, so a second Python thread nearly halves what is not a matrix product.
* One rounding: bfloat16 inputs are taken up to float32, and the last ufunc writes to the output.
* NaN and infinities are data: they stay in their row and warn nobody.
"""
