"""The numbers of a case: inputs of a style, rounded to their buffers, and what float64 makes of them.

The formula is fed the rounded inputs. A backward half is also fed what a forward saves (mean, rstd,
lse, out, pre, ...), as the reference forward gives it, rounded to its buffer.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contract import Argument, Const, Half, Ids, In, Magnitude, Op, Param, State
from harness.contract.op import by_name
from harness.contract.precision import dtype_under
from harness.errors import PluginError

Array = np.ndarray
Rng = np.random.Generator


@dataclass(frozen=True)
class Data:
    """What a half-op is called with, and what it must give.

    buffers: name -> array of the buffer's dtype, for inputs and `State`; None where left out.
    references, magnitudes: of each output, in float64, without any prefill.
    poisoned: (buffer, index along its first dimension) that holds a NaN or an infinity.
    """

    dims: dict[str, int]
    settings: dict[str, Any]
    buffers: dict[str, Array | None]
    references: dict[str, Array]
    magnitudes: dict[str, Magnitude]
    poisoned: tuple[str, int] | None = None

    @property
    def references_size(self) -> int:
        """Elements of all outputs."""
        return sum(a.size for a in self.references.values())


def _rows(rng: Rng, shape: tuple[int, ...], low: float, high: float) -> Array:
    """One number for each row, uniform between low and high, of either sign."""
    rows = (*shape[:-1], 1)
    return rng.uniform(low, high, rows) * rng.choice([-1.0, 1.0], rows)


def _eighths(x: Array) -> Array:
    # Equal numbers round the same way each time they are added, which the sqrt(n) of the tolerance
    # does not allow for: an honest sequential sum of them is off by n/4 roundings. These add exactly.
    return np.round(x * 8) / 8


def _zeros(rng: Rng, shape: tuple[int, ...]) -> Array:
    x = np.copysign(0.0, rng.normal(size=shape))
    return np.where(rng.random(shape) < 0.25, _eighths(rng.normal(size=shape)), x)


STYLES: dict[str, Callable[[Rng, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "large-mean": lambda rng, shape: rng.normal(size=shape) + _rows(rng, shape, 30, 1000),
    "tiny": lambda rng, shape: rng.normal(size=shape) * 10 ** -np.abs(_rows(rng, shape, 3, 6)),
    "huge": lambda rng, shape: rng.normal(size=shape) * 10 ** np.abs(_rows(rng, shape, 2, 4)),
    "constant-rows": lambda rng, shape: np.broadcast_to(_eighths(_rows(rng, shape, 1, 5)), shape),
    "all-equal": lambda rng, shape: np.full(shape, _eighths(_rows(rng, (1,), 1, 5))[0]),
    "offset": lambda rng, shape: 40 * rng.normal(size=shape) + _rows(rng, shape, 100, 100),
    "zeros": _zeros,
    "wide": lambda rng, shape: rng.uniform(-30, 30, shape),
}
# Nine significant bits: every second one lies halfway between two bfloat16. For what only rounds:
# sums of such numbers round the same way again and again.
EXACT_STYLES: dict[str, Callable[[Rng, tuple[int, ...]], Array]] = {
    "halves": lambda rng, shape: rng.integers(256, 512, shape) * _rows(rng, shape, 1, 1) / 256,
}
ID_STYLES = ("repeated-ids", "equal-ids", "end-ids")
STATE_STYLES = ("first-step",)
ROW_STYLES = ("nan-row", "inf-row")
ALL_STYLES = (*STYLES, *EXACT_STYLES, *ID_STYLES, *STATE_STYLES, *ROW_STYLES)


def styles_of(op: Op, half: Half) -> tuple[str, ...]:
    """The styles that can make a difference to a half-op."""
    given = _given(op)
    styles = list(STYLES) if any(a.role in (In, Const, State) for a in given) else ["normal"]
    if any(a.role is Ids for a in given):
        styles += ID_STYLES
    if any(a.role is State for a in given):
        styles += STATE_STYLES
    return tuple(styles)


def row_styles_of(half: Half) -> tuple[str, ...]:
    """NaN and inf in one row: where an output has the leading letter of an In."""
    return ROW_STYLES if _poisonable(half) else ()


def _poisonable(half: Half) -> list[Argument]:
    leading = {a.dims[0] for a in half.signature.outputs if a.role is not State}
    return [a for a in half.signature.inputs if a.role is In and a.dims[0] in leading]


def _given(op: Op) -> list[Argument]:
    return [a for a in op.forward.signature.buffers if reads(op.forward, a)]


def reads(half: Half, argument: Argument) -> bool:
    """Whether a half-op reads what a buffer holds when it is called."""
    return argument.role is State or not half.signature.writes(argument)


def make_data(
    op: Op,
    half: Half,
    dims: Mapping[str, int],
    style: str,
    seed: int,
    precision: str,
    settings: Mapping[str, Any],
    without: frozenset[str],
) -> Data:
    """The data of a case; the same arguments give the same bits on every machine.

    settings: those that differ from the op's example. without: optional inputs that are None.
    """
    dims = dict(dims)
    key = zlib.crc32(f"{op.name} {sorted(dims.items())} {style}".encode())
    rng = np.random.default_rng([seed, key])
    chosen = {**op.example_settings(dims), **settings}
    with np.errstate(all="ignore"):
        buffers, poisoned = _forward_buffers(op, half, dims, style, precision, chosen, rng)
        if half is not op.forward:
            buffers, more = _backward_buffers(
                op, half, dims, style, precision, chosen, rng, buffers
            )
            poisoned = poisoned or more
        for name in without & set(buffers):
            buffers[name] = None
        values = {**{n: _exact(b) for n, b in buffers.items()}, **chosen}
        found = half.outputs(values, dims)
        shapes = {a.name: half.signature.shape_of(a, dims) for a in half.signature.outputs}
        references = {n: np.broadcast_to(_exact(r), shapes[n]) for n, r in found.items()}
        magnitudes = half.magnitudes(values, dims)
    wanted = {a.name for a in half.signature.buffers if reads(half, a)}
    kept = {n: b for n, b in buffers.items() if n in wanted}
    used = {a.name: chosen[a.name] for a in half.signature.settings if a.name in chosen}
    return Data(dims, used, kept, references, magnitudes, poisoned)


def _exact(buffer: Any) -> Any:
    """A buffer as the formula reads it: floats as float64, ids as they are."""
    if buffer is None or np.asarray(buffer).dtype.kind in "iub":
        return buffer
    return np.asarray(buffer).astype(np.float64)


def _forward_buffers(op, half, dims, style, precision, settings, rng):
    signature = op.forward.signature
    examples = _examples(op, dims, settings, rng)
    buffers: dict[str, Array | None] = {}
    states = [a.name for a in signature.buffers if a.role is State]
    for argument in _given(op):
        shape = signature.shape_of(argument, dims)
        if argument.role is Ids:
            value = _ids(op, argument, dims, style, settings, rng, examples)
        elif argument.name in examples:
            value = np.asarray(examples[argument.name], np.float64).reshape(shape)
        elif argument.role is Param:
            value = rng.normal(size=shape)
        elif style == "first-step" and argument.role is Const:
            # Below AdamW's eps, where it matters what eps is added to; and some far above.
            value = rng.normal(size=shape) * rng.choice([1e-9, 1e-8, 1.0], shape)
        else:
            value = {**STYLES, **EXACT_STYLES}.get(style, STYLES["normal"])(rng, shape)
        if style == "first-step" and argument.name in states[1:]:
            value = np.zeros(shape)
        assert argument.role is not None
        buffers[argument.name] = value.astype(dtype_under(precision, argument.role.dtype))
    if op.never_read is not None:
        _spoil(by_name(op.never_read, {**dims, **buffers}), buffers, rng)
    return buffers, _poison(half, buffers, style, rng)


def _spoil(never_read: Mapping[str, Array], buffers: Mapping[str, Any], rng: Rng) -> None:
    """Put a NaN into half of the elements that must not be read; the others keep their numbers."""
    for name, mask in never_read.items():
        buffer = buffers[name]
        spread = mask.reshape(*mask.shape, *(1,) * (buffer.ndim - mask.ndim))
        buffer[spread & (rng.random(buffer.shape) < 0.5)] = np.nan


def _backward_buffers(op, half, dims, style, precision, settings, rng, buffers):
    values = {**{n: _exact(b) for n, b in buffers.items()}, **settings}
    saved = op.forward.outputs(values, dims)
    complete = dict(buffers)
    for argument in half.signature.inputs:
        if argument.name in buffers:
            continue
        if argument.name in saved:
            value = saved[argument.name]
        else:
            # Random, never ones: softmax with all ones has a true gradient of zero.
            value = rng.normal(size=half.signature.shape_of(argument, dims))
        assert argument.role is not None
        complete[argument.name] = np.asarray(value).astype(
            dtype_under(precision, argument.role.dtype)
        )
    poisoned_before = any(b is not None and not _finite(b) for b in buffers.values())
    return complete, None if poisoned_before else _poison(half, complete, style, rng)


def _finite(buffer: Array) -> bool:
    return buffer.dtype.kind in "iub" or bool(np.isfinite(buffer.astype(np.float64)).all())


def _poison(half: Half, buffers: dict[str, Any], style: str, rng: Rng) -> tuple[str, int] | None:
    """Put a NaN or an infinity into one element of one row of one In that is there."""
    if style not in ROW_STYLES:
        return None
    # A backward is poisoned through what reaches it from outside as often as through x.
    candidates = [a for a in _poisonable(half) if a.name in buffers]
    if not candidates:
        return None
    if half.signature.backward and len(candidates) < len(_poisonable(half)) and rng.random() < 0.5:
        return None  # the upstream gradient will be, instead
    argument = candidates[rng.integers(len(candidates))]
    buffer = buffers[argument.name]
    at = tuple(int(rng.integers(size)) for size in buffer.shape)
    buffer[at] = np.nan if style == "nan-row" else np.inf
    return argument.name, at[0]


def _examples(op: Op, dims: Mapping[str, int], settings: Mapping[str, Any], rng: Rng) -> dict:
    return op.example_inputs(rng, dims, settings) if op.example_inputs else {}


def _ids(op, argument, dims, style, settings, rng, examples):
    if argument.name not in examples:
        raise PluginError(
            f"the op file of {op.name} gives no example of {argument.name}",
            slug="op-incomplete",
            where=op.file,
            do="ids are not random numbers: example_inputs must return them",
        )
    ids = np.asarray(examples[argument.name])
    if style == "equal-ids":
        return np.full_like(ids, ids.flat[0])
    if style == "repeated-ids":
        return ids.flat[rng.integers(0, min(2, ids.size), ids.shape)]
    if style == "end-ids":
        # The least and the greatest that the op file's own examples reach: -1 and V-1 for targets.
        count = min(1000, max(32, 20 * max(dims.values()) // ids.size))
        draws = [_examples(op, dims, settings, rng)[argument.name] for _ in range(count)]
        return np.where(rng.random(ids.shape) < 0.5, np.min(draws), np.max(draws))
    return ids


class Cache:
    """Data by key, the oldest let go when the whole is larger than `limit` bytes.

    Hundreds of wrong kernels are judged on the same cases: their references are computed once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._nbytes = 0
        self._held: OrderedDict[Any, tuple[Any, int]] = OrderedDict()

    def clear(self) -> None:
        self._held.clear()
        self._nbytes = 0

    def get(self, key: Any, make: Callable[[], Any], nbytes: Callable[[Any], int]) -> Any:
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key][0]
        value = make()
        size = nbytes(value)
        if size > self._limit // 8:
            return value  # a real GPT-2 shape: one of them would push out a hundred others
        self._held[key] = value, size
        self._nbytes += size
        while self._nbytes > self._limit:
            _, (_, freed) = self._held.popitem(last=False)
            self._nbytes -= freed
        return value
