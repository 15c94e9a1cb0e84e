"""Make the calls that are timed: one half-op at one shape, its data, and the check of its result.

A case is checked before and after it is timed, on the same buffers, against the float64 formula and with
the suite's own tolerance: a fast wrong answer is worth nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.bench.device_clock import DeviceClock
from harness.conformance.tolerance import error_in_tolerances, tolerance
from harness.contract import Argument, Half, Ids, Op, OpTable, Param, State
from harness.contract.precision import BFLOAT16, dtype_under
from harness.device import HOST
from harness.errors import NumericsError
from harness.plugins.loading import Backend

SMALL_DIMS = {
    "B": 2, "T": 16, "N": 64, "C": 64, "H": 4, "D": 16, "F": 256,
    "I": 256, "O": 512, "V": 512, "X": 32, "P": 1 << 14,
}  # fmt: skip
"""A shape for everyone: a fraction of a millisecond in NumPy, a second or two in plain loops."""

OTHER_SMALL = 8  # letters that an op of a plugin brings
PARAM_SCALE = 0.02  # GPT-2's initial weights; logits then stay within a few units
EXCUSED = {"python": "plain loops take minutes to hours at a real GPT-2 shape"}
"""Backends that run the small shapes only, and why."""

CHUNK = 1 << 22
"""Elements of a flat op that are checked at once: float64 copies of 124M would fill the memory."""


@dataclass(frozen=True)
class Shape:
    """The shape of a case. kind: `small`, or `real` for one of the op's own list."""

    kind: str
    dims: Mapping[str, int]

    def __str__(self) -> str:
        return " ".join(f"{letter}{size}" for letter, size in self.dims.items())


def shapes_of(op: Op, kinds: tuple[str, ...] = ("small", "real")) -> list[Shape]:
    """A small shape, and the op's real ones."""
    letters = dict.fromkeys((*op.forward.signature.letters, *(op.shapes[0] if op.shapes else ())))
    small = {letter: SMALL_DIMS.get(letter, OTHER_SMALL) for letter in letters}
    found = [Shape("small", small), *(Shape("real", dims) for dims in op.shapes)]
    return [shape for shape in found if shape.kind in kinds]


@dataclass
class Case:
    """A call with its data. values: every input, `State` and setting of the half, by name.

    precision: fp32, tf32 or bf16; the values have its dtypes.
    """

    op: Op
    half: Half
    shape: Shape
    values: dict[str, Any]
    precision: str = "fp32"
    _expected: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    @property
    def dims(self) -> Mapping[str, int]:
        return self.shape.dims

    @property
    def group(self) -> str:
        """The half and the shape: backends are compared within a group."""
        return f"{self.half.name} {self.shape}" + (
            "" if self.precision == "fp32" else f" {self.precision}"
        )

    def error(self, results: Mapping[str, np.ndarray], arithmetic: str) -> tuple[float, str]:
        """The largest err/tolerance of the results, and the output it is in; above 1 is wrong."""
        worst = (0.0, "")
        for part in self._parts():
            for name, (reference, magnitude) in self._references(part).items():
                out = results[name][part] if part else results[name]
                allowed = tolerance(reference, magnitude, out.dtype, arithmetic)
                errors = error_in_tolerances(out, reference, allowed)
                worst = max(worst, (float(errors.max(initial=0.0)), name))
        return worst

    def _parts(self) -> Iterator[tuple[slice, ...]]:
        """The whole, as (), or the slices of a flat op that is too large for float64 at once."""
        size = self.dims.get("P", 0)
        flat = all(a.dims == ("P",) for a in self.half.signature.outputs)
        if not flat or size <= CHUNK:
            yield ()
            return
        for start in range(0, size, CHUNK):
            yield (slice(start, start + CHUNK),)

    def _references(self, part: tuple[slice, ...]) -> dict[str, tuple[Any, Any]]:
        """Output -> (float64 value, magnitude). Kept for the whole, made anew for each slice."""
        if self._expected:
            return self._expected
        values = {
            name: _in_float64(value[part] if part and self._is_flat(name) else value)
            for name, value in self.values.items()
        }
        references = self.half.outputs(values, self.dims)
        magnitudes = self.half.magnitudes(values, self.dims)
        expected = {name: (references[name], magnitudes[name]) for name in references}
        if not part:
            self._expected = expected
        return expected

    def _is_flat(self, name: str) -> bool:
        return self.half.signature[name].dims == ("P",)


def make_case(op: Op, half: Half, shape: Shape, seed: int = 0, precision: str = "fp32") -> Case:
    """Draw the data of a call: normal activations, weights of GPT-2's size, ids as the op says.

    A backward gets what the float64 forward saved, and random upstream gradients.
    """
    rng = np.random.default_rng(seed)
    settings = op.example_settings(shape.dims)
    examples = op.example_inputs(rng, shape.dims, settings) if op.example_inputs else {}
    forward = op.forward.signature

    def draw(argument: Argument, size: tuple[int, ...]) -> np.ndarray:
        assert argument.role is not None
        dtype = dtype_under(precision, argument.role.dtype)
        if argument.name in examples:
            return np.ascontiguousarray(examples[argument.name], dtype)
        assert argument.role is not Ids, f"{op.name}: example_inputs must give {argument.name}"
        values = rng.standard_normal(size, np.float32)
        if argument.role is Param:
            values *= np.float32(PARAM_SCALE)
        return values.astype(dtype, copy=False)

    values: dict[str, Any] = dict(settings)
    for argument in forward.buffers:
        if argument.role is State or not forward.writes(argument):
            values[argument.name] = draw(argument, forward.shape_of(argument, shape.dims))
    if half is not op.forward:
        values = _backward_values(op, half, shape, values, draw, precision)
    return Case(op, half, shape, values, precision)


def _backward_values(
    op: Op, half: Half, shape: Shape, values: dict[str, Any], draw: Any, precision: str
) -> dict:
    signature = half.signature
    wanted = {a.name for a in signature.inputs} | {a.name for a in signature.settings}
    found = {name: value for name, value in values.items() if name in wanted}
    found["accumulate"] = False
    saved = wanted & {a.name for a in op.forward.signature.outputs}
    if saved:
        exact = {name: _in_float64(value) for name, value in values.items()}
        outputs = op.forward.outputs(exact, shape.dims)
    for argument in signature.inputs:
        if argument.name in saved:
            assert argument.role is not None
            dtype = dtype_under(precision, argument.role.dtype)
            found[argument.name] = np.ascontiguousarray(outputs[argument.name], dtype)
        elif argument.name not in found:
            found[argument.name] = draw(argument, signature.shape_of(argument, shape.dims))
    return found


def _in_float64(value: Any) -> Any:
    # NumPy knows bfloat16 as one of the kinds that are not its own.
    if isinstance(value, np.ndarray) and (value.dtype.kind == "f" or value.dtype == BFLOAT16):
        return value.astype(np.float64)
    return value


class Bound:
    """A case on a backend's device: buffers taken once, the call bound, ready to be timed.

    Calling it runs the half-op and waits for the device. device_seconds: the seconds of one call by the
    device's own clock; None where the device has none, and the host's clock must do.
    """

    def __init__(self, backend: Backend, case: Case) -> None:
        self.backend = backend
        self.case = case
        self._function = backend.function(case.half.name, case.precision)
        self._place = HOST if backend.device == "host" else backend.open_device()
        self._buffers: dict[str, Any] = {}
        self._fresh: dict[str, np.ndarray] = {}
        self.device_seconds = DeviceClock.of(backend, self.run)
        signature = case.half.signature
        for argument in signature.buffers:
            self._add_buffer(argument)
        self._arguments = [
            backend.adapt(self._buffers[a.name]) if a.is_buffer else case.values[a.name]
            for a in signature.arguments
        ]

    def _add_buffer(self, argument: Argument) -> None:
        assert argument.role is not None
        shape = self.case.half.signature.shape_of(argument, self.case.dims)
        dtype = dtype_under(self.case.precision, argument.role.dtype)
        memory = self._place.empty(max(1, math.prod(shape)) * dtype.itemsize)
        buffer = self._place.view(memory, 0, shape, dtype)
        self._buffers[argument.name] = buffer
        if argument.name in self.case.values:
            content = self.case.values[argument.name]
        else:
            # One number stands for the whole where memory is the host's: np.copyto spreads it.
            content = np.broadcast_to(np.array(np.nan, dtype), shape)
            if self._place is not HOST:
                content = np.ascontiguousarray(content)
        if self.case.half.signature.writes(argument):
            self._fresh[argument.name] = content
        self._place.from_host(buffer, content)

    def setup(self) -> None:
        """Before each round: restore `State`, fill outputs with NaN. All rounds start equal."""
        for name, content in self._fresh.items():
            self._place.from_host(self._buffers[name], content)
        self._place.synchronize()

    def run(self) -> None:
        """Start the half-op, and do not wait for it."""
        self._function(*self._arguments)

    def __call__(self) -> None:
        self.run()
        self._place.synchronize()

    def check(self) -> float:
        """Run once more and compare; the err/tolerance. Raises NumericsError where it is above 1."""
        self.setup()
        self()
        return self.check_last()

    def check_last(self) -> float:
        """Compare what the last call left; the err/tolerance, at most 1."""
        case, backend = self.case, self.backend
        arithmetic = backend.computes_in(case.op.name, case.precision) or "f32"
        error, output = case.error(self._results(), arithmetic)
        if not error <= 1:
            raise NumericsError(
                f"{case.half.name} of backend '{backend.name}' is wrong, and is not timed",
                slug="benchmark-refused",
                where=backend.where(case.half.name),
                shape=case.shape,
                found=f"{output} is off by {error:.3g} times its tolerance ({arithmetic})",
                do=f"harness check {backend.name}::{case.half.name}",
            )
        return error

    def _results(self) -> dict[str, np.ndarray]:
        if self._place is HOST:
            return self._buffers
        results = {}
        for name in self._fresh:
            shape, dtype = self._buffers[name].shape, self._fresh[name].dtype
            results[name] = np.empty(shape, dtype)
            self._place.to_host(results[name], self._buffers[name])
        return results


def matrix(ops: OpTable, chosen: tuple[str, ...], kinds: tuple[str, ...]) -> list[tuple]:
    """(op, half, shape) of every case. chosen: names of ops or halves; all where it is empty."""
    names = [ops[name] if name in ops else ops.op_of(name) for name in chosen] or list(ops.values())
    return [
        (op, half, shape)
        for op in names
        for half in op.halves
        if not chosen or op.name in chosen or half.name in chosen
        for shape in shapes_of(op, kinds)
    ]
