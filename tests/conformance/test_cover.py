"""The short list of a slow backend meets what the whole list meets, and refuses what it refuses."""

import numpy as np
import pytest

from harness.conformance.cases.cover import covering, is_small, met, takes_long
from harness.conformance.cases.listing import cases_of
from harness.conformance.judge import judge, judge_function
from harness.plugins import Backend, all_ops
from tests.conformance.wrong import all_wrong

OPS = all_ops()
# Every fourth, and those that shorter lists let through as this one was made.
LET_THROUGH_ONCE = ("flushes_to_zero", "by_the_square", "fmin", "guard", "infinity", "32_bits")
KERNELS = [
    kernel
    for number, kernel in enumerate(all_wrong())
    if number % 4 == 0 or any(part in kernel.name for part in LET_THROUGH_ONCE)
]


@pytest.mark.parametrize("hook", OPS.hooks)
def test_a_short_list_meets_what_the_whole_one_meets_but_for_what_takes_long(hook):
    op = OPS.op_of(hook)
    whole = [case for case in cases_of(op, hook, "fp32") if not takes_long(op, case)]
    short = covering(op, whole)
    assert set(short) <= set(whole)

    def everything(cases):
        return set().union(*(met(op, case) for case in cases))

    assert everything(short) == everything(whole)


def test_short_lists_are_half_as_long_as_the_whole_ones():
    whole = short = 0
    for hook in OPS.hooks:
        cases = cases_of(OPS.op_of(hook), hook, "fp32")
        whole += len(cases)
        short += len(covering(OPS.op_of(hook), cases))
    assert short < whole / 2


@pytest.mark.parametrize("hook", [hook for hook in OPS.hooks if OPS.op_of(hook).name == hook])
def test_flat_arrays_are_met_beyond_a_thousand_elements(hook):
    cases = covering(OPS.op_of(hook), cases_of(OPS.op_of(hook), hook, "fp32"))
    if [letter for letter, _ in cases[-1].dims] == ["P"]:
        assert max(dict(case.dims)["P"] for case in cases) > 1024


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_wrong_kernel_is_refused_on_a_short_list_too(kernel):
    if kernel.law == "memory":
        pytest.skip("that a call takes no memory shows on wide cases of the host alone")
    op = OPS.op_of(kernel.hook)
    verdict = judge_function(
        kernel.function,
        kernel.hook,
        OPS,
        precision=kernel.precision,
        waive=kernel.waived,
        cases=covering(op, cases_of(op, kernel.hook, kernel.precision)),
        stop_after=1,
    )
    assert not verdict.passed, kernel.bug


@pytest.mark.parametrize("slow, calls_at_an_edge", [("", 2), ("a simulator", 1)])
def test_a_slow_backend_is_called_twice_but_at_the_edge_of_a_tile(slow, calls_at_an_edge):
    sizes = []

    def residual_forward(out_NC, a_NC, b_NC):
        sizes.append(out_NC.shape)
        np.add(a_NC, b_NC, out=out_NC)

    functions = {"residual_forward": residual_forward}
    backend = Backend("mine", "host", "numpy", {"fp32": "f32"}, functions, "", slow=slow)
    cases = cases_of(OPS["residual"], "residual_forward", "fp32", wide=False)
    for case in (next(filter(is_small, cases)), next(c for c in cases if not is_small(c))):
        sizes.clear()
        assert judge(backend, "residual_forward", OPS, cases=[case]).passed
        assert len(sizes) == (2 if is_small(case) else calls_at_an_edge)
