import numpy as np

from tests.conformance.honest import put, residual
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_half


@wrong(
    "residual_forward",
    "summed into a, which is an input, then copied",
    subtle=True,
    law="untouched",
)
def sums_into_its_input(out_NC, a_NC, b_NC):
    a_NC += b_NC
    out_NC[...] = a_NC


@wrong(
    "residual_forward",
    "a copied to out before b is read: 2a where out shares b's memory",
    subtle=True,
)
def breaks_when_aliased(out_NC, a_NC, b_NC):
    out_NC[...] = a_NC
    out_NC += b_NC


@wrong("residual_forward", "vectors of 4; what is left over is not written", subtle=True)
def tail_dropped(out_NC, a_NC, b_NC):
    whole = a_NC.size // 4 * 4
    out_NC.reshape(-1)[:whole] = a_NC.reshape(-1)[:whole] + b_NC.reshape(-1)[:whole]


@wrong(
    "residual_forward",
    "vectors of 4; the last one is stored beyond the end",
    subtle=True,
    law="untouched",
)
def store_overruns(out_NC, a_NC, b_NC):
    residual.forward(out_NC, a_NC, b_NC)
    whole = -(-a_NC.size // 4) * 4
    beyond = np.lib.stride_tricks.as_strided(out_NC.reshape(-1), (whole,), (4,))
    beyond[a_NC.size :] = 0


@wrong("residual_forward", "the first row of b added to every row")
def first_row_everywhere(out_NC, a_NC, b_NC):
    residual.forward(out_NC, a_NC, np.broadcast_to(b_NC[:1], b_NC.shape))


@wrong("residual_forward", "summed in float16")
def half_sum(out_NC, a_NC, b_NC):
    out_NC[...] = as_half(a_NC + b_NC)


@wrong("residual_forward", "added to out: relies on zeros there", subtle=True)
def out_added_to(out_NC, a_NC, b_NC):
    out_NC += a_NC + b_NC


@wrong(
    "residual_backward", "db is a copy of da, so it is not written where da is None", subtle=True
)
def db_needs_da(da_NC, db_NC, dout_NC):
    put(da_NC, dout_NC)
    if da_NC is not None:
        put(db_NC, da_NC)


@wrong("residual_backward", "the gradient shared out in halves")
def halves(da_NC, db_NC, dout_NC):
    residual.backward(da_NC, db_NC, dout_NC * np.float32(0.5))


@wrong("residual_backward", "added to da and db: relies on zeros there", subtle=True)
def gradients_added_to(da_NC, db_NC, dout_NC):
    put(da_NC, dout_NC, True)
    put(db_NC, dout_NC, True)


@wrong("residual_backward", "db only where da is asked for: an early return", subtle=True)
def returns_early(da_NC, db_NC, dout_NC):
    if da_NC is None or db_NC is None:
        return
    residual.backward(da_NC, db_NC, dout_NC)
