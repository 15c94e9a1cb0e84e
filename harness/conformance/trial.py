"""One case made ready: buffers laid out, what each output must hold, and how far off it may be."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.conformance.buffers import Layout, lay_out
from harness.conformance.cases.case import CACHE, Case, data_of
from harness.conformance.cases.data import Data
from harness.conformance.tolerance import FLUSHED, tolerance
from harness.contract import Acc, Half, Op
from harness.contract.precision import dtype_under

Array = np.ndarray


@dataclass(frozen=True)
class Trial:
    """A case and all it is judged by. Arrays in it are shared between judgements: read only.

    expected: of each output that is there, in float64, with the prefill where `accumulate`.
    allowed: the tolerance of each, by element. prefill: what `Acc` buffers hold before the call.
    judged: where a NaN was put into a row, the elements that it must not reach; otherwise nothing.
    stained: outputs whose poisoned row must not come out clean (a NaN may not be swallowed).
    """

    op: Op
    half: Half
    case: Case
    arithmetic: str
    data: Data
    layout: Layout
    prefill: dict[str, Array]
    expected: dict[str, Array]
    allowed: dict[str, Array]
    judged: dict[str, Array]
    stained: tuple[str, ...]

    def arguments(self, buffers: dict[str, Any]) -> list[Any]:
        """The call's arguments in the signature's order; None for what is left out."""
        settings = {**self.data.settings, "accumulate": self.case.accumulate}
        return [
            buffers.get(a.name) if a.is_buffer else settings[a.name]
            for a in self.half.signature.arguments
        ]

    def initial(self, name: str) -> Array | None:
        """What a buffer holds before the call, None for one that is poisoned or left out."""
        return self.prefill.get(name, self.data.buffers.get(name))


def prepare(op: Op, case: Case, arithmetic: str) -> Trial:
    """The trial of a case for kernels of a declared arithmetic; kept while there is room."""
    key = ("trial", op.file, case, arithmetic)
    return CACHE.get(key, lambda: _prepare(op, case, arithmetic), _nbytes)


def _nbytes(trial: Trial) -> int:
    arrays = [*trial.expected.values(), *trial.allowed.values()]
    return 4096 + trial.layout.before.nbytes + sum(a.nbytes for a in arrays)


def _prepare(op: Op, case: Case, arithmetic: str) -> Trial:
    half, data = op.half(case.hook), data_of(op, case)
    signature = half.signature

    def shape_and_dtype(name: str) -> tuple[tuple[int, ...], np.dtype]:
        argument = signature[name]
        assert argument.role is not None
        shape = signature.shape_of(argument, data.dims)
        return shape, dtype_under(case.precision, argument.role.dtype)

    rng = np.random.default_rng([case.seed, zlib.crc32(b"prefill")])
    prefill, expected, allowed = {}, {}, {}
    for argument in signature.outputs:
        name = argument.name
        if name in case.without:
            continue
        shape, dtype = shape_and_dtype(name)
        held = rng.normal(size=shape).astype(dtype) if argument.role is Acc else None
        added = held if case.accumulate else None
        if held is not None:
            prefill[name] = held
        reference = np.asarray(data.references[name], np.float64)
        expected[name] = reference if added is None else reference + added
        with np.errstate(all="ignore"):
            near = tolerance(expected[name], data.magnitudes[name], dtype, arithmetic, added)
        near = np.array(np.broadcast_to(near, shape))
        if added is None:
            # Where nothing is computed (a copy, a cast, padding), the result is the value, rounded.
            exact = np.broadcast_to(np.asarray(data.magnitudes[name].S) == 0, shape)
            rounded = expected[name].astype(dtype).astype(np.float64)
            expected[name] = np.where(exact, rounded, expected[name])
            near[exact] = FLUSHED
        allowed[name] = near
    initial = {**data.buffers, **prefill}
    layout = lay_out(half, shape_and_dtype, initial, case.without, case.alias)
    judged, stained = _reach(half, data, case, expected)
    return Trial(
        op, half, case, arithmetic, data, layout, prefill, expected, allowed, judged, stained
    )


def _reach(
    half: Half, data: Data, case: Case, expected: dict[str, Array]
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Which elements a poisoned row must not reach, and which outputs must show it."""
    if data.poisoned is None:
        return {}, ()
    source, row = data.poisoned
    letter = half.signature[source].dims[0]
    judged, stained = {}, []
    for name, reference in expected.items():
        finite = np.isfinite(reference)
        if half.signature[name].dims[0] != letter:
            judged[name] = np.zeros(reference.shape, bool)  # summed over rows: it reaches all
            continue
        judged[name] = finite
        if not finite[row].all():
            finite[row] = False
            # An ignored target hides a NaN in the backward, and exp hides an infinity.
            if case.style == "nan-row" and not half.signature.backward:
                stained.append(name)
    return judged, tuple(stained)
