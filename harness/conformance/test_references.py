"""Hold the float64 formulas themselves to finite differences. Backends are held to the formulas."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from harness.conformance.cases.case import Case, data_of
from harness.conformance.cases.listing import drawn_case
from harness.conformance.check import every_op
from harness.contract import In, Op, Param

OPS = every_op()
DIFFERENTIABLE = sorted(op.name for op in OPS.values() if op.backward is not None)
SEEDS = range(4)

# Central differences of a float64 formula: truncation step^2 = 1e-10, rounding 1e-16 / step = 1e-11.
STEP = 1e-5
TOLERANCE = 1e-7


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_reference_backward_is_the_slope_of_reference_forward(name: str, seed: int) -> None:
    op = OPS[name]
    assert op.backward is not None
    rng = np.random.default_rng(seed)
    case = _small_case(op, rng, seed)
    data = data_of(op, case)
    dims = dict(case.dims)
    values: dict[str, Any] = {
        name: value.astype(np.float64) if value is not None and value.dtype.kind == "f" else value
        for name, value in data.buffers.items()
    }
    values |= op.example_settings(dims)
    saved = op.forward.outputs(values, dims)
    upstream = {
        "d" + name: rng.normal(size=np.shape(value))
        for name, value in saved.items()
        if "d" + name in op.backward.signature
    }
    gradients = op.backward.outputs({**values, **saved, **upstream}, dims)

    def loss(values: Mapping[str, Any]) -> float:
        outputs = op.forward.outputs(values, dims)
        return sum(float((outputs[d[1:]] * upstream[d]).sum()) for d in upstream)

    for argument in _inputs(op):
        gradient = op.gradient_of(argument)
        assert gradient is not None
        for _ in range(4):
            direction = rng.normal(size=values[argument.name].shape)
            ahead = {**values, argument.name: values[argument.name] + STEP * direction}
            behind = {**values, argument.name: values[argument.name] - STEP * direction}
            measured = (loss(ahead) - loss(behind)) / (2 * STEP)
            terms = gradients[gradient.name] * direction
            scale = max(1.0, float(np.abs(terms).sum()))
            assert measured == pytest.approx(float(terms.sum()), abs=TOLERANCE * scale), case.id


def _inputs(op: Op) -> list[Any]:
    return [a for a in op.forward.signature.inputs if a.role in (In, Param)]


def _small_case(op: Op, rng: np.random.Generator, seed: int) -> Case:
    """A valid shape of sizes up to 9, of normal data."""

    def choose(among: Any) -> Any:
        among = [one for one in among if not isinstance(one, int) or 2 <= one <= 9] or list(among)
        return among[int(rng.integers(len(among)))]

    dims = drawn_case(op, op.forward.name, "fp32", choose).dims
    return Case(op.forward.name, dims, "normal", seed)
