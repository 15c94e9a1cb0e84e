"""The formulas as loops over rows, compiled for this machine and run on all its cores.

What it teaches:

* A kernel reads its inputs once and writes its outputs once. What NumPy says in ten passes over a block
  is one loop here, and what lies between stays in registers.
* Threads share rows, or tiles of a matrix (`_tiles.py`); the same parts in every call, so that the same
  thread count gives the same bits.
* One pool of threads does everything. BLAS makes one tile at a time, on the thread that asks
  (`_blas.py`), and has no threads of its own that would wait on a core by spinning (`_threads.py`).
* A compiler does eight numbers at once where there is no branch and no call: exp is a polynomial
  (`_exp.py`), and bfloat16 a shift of bits (`_narrow.py`).
* In compiled code 0.5 is a float64, and `0.5 * x` computes in float64. Constants are named float32s.
* NaN and infinities are data: of "fast math" only what leaves them alone is allowed (`_kernel.py`).
"""
