"""The flat arenas of a model: parameters, gradients and the optimizer's moments, in one layout.

planning/layout.py says where each parameter stands in them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from harness.contract import Shape
from harness.contract.precision import FLOAT32
from harness.device import Device
from harness.errors import CheckpointError
from harness.graph.program import Program
from harness.models.initial_values import initial_values, named_stream
from harness.models.kinds import KINDS, kind_of, tensor_shapes
from harness.models.model_file import ModelFile
from harness.planning.bf16_weights import FROZEN, KEY, TRAINED
from harness.planning.layout import BF16_WEIGHTS, arena_bytes, arena_dtype, make_layout
from harness.planning.plan import Plan

KEY_STREAM = "rounding"


class Parameters:
    """Float32 masters on their home device, with gradients and named moments of the same layout.

    Where an op reads weights in bfloat16, these stand in an arena of their own, which all executors
    share. What changes masters says so: then the bf16 weights are stale, until an executor renews them.
    """

    def __init__(self, program: Program, device: Device) -> None:
        self.device = device
        self.layout = make_layout(program)
        self.program = program
        self.rounding = "nearest"
        self._arenas: dict[str, Any] = {}
        self._stale: set[str] = set()
        self._key: Any = None
        self._key_host = np.zeros(2, np.int32)
        self._add_arena("parameter", self.layout.total)

    def _add_arena(self, name: str, count: int) -> None:
        memory = self.device.empty(count * arena_dtype(name).itemsize)
        self._arenas[name] = memory
        self.device.zero(self.flat(name, 0, count))

    def need(self, name: str) -> None:
        """Take an arena for the trained parameters: `gradient`, or a moment such as `m`."""
        if name not in self._arenas:
            self._add_arena(name, self.layout.trained)

    def flat(self, arena: str, start: int, stop: int) -> Any:
        """Elements start .. stop of an arena, as one flat device array."""
        dtype = arena_dtype(arena)
        offset = start * dtype.itemsize
        return self.device.view(self._arenas[arena], offset, (stop - start,), dtype)

    def view(self, arena: str, name: str, shape: Shape | None = None) -> Any:
        """One parameter's part of an arena, as a device array."""
        dtype = arena_dtype(arena)
        offset = self.layout.offsets[name] * dtype.itemsize
        shape = self.layout.shapes[name] if shape is None else shape
        return self.device.view(self._arenas[arena], offset, shape, dtype)

    @property
    def arenas(self) -> tuple[str, ...]:
        return tuple(self._arenas)

    @property
    def nbytes(self) -> int:
        return sum(arena_bytes(self.layout, name) for name in self._arenas)

    # -- the bf16 weights ----------------------------------------------------------------------

    @property
    def has_bf16_weights(self) -> bool:
        return BF16_WEIGHTS in self._arenas

    def need_bf16_weights(self, rounding: str) -> None:
        """Take the arena of the weights in bfloat16; they are stale until an executor has made them."""
        if self.has_bf16_weights:
            assert rounding == self.rounding, "executors of one model round its weights alike"
            return
        self.rounding = rounding
        self._add_arena(BF16_WEIGHTS, self.layout.total)
        self._key = self.device.view(self.device.empty(8), 0, (2,), np.int32)
        self.device.from_host(self._key, self._key_host)
        self.changed()

    def part(self, name: str, dtype: np.dtype, shape: Shape) -> Any:
        """A part of the masters, or of the bf16 weights, as one flat array; or the rounding's key."""
        if name == KEY:
            return self._key
        trained, total = self.layout.trained, self.layout.total
        start, stop = (0, trained) if name == TRAINED else (trained, total)
        assert shape == (stop - start,), (
            f"the plan has {shape} {name}, and there are {stop - start}"
        )
        return self.flat("parameter" if dtype == FLOAT32 else BF16_WEIGHTS, start, stop)

    @property
    def key(self) -> Any:
        """What the random bits depend on: two words of the device, the seed's and the update's."""
        return self._key

    def use_key_of(self, updates: int) -> None:
        """Round from now on with the key that belongs to the weights after so many updates."""
        self._key_host[1] = updates
        if self.rounding == "stochastic":
            self.device.from_host(self._key, self._key_host)

    def changed(self) -> None:
        """The masters were written from outside: the bf16 weights must be made anew."""
        self._stale.update((TRAINED, FROZEN))

    def updated(self) -> None:
        """The optimizer has changed the trained masters, and has not written the bf16 weights."""
        self._stale.add(TRAINED)

    def is_stale(self, part: str) -> bool:
        return part in self._stale

    def renewed(self, part: str) -> None:
        self._stale.discard(part)

    # -- from and to the host ------------------------------------------------------------------

    def initialise(self, seed: int, source: ModelFile | None = None) -> None:
        """Fill the parameters with their initial values, the same bits for every backend.

        source: where the model's own values come from instead.
        """
        self._key_host[0] = named_stream(seed, KEY_STREAM).integers(-(1 << 31), 1 << 31)
        self.use_key_of(int(self._key_host[1]))
        self.changed()
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
        self.changed()
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

    def load(self, source: ModelFile) -> None:
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
        self.changed()
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


def bf16_weight_bytes(plan: Plan, parameters: Parameters) -> int:
    """The host memory of a plan's bf16 weights, where no executor has taken it before."""
    if not plan.renewals or parameters.has_bf16_weights or plan.home != "host":
        return 0
    return arena_bytes(parameters.layout, BF16_WEIGHTS)


def _other_shape(
    source: ModelFile, stored: Mapping[str, Shape], ours: Mapping[str, Shape]
) -> CheckpointError:
    name = next(n for n in (*stored, *ours) if stored.get(n) != ours.get(n))
    return CheckpointError(
        f"the stored model has another shape: {source.path}",
        slug="model-misfit",
        expected=f"{name} {ours.get(name, 'not there')}",
        found=f"{name} {stored.get(name, 'not there')}",
        do="leave the keys of model out: model_from gives the shape",
    )
