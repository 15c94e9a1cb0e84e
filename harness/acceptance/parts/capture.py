"""Is a captured step the same step, and is it faster? Losses bit for bit, memory, time at B=4."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from harness.acceptance.part import Check, Part, Request, Result, Unavailable
from harness.acceptance.parts.training import (
    choice,
    chosen,
    gpt2_124m,
    precisions_of,
    small,
    train,
)

TIMED_STEPS = 30
FORGIVEN_BYTES = 4 << 20  # the driver's own grain, and other programs on the device


def workers(request: Request) -> list[str]:
    return list(chosen(request))


def checks(request: Request, worker: str, found: Mapping[str, Result]) -> Iterator[Check]:
    own = choice(worker)
    precisions = [p for p in ("fp32", "bf16") if p in precisions_of(request, worker)]
    for precision in precisions[:1] if request.rehearsal else precisions:
        more = (own, f"precision={precision}")
        yield f"small {precision}", partial(compared, request, worker, (*small(request), *more), 10)
    if not request.rehearsal and "bf16" in precisions:
        more = (own, "precision=bf16")
        yield (
            "124M B=4 bf16",
            partial(compared, request, worker, (*gpt2_124m(4), *more), 10 + TIMED_STEPS),
        )


def compared(request: Request, worker: str, overrides: Sequence[str], steps: int) -> Result:
    """The same steps, captured and not."""
    if not all(request.backends[one].get("captures") for one in chosen(request)[worker]):
        raise Unavailable("the backend captures nothing")
    off = train([*overrides, "capture=off"], steps)
    on = train([*overrides, "capture=auto"], steps)
    pairs = enumerate(zip(off.losses, on.losses, strict=True), 1)
    different = [step for step, (plain, captured) in pairs if plain != captured]
    problems = []
    if on.off is not None:
        problems.append(f"the step was not captured: {on.off}")
    if different:
        problems.append(f"losses differ in steps {', '.join(map(str, different[:5]))}")
    if on.grown_bytes is not None and on.grown_bytes > FORGIVEN_BYTES:
        problems.append(f"{on.grown_bytes:,} bytes were taken after the capture")
    return {
        "ok": not problems,
        "reason": "; ".join(problems),
        "losses": on.losses[:10],
        "captured_s": statistics.median(on.seconds),
        "uncaptured_s": statistics.median(off.seconds),
        "faster": statistics.median(off.seconds) / statistics.median(on.seconds),
        "grown_bytes": on.grown_bytes,
    }


def lines(found: Mapping[str, Mapping[str, Result]]) -> list[str]:
    text = ["| run | losses | step captured | not captured | times as fast | memory taken later |"]
    text += ["|---|---|---:|---:|---:|---:|"]
    for worker, results in found.items():
        for check, r in results.items():
            if "faster" not in r:
                text.append(f"| {worker} {check} | {r.get('reason', '')} | | | | |")
                continue
            same = "equal, bit for bit" if r["ok"] else r["reason"]
            grown = "not said" if r["grown_bytes"] is None else f"{r['grown_bytes']:,} B"
            text.append(
                f"| {worker} {check} | {same} | {1e3 * r['captured_s']:.2f} ms |"
                f" {1e3 * r['uncaptured_s']:.2f} ms | {r['faster']:.2f} | {grown} |"
            )
    return text


PART = Part(
    "capture", "Is a captured step the same step, and is it faster?", 0.08, workers, checks, lines
)
