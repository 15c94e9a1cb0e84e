"""Append the backward calls to a program, by matching names.

A backward's `d<input>` is the gradient of that input, its `d<output>` the gradient of that output, and
an argument with a forward's name is the forward's own tensor. Nothing else is known about any op.
"""

from dataclasses import dataclass
from typing import Any

from harness.contract import Acc, Argument, Half
from harness.errors import ConfigError
from harness.graph.program import Call, Parameter, Program, Tensor, wants_gradient


@dataclass
class Backward:
    """The backward calls of a program, and the gradients they make.

    seed: the gradient of the loss, which the host fills before each backward.
    gradients: parameter name -> its gradient, written by every call that has it as an Acc; which of
    those calls accumulate is for the plan to decide.
    fillers: gradients of outputs that nobody read, where the signature insists on one: zeros.
    """

    calls: list[Call]
    seed: Tensor
    gradients: dict[str, Tensor]
    fillers: list[Tensor]


def differentiate(program: Program, loss: Tensor) -> Backward:
    """The backward of `loss` in every trained parameter of the program.

    Gradients that reach one tensor by two ways are summed by the `residual` op.
    Raises ConfigError where a gradient would have to pass through an op that has no backward.
    """
    return _Tape(program, loss).run()


class _Tape:
    def __init__(self, program: Program, loss: Tensor) -> None:
        self.program = program
        self.needed = _needed(program)
        seed = program.tensor("d" + loss.name, loss.root.shape, "input", "float32")
        self.gradient: dict[Tensor, Tensor] = {loss.root: seed}
        self.result = Backward([], seed, {}, [])

    def run(self) -> Backward:
        for call in reversed(self.program.calls):
            if any(t.root in self.gradient for _, t in call.written):
                self._differentiate(call)
        return self.result

    def _differentiate(self, call: Call) -> None:
        if not any(t.root in self.needed for _, t in call.read):
            return
        if call.op.passes_gradient:
            (_, out), *_ = call.written
            for name in call.op.passes_gradient:
                self._arrive(call.arguments[name], self.gradient[out.root])
            return
        half = call.op.backward
        if half is None:
            raise ConfigError(
                f"{call.op.name} has no backward, and the loss depends on parameters through it",
                slug="not-differentiable",
            )
        made = self._make_gradients(call)
        arguments: dict[str, Any] = {}
        for argument in half.signature.arguments:
            name = argument.name
            if name in made:
                arguments[name] = made[name]
            elif name == "accumulate":
                arguments[name] = False
            elif name in call.arguments:
                arguments[name] = call.arguments[name]
            elif half.signature.writes(argument):
                arguments[name] = None  # a gradient that nobody needs
            else:
                arguments[name] = self._incoming(call, name)
            if arguments[name] is None and not argument.optional:
                arguments[name] = self._filler(half, argument, call.dims)
        self.result.calls.append(Call(call.op, half, arguments, call.dims))
        # Gradients join what arrived before only after the call that makes them.
        for argument in call.op.forward.signature.inputs:
            gradient = call.op.gradient_of(argument)
            if gradient is not None and gradient.role is not Acc and gradient.name in made:
                self._arrive(call.arguments[argument.name], made[gradient.name])

    def _make_gradients(self, call: Call) -> dict[str, Tensor]:
        """The gradients that a backward call is to make, by the backward's argument names."""
        made: dict[str, Tensor] = {}
        for argument, tensor in call.read:
            gradient = call.op.gradient_of(argument)
            if gradient is None or tensor.root not in self.needed or gradient.name in made:
                continue
            made[gradient.name] = self._make(call, tensor, gradient.role is Acc)
        return made

    def _make(self, call: Call, tensor: Tensor, accumulated: bool) -> Tensor:
        root = tensor.root
        name = "d" + root.name
        if not accumulated:
            return self.program.tensor(name, tensor.shape, "activation", "activation")
        if not isinstance(root, Parameter):
            raise ConfigError(
                f"{call.op.name} takes a parameter where it is given {root.name}, an activation",
                slug="activation-as-parameter",
                effect="its gradient would be accumulated, and nothing would pass it on",
                do="give it a parameter, or use an op that reads this as an In",
            )
        if root.name not in self.result.gradients:
            made = self.program.tensor(name, root.shape, "gradient", "gradient")
            self.result.gradients[root.name] = made
        gradient = self.result.gradients[root.name]
        return gradient if gradient.shape == tensor.shape else gradient.reshape(*tensor.shape)

    def _incoming(self, call: Call, name: str) -> Tensor | None:
        """The gradient of the output that `name` is the d of, in the output's shape."""
        output = call.arguments[name.removeprefix("d")]
        gradient = self.gradient.get(output.root)
        if gradient is None or gradient.shape == output.shape:
            return gradient
        return gradient.reshape(*output.shape)

    def _filler(self, half: Half, argument: Argument, dims: dict[str, int]) -> Tensor:
        shape = half.signature.shape_of(argument, dims)
        name = f"unused.{argument.name}"
        filler = self.program.tensor(name, shape, "activation", "activation")
        if not half.signature.writes(argument):
            self.result.fillers.append(filler)
        return filler

    def _arrive(self, tensor: Tensor, gradient: Tensor) -> None:
        """A gradient reaches a tensor: the first is kept, each further one is summed to it."""
        root = tensor.root
        if root not in self.needed:
            return
        if isinstance(root, Parameter):
            raise ConfigError(
                f"the parameter {root.name} is read as an activation, so its gradient would be lost",
                slug="parameter-as-activation",
                do="use an op that reads it as a Param, or freeze it (trained=False)",
            )
        if gradient.shape != root.shape:
            gradient = gradient.reshape(*root.shape)
        before = self.gradient.get(root)
        if before is None:
            self.gradient[root] = gradient
            return
        half = self.program.ops["residual"].forward
        total = self.program.tensor("d" + root.name, root.shape, "activation", "activation")
        arguments = {"out_NC": total, "a_NC": before, "b_NC": gradient}
        flat = _as_rows(arguments)
        dims = half.signature.bind({name: t.shape for name, t in flat.items()})
        self.result.calls.append(Call(self.program.ops["residual"], half, dict(flat), dims))
        self.gradient[root] = total


def _needed(program: Program) -> set[Tensor]:
    """The tensors whose gradient is wanted: trained parameters, and what depends on one."""
    needed: set[Tensor] = {p for p in program.parameters.values() if p.trained}
    for call in program.calls:
        if any(t.root in needed for _, t in call.read):
            needed.update(t.root for _, t in call.written if wants_gradient(t))
    return needed


def _as_rows(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of one dimension as a single row, so that an op over rows takes them."""
    return {
        name: t if len(t.shape) > 1 else t.reshape(1, *t.shape) for name, t in arguments.items()
    }
