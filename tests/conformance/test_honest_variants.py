"""The suite accepts kernels that are right, whichever way they round; full runs are in experiments/."""

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


def drawn_cases(hook, count, seed=0):
    """Cases of any shape, style, data, None and setting: the same for every variant of a hook."""
    rng = np.random.default_rng([seed, zlib.crc32(hook.encode())])

    def choose(among):
        return among[int(rng.integers(len(among)))]

    return [drawn_case(OPS.op_of(hook), hook, "fp32", choose) for _ in range(count)]


@pytest.mark.parametrize("kernel", VARIANTS, ids=lambda kernel: kernel.name)
def test_an_honest_kernel_is_accepted(kernel):
    fixed = judge_function(kernel.function, kernel.hook, OPS)
    assert not refusals(fixed), fixed
    cases = drawn_cases(kernel.hook, DRAWN)
    drawn = judge_function(kernel.function, kernel.hook, OPS, cases=cases)
    assert drawn.cases >= DRAWN - 5, "most draws differ"
    assert not refusals(drawn), drawn


def test_every_half_of_every_op_has_two_honest_kernels():
    for hook in OPS.hooks:
        assert sum(kernel.hook == hook for kernel in VARIANTS) >= 2, hook
