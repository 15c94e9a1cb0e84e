import numpy as np

from tests.conformance.honest import lora, put
from tests.conformance.wrong import wrong
from tests.conformance.wrong.rounding import as_bf16


@wrong("lora_forward", "the slice always begins at column 0")
def first_ignored(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    lora.forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, 0, scale)


@wrong("lora_forward", "the slice is taken to be the last S columns")
def slice_at_the_end(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    last = y_NO.shape[1] - len(b_SR)
    lora.forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, last, scale)


@wrong("lora_forward", "scale is never applied")
def scale_ignored(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    lora.forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, 1.0)


@wrong("lora_forward", "scale is divided by the rank once more")
def divided_by_rank(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    lora.forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale / len(a_RI))


@wrong("lora_forward", "what is kept for the backward is scaled already")
def low_is_scaled(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    lora.forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale)
    low_NR *= np.float32(scale)


@wrong("lora_forward", "columns outside the slice are not written: right only where out is y")
def other_columns_not_copied(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    low_NR[...] = x_NI @ a_RI.T
    part = slice(first, first + len(b_SR))
    out_NO[:, part] = y_NO[:, part] + np.float32(scale) * (low_NR @ b_SR.T)


@wrong("lora_forward", "added to out instead of y: right only where out is y")
def added_to_out(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    low_NR[...] = x_NI @ a_RI.T
    out_NO[:, first : first + len(b_SR)] += np.float32(scale) * (low_NR @ b_SR.T)


@wrong(
    "lora_forward",
    "y is read after out is cleared: wrong where they are one memory",
    subtle=True,
)
def cleared_before_y_is_read(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    low_NR[...] = x_NI @ a_RI.T
    out_NO[...] = 0
    out_NO[:, first : first + len(b_SR)] = np.float32(scale) * (low_NR @ b_SR.T)
    out_NO += y_NO


@wrong("lora_forward", "ranks beyond the last whole tile of 4 are left out", subtle=True)
def last_ranks_dropped(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    whole = len(a_RI) // 4 * 4
    a, b = a_RI.copy(), b_SR.copy()
    b[:, whole:] = 0
    lora.forward(out_NO, low_NR, y_NO, x_NI, a, b, first, scale)


@wrong("lora_forward", "a square b is not transposed", subtle=True)
def square_b_not_transposed(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    S, R = b_SR.shape
    lora.forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR.T if S == R else b_SR, first, scale)


@wrong("lora_forward", "low is rounded to bfloat16 before the second product, and not declared")
def low_in_bf16(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale):
    lora.forward(out_NO, low_NR, y_NO, x_NI, a_RI, b_SR, first, scale)
    part = slice(first, first + len(b_SR))
    out_NO[:, part] = y_NO[:, part] + np.float32(scale) * (as_bf16(low_NR) @ b_SR.T)


@wrong("lora_backward", "da reads the slice at column 0, dx at its place")
def first_ignored_in_da(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    rest = dout_NO, low_NR, x_NI, a_RI, b_SR
    lora.backward(dy_NO, dx_NI, None, db_SR, *rest, first, scale, accumulate)
    lora.backward(None, None, da_RI, None, *rest, 0, scale, accumulate)


@wrong("lora_backward", "scale is missing from db")
def db_without_scale(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    rest = dout_NO, low_NR, x_NI, a_RI, b_SR
    lora.backward(dy_NO, dx_NI, da_RI, None, *rest, first, scale, accumulate)
    lora.backward(None, None, None, db_SR, *rest, first, 1.0, accumulate)


@wrong("lora_backward", "scale is applied twice on the way to a and x")
def scaled_twice(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    rest = dout_NO, low_NR, x_NI, a_RI, b_SR
    lora.backward(dy_NO, None, None, db_SR, *rest, first, scale, accumulate)
    lora.backward(None, dx_NI, da_RI, None, *rest, first, scale * scale, accumulate)


@wrong("lora_backward", "dy is zero outside the slice")
def dy_of_the_slice_alone(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    rest = dout_NO, low_NR, x_NI, a_RI, b_SR
    lora.backward(None, dx_NI, da_RI, db_SR, *rest, first, scale, accumulate)
    if dy_NO is not None:
        part = slice(first, first + len(b_SR))
        inside = dout_NO[:, part].copy()
        dy_NO[...] = 0
        dy_NO[:, part] = inside


@wrong("lora_backward", "accumulate reaches da and not db", subtle=True)
def db_overwritten(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    rest = dout_NO, low_NR, x_NI, a_RI, b_SR
    lora.backward(dy_NO, dx_NI, da_RI, None, *rest, first, scale, accumulate)
    lora.backward(None, None, None, db_SR, *rest, first, scale, False)


@wrong("lora_backward", "dx is added to what the frozen layer left there", subtle=True)
def dx_accumulates(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    rest = dout_NO, low_NR, x_NI, a_RI, b_SR
    lora.backward(dy_NO, None, da_RI, db_SR, *rest, first, scale, accumulate)
    dlow = np.float32(scale) * (dout_NO[:, first : first + len(b_SR)] @ b_SR)
    put(dx_NI, dlow @ a_RI, True)


@wrong("lora_backward", "returns early where dx is None, before da", subtle=True)
def returns_early(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    rest = dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
    lora.backward(dy_NO, None, None, db_SR, *rest)
    if dx_NI is not None:
        lora.backward(None, dx_NI, da_RI, None, *rest)


@wrong(
    "lora_backward",
    "dy is scaled in place for the slice, and db reads it: wrong where dy is dout",
    subtle=True,
)
def scales_dy_in_between(
    dy_NO, dx_NI, da_RI, db_SR, dout_NO, low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
):
    part = slice(first, first + len(b_SR))
    rest = low_NR, x_NI, a_RI, b_SR, first, scale, accumulate
    held = dout_NO.copy()
    if dy_NO is not None:
        dy_NO[...] = dout_NO
        dy_NO[:, part] *= np.float32(scale)
    lora.backward(None, dx_NI, da_RI, db_SR, dout_NO, *rest)
    if dy_NO is not None:
        dy_NO[...] = held
