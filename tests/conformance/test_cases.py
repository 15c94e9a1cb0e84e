import itertools

import numpy as np
import pytest

from harness.conformance.cases.case import CACHE, data_of, parse_case
from harness.conformance.cases.data import STYLES
from harness.conformance.cases.listing import cases_of
from harness.conformance.trial import prepare
from harness.device import ALIGNMENT, HOST
from harness.errors import ConfigError
from harness.plugins import all_ops

OPS = all_ops()


def every_case(hook):
    return cases_of(OPS.op_of(hook), hook, "fp32")


@pytest.mark.parametrize("hook", OPS.hooks)
def test_a_case_is_rebuilt_from_its_id(hook):
    for case in every_case(hook):
        assert parse_case(case.id, OPS) == case


@pytest.mark.parametrize("hook", OPS.hooks)
def test_every_letter_is_once_1_and_once_beyond_a_tile(hook):
    cases = every_case(hook)
    for letter in dict(cases[0].dims):
        sizes = {dict(case.dims)[letter] for case in cases}
        assert 1 in sizes
        assert any(size > 30 for size in sizes), sizes


@pytest.mark.parametrize("hook", OPS.hooks)
def test_every_combination_of_none_is_there(hook):
    half = OPS.half(hook)
    optional = {a.name for a in half.signature.buffers if a.optional}
    outputs = {a.name for a in half.signature.outputs}
    combinations = {frozenset(case.without) for case in every_case(hook)}
    expected = 2 ** len(optional) - (2 ** len(optional - outputs) if outputs <= optional else 0)
    assert len(combinations) == expected


@pytest.mark.parametrize("hook", OPS.hooks)
def test_every_alias_that_the_op_file_lists_is_tried_both_ways(hook):
    aliases = {case.alias for case in every_case(hook)}
    assert aliases == {None, *OPS.half(hook).may_alias}


def test_both_ways_of_accumulate_meet_every_combination_of_none():
    cases = every_case("layernorm_backward")
    assert len({(case.without, case.accumulate) for case in cases}) == 14


def test_the_same_id_has_the_same_bits():
    case = parse_case("attention_backward[B=2,T=7,H=3,D=5,offset,seed=4,fp32]", OPS)
    op = OPS["attention"]
    first = {n: b.copy() for n, b in data_of(op, case).buffers.items()}
    CACHE.clear()
    again = data_of(op, case).buffers
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)


def test_an_unknown_part_of_an_id_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="larg-mean") as caught:
        parse_case("layernorm_forward[N=7,C=33,larg-mean,seed=3,fp32]", OPS)
    assert caught.value.facts["nearest"] == "large-mean"


def test_a_missing_letter_is_refused():
    with pytest.raises(ConfigError, match="does not say C"):
        parse_case("layernorm_forward[N=7,normal,seed=3,fp32]", OPS)


def test_targets_reach_the_last_token_and_ignored_rows():
    case = parse_case("cross_entropy_forward[N=37,V=33,end-ids,seed=0,fp32]", OPS)
    data = data_of(OPS["cross_entropy"], case)
    assert set(data.buffers["targets_N"]) == {-1, data.settings["vocab_size"] - 1}


def test_half_of_a_cache_beyond_the_new_tokens_is_nan_and_nothing_before():
    case = parse_case("attention_decode[B=3,T=2,H=3,D=5,X=31,normal,seed=0,fp32]", OPS)
    buffers = data_of(OPS["attention_decode"], case).buffers
    for name in ("keys_BXHD", "values_BXHD"):
        for cache_XHD, first in zip(buffers[name], buffers["position_B"], strict=True):
            assert np.isfinite(cache_XHD[: first + 2]).all()
            beyond = cache_XHD[first + 2 :]
            assert not beyond.size or 0.3 < np.isnan(beyond).mean() < 0.7


def test_adamw_meets_gradients_below_its_eps_with_empty_moments():
    case = parse_case("adamw[P=127,first-step,seed=0,fp32]", OPS)
    buffers = data_of(OPS["adamw"], case).buffers
    assert not buffers["m_P"].any()
    assert (np.abs(buffers["grad_P"]) < 1e-8).any()


def test_every_style_of_data_is_used_by_layernorm():
    assert {case.style for case in every_case("layernorm_forward")} >= set(STYLES)


def test_saved_tensors_are_the_forwards_rounded_to_their_buffers():
    case = parse_case("attention_backward[B=2,T=7,H=3,D=5,normal,seed=0,bf16]", OPS)
    op = OPS["attention"]
    buffers = data_of(op, case).buffers
    qkv = buffers["qkv_BT3HD"].astype(np.float64)
    out, lse = op.forward.reference(qkv)
    assert (buffers["out_BTHD"] == out.astype(buffers["out_BTHD"].dtype)).all()
    assert (buffers["lse_BHT"] == lse.astype(np.float32)).all()


def test_buffers_are_aligned_contiguous_and_apart():
    case = parse_case("layernorm_backward[N=7,C=33,normal,seed=0,fp32]", OPS)
    layout = prepare(OPS["layernorm"], case, "f32").layout
    memory = HOST.empty(layout.before.size)
    for place in layout.places.values():
        buffer = place.of(memory)
        assert buffer.ctypes.data % ALIGNMENT == 0
        assert buffer.flags.c_contiguous
    ends = sorted((place.start, place.stop) for place in layout.places.values())
    assert all(b[0] - a[1] >= 256 for a, b in itertools.pairwise(ends))
