"""mean = Σ_c x / C        rstd = 1 / sqrt(Σ_c (x - mean)² / C + eps)

    xhat = (x - mean) · rstd        out = xhat · weight + bias

    dxhat   = dout · weight
    dx      = rstd · (dxhat - mean_c(dxhat) - xhat · mean_c(dxhat · xhat))
    dweight = Σ_n dout · xhat       dbias = Σ_n dout

A warp has a row, or a few warps, and holds it in registers, so it is read once. The backward's blocks go
over many rows each, and sum dweight and dbias on the way; those sums are added up by a second kernel, in
the blocks' order.
"""

from dataclasses import dataclass

from backends.cupy_cuda._launch import BF16, FLOAT, THREADS, Source, f32, i32, i64, of
from backends.cupy_cuda._machine import planned
from backends.cupy_cuda._rows import PACK_BYTES, WARP, whole_warps
from backends.cupy_cuda._scratch import room, scratch, takes
from harness import hookimpl

MAX_PACKS = {4: 4, 2: 3}
"""Of a row, that a thread holds in registers, by the size of an element; more would spill."""

MAX_ELEMENTS = 8
"""The same, where rows do not begin at multiples of 16 bytes and elements are taken one by one."""

MAX_THREADS = 512
"""Of a row; what they do not hold of a longer one is read again. And of a multiprocessor in the
backward, whose 128 registers for each leave room for no more: so all of its blocks run at once."""

ONE_BY_ONE = (("HELD", str(MAX_ELEMENTS)), ("ONE_BY_ONE", "1"))


def holding(packs):
    return (("HELD", str(packs)),)


_SOURCE = Source(
    "layernorm",
    variants=[
        *(FLOAT + holding(packs) for packs in range(1, MAX_PACKS[4] + 1)),
        *(BF16 + holding(packs) for packs in range(1, MAX_PACKS[2] + 1)),
        FLOAT + ONE_BY_ONE,
        BF16 + ONE_BY_ONE,
    ],
)


@dataclass(frozen=True)
class Held:
    """How a row of C elements lies over threads. pieces: of a row, 16 bytes or one element each."""

    pieces: int
    threads: int
    defines: tuple

    @property
    def together(self):
        """Rows that a block of the backward has at a time."""
        return max(1, THREADS // self.threads)

    @property
    def parts(self):
        """Parts of the columns, each of which is held by a block of its own in the backward."""
        return -(-self.pieces // (self.threads * int(dict(self.defines)["HELD"])))

    def blocks(self, N):
        """Blocks over which the backward spreads the rows."""
        at_once = MAX_THREADS // (self.threads * self.together)
        return min(-(-N // self.together), planned().multiprocessors * at_once)

    def shared_bytes(self, itemsize):
        """For the sums of a block's rows, where it has several: as much as the threads of one hold."""
        if self.together == 1:
            return 0
        size = 1 if "ONE_BY_ONE" in dict(self.defines) else PACK_BYTES // itemsize
        return 4 * size * int(dict(self.defines)["HELD"]) * self.threads


def held(C, itemsize):
    size = PACK_BYTES // itemsize
    if C % size:
        return Held(C, min(MAX_THREADS, whole_warps(C, MAX_ELEMENTS)), ONE_BY_ONE)
    pieces, most = C // size, MAX_PACKS[itemsize]
    threads = min(MAX_THREADS, whole_warps(pieces, most))
    return Held(pieces, threads, holding(min(most, -(-pieces // threads))))


@hookimpl
def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):
    normalise("layernorm_forward", out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps=eps)


@hookimpl
def layernorm_backward(
    dx_NC,
    dweight_C,
    dbias_C,
    dout_NC,
    x_NC,
    weight_C,
    mean_N,
    rstd_N,
    accumulate,
):
    gradients(dx_NC, dweight_C, dbias_C, None, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate)


def normalise(kernel, *buffers, eps):
    """A forward: the kernel's buffers, of which the first is of the rows' shape and dtype."""
    N, C = buffers[0].shape
    row = held(C, buffers[0].dtype.itemsize)
    rows = THREADS // WARP if row.threads == WARP else 1
    _SOURCE.launch(
        kernel,
        of(buffers[0]) + row.defines,
        -(-N // rows),
        (row.threads, rows),
        *(*buffers, i64(N), i32(C), f32(eps)),
    )


def gradients(
    dx_NC, dweight_C, dbias_C, dsum_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N, accumulate
):
    """The backward, with dsum_NC (or None) added to dx_NC."""
    N, C = x_NC.shape
    row = held(C, x_NC.dtype.itemsize)
    blocks = row.blocks(N)
    dweight_BC, dbias_BC = scratch((blocks, C), (blocks, C))
    defines = of(x_NC) + row.defines
    _SOURCE.launch(
        "layernorm_backward",
        defines,
        (blocks, row.parts),
        (row.threads, row.together),
        dx_NC,
        None if dweight_C is None else dweight_BC,
        None if dbias_C is None else dbias_BC,
        *(dsum_NC, dout_NC, x_NC, weight_C, mean_N, rstd_N, i64(N), i32(C)),
        shared_bytes=row.shared_bytes(x_NC.dtype.itemsize),
    )
    if dweight_C is None and dbias_C is None:
        return
    _SOURCE.launch(
        "layernorm_add_sums",
        defines,
        (-(-C // 32), 2),
        (32, 32),
        *(dweight_C, dbias_C, dweight_BC, dbias_BC, i32(blocks), i32(C), i32(accumulate)),
    )


@takes("layernorm_backward", "residual_layernorm_backward")
def _room(dims, precision, most):
    N, C = dims["N"], dims["C"]
    blocks = held(C, 2 if precision == "bf16" else 4).blocks(N)
    return room((blocks, C), (blocks, C))
