"""The suite accepts kernels that are right, whichever way they round; full runs are in experiments/."""

import pytest

from harness.conformance.judge import judge_function
from harness.plugins import all_ops
from tests.conformance.honest import TEMPORARIES, all_honest, drawn_cases

OPS = all_ops()
VARIANTS = all_honest()
DRAWN = 30


@pytest.mark.parametrize("kernel", VARIANTS, ids=lambda kernel: kernel.name)
def test_an_honest_kernel_is_accepted(kernel):
    fixed = judge_function(kernel.function, kernel.hook, OPS, waive=TEMPORARIES)
    assert fixed.passed, fixed
    cases = drawn_cases(OPS, kernel.hook, DRAWN)
    drawn = judge_function(kernel.function, kernel.hook, OPS, cases=cases, waive=TEMPORARIES)
    assert drawn.cases >= DRAWN - 5, "most draws differ"
    assert drawn.passed, drawn


def test_every_half_of_every_op_has_two_honest_kernels():
    for hook in OPS.hooks:
        assert sum(kernel.hook == hook for kernel in VARIANTS) >= 2, hook
