"""The flat arenas of a model: parameters, gradients and the optimizer's moments, in one layout.

Parameters that weight decay applies to stand first, then the other trained ones, then the frozen, so
that the optimizer is one call per group. Each begins at a multiple of 128 bytes; the gaps are zero and
stay zero.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import Shape
from harness.device import ALIGNMENT, Device
from harness.errors import CheckpointError
from harness.models.kinds import KINDS, kind_of, tensor_shapes
from harness.precision import FLOAT32
from harness.program import Parameter, Program

if TYPE_CHECKING:
    from harness.interchange.model_file import ModelFile

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

    def initialise(self, seed: int, source: "ModelFile | None" = None) -> None:
        """Fill the parameters with their initial values, the same bits for every backend.

        source: where the model's own values come from instead.
        """
        if source is not None:
            self.load(source)
        for parameter in self.program.parameters.values():
            if source is not None and kind_of(parameter.name) in KINDS:
                continue
            values = initial_values(parameter, seed)
            self.device.from_host(self.view("parameter", parameter.name), values)

    def to_host(self, arena: str = "parameter") -> dict[str, np.ndarray]:
        """Every parameter's part of an arena as NumPy arrays, copied."""
        names = [n for n in self.layout.shapes if arena == "parameter" or self._is_trained(n)]
        return {name: self.read(name, arena) for name in names}

    def read(self, name: str, arena: str = "parameter") -> np.ndarray:
        """One parameter's part of an arena as a NumPy array, copied."""
        array = np.empty(self.layout.shapes[name], np.float32)
        self.device.to_host(array, self.view(arena, name))
        return array

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

    def load(self, source: "ModelFile") -> None:
        """Fill the model's own tensors from a stored model; an adapter's keep their values.

        On the host they are read straight into the arena: no tensor is in memory twice.
        Raises CheckpointError where the stored model has another shape.
        """
        stored = tensor_shapes(source.model)
        ours = {n: s for n, s in self.layout.shapes.items() if kind_of(n) in KINDS}
        if stored != ours:
            raise _other_shape(source, stored, ours)
        self.fill("parameter", source.read_into, stored)

    def fill(
        self,
        arena: str,
        read_into: Callable[[str, np.ndarray], None],
        names: Iterable[str] | None = None,
    ) -> None:
        """Fill parts of an arena, each by read_into(name, float32 array of its shape).

        names: the parameters; None is all that the arena has. On the host they are read in place.
        """
        if names is None:
            names = [n for n in self.layout.shapes if arena == "parameter" or self._is_trained(n)]
        for name in names:
            view = self.view(arena, name)
            if isinstance(view, np.ndarray):
                read_into(name, view)
                continue
            values = np.empty(self.layout.shapes[name], np.float32)
            read_into(name, values)
            self.device.from_host(view, values)

    def _is_trained(self, name: str) -> bool:
        return self.program.parameters[name].trained


def _other_shape(
    source: "ModelFile", stored: Mapping[str, Shape], ours: Mapping[str, Shape]
) -> CheckpointError:
    name = next(n for n in (*stored, *ours) if stored.get(n) != ours.get(n))
    return CheckpointError(
        f"the stored model has another shape: {source.path}",
        slug="model-misfit",
        expected=f"{name} {ours.get(name, 'not there')}",
        found=f"{name} {stored.get(name, 'not there')}",
        do="leave the keys of model out: model_from gives the shape",
    )


def initial_values(parameter: Parameter, seed: int) -> np.ndarray:
    """A parameter's initial values, drawn from a stream of its own."""
    values = parameter.init(named_stream(seed, parameter.name), parameter.shape)
    return np.ascontiguousarray(values, np.float32)


def named_stream(seed: int, name: str) -> np.random.Generator:
    """A counter-based generator keyed by the seed and a name: no draw depends on those before it."""
    digest = hashlib.sha256(name.encode()).digest()
    key = np.array([seed % 2**64, int.from_bytes(digest[:8], "little")], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
