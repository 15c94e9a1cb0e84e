"""out = a + b        da = dout        db = dout

One pass, which memory bounds: nothing is used twice, so there is nothing to keep in a cache.
"""

import numpy as np

from harness import hookimpl


@hookimpl
def residual_forward(out_NC, a_NC, b_NC):
    with np.errstate(all="ignore"):
        np.add(a_NC, b_NC, out=out_NC)


@hookimpl
def residual_backward(da_NC, db_NC, dout_NC):
    for gradient_NC in (da_NC, db_NC):
        if gradient_NC is not None:
            np.copyto(gradient_NC, dout_NC)
