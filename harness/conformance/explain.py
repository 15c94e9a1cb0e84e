"""Say what a wrong result looks like: where it is wrong, and what simple mistake would give just that.

Everything is found by trial: the formula is computed again with one input left out, with another
setting, with the prefill dropped; if that is what the kernel gave, that is the explanation.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.conformance.laws import Failure
from harness.conformance.tolerance import U_IN, error_in_tolerances, tolerance
from harness.conformance.trial import Trial
from harness.contract import Acc

Array = np.ndarray
# Formulas are computed again for an explanation only while that takes no time.
RECOMPUTED_ELEMENTS = 1 << 20
TILES = (4, 8, 16, 32, 64, 128)


def explain(trial: Trial, failure: Failure) -> tuple[str, ...]:
    """Lines of explanation for a failure of values; nothing for other laws."""
    if failure.law not in ("value", "rows") or failure.actual is None or failure.argument is None:
        return ()
    name, actual = failure.argument, failure.actual.astype(np.float64)
    expected = trial.expected[name]
    ratio = error_in_tolerances(actual, expected, trial.allowed[name])
    if name in trial.judged:
        ratio = np.where(trial.judged[name], ratio, 0.0)
    wrong = ratio > 1
    lines = [_worst(trial, name, actual, ratio, wrong)]
    lines += [f"where     {where}" for where in _where(trial, name, wrong)]
    looks = _looks_like(trial, name, failure.actual, wrong)
    lines += [f"looks     {looks}"] if looks else []
    return tuple(lines)


def _worst(trial: Trial, name: str, actual: Array, ratio: Array, wrong: Array) -> str:
    at = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    indices = ", ".join(str(int(i)) for i in at)
    return (
        f"worst     {name}[{indices}] is {actual[at]:.9g}, expected {trial.expected[name][at]:.9g}"
        f" ± {trial.allowed[name][at]:.2g}; {int(wrong.sum()):,} of {wrong.size:,} are wrong"
    )


def _where(trial: Trial, name: str, wrong: Array) -> Iterator[str]:
    """What the wrong elements have in common, one letter at a time; nothing if they are all over."""
    if wrong.all():
        yield "everywhere"
        return
    for axis, letter in enumerate(trial.half.signature[name].dims):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        hit = np.flatnonzero(wrong.any(axis=others))
        size = wrong.shape[axis]
        if len(hit) == size or size == 1:
            continue
        yield _of_axis(trial, letter, axis, hit, size)


def _of_axis(trial: Trial, letter: str, axis: int, hit: Array, size: int) -> str:
    first, last = int(hit[0]), int(hit[-1])
    together = last - first + 1 == len(hit)
    vocabulary = trial.data.settings.get("vocab_size")
    if letter == "V" and vocabulary is not None and first >= vocabulary:
        return f"only in the padded columns, V >= vocab_size = {vocabulary}"
    if letter.isdigit():
        return f"only at {', '.join(map(str, hit.tolist()))} of the literal {letter}"
    if len(hit) == 1:
        which = "the last" if first == size - 1 else "the first" if first == 0 else "one"
        return f"only at {letter} = {first}, {which} of {size}"
    if together and last == size - 1:
        tile = next((t for t in reversed(TILES) if first and first % t == 0), None)
        tail = f": the tail after tiles of {tile}" if tile and size % tile else ""
        return f"only the last {len(hit)} of {size} along {letter}{tail}"
    if together:
        return f"only at {letter} = {first} .. {last} of {size}"
    steps = set(np.diff(hit).tolist())
    if len(steps) == 1 and len(hit) > 2:
        return f"only at every {steps.pop()}. along {letter}, from {first}"
    return f"at {len(hit)} of {size} along {letter}"


def _looks_like(trial: Trial, name: str, given: Array, wrong: Array) -> str:
    """The simplest mistake that gives exactly this result; empty if none that we know does."""
    actual, expected = given.astype(np.float64), trial.expected[name]
    if not np.isfinite(expected).all():
        return ""
    if np.isnan(actual[wrong]).all():
        initial = trial.initial(name)
        words = np.ascontiguousarray(given[wrong]).view(np.uint16)
        if initial is None and (words > 0xFFDF).all():  # of buffers.py; 0/0 gives 0xFFC0
            return "poison: never written, or copied from outside of an input"
        return "NaN: 0/0, inf - inf, or a read outside of a buffer (guard bands are NaN)"
    if not actual.any():
        return "all zeros"
    for what, candidate in _candidates(trial, name):
        if candidate.shape == expected.shape and _agree(trial, name, actual, candidate):
            return what
    factor = _factor(trial, actual, expected)
    if factor:
        return factor
    # Most of it right and some wrong: has what is wrong at least one sign, one factor?
    if 0 < wrong.sum() < wrong.size and not actual[wrong].any():
        return "zero where it is wrong"
    finite = np.isfinite(actual)
    if not finite.all():
        return "infinite where it is wrong: exp overflows float32 above 88"
    return _less_precise(trial, name, actual)


def _agree(trial: Trial, name: str, actual: Array, candidate: Array) -> bool:
    """Whether the kernel gave the candidate, and the candidate is not the right answer anyway."""
    allowed = 4 * trial.allowed[name]
    right = trial.expected[name]
    differs = (error_in_tolerances(candidate, right, allowed) > 4).any()
    return bool(differs and (error_in_tolerances(actual, candidate, allowed) <= 1).all())


def _candidates(trial: Trial, name: str) -> Iterator[tuple[str, Array]]:
    """What simple mistakes would give, in words and as an array."""
    expected = trial.expected[name]
    prefill = trial.prefill.get(name)
    if prefill is not None:
        held = prefill.astype(np.float64)
        if trial.case.accumulate:
            yield "not added to what was there, though accumulate is True", expected - held
            yield "added twice", 2 * expected - held
            yield "what was there is counted twice", expected + held
            yield "untouched: exactly what was there before", held
        else:
            yield "added to what was there, though accumulate is False", expected + held
            yield "untouched: exactly what was there before", held
    elif trial.half.signature[name].role is not Acc and trial.initial(name) is not None:
        yield "untouched: exactly what was there before", _float64(trial.initial(name))
    yield "the sign is wrong", -expected
    for other, values in trial.expected.items():
        if other != name:
            yield f"it holds {other}", values
    yield from _moved(trial, name)
    if sum(a.size for a in trial.expected.values()) <= RECOMPUTED_ELEMENTS:
        yield from _recomputed(trial, name)


def _moved(trial: Trial, name: str) -> Iterator[tuple[str, Array]]:
    expected = trial.expected[name]
    dims = trial.half.signature[name].dims
    if expected.ndim == 2:
        # Of a matrix that is not square: its transpose, written as if it were.
        transposed = np.ascontiguousarray(expected.T).reshape(expected.shape)
        yield "it is transposed", transposed
    for axis, letter in enumerate(dims):
        if letter.isdigit():
            for a, b in ((0, 1), (1, 2), (0, 2)):
                if b < expected.shape[axis]:
                    order = list(range(expected.shape[axis]))
                    order[a], order[b] = b, a
                    yield f"{a} and {b} of the {letter} are exchanged", expected.take(order, axis)
        elif expected.shape[axis] > 2:
            yield f"moved by one along {letter}", np.roll(expected, 1, axis)
            yield f"moved by one along {letter}", np.roll(expected, -1, axis)


def _float64(value: Any) -> Any:
    if value is None or np.asarray(value).dtype.kind in "iub":
        return value
    return np.asarray(value).astype(np.float64)


def _recomputed(trial: Trial, name: str) -> Iterator[tuple[str, Array]]:
    """The formula once more, with one buffer all 0 or all 1, or one setting another."""
    data, half = trial.data, trial.half
    values = {n: _float64(b) for n, b in data.buffers.items()}
    values.update(trial.op.example_settings(data.dims) | data.settings)
    added = trial.expected[name] - data.references[name]

    def again(what: str, **changed: Any) -> Iterator[tuple[str, Array]]:
        try:
            with np.errstate(all="ignore"):
                result = half.outputs({**values, **changed}, data.dims)[name]
        except Exception:  # a formula may not bear the change; then that is not what happened
            return
        yield what, np.asarray(result, np.float64) + added

    for buffer, value in values.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield from again(f"the term with {buffer} is missing", **{buffer: 0 * value})
            yield from again(f"as if {buffer} were all 1", **{buffer: 0 * value + 1})
            yield from again(f"{buffer} enters with the wrong sign", **{buffer: -value})
            if len(value) > 1:
                first = np.broadcast_to(value[:1], value.shape)
                yield from again(f"the first {buffer} is used for all", **{buffer: first})
    for setting, value in data.settings.items():
        if setting == "vocab_size":
            everything = data.dims["V"]
            yield from again("as if no column were padding", **{setting: everything})
        elif isinstance(value, bool):
            yield from again(f"as if {setting} were {not value}", **{setting: not value})
        elif isinstance(value, float):
            yield from again(f"as if {setting} were 0", **{setting: 0.0})


def _factor(trial: Trial, actual: Array, expected: Array) -> str:
    """One factor for all: 2, 1/C, sqrt(D), ..."""
    large = np.abs(expected) > 0.01 * np.abs(expected).max()
    if large.sum() < 2 or not np.isfinite(actual).all():
        return ""
    factors = actual[large] / expected[large]
    factor = float(np.median(factors))
    if factor == 0 or abs(factor - 1) < 1e-3 or np.abs(factors / factor - 1).max() > 1e-3:
        return ""
    named = {"2": 2.0, "1/2": 0.5, "4": 4.0, "1/4": 0.25}
    for letter, size in trial.data.dims.items():
        named |= {letter: size, f"1/{letter}": 1 / size}
        named |= {f"sqrt({letter})": size**0.5, f"1/sqrt({letter})": size**-0.5}
        if size > 1:
            named |= {f"{letter}/({letter}-1)": size / (size - 1)}
            named |= {f"({letter}-1)/{letter}": (size - 1) / size}
    text = next((n for n, f in named.items() if abs(factor / f - 1) < 1e-3), f"{factor:.6g}")
    return f"everything times {text}"


def _less_precise(trial: Trial, name: str, actual: Array) -> str:
    """Which declared arithmetic would be accepted."""
    declared = trial.arithmetic
    added = trial.prefill.get(name) if trial.case.accumulate else None
    magnitude = trial.data.magnitudes[name]
    dtype = trial.layout.places[name].dtype
    for arithmetic, rounding in U_IN.items():
        # No one means bfloat16 operands in a float32 run: that far off is simply wrong.
        if U_IN[declared] < rounding and (arithmetic == "tf32" or trial.case.precision == "bf16"):
            allowed = tolerance(trial.expected[name], magnitude, dtype, arithmetic, added)
            if (error_in_tolerances(actual, trial.expected[name], allowed) <= 1).all():
                return (
                    f"no more wrong than {arithmetic} would be, but {declared} is declared; "
                    f'if {arithmetic} is meant: computes = {{"{trial.case.precision}": "{arithmetic}"}}'
                )
    return ""
