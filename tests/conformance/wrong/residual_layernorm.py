import numpy as np

from tests.conformance.honest import layernorm, put
from tests.conformance.honest import residual_layernorm as honest
from tests.conformance.wrong import wrong
from tests.conformance.wrong.layernorm import one_pass_variance


@wrong("residual_layernorm_forward", "the sum is used and not written")
def sum_not_written(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, a_NC + b_NC, weight_C, bias_C, eps)


@wrong("residual_layernorm_forward", "a is normalised, not the sum")
def normalises_a(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    layernorm.forward(out_NC, mean_N, rstd_N, a_NC, weight_C, bias_C, eps)
    np.add(a_NC, b_NC, out=sum_NC)


@wrong(
    "residual_layernorm_forward", "the sum written before a and b are read to the end", subtle=True
)
def breaks_when_aliased(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    np.add(a_NC, b_NC, out=sum_NC)
    layernorm.forward(out_NC, mean_N, rstd_N, a_NC + b_NC, weight_C, bias_C, eps)


@wrong("residual_layernorm_forward", "variance as E[x^2] - E[x]^2, which cancels", subtle=True)
def cancels(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    np.add(a_NC, b_NC, out=sum_NC)
    one_pass_variance(out_NC, mean_N, rstd_N, sum_NC, weight_C, bias_C, eps)


@wrong("residual_layernorm_forward", "added to out: relies on zeros there", subtle=True)
def out_added_to(sum_NC, out_NC, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps):
    out = np.empty_like(out_NC)
    honest.forward(sum_NC, out, mean_N, rstd_N, a_NC, b_NC, weight_C, bias_C, eps)
    out_NC += out


@wrong("residual_layernorm_backward", "dsum is ignored: the residual stream's gradient is lost")
def dsum_ignored(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    layernorm.backward(
        da_NC, dweight_C, dbias_C, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )


@wrong("residual_layernorm_backward", "the shared gradient doubled, once for a and once for b")
def shared_gradient_doubled(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    honest.backward(
        da_NC, dweight_C, dbias_C, dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )
    if da_NC is not None:
        da_NC *= 2


@wrong("residual_layernorm_backward", "dsum is taken to be always there", subtle=True)
def dsum_always_there(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    layernorm.backward(
        da_NC, dweight_C, dbias_C, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )
    if da_NC is not None:
        da_NC += dsum_NC


@wrong("residual_layernorm_backward", "dsum goes through LayerNorm's backward with dout")
def dsum_normalised(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    total = dout_NC if dsum_NC is None else dout_NC + dsum_NC
    layernorm.backward(
        da_NC, dweight_C, dbias_C, total, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )


@wrong("residual_layernorm_backward", "accumulate reaches da", subtle=True)
def da_accumulates(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    dx = None if da_NC is None else np.empty_like(da_NC)
    honest.backward(
        dx, dweight_C, dbias_C, dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )
    put(da_NC, dx, accumulate)


@wrong("residual_layernorm_backward", "dsum used as scratch", subtle=True, law="untouched")
def dsum_used_as_scratch(
    da_NC,
    dweight_C,
    dbias_C,
    dsum_NC,
    dout_NC,
    sum_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    honest.backward(
        da_NC, dweight_C, dbias_C, dsum_NC, dout_NC, sum_NC, weight_C, mean_N, rstd_N, accumulate
    )
    if da_NC is not None and dsum_NC is not None:
        dsum_NC[...] = da_NC
