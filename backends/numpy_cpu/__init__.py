"""Every op as vectorised NumPy: what a few whole-array calls can do, if each finds its data in the cache.

What it teaches:

* A matrix product is one BLAS call, in place: `np.matmul(x, weight.T, out=out)`. It is four fifths of
  a GPT-2 step, and nothing here can make it faster.
* All the rest is traffic. An expression such as `0.5 * x * (1 + np.tanh(u))` makes a temporary as
  large as x for each operator. Here every op goes through its rows in blocks (`blocks.py`) with a few
  scratch arrays that stay in the L2 cache and are used again (`scratch.py`).
* Ufuncs release the GIL, so a second Python thread halves what is not a matrix product.
* One rounding at the end: inputs are taken up to float32 (`float32`), and the last ufunc writes to
  the output, of whatever dtype.
* NaN and infinities are data. They stay in their row, and raise no warning.
"""
