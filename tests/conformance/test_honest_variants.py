"""The suite accepts kernels that are right, whichever way they round. The full runs are in experiments/."""

import zlib

import numpy as np
import pytest

from harness.conformance.cases import drawn_case
from harness.conformance.judge import judge_function
from harness.plugins import all_ops
from tests.conformance.honest import all_honest, refusals

OPS = all_ops()
VARIANTS = all_honest()
DRAWN = 30


def marked(kernel):
    marks = [pytest.mark.xfail(reason=kernel.refused)] if kernel.refused else []
    return pytest.param(kernel, id=kernel.name, marks=marks)


def drawn_cases(hook, count, seed=0):
    """Cases of any shape, style, data, None and setting: the same for every variant of a hook."""
    rng = np.random.default_rng([seed, zlib.crc32(hook.encode())])

    def choose(among):
        return among[int(rng.integers(len(among)))]

    return [drawn_case(OPS.op_of(hook), hook, "fp32", choose) for _ in range(count)]


@pytest.mark.parametrize("kernel", [marked(kernel) for kernel in VARIANTS])
def test_an_honest_kernel_is_accepted(kernel):
    fixed = judge_function(kernel.function, kernel.hook, OPS)
    assert not refusals(fixed), fixed
    cases = drawn_cases(kernel.hook, DRAWN)
    drawn = judge_function(kernel.function, kernel.hook, OPS, cases=cases)
    assert drawn.cases >= DRAWN - 5, "most draws differ"
    assert not refusals(drawn), drawn


@pytest.mark.parametrize("kernel", [k for k in VARIANTS if k.refused], ids=lambda k: k.name)
def test_what_is_said_to_be_refused_is_refused(kernel):
    assert refusals(judge_function(kernel.function, kernel.hook, OPS))


def test_every_half_of_every_op_has_two_honest_kernels():
    for hook in OPS.hooks:
        assert sum(kernel.hook == hook for kernel in VARIANTS) >= 2, hook
