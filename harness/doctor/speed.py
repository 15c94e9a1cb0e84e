"""What `harness doctor` measures: matrix products, and what the environment takes away from them."""

from collections.abc import Iterator

from harness.doctor.line import MISSING, OK, WARN, Line, Measured
from harness.machine import blas_speed
from harness.machine.pinned import WORTH_A_WARNING
from harness.machine.reexec import CORETYPE
from harness.machine.threads import threads_for

WORTH_A_THREAD = 1.2
"""Times as fast, with all threads instead of one: below it they bring less than they disturb."""


def matmul(measured: Measured) -> Iterator[Line]:
    """About two seconds: as the environment is, with one thread, and without OPENBLAS_CORETYPE."""
    try:
        speed = blas_speed.measure(threads_for(None).count)
    except (OSError, ValueError) as error:
        do = f"env -u {CORETYPE} harness doctor: kernels that the processor lacks crash"
        yield Line(WARN, "matmul", f"could not be measured: {error}", do)
        return
    blas_speed.keep(speed)
    measured.matmul_gflops_per_s = round(speed.as_is / 1e9, 1)
    size = blas_speed.SIZE
    text = (
        f"{speed.as_is / 1e9:.0f} GFLOP/s as the environment is: float32, {size} x {size} x {size}, "
        f"kernels {speed.kernels}, {speed.threads} thread{'s' if speed.threads > 1 else ''}"
    )
    if speed.cost is not None and speed.unset is not None:
        measured.coretype_cost = round(speed.cost, 3)
        text += (
            f"\n{speed.unset / 1e9:.0f} GFLOP/s without {CORETYPE}, kernels {speed.kernels_unset}: "
            f"{speed.cost:.2f} times as fast"
        )
    if speed.cost is not None and speed.cost >= WORTH_A_WARNING:
        do = f"blas_kernel=library, or env -u {CORETYPE} COMMAND"
        yield Line(WARN, "matmul", text, do)
    else:
        yield Line(OK, "matmul", text)
    if speed.one_thread is not None:
        measured.one_thread_gflops_per_s = round(speed.one_thread / 1e9, 1)
        gain = speed.as_is / speed.one_thread
        text = f"{speed.threads} threads are {gain:.2f} times as fast as one"
        if gain < WORTH_A_THREAD:
            do = "is something else running? (harness doctor again, on a quiet machine)"
            yield Line(WARN, "matmul", text, do)
        else:
            yield Line(OK, "matmul", text)


def peaks() -> Iterator[Line]:
    """Copy bandwidth, if it was measured: that takes longer than a look."""
    from harness.machine.peaks import cached_peaks

    found = cached_peaks()
    if found is None:
        text = "copy bandwidth was not measured on this machine as it is now"
        yield Line(MISSING, "peaks", f"{text}; steps print no mfu", "harness bench peaks")
        return
    text = (
        f"copy {found.copy_bytes_per_s / 1e9:.1f} GB/s, matmul "
        f"{found.matmul_flops_per_s / 1e9:.0f} GFLOP/s, measured {found.measured_at}"
    )
    yield Line(OK, "peaks", text)
