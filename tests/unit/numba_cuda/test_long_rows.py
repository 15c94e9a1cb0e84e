"""Rows as long as GPT-2's, in which a thread has all the numbers it can; the short list has none."""

import pytest
from numba import config

from harness.conformance.cases.case import parse_case
from harness.conformance.judge import judge
from harness.plugins.loading import all_ops, load

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)

OPS = all_ops()
CASES = (
    "layernorm_forward[N=2,C=1601,large-mean,seed=0,{}]",
    "layernorm_backward[N=2,C=1601,normal,seed=0,{},accumulate]",
    "residual_layernorm_forward[N=2,C=801,normal,seed=0,{}]",
    "residual_layernorm_backward[N=2,C=801,normal,seed=0,{}]",
    "softmax_forward[N=2,V=4099,normal,seed=0,{}]",
    "softmax_backward[N=2,V=4099,normal,seed=0,{}]",
    "cross_entropy_forward[N=2,V=4099,end-ids,seed=0,{}]",
    "cross_entropy_backward[N=2,V=4099,end-ids,seed=0,{}]",
    "embedding_forward[B=1,T=3,C=1601,V=5,X=4,normal,seed=0,{}]",
    "embedding_backward[B=1,T=3,C=1601,V=5,X=4,equal-ids,seed=0,{}]",
    "matmul_forward[N=3,O=5,I=1601,normal,seed=0,{}]",
    "matmul_backward[N=769,O=3,I=2,normal,seed=0,{},accumulate]",
    "attention_forward[B=1,T=71,H=1,D=3,normal,seed=0,{}]",
    "attention_backward[B=1,T=71,H=1,D=3,normal,seed=0,{}]",
    "attention_decode[B=1,T=1,H=1,D=3,X=300,normal,seed=0,{}]",
)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.partition("[")[0])
def test_a_long_row_is_right(case, precision):
    case = parse_case(case.format(precision), OPS)
    backend = load("numba_cuda", OPS)
    verdict = judge(backend, case.hook, OPS, precision=precision, cases=[case])
    assert verdict.passed and verdict.cases == 1, verdict
