"""A GPT-2 that computes in float64 from end to end, by the formulas of the op files: the referee.

    referee = Float64Model(source, B, T)
    loss = referee.forward(x_BT, y_BT)
    referee.backward()
    referee.adamw(RECIPE, learning_rate=1e-4)

It takes the program and its derivative as they are recorded, fused ops written out, and runs the calls
one after another. Planner, dispatch and executor, which a backend runs under, have no part in it, and
nothing is rounded to float32 between two ops.
"""

from typing import Any

import numpy as np

from harness.contract import Acc, core_ops
from harness.contract.signature import merge_leading
from harness.graph.autodiff import differentiate
from harness.graph.program import Call, Tensor, expand
from harness.models.gpt2 import GPT2, build
from harness.models.kinds import tensor_shapes
from harness.models.model_file import ModelFile
from harness.planning.memory_budget import MemoryNeed
from harness.training.optimizer import OptimizerSettings

PIECE = 1 << 18  # numbers that AdamW takes at a time: its formula makes eight arrays on its way


class Float64Model:
    """Weights, activations, gradients and moments of one model at one B and T, all float64.

    source: where the weights come from. ways_out: what the user may type where memory will not do.
    gradients: parameter name -> gradient of the mean loss, after `backward`.
    """

    def __init__(self, source: ModelFile, B: int, T: int, ways_out: list[str]) -> None:
        self.ops = core_ops()
        self._shape = B, T, source.model.vocab_size
        _check_least_memory(source.model, B * T, ways_out)
        fused, loss_N = build(self.ops, source.model, B, T)
        self._program, _, replaced = expand(fused, lambda op: "written out")
        self._loss_N = replaced[loss_N.root]
        self._backward = differentiate(self._program, self._loss_N)
        self._check_memory(ways_out)
        self._values: dict[Tensor, np.ndarray] = {}
        self.weights = _weights(source)
        self.gradients: dict[str, np.ndarray] = {}
        self._moments: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._updates = 0

    def forward(self, x_BT: np.ndarray, y_BT: np.ndarray) -> float:
        """The mean loss over the targets that are not -1."""
        given = {"tokens": x_BT, "targets": y_BT, "position": np.zeros(len(x_BT), np.int32)}
        self.gradients = {}
        self._values = {t: given[name] for name, t in self._program.inputs.items()}
        self._values |= {t: self.weights[name] for name, t in self._program.parameters.items()}
        self._run(self._program.calls)
        counted = y_BT >= 0
        self._dloss_N = counted.reshape(-1) / max(1, counted.sum())
        return float((self._values[self._loss_N] * self._dloss_N).sum())

    @property
    def logits(self) -> np.ndarray:
        """The last forward's logits_BTV, without the padding of the vocabulary."""
        B, T, V = self._shape
        last = next(c for c in self._program.calls if c.op.name == "cross_entropy")
        return self._values[last.arguments["logits_NV"].root].reshape(B, T, -1)[..., :V]

    def backward(self) -> None:
        """Fill the gradients of the last forward."""
        self._values[self._backward.seed] = self._dloss_N
        for filler in self._backward.fillers:
            self._values[filler] = np.zeros(filler.shape)
        self._run(self._backward.calls)
        self.gradients = {name: self._values[t] for name, t in self._backward.gradients.items()}

    def adamw(self, settings: OptimizerSettings, learning_rate: float) -> None:
        """One update of every weight from its gradient; the decay applies to all of them."""
        self._updates += 1
        self._values = {}  # the activations, and the weights as they were
        constants: dict[str, Any] = {
            "lr_1": np.array([learning_rate]),
            "correction_2": 1 - np.array([settings.beta1, settings.beta2]) ** self._updates,
            "clip_1": np.ones(1),
            "beta1": settings.beta1,
            "beta2": settings.beta2,
            "eps": settings.eps,
            "weight_decay": settings.weight_decay,
        }
        update = self.ops["adamw"].forward.outputs
        for name, param in self.weights.items():
            if name not in self._moments:
                self._moments[name] = np.zeros(param.size), np.zeros(param.size)
            m_P, v_P = self._moments[name]
            flat = {"param_P": param.reshape(-1), "m_P": m_P, "v_P": v_P}
            flat["grad_P"] = self.gradients[name].reshape(-1)
            for start in range(0, param.size, PIECE):
                pieces = {n: array[start : start + PIECE] for n, array in flat.items()}
                for updated, values in update(pieces | constants, {}).items():
                    pieces[updated][...] = values

    def _run(self, calls: list[Call]) -> None:
        for call in calls:
            signature = call.half.signature
            values = {a.name: call.arguments[a.name] for a in signature.settings}
            values |= dict.fromkeys(a.name for a in signature.inputs)
            for argument, tensor in call.read:
                shape = merge_leading(tensor.shape, len(argument.dims))
                values[argument.name] = self._values[tensor.root].reshape(shape)
            made = call.half.outputs(values, dict.fromkeys(signature.letters) | call.dims)
            for argument, tensor in call.written:
                result = made[argument.name].reshape(tensor.root.shape)
                # A weight that is used twice has the sum of two gradients.
                if argument.role is Acc and tensor.root in self._values:
                    result = self._values[tensor.root] + result
                self._values[tensor.root] = result

    def _check_memory(self, ways_out: list[str]) -> None:
        calls = self._program.calls + self._backward.calls
        written = {t.root for call in calls for _, t in call.written}
        weights = sum(p.size for p in self._program.parameters.values())
        need = MemoryNeed(lambda needed, available: ways_out)
        need.add("weights and moments in float64", 8 * 3 * weights)
        need.add("activations and gradients in float64", 8 * sum(t.size for t in written))
        need.check()


def _check_least_memory(model: GPT2, tokens: int, ways_out: list[str]) -> None:
    """Refuse by arithmetic what could never fit, before a program of a billion layers is written."""
    need = MemoryNeed(lambda needed, available: ways_out)
    need.add("weights and moments in float64", 8 * 3 * model.parameters)
    need.add("logits and their gradient in float64", 8 * 2 * tokens * model.padded_vocab)
    need.check()


def _weights(source: ModelFile) -> dict[str, np.ndarray]:
    weights = {}
    for name, shape in tensor_shapes(source.model).items():
        values = np.empty(shape, np.float32)
        source.read_into(name, values)
        weights[name] = values.astype(np.float64)
    return weights
