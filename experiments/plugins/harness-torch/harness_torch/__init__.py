"""Matrix products by PyTorch on the CPU: MKL in float32, oneDNN in bfloat16. Only what pays.

What it teaches:

* A backend may be one op. The others come from elsewhere: `ops=cpu_bf16` takes all else from `numba`.
* A buffer is seen as a tensor once, when it is bound (`adapt`): no copy, and nothing to do in steps.
* `out=` writes where the caller says, and `addmm` with beta=1 adds to a gradient in place.
* bfloat16 pays by its instructions. Without them PyTorch takes 7 to 170 times as long as in float32:
  there (`_processor.py`) operands are taken up to float32, piece by piece (`_widened.py`).
* A gradient of a weight is float32, and where it was made in bfloat16 it is as accurate as that: on a
  CPU, PyTorch has no product of bfloat16 numbers with a float32 result. Its own autocast rounds too.
"""
