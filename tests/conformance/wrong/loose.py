"""How kernels are usually tested, to see what that lets through: one shape, one tolerance, tame data.

Outputs are zeroed beforehand, nothing is None, `accumulate` is False, inputs are not looked at again,
and positions begin at 0: as in the test programs beside most kernels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contract import Ids, OpTable
from harness.contract.precision import dtype_under
from tests.conformance.wrong import Wrong

ROUND = {"B": 4, "T": 32, "N": 64, "C": 64, "H": 4, "D": 16, "F": 128, "I": 64, "O": 128}
ROUND |= {"R": 4, "S": 64, "V": 128, "X": 64, "P": 4096}
ODD = {"B": 3, "T": 17, "N": 37, "C": 33, "H": 3, "D": 7, "F": 31, "I": 29, "O": 23}
ODD |= {"R": 3, "S": 11, "V": 41, "X": 19, "P": 127}
# Room behind each buffer, so that a kernel that stores beyond its end harms nobody.
ROOM = 64


@dataclass(frozen=True)
class Policy:
    """A way to test. hooks: the ending of the hooks that it looks at."""

    name: str
    dims: tuple[Mapping[str, int], ...]
    rtol: float
    atol: float
    hooks: str = ""


FORWARD_ONLY = Policy("forward only, one round shape, 1e-2", (ROUND,), 1e-2, 1e-2, "_forward")
LLM_C = Policy("llm.c dev/cuda style: one round shape, 1e-4", (ROUND,), 1e-4, 1e-4)
TORCH = Policy("torch float32 defaults, round and odd shapes", (ROUND, ODD), 1.3e-6, 1e-5)
POLICIES = (FORWARD_ONLY, LLM_C, TORCH)
BF16_ROUNDOFF = 2.0**-7


def lets_through(policy: Policy, kernel: Wrong, ops: OpTable) -> bool:
    """Whether a policy sees nothing wrong with a kernel. An exception is seen."""
    halved = kernel.hook.endswith(("_forward", "_backward"))
    if halved and not kernel.hook.endswith(policy.hooks):
        return True
    kernel.function.__dict__.clear()  # what some of them keep from call to call
    with np.errstate(all="ignore"):
        return all(_agrees(policy, kernel, ops, dims) for dims in policy.dims)


def _agrees(policy: Policy, kernel: Wrong, ops: OpTable, dims: Mapping[str, int]) -> bool:
    op, half = ops.op_of(kernel.hook), ops.half(kernel.hook)
    values = _inputs(op, half, dims, kernel.precision)
    arguments = {}
    for argument in half.signature.arguments:
        value = values.get(argument.name)
        if argument.is_buffer:
            shape = half.signature.shape_of(argument, dims)
            dtype = dtype_under(kernel.precision, argument.role.dtype)
            value = _roomy(np.zeros(shape) if value is None else value, dtype)
        arguments[argument.name] = value
    exact = {
        name: value.astype(np.float64) if _is_float(value) else value
        for name, value in arguments.items()
    }
    expected = half.outputs(exact, dims)
    try:
        kernel.function(*arguments.values())
    except Exception:
        return False
    rtol = policy.rtol if kernel.precision == "fp32" else max(policy.rtol, BF16_ROUNDOFF)
    return all(
        np.allclose(arguments[name].astype(np.float64), reference, rtol=rtol, atol=policy.atol)
        for name, reference in expected.items()
    )


def _inputs(op: Any, half: Any, dims: Mapping[str, int], precision: str) -> dict[str, Any]:
    """Standard normal numbers; where it is a backward, what the reference forward saves."""
    rng = np.random.default_rng(0)
    values = {"accumulate": False, **op.example_settings(dims)}
    examples = op.example_inputs(rng, dims, values) if op.example_inputs else {}
    forward = op.forward.signature
    for argument in forward.buffers:
        if argument in forward.inputs or argument.role.__name__ == "State":
            value = examples.get(argument.name)
            if value is None:
                value = rng.normal(size=forward.shape_of(argument, dims))
            # No example of this kind leaves a row out, or begins a row elsewhere than at 0.
            if argument.role is Ids:
                value = np.maximum(value, 0) * (argument.stem != "position")
            values[argument.name] = value
    if half is not op.forward:
        values |= op.forward.outputs(values, dims)
        for argument in half.signature.inputs:
            if argument.name not in values:
                values[argument.name] = rng.normal(size=half.signature.shape_of(argument, dims))
    return values


def _roomy(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array of these numbers, with room behind."""
    memory = np.zeros(value.size * dtype.itemsize + ROOM, np.uint8)
    array = memory[: value.size * dtype.itemsize].view(dtype).reshape(value.shape)
    array[...] = value
    return array


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind not in "iub"
