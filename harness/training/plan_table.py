"""Print what a training run would do, call by call, without running it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.contract import Argument
from harness.contract.precision import BFLOAT16, FLOAT32
from harness.errors import HarnessError
from harness.planning.bf16_weights import TRAINED, part_of
from harness.planning.layout import BF16_WEIGHTS
from harness.planning.memory_budget import available_bytes
from harness.planning.plan import Plan, Step
from harness.plugins.loading import Backend
from harness.training.optimizer import MASTER
from harness.training.training_plan import TrainingPlan

if TYPE_CHECKING:
    from harness.machine.device_peaks import AnyPeaks

MIB = 2**20


def lines(training: TrainingPlan) -> Iterator[str]:
    """The plan of a training step as text: calls, casts and copies, fusions, memory, totals."""
    plan = training.calls
    yield (
        f"{'':4} {'call':<34} {'backend':<12} {'device':<6} {'dtype':<9} {'MFLOP':>10} {'MB':>9}  "
        "shapes"
    )
    at_start, each_step = _renewed(training)
    for title, steps in (
        ("start: after the weights were drawn or read", at_start),
        ("forward", plan.forward),
        ("backward", plan.backward),
        ("gather: gradients come home", plan.gather),
        ("refresh: after the optimizer", each_step),
    ):
        if steps:
            yield f"-- {title}"
            yield from (_line(i, step) for i, step in enumerate(steps))
    yield "-- optimizer"
    yield _update_line(training)
    for choice in training.optimizer_choices[1:]:
        yield f"     {choice.hook:<34} {choice.backend.name:<12} {choice.backend.device:<6} float32"
    yield ""
    yield from totals(training)


def totals(training: TrainingPlan) -> Iterator[str]:
    """The totals of a plan: arithmetic, memory, copies, and the least time of a step."""
    plan, layout, arenas = training.calls, training.layout, training.arena_bytes
    flops = sum(step.flops for step in plan.forward + plan.backward)
    moved = sum(step.moved_bytes for step in plan.forward + plan.backward)
    micro = training.settings.gradient_accumulation
    yield f"model       {training.settings.model.parameters:,} parameters"
    yield f"step        {flops * micro / 1e9:,.3f} GFLOP, {moved * micro / 1e6:,.1f} MB through the ops"
    held = training.peak_bytes
    parts = ", ".join(f"{name} {nbytes / MIB:,.1f}" for name, nbytes in held.items())
    yield f"peak        {sum(held.values()) / MIB:,.1f} MiB: {parts}"
    for device, use in plan.arenas.items():
        unshared = _unshared(plan, device)
        yield (
            f"memory      {use.nbytes / MIB:,.1f} MiB of activations and scratch on {device} "
            f"({use.live / MIB:,.1f} at least at one time; activations alone are "
            f"{unshared / MIB:,.1f} without sharing by liveness)"
        )
    if plan.states:
        state = sum(version.nbytes for version in plan.states)
        yield f"            {state / MIB:,.1f} MiB of state, kept from call to call"
    frozen = layout.total - layout.trained
    names = ", ".join("low (bfloat16)" if name == BF16_WEIGHTS else name for name in arenas)
    yield (
        f"            {sum(arenas.values()) / MIB:,.1f} MiB on {plan.home}: {names} "
        f"({layout.trained:,} numbers each, {layout.decayed:,} of them decayed"
        f"{f'; and {frozen:,} frozen' if frozen else ''})"
    )
    yield f"            {available_bytes() / MIB:,.1f} MiB are available on the host now"
    yield from _devices(training)
    yield from _recomputed(training)
    for op, why in plan.expanded.items():
        yield f"expanded    {op}: {why}"
    if not plan.expanded:
        yield "expanded    no fused op"
    copied = sum(step.views[0].version.nbytes for step in plan.copies)
    at_start, _ = _renewed(training)
    casts = len(plan.casts) - len(at_start)
    yield f"transfers   {len(plan.copies)} copies, {copied:,} bytes; {casts} casts"
    yield from roofline(
        flops * micro, moved * micro, training.home, training.settings.precision.policy
    )


def _renewed(training: TrainingPlan) -> tuple[list[Step], list[Step]]:
    """The steps that renew the copies of the weights: those at the start only, those of each step."""
    kept = {TRAINED} if training.optimizer_choices[0].hook != MASTER else set()
    at_start = [step for step in training.calls.renewals if part_of(step) not in kept]
    return at_start, [step for step in training.calls.refresh if step not in at_start]


def _devices(training: TrainingPlan) -> Iterator[str]:
    """What is free on each device; where there is none, that its backend assumed one."""
    for backend in training.dispatch.backends:
        if backend.device == "host" or "free_bytes" not in backend:
            continue
        try:
            free = backend.functions["free_bytes"]()
            yield f"            {free / MIB:,.1f} MiB are free on {backend.device} now"
        except HarnessError as error:
            why = error.facts.get("reason", error.headline)
            yield f"device      {backend.device} is not here ({why}): scratch is that of an assumed one"


def _update_line(training: TrainingPlan) -> str:
    choice = training.optimizer_choices[0]
    half = training.ops[choice.hook].forward
    numbers = {"P": training.layout.trained}

    def itemsize(argument: Argument) -> int:
        return (BFLOAT16 if argument.name == "low_P" else FLOAT32).itemsize

    return (
        f"     {choice.hook:<34} {choice.backend.name:<12} {choice.backend.device:<6} {'float32':<9} "
        f"{half.count_flops(numbers) / 1e6:10,.2f} {half.count_bytes(numbers, itemsize) / 1e6:9,.3f}"
        f"  {numbers['P']:,} numbers"
    )


def _recomputed(training: TrainingPlan) -> Iterator[str]:
    """What recomputation saves, and what it costs."""
    settings, plan = training.settings, training.calls
    if settings.recompute == "none":
        return
    kept = training.calls_for(settings.batch_size, settings.sequence_length, recompute="none")
    before_bytes, after_bytes = (sum(p.arena_bytes.values()) for p in (kept, plan))
    again = [step for step in plan.backward if step.again]
    flops = sum(step.flops for step in kept.forward + kept.backward)
    added = sum(step.flops for step in again)
    yield (
        f"recompute   {settings.recompute}: {after_bytes / MIB:,.1f} MiB of activations instead of "
        f"{before_bytes / MIB:,.1f}; {len(again)} calls made again, {added / 1e9:,.3f} GFLOP more "
        f"({100 * added / flops:.1f} %)"
    )


def roofline(
    flops: float, moved: float, home: Backend | None = None, precision: str = "fp32"
) -> Iterator[str]:
    """The least time of the step, from the measured peaks of this machine, or of the device of home."""
    from harness.machine.peaks import cached_peaks

    on_host = home is None or home.device == "host"
    peaks = cached_peaks() if on_host else _peaks_of(home, precision)
    if peaks is None and on_host:
        yield "roofline    not known: `harness bench peaks` measures this machine once"
        return
    if peaks is None:
        assert home is not None
        yield f"roofline    not known: there is no {home.device} here that could be measured"
        return
    rates = peaks.best
    compute_ms = flops / rates.matmul_flops_per_s * 1e3
    memory_ms = moved / rates.copy_bytes_per_s * 1e3
    yield (
        f"roofline    {compute_ms:,.1f} ms of arithmetic, {memory_ms:,.1f} ms of memory traffic "
        f"if nothing stayed in a cache ({rates.matmul_flops_per_s / 1e9:,.0f} GFLOP/s, "
        f"{rates.copy_bytes_per_s / 1e9:,.1f} GB/s)"
    )


def _peaks_of(home: Backend | None, precision: str) -> "AnyPeaks | None":
    """What a device reaches now; None where it is not there."""
    from harness.machine.device_peaks import device_peaks

    try:
        return device_peaks(home, precision) if home is not None else None
    except HarnessError:
        return None


def _line(index: int, step: Step) -> str:
    backend = step.choice.backend.name if step.choice else "-"
    view = step.views[0]
    name = step.hook + (" +=" if step.accumulate else "") + (" again" if step.again else "")
    return (
        f"{index:4} {name:<34} {backend:<12} {step.device:<6} {view.version.dtype.name:<9} "
        f"{step.flops / 1e6:10,.2f} {step.moved_bytes / 1e6:9,.3f}  {_shapes(step)}"
    )


def _shapes(step: Step) -> str:
    if step.call is not None and step.kind == "op":
        return " ".join(f"{letter}={size}" for letter, size in step.call.dims.items())
    if part_of(step) is not None:
        view = step.views[0]
        return f"{view.version}, {view.version.tensor.size:,} numbers"
    target = step.views[-1] if step.kind == "copy" else step.views[0]
    return f"{target.version} {target.version.tensor.shape}"


def _unshared(plan: Plan, device: str) -> int:
    versions = {
        view.version
        for step in plan.forward + plan.backward
        for view in step.views
        if view.version.kind == "activation" and view.version.device == device
    }
    return sum(version.nbytes for version in versions)
