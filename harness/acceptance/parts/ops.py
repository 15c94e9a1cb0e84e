"""How near is each half-op to what the device can do? Every call of a step of GPT-2 124M.

Bytes and FLOPs are the contract's own count; rates are those that the device reached just before. The
part `conformance` judges what the half-ops compute, at smaller sizes; here they are only timed.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.acceptance.goals import GOAL_PERCENT
from harness.acceptance.part import Check, Part, Request, Result, Unavailable
from harness.acceptance.parts.training import LEARNING_RATE, batches, gpt2_124m, settings_of, small
from harness.bench.device_clock import DeviceClock
from harness.bench.report import duration, figure
from harness.bench.roofline import score
from harness.bench.waterfall import works_of
from harness.machine.device_peaks import DevicePeaks, best_of, device_peaks
from harness.plugins.loading import all_ops, load
from harness.training.trainer import Trainer

CALL_TIMES = Path(__file__).parents[1] / "call_times.py"
SHAPES = (("bf16", 4), ("bf16", 32), ("tf32", 4))


def workers(request: Request) -> list[str]:
    found = []
    for name, backend in request.backends.items():
        shapes = [(p, B) for p, B in SHAPES if p in backend["precisions"]]
        found += (
            [f"{name} {shapes[0][0]} tiny"]
            if request.rehearsal
            else [f"{name} {p} B={B}" for p, B in shapes]
        )
    return found


def checks(request: Request, worker: str, found: Mapping[str, Result]) -> Iterator[Check]:
    name, precision, batch = worker.split()
    B = 0 if request.rehearsal else int(batch.removeprefix("B="))
    model = small(request) if request.rehearsal else gpt2_124m(B)
    overrides = (*model, f"backend={name}", f"precision={precision}", "capture=off")
    yield "rates", partial(rates, name, precision, tuple(request.backends))
    yield "a step", partial(timed_step, overrides, found)


def rates(name: str, precision: str, beside: Sequence[str] = ()) -> Result:
    """What the device reaches, by the best of this backend and of those on the same device."""
    ops = all_ops()
    found = {one: device_peaks(load(one, ops), precision) for one in (name, *beside)}
    measured = best_of({one: peaks for one, peaks in found.items() if peaks is not None})
    if name not in measured:
        raise Unavailable("the backend does not measure its device")
    peaks = measured[name]
    return {"ok": True, "peaks": {**vars(peaks), "rates": dict(peaks.rates)}}


def peaks_in(found: Mapping[str, Result]) -> DevicePeaks:
    """The rates that this worker measured."""
    kept = found.get("rates", {}).get("peaks")
    if kept is None:
        raise Unavailable("there are no rates to hold it against")
    return DevicePeaks(**kept)


def timed_step(overrides: tuple[str, ...], found: Mapping[str, Result]) -> Result:
    """Every different call of a step: seconds, and what the contract says it moves and computes."""
    peaks = peaks_in(found)
    settings = settings_of([*overrides, f"wrappers=[{CALL_TIMES}]"])
    trainer = Trainer(settings, all_ops())
    home, call_times = trainer.plan.home, trainer.plan.wrappers[-1]
    if DeviceClock.of(home, lambda: None) is None:
        raise Unavailable("the backend has no clock of its device")
    x_BT, y_BT = batches(settings, 1)[0]
    trainer.step(x_BT, y_BT, LEARNING_RATE)
    call_times.clock_of = partial(DeviceClock, home)
    # Its result is wrong after so many calls, and not read.
    trainer.begin(x_BT, y_BT, LEARNING_RATE)
    trainer.parameters.device.synchronize()
    call_times.clock_of = None
    works = works_of(trainer)
    calls: list[dict[str, Any]] = []
    for hook, times in call_times.found.items():
        for number, seconds in times.items():
            if number >= len(works.get(hook, ())):
                continue  # a call that no plan lists: a refresh before the first step
            work = works[hook][number]
            scored = score(work, seconds, peaks)
            calls.append(
                {
                    "hook": hook,
                    "call": number,
                    "seconds": seconds,
                    "moved_bytes": work.moved_bytes,
                    "flops": work.flops,
                    "bound": scored.bound,
                    "in_cache": scored.in_cache,
                    "copy_percent": scored.copy_percent,
                    "matmul_percent": scored.matmul_percent,
                    "roofline_percent": scored.roofline_percent,
                }
            )
    calls.sort(key=lambda call: -call["seconds"])
    return {"ok": bool(calls), "reason": "" if calls else "no call was timed", "calls": calls}


def below_goal(call: Mapping[str, Any], goal: float) -> bool:
    """Whether a call misses the goal: one that is bound by memory, and too large for the cache."""
    from_memory = call["bound"] == "memory" and not call["in_cache"]
    return bool(from_memory and call["copy_percent"] < goal)


def goal_of(worker: str) -> float:
    return GOAL_PERCENT.get(worker.split()[0], max(GOAL_PERCENT.values()))


def lines(found: Mapping[str, Mapping[str, Result]]) -> list[str]:
    text: list[str] = []
    for worker, results in found.items():
        calls = results.get("a step", {}).get("calls")
        if calls is None:
            text += [f"* {worker}: {r['reason']}" for r in results.values() if r.get("reason")]
            continue
        text += ["", f"**{worker}** against {DevicePeaks(**results['rates']['peaks'])}", ""]
        text += ["| half-op | time | % copy | % matmul | % roofline | bound | |"]
        text += ["|---|---:|---:|---:|---:|---|---|"]
        for call in calls:
            bound = call["bound"] + (", in cache" if call["in_cache"] else "")
            mark = f"below {goal_of(worker):g} %" if below_goal(call, goal_of(worker)) else ""
            cells = [
                f"{call['hook']} ({call['call']})",
                duration(call["seconds"]),
                *(figure(call[f"{of}_percent"]) for of in ("copy", "matmul", "roofline")),
                bound,
                mark,
            ]
            text.append(f"| {' | '.join(cells)} |")
    return text


PART = Part("ops", "How near is each half-op to the device's limit?", 0.10, workers, checks, lines)
