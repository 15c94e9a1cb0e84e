"""The suite refuses kernels that are wrong, those that looser comparisons let through among them."""

import pytest

from harness.conformance.judge import judge_function
from harness.plugins import all_ops
from tests.conformance.wrong import all_wrong
from tests.conformance.wrong.loose import LLM_C, lets_through

OPS = all_ops()
KERNELS = all_wrong()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_wrong_kernel_is_refused(kernel):
    verdict = judge_function(
        kernel.function,
        kernel.hook,
        OPS,
        precision=kernel.precision,
        waive=kernel.waived,
        stop_after=1,
    )
    assert not verdict.passed, kernel.bug
    laws = {failure.law for failure in verdict.failures}
    assert not kernel.law or laws == {kernel.law}, verdict


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_bug_is_called_subtle_if_a_comparison_in_the_style_of_llm_c_lets_it_through(kernel):
    assert lets_through(LLM_C, kernel, OPS) == kernel.subtle


def test_there_are_at_least_fifty_wrong_kernels_and_fifteen_are_subtle():
    assert len({kernel.name for kernel in KERNELS}) == len(KERNELS) >= 50
    assert sum(kernel.subtle for kernel in KERNELS) >= 15


def test_every_half_of_every_op_has_a_wrong_kernel():
    assert {kernel.hook for kernel in KERNELS} == set(OPS.hooks)
