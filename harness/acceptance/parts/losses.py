"""Does training go where the float64 formulas go? Ten losses, in every precision, small and real.

The small model is compared with backend=reference, which computes every op in float64 on the host. At
124M float64 would take too long: TF32 and bf16 are compared with float32 of the same backend, and a mix
of backends with float32 of the first of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from harness.acceptance.part import Check, Part, Request, Result, Unavailable
from harness.acceptance.parts.training import (
    choice,
    chosen,
    gpt2_124m,
    precisions_of,
    relative_difference,
    small,
    train,
)

TOLERANCES = {
    "fp32": 1e-4,  # ten float32 steps; a right backend on a CPU is below 1e-5
    "tf32": 5e-3,  # 10 bits of mantissa: a factor is off by up to 5e-4, ten steps add some of it up
    "bf16": 2e-2,  # 8 bits of mantissa: an activation is off by up to 2e-3, over ten steps
}
REFERENCE = "float64"


def workers(request: Request) -> list[str]:
    """A small one, then the real one, for each backend and mix of backends."""
    names = list(chosen(request))
    real = [] if request.rehearsal else [f"{name} 124M" for name in names]
    return [f"{name} small" for name in names] + real


def checks(request: Request, worker: str, found: Mapping[str, Result]) -> Iterator[Check]:
    name, size = worker.split()
    precisions = [p for p in TOLERANCES if p in precisions_of(request, name)]
    precisions = precisions[:1] if request.rehearsal else precisions
    first, *others = chosen(request)[name]
    if size == "small":
        model = small(request)
        yield REFERENCE, partial(curve, (*model, "backend=reference"))
        base = REFERENCE
    elif others:
        model, base = gpt2_124m(4), f"{first} fp32"
        yield base, partial(curve, (*model, choice(first), "precision=fp32"))
    else:
        model, base = gpt2_124m(4), "fp32"
    for precision in precisions:
        overrides = (*model, choice(name), f"precision={precision}")
        if precision == base:
            yield precision, partial(curve, overrides)
        else:
            yield precision, partial(compared, overrides, precision, base, found)


def curve(overrides: Sequence[str]) -> Result:
    """Losses that others are compared with. They must fall."""
    losses = train(overrides).losses
    falls = losses[-1] < losses[0]
    return {"ok": falls, "reason": "" if falls else "the loss does not fall", "losses": losses}


def compared(
    overrides: Sequence[str], precision: str, base: str, found: Mapping[str, Result]
) -> Result:
    if "losses" not in found.get(base, {}):
        raise Unavailable(f"there are no losses of {base} to hold it against")
    losses = train(overrides).losses
    apart, allowed = relative_difference(losses, found[base]["losses"]), TOLERANCES[precision]
    return {
        "ok": apart <= allowed,  # False where a loss is no number
        "reason": "" if apart <= allowed else f"{apart:.1e} from {base}, {allowed:g} allowed",
        "apart": apart,
        "allowed": allowed,
        "base": base,
        "losses": losses,
    }


def lines(found: Mapping[str, Mapping[str, Result]]) -> list[str]:
    text = ["| run | first and tenth loss | furthest from | relative | allowed |"]
    text += ["|---|---|---|---:|---:|"]
    for worker, results in found.items():
        for check, r in results.items():
            if "losses" not in r:
                text.append(f"| {worker} {check} | {r.get('reason', '')} | | | |")
                continue
            ends = f"{r['losses'][0]:.5f}, {r['losses'][-1]:.5f}"
            cells = f"{r['base']} | {r['apart']:.1e} | {r['allowed']:g}" if "base" in r else " | |"
            text.append(f"| {worker} {check} | {ends} | {cells} |")
    return text


PART = Part(
    "losses", "Does training go where the float64 formulas go?", 0.10, workers, checks, lines
)
