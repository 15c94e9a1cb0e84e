"""Where the time of a training step goes: each half-op beside its roofline, and what is outside."""

from dataclasses import dataclass
from typing import Any

from harness.bench.report import duration, figure
from harness.bench.roofline import Work, floor_of, work_of
from harness.machine.device_peaks import AnyPeaks
from harness.training.trainer import Trainer


@dataclass(frozen=True)
class OpShare:
    """A half-op's part in a step. could_save: seconds above its roofline floor.

    in_cache: each of its calls may find its bytes in the cache, so the floor is no lower bound.
    """

    hook: str
    backend: str
    calls: int
    seconds: float
    work: Work
    floor_s: float
    in_cache: bool

    @property
    def could_save_s(self) -> float:
        return max(0.0, self.seconds - self.floor_s)


@dataclass(frozen=True)
class Waterfall:
    """Where the time of a step goes. step_s: with the clocks in it, so a little above the plain one."""

    name: str
    step_s: float
    ops: tuple[OpShare, ...]

    @property
    def ops_s(self) -> float:
        return sum(op.seconds for op in self.ops)

    @property
    def outside_share(self) -> float:
        """What is not spent in ops: binding, copies, clocks. 0 to 1."""
        return 1 - self.ops_s / self.step_s

    def lines(self) -> list[str]:
        """The table for a terminal."""
        text = [
            f"where a step of {self.name} goes ({duration(self.step_s)} with the clocks in it)",
            f"  {'half-op':<32}{'backend':<10}{'calls':>6}{'time':>9}{'share':>8}"
            f"{'% roofline':>12}{'could save':>12}",
        ]
        for op in self.ops:
            mark = " in cache" if op.in_cache else ""
            text.append(
                f"  {op.hook:<32}{op.backend:<10}{op.calls:>6}{duration(op.seconds):>9}"
                f"{100 * op.seconds / self.step_s:>7.1f}%{figure(100 * op.floor_s / op.seconds):>12}"
                f"{100 * op.could_save_s / self.step_s:>11.1f}%{mark}"
            )
        floor_s = sum(op.floor_s for op in self.ops)
        text.append(
            f"  ops {duration(self.ops_s)}; outside ops {100 * self.outside_share:.2f}% of"
            f" the step; all ops at their roofline: {duration(floor_s)}"
        )
        return text


def waterfall_of(name: str, found: dict[str, Any], peaks: AnyPeaks) -> Waterfall:
    """What a contestant's process found, beside this machine's peaks; the longest first.

    found: step_s; ops, each with hook, backend, calls, seconds and works, (bytes, FLOPs) of each call.
    """
    ops = []
    for op in found["ops"]:
        works = [Work(*work) for work in op["works"]]
        floors = [floor_of(work, peaks) for work in works]
        ops.append(
            OpShare(
                op["hook"],
                op["backend"],
                op["calls"],
                op["seconds"],
                Work(sum(w.moved_bytes for w in works), sum(w.flops for w in works)),
                sum(floor.seconds for floor in floors),
                all(floor.in_cache for floor in floors),
            )
        )
    ops.sort(key=lambda op: -op.seconds)
    return Waterfall(name, found["step_s"], tuple(ops))


def works_of(trainer: Trainer) -> dict[str, list[Work]]:
    """Half-op -> the bytes and FLOPs of each of its calls in one optimizer step."""
    plan, settings = trainer.plan.calls, trainer.settings
    steps = [*plan.gather, *plan.refresh]
    for _ in range(settings.gradient_accumulation):
        steps += [*plan.forward, *plan.backward]
    works: dict[str, list[Work]] = {}
    for step in steps:
        if step.choice is not None:
            works.setdefault(step.hook, []).append(Work(step.moved_bytes, step.flops))
    layout = trainer.parameters.layout
    decayed = {"matrices": layout.decayed, "all": layout.trained, "none": 0}
    split = decayed[settings.optimizer.decay]
    loss = plan.results[0].version.tensor.size
    update = trainer.optimizer.choices[0].hook
    sizes = {
        update: [size for size in (split, layout.trained - split) if size],
        "squared_norm": [layout.trained],
        "guard": [loss] * settings.gradient_accumulation,
        "clip_scale": [1],
    }
    for hook, counts in sizes.items():
        # The update alone has weights in bfloat16, where there are some.
        policy = "bf16" if hook == update and trainer.parameters.has_bf16_weights else "fp32"
        half = trainer.plan.ops[hook].forward
        works[hook] = [work_of(half, {"P": count}, policy) for count in counts]
    return works
