"""Keep the copies of each tensor while a plan is made: the one that a call reads is found, or made.

A tensor has one origin, where it is first made. Other copies, in another dtype or on another device, are
casts and copies of it, each made once.
"""

import numpy as np

from harness.contract.precision import Precision
from harness.errors import ConfigError
from harness.graph.program import Call, Tensor
from harness.planning.bf16_weights import cast_elsewhere
from harness.planning.plan import Step, Version, View
from harness.plugins.dispatch import Dispatch


class Versions:
    """The versions of a plan's tensors, by tensor, device and dtype.

    all: every version. origin: the one of each tensor that is not made from another one of it.
    refresh: the steps that make parameters anew in another dtype or on another device, once a step.
    """

    def __init__(self, dispatch: Dispatch, precision: Precision) -> None:
        self.dispatch, self.precision = dispatch, precision
        self.all: dict[tuple[Tensor, str, np.dtype], Version] = {}
        self.origin: dict[Tensor, Version] = {}
        self.refresh: list[Step] = []

    def originate(self, tensor: Tensor, device: str, dtype: np.dtype, kind: str) -> Version:
        """The first version of a tensor."""
        version = Version(tensor, device, dtype, kind)
        self.all[tensor, device, dtype] = self.origin[tensor] = version
        return version

    def own_dtype(self, tensor: Tensor) -> np.dtype:
        """The dtype that a tensor has where it is made."""
        origin = self.origin.get(tensor.root)
        return origin.dtype if origin else self.precision.dtype(tensor.root.dtype, "")

    def to_write(self, root: Tensor, device: str, dtype: np.dtype, acc: bool) -> Version:
        """The version that a call writes, or adds to where it is a gradient (acc)."""
        if not acc:
            return self.originate(root, device, dtype, "activation")
        key = (root, device, dtype)
        if key not in self.all:
            self.all[key] = Version(root, device, dtype, "gradient")
        return self.all[key]

    def to_update(self, root: Tensor, device: str, dtype: np.dtype) -> Version:
        """The one copy of a state: where its first call is."""
        version = self.origin.get(root) or self.originate(root, device, dtype, "state")
        if version.device != device:
            raise ConfigError(
                f"{root.name} is updated on {version.device}, and then on {device}",
                slug="state-elsewhere",
                do="choose backends on one device for the ops that update it",
            )
        return version

    def to_read(
        self,
        root: Tensor,
        device: str,
        dtype: np.dtype,
        fillers: list[Tensor],
        steps: list[Step],
    ) -> Version:
        """The copy of a tensor that a call can read, made by a cast or a copy where there is none.

        fillers: tensors that nothing writes, zeroed before they are read. steps: of the section that
        the call is in, where what makes the copy is added.
        """
        key = (root, device, dtype)
        if key in self.all:
            return self.all[key]
        if root.kind == "input":
            given = self._input(root, device)
            return given if given.dtype == dtype else self._cast(given, dtype, steps)
        if root in fillers:
            version = self.originate(root, device, dtype, "activation")
            steps.append(Step("zero", "zero", {"buffer": View(version, root.shape)}))
            return version
        origin = self.origin[root]
        if origin.kind == "parameter":
            steps = self.refresh
        if origin.dtype != dtype and origin.kind == "parameter":
            # One call over the arena makes it, with all others.
            origin = self._variant(origin, origin.device, dtype)
        elif origin.dtype != dtype:
            # Cast where the tensor is: the narrower of two copies is what then travels.
            origin = self._cast(origin, dtype, steps)
        if origin.device != device:
            origin = self._copy(origin, device, steps)
        return origin

    def _input(self, root: Tensor, device: str) -> Version:
        """An input as the host fills it, in its own dtype; each device has its own copy of it."""
        dtype = self.precision.dtype(root.dtype, "")
        found = self.all.get((root, device, dtype))
        return found or self.originate(root, device, dtype, "input")

    def _cast(self, source: Version, dtype: np.dtype, steps: list[Step]) -> Version:
        made = self._variant(source, source.device, dtype)
        choice = self.dispatch.choose("cast")
        if choice.backend.device != source.device:
            raise cast_elsewhere(str(source), dtype, choice)
        flat = (source.tensor.size,)
        half = self.dispatch.ops["cast"].forward
        arguments = {"out_P": View(made, flat), "x_P": View(source, flat)}
        call = Call(self.dispatch.ops["cast"], half, arguments, {"P": flat[0]})
        steps.append(Step("cast", "cast", arguments, choice, call))
        return made

    def _copy(self, source: Version, device: str, steps: list[Step]) -> Version:
        made = self._variant(source, device, source.dtype)
        steps.append(copy_onto(source, made))
        return made

    def _variant(self, source: Version, device: str, dtype: np.dtype) -> Version:
        key = (source.tensor, device, dtype)
        if key not in self.all:
            # The host fills an input; what is cast from it is made anew in each forward.
            kind = "activation" if source.kind == "input" else source.kind
            self.all[key] = Version(source.tensor, device, dtype, kind)
        return self.all[key]


def copy_onto(source: Version, target: Version) -> Step:
    """The step that copies one version onto another, between devices or on one."""
    shape = source.tensor.shape
    return Step("copy", "copy", {"source": View(source, shape), "target": View(target, shape)})
