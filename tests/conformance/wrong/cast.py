import numpy as np

from tests.conformance.honest.cast import BF16
from tests.conformance.wrong import wrong


def bits_as_bf16(out_P, bits):
    out_P.view(np.uint16)[...] = bits >> np.uint32(16)


@wrong("cast", "truncated: the low bits cut off, not rounded", subtle=True, precision="bf16")
def truncates(out_P, x_P):
    bits_as_bf16(out_P, x_P.view(np.uint32))


@wrong(
    "cast",
    "halves rounded up, not to even",
    subtle=True,
    precision="bf16",
)
def halves_up(out_P, x_P):
    bits_as_bf16(out_P, x_P.view(np.uint32) + np.uint32(0x8000))


@wrong("cast", "by way of float16, which overflows above 65504", subtle=True, precision="bf16")
def by_way_of_half(out_P, x_P):
    with np.errstate(all="ignore"):
        out_P[...] = x_P.astype(np.float16).astype(BF16)


@wrong("cast", "float32 copied by way of bfloat16")
def copy_rounds(out_P, x_P):
    out_P[...] = x_P.astype(BF16)


@wrong("cast", "elements beyond the last whole vector of 8 are not written", subtle=True)
def tail_dropped(out_P, x_P):
    whole = len(x_P) // 8 * 8
    out_P[:whole] = x_P[:whole]


@wrong("cast", "tiny numbers flushed to zero, normal ones of them too", subtle=True)
def flushes_to_zero(out_P, x_P):
    out_P[...] = np.where(np.abs(x_P) < 1e-5, 0, x_P)
