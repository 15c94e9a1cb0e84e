"""What is asked of a call: its values, and that it does nothing else.

value        each output within its tolerance of float64, from poisoned or prefilled buffers
untouched    inputs bitwise as they were, guard bands around every buffer too
silence      returns None, raises nothing, no floating point warning, ends in time
repeat       the same call again gives the same bits
memory       the same call again takes no memory for arrays (NumPy kernels, wide cases)
rows         a NaN or an infinity stays in its row, and a NaN is not swallowed
own work     no other backend, and no float64 formula, is called
"""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np

from harness.conformance.buffers import Memory
from harness.conformance.cases.case import Case
from harness.conformance.cases.cover import is_small
from harness.conformance.cases.data import ROW_STYLES
from harness.conformance.cases.listing import shows_temporaries
from harness.conformance.delegation import Delegated, others_raise
from harness.conformance.time_limit import TookTooLong, time_limit
from harness.conformance.tolerance import error_in_tolerances
from harness.conformance.trial import Trial
from harness.contract.signature import source_line
from harness.plugins.loading import Backend

# What views, tuples and a few vectors may take; the arrays of a wide case take 64 KiB.
SMALL_BLOCKS = 16384
# NumPy casts through buffers of 8192 elements, whatever the arrays; these are not the kernel's.
CASTING_ELEMENTS = 64


@dataclass(frozen=True)
class Failure:
    """One law that one case broke. what: in one line. actual: the output, where that is at fault."""

    case: Case
    law: str
    what: str
    argument: str | None = None
    ratio: float = float("inf")
    details: tuple[str, ...] = ()
    command: str = ""
    actual: Any = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        lines = [f"{self.case.id}: {self.what}", *(f"  {line}" for line in self.details)]
        if self.command:
            lines.append(f"  again     {self.command}")
        return "\n".join(lines)


@dataclass
class Outcome:
    """What a case showed.

    ratios: largest err/tolerance of each output. squares: of each output's error and of its values,
    summed; from well-conditioned data only, for the digits that agree.
    """

    failures: list[Failure] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    squares: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """The kernel under judgement, with what has to be known to call it."""

    backend: Backend
    hook: str
    others: list[tuple[FunctionType, str]]
    limit_s: float
    waived: frozenset[str] = frozenset()


def try_case(judged: Judged, trial: Trial) -> Outcome:
    """Hold one call to every law that applies to it."""
    outcome = Outcome()
    backend = judged.backend
    memory = Memory(backend.open_device(), trial.layout, backend.adapt)
    memory.reset()
    if not _call(judged, trial, memory, outcome):
        return outcome
    first = memory.read()
    _untouched(trial, first, outcome)
    _values(trial, first, outcome)
    if outcome.failures:
        return outcome
    # Where a call takes long, those at the edges of tiles are made once.
    once = backend.slowness and not is_small(trial.case)
    if "repeat" not in judged.waived and not once:
        memory.reset()
        if not _call(judged, trial, memory, outcome):
            return outcome
        _repeated(trial, first, memory.read(), outcome)
    on_numpy = backend.arrays == "numpy" and backend.device == "host"
    if on_numpy and "memory" not in judged.waived and shows_temporaries(trial.op, trial.case):
        memory.reset()
        _takes_no_memory(judged, trial, memory, outcome)
    return outcome


def _call(judged: Judged, trial: Trial, memory: Memory, outcome: Outcome) -> bool:
    """Call the kernel; whether it came back as it should."""
    function = judged.backend.function(judged.hook, trial.case.precision)
    compiling = judged.backend.functions.get("compile_seconds", lambda: 0.0)
    arguments = trial.arguments(memory.buffers)
    noise: list[str] = []
    watch: Any = "ignore" if trial.case.style in ROW_STYLES else "call"

    def fail(law: str, what: str, *details: str) -> None:
        outcome.failures.append(Failure(trial.case, law, what, details=details))

    returned = None
    with others_raise(judged.others) as called:
        try:
            with (
                time_limit(judged.limit_s, compiling),
                np.errstate(
                    divide=watch,
                    over=watch,
                    invalid=watch,
                    under="ignore",
                    call=lambda kind, _: noise.append(kind),
                ),
            ):
                returned = function(*arguments)
        except Delegated:
            pass
        except TookTooLong as error:
            fail("silence", f"it does not end: {error}")
        except Exception as error:
            fail("silence", f"it raises {type(error).__name__}: {error}", *_raised_at(error))
    if called:
        fail("own work", f"it calls {called[0]}; a backend's result must be its own")
    elif returned is not None:
        kind = type(returned).__name__
        fail("silence", f"it returns {kind}; a half-op fills its outputs and returns None")
    elif noise and not outcome.failures:
        fail(
            "silence",
            f"floating point warning: {', '.join(sorted(set(noise)))}",
            "every input of this case is finite, and so is every result",
        )
    return not outcome.failures


def _raised_at(error: BaseException) -> list[str]:
    """Where an exception came from: the last line of the traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return [f"at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"] if trace else []


def _untouched(trial: Trial, after: np.ndarray, outcome: Outcome) -> None:
    changed = trial.layout.changed_outside(after)
    for place, outside, offset in _owners(trial, changed):
        if outside:
            side = "before" if offset < place.start else "after"
            what = f"it writes {side} {place.name}, outside of the buffer ({outside} bytes away)"
            details = (f"{place.name} has shape {place.shape}: an index runs over its end",)
        else:
            what = f"it changes its input {place.name}"
            details = ("inputs are read only, also as scratch",)
        outcome.failures.append(Failure(trial.case, "untouched", what, place.name, details=details))


def _owners(trial: Trial, changed: np.ndarray) -> list[Any]:
    """One entry for each buffer that was changed, or near which something was: the first byte."""
    found: dict[tuple[str, bool], Any] = {}
    for offset in changed[:4096].tolist():
        place, outside = trial.layout.owner(offset)
        found.setdefault((place.name, outside > 0), (place, outside, offset))
    return list(found.values())


def _values(trial: Trial, after: np.ndarray, outcome: Outcome) -> None:
    for name, expected in trial.expected.items():
        actual = trial.layout.places[name].of(after)
        ratio = error_in_tolerances(actual, expected, trial.allowed[name])
        mask = trial.judged.get(name)
        if mask is not None:
            ratio = np.where(mask, ratio, 0.0)
        worst = float(ratio.max(initial=0.0))
        outcome.ratios[name] = worst
        if trial.case.style == "normal" and worst <= 1 and np.isfinite(expected).all():
            error = actual.astype(np.float64) - expected
            outcome.squares[name] = float((error**2).sum()), float((expected**2).sum())
        if worst > 1:
            law = "value" if mask is None else "rows"
            outcome.failures.append(
                Failure(trial.case, law, _how_far(name, worst, law), name, worst, actual=actual)
            )
        elif name in trial.stained:
            row = actual[trial.data.poisoned[1]]  # type: ignore[index]
            if np.isfinite(row.astype(np.float64)).all():
                what = f"{name}: a NaN in {trial.data.poisoned[0]} is swallowed"  # type: ignore[index]
                outcome.failures.append(Failure(trial.case, "rows", what, name))


def _how_far(name: str, worst: float, law: str) -> str:
    if law == "rows":
        return f"{name}: a NaN or an infinity in one row reaches other rows"
    if worst == float("inf"):
        return f"{name} is not finite, or not zero, where it has to be"
    return f"{name} is {worst:,.3g} times its tolerance off"


def _repeated(trial: Trial, first: np.ndarray, second: np.ndarray, outcome: Outcome) -> None:
    if np.array_equal(first, second):
        return
    for name in trial.layout.written:
        place = trial.layout.places[name]
        a, b = place.of(first), place.of(second)
        if a.tobytes() != b.tobytes():
            count = int(np.count_nonzero(a.view(np.uint8) != b.view(np.uint8)))
            what = f"{name} differs when the same call is made again ({count} bytes)"
            detail = "is something kept from call to call, or summed in an order that varies?"
            outcome.failures.append(
                Failure(trial.case, "repeat", what, name, details=(detail,), actual=b)
            )


def _takes_no_memory(judged: Judged, trial: Trial, memory: Memory, outcome: Outcome) -> None:
    function: Callable[..., Any] = judged.backend.function(judged.hook, trial.case.precision)
    arguments = trial.arguments(memory.buffers)
    tracing = tracemalloc.is_tracing()
    casting = np.setbufsize(CASTING_ELEMENTS)
    try:
        if not tracing:
            tracemalloc.start()
        with others_raise(judged.others), np.errstate(all="ignore"):
            # Once before it counts: the call may be the second one only of the first's shapes.
            function(*arguments)
            memory.reset()
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            function(*arguments)
            _, peak = tracemalloc.get_traced_memory()
    finally:
        if not tracing:
            tracemalloc.stop()
        np.setbufsize(casting)
    taken = peak - before
    if taken > SMALL_BLOCKS:
        outcome.failures.append(
            Failure(
                trial.case,
                "memory",
                f"a second call of the same shapes takes {taken:,} bytes",
                details=(
                    "use out=, or keep scratch by shape: memory is taken in the plan, not in steps",
                    f"kernel {source_line(function)}",
                ),
            )
        )
