"""The flat arenas of a model: parameters, gradients and the optimizer's moments, in one layout.

Parameters that weight decay applies to stand first, then the other trained ones, then the frozen, so
that the optimizer is one call per group. Each begins at a multiple of 128 bytes; the gaps are zero and
stay zero.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contract import Shape
from harness.device import ALIGNMENT, Device
from harness.errors import CheckpointError
from harness.precision import FLOAT32
from harness.program import Parameter, Program

FLOATS = ALIGNMENT // FLOAT32.itemsize


@dataclass(frozen=True)
class Layout:
    """Where each parameter stands in a flat float32 arena, in elements.

    decayed: the end of those that weight decay applies to; trained: the end of those with gradients.
    """

    offsets: Mapping[str, int]
    shapes: Mapping[str, Shape]
    decayed: int
    trained: int
    total: int


def make_layout(program: Program) -> Layout:
    """The layout of a program's parameters."""
    ordered = sorted(program.parameters.values(), key=lambda p: (not p.trained, not p.decay))
    offsets, shapes, end = {}, {}, 0
    ends = {"decayed": 0, "trained": 0}
    for parameter in ordered:
        offsets[parameter.name], shapes[parameter.name] = end, parameter.shape
        end += -(-parameter.size // FLOATS) * FLOATS
        if parameter.trained:
            ends["trained"] = end
            if parameter.decay:
                ends["decayed"] = end
    return Layout(offsets, shapes, ends["decayed"], ends["trained"], end)


class Parameters:
    """Float32 masters on their home device, with gradients and named moments of the same layout."""

    def __init__(self, program: Program, device: Device) -> None:
        self.device = device
        self.layout = make_layout(program)
        self.program = program
        self._arenas: dict[str, Any] = {}
        self._add_arena("parameter", self.layout.total)

    def _add_arena(self, name: str, count: int) -> None:
        memory = self.device.empty(count * FLOAT32.itemsize)
        self._arenas[name] = memory
        self.device.zero(self.flat(name, 0, count))

    def need(self, name: str) -> None:
        """Take an arena for the trained parameters: `gradient`, or a moment such as `m`."""
        if name not in self._arenas:
            self._add_arena(name, self.layout.trained)

    def flat(self, arena: str, start: int, stop: int) -> Any:
        """Elements start .. stop of an arena, as one flat device array."""
        offset = start * FLOAT32.itemsize
        return self.device.view(self._arenas[arena], offset, (stop - start,), FLOAT32)

    def view(self, arena: str, name: str, shape: Shape | None = None) -> Any:
        """One parameter's part of an arena, as a device array."""
        offset = self.layout.offsets[name] * FLOAT32.itemsize
        shape = self.layout.shapes[name] if shape is None else shape
        return self.device.view(self._arenas[arena], offset, shape, FLOAT32)

    @property
    def arenas(self) -> tuple[str, ...]:
        return tuple(self._arenas)

    @property
    def nbytes(self) -> int:
        trained = self.layout.trained * (len(self._arenas) - 1)
        return (self.layout.total + trained) * FLOAT32.itemsize

    def initialise(self, seed: int) -> None:
        """Fill the parameters with their initial values, the same bits for every backend."""
        for parameter in self.program.parameters.values():
            values = initial_values(parameter, seed)
            self.device.from_host(self.view("parameter", parameter.name), values)

    def to_host(self, arena: str = "parameter") -> dict[str, np.ndarray]:
        """Every parameter's part of an arena as NumPy arrays, copied."""
        names = [n for n in self.layout.shapes if arena == "parameter" or self._is_trained(n)]
        arrays = {}
        for name in names:
            arrays[name] = np.empty(self.layout.shapes[name], np.float32)
            self.device.to_host(arrays[name], self.view(arena, name))
        return arrays

    def from_host(self, arrays: Mapping[str, np.ndarray], arena: str = "parameter") -> None:
        """Fill an arena from named arrays. Raises CheckpointError where one is missing or misshapen."""
        for name, shape in self.layout.shapes.items():
            if arena != "parameter" and not self._is_trained(name):
                continue
            found = arrays.get(name)
            if found is None or found.shape != shape:
                raise CheckpointError(
                    f"the checkpoint does not fit the model: {arena} {name}",
                    slug="checkpoint-misfit",
                    expected=f"shape {shape}",
                    found="nothing" if found is None else f"shape {found.shape}",
                    do="resume with the configuration that the checkpoint was written by",
                )
            self.device.from_host(self.view(arena, name), np.ascontiguousarray(found, np.float32))

    def _is_trained(self, name: str) -> bool:
        return self.program.parameters[name].trained


def initial_values(parameter: Parameter, seed: int) -> np.ndarray:
    """A parameter's initial values: a counter-based stream keyed by the seed and its name."""
    digest = hashlib.sha256(parameter.name.encode()).digest()
    key = [seed % 2**64, int.from_bytes(digest[:8], "little")]
    rng = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    return np.ascontiguousarray(parameter.init(rng, parameter.shape), np.float32)
