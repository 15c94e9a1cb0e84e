"""A state of a program is as the last run left it, and plans may meet in it."""

from pathlib import Path

import numpy as np
import pytest

from harness.contract.precision import Precision
from harness.device import HOST
from harness.errors import ConfigError
from harness.execution.executor import Executor
from harness.execution.parameters import Parameters
from harness.execution.shared_buffers import SharedBuffers
from harness.graph.program import Program
from harness.models.gpt2 import GPT2
from harness.models.gpt2_decode import build_decode
from harness.planning.memory_budget import host_bytes
from harness.planning.planner import make_plan
from harness.plugins.dispatch import Dispatch

TOY = str(Path(__file__).parents[1] / "toy_device.py")
B, X, H, D = 2, 6, 2, 3
SHAPE = (B, X, H, D)
MODEL = GPT2(layers=2, heads=2, channels=8, positions=8, vocab_size=40)


def decode_program(ops, T):
    """attention_decode of T tokens alone, over the caches `keys` and `values`."""
    p = Program(ops)
    qkv = p.input("qkv", (B, T, 3, H, D), "float32")
    position = p.input("position", (B,))
    cache = p.state("keys", SHAPE), p.state("values", SHAPE)
    return p, p.attention_decode(*cache, qkv, position)


def executor_of(ops, T, shared=None, dispatch=None):
    program, result = decode_program(ops, T)
    dispatch = dispatch or Dispatch(ops, {"every_op": "reference"})
    plan = make_plan(program, result, dispatch, Precision(), train=False)
    return Executor(plan, Parameters(program, HOST), (), shared)


def run(executor, qkv, position):
    executor.write("qkv", qkv)
    executor.write("position", np.full(B, position, np.int32))
    executor.forward()
    return executor.read()


def attended(qkv):
    """The output of the last token of each row, with the plain softmax over all of its text."""
    q, k, v = (qkv[:, :, i].astype(np.float64) for i in range(3))
    s = np.einsum("bhd,bjhd->bhj", q[:, -1], k) / np.sqrt(D)
    e = np.exp(s)
    return np.einsum("bhj,bjhd->bhd", e / e.sum(axis=-1, keepdims=True), v)


@pytest.fixture
def qkv(rng):
    return rng.normal(size=(B, 5, 3, H, D)).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_state_is_as_the_last_run_left_it(ops, qkv):
    one = executor_of(ops, 1)
    for t in range(5):
        out = run(one, qkv[:, t : t + 1], t)
        assert np.allclose(out[:, 0], attended(qkv[:, : t + 1]), atol=1e-6)


def test_two_plans_meet_in_one_cache(ops, qkv):
    shared = SharedBuffers()
    many, one = executor_of(ops, 4, shared), executor_of(ops, 1, shared)
    run(many, qkv[:, :4], 0)
    assert np.allclose(run(one, qkv[:, 4:], 4)[:, 0], attended(qkv), atol=1e-6)


def test_without_shared_buffers_each_executor_has_its_own_and_it_is_zero_at_first(ops, qkv):
    many, one = executor_of(ops, 4), executor_of(ops, 1)
    run(many, qkv[:, :4], 0)
    behind_zeros = qkv.copy()
    behind_zeros[:, :4] = 0
    assert np.allclose(run(one, qkv[:, 4:], 4)[:, 0], attended(behind_zeros), atol=1e-6)


def test_a_state_lives_on_the_device_of_its_op(ops, qkv):
    shared, toy = SharedBuffers(), Dispatch(ops, {"every_op": TOY})
    many, one = (executor_of(ops, T, shared, toy) for T in (4, 1))
    run(many, qkv[:, :4], 0)
    assert {version.device for version in one.plan.states} != {"host"}
    assert np.allclose(run(one, qkv[:, 4:], 4)[:, 0], attended(qkv), atol=1e-6)


def test_a_state_that_is_updated_on_two_devices_is_refused(ops):
    p, out = decode_program(ops, 1)
    numbers = [p.input(name, (1,), "float32") for name in ("lr", "clip")]
    gradient = p.input("gradient", (B * X * H * D,), "float32")
    p.sgd(p.states["keys"].reshape(B * X * H * D), None, gradient, *numbers, 0.0, 0.0)
    dispatch = Dispatch(ops, {"every_op": "reference", "sgd": TOY})
    with pytest.raises(ConfigError, match="keys is updated on host, and then on"):
        make_plan(p, out, dispatch, Precision(), train=False, transfer="allow")


def test_a_state_is_counted_and_is_not_in_the_arena(ops):
    small, _ = build_decode(ops, MODEL, 2, 1, 4, head="logits")
    large, _ = build_decode(ops, MODEL, 2, 1, 8, head="logits")
    dispatch = Dispatch(ops, {"every_op": "reference"})
    plans = [make_plan(p, [], dispatch, Precision(), train=False) for p in (small, large)]
    assert plans[0].arena_bytes == plans[1].arena_bytes
    more = MODEL.layers * 2 * 2 * 4 * MODEL.channels * 4  # keys and values, B, places, C, bytes
    assert host_bytes(plans[1]) - host_bytes(plans[0]) == more
    assert sum(version.nbytes for version in plans[1].states) == 2 * more


def test_a_cache_is_float32_under_bf16(ops):
    program, _ = build_decode(ops, MODEL, 1, 1, 8, head="logits")
    plan = make_plan(
        program, [], Dispatch(ops, {"every_op": "numpy"}), Precision("bf16"), train=False
    )
    assert {v.dtype.name for v in plan.states} == {"float32"}


def test_an_activation_in_the_place_of_a_state_is_refused(ops):
    p = Program(ops)
    qkv, position = p.input("qkv", (B, 1, 3, H, D), "float32"), p.input("position", (B,))
    cache = p.input("keys", SHAPE, "float32")
    with pytest.raises(ConfigError, match="cannot take keys as keys_BXHD") as caught:
        p.attention_decode(cache, p.state("values", SHAPE), qkv, position)
    assert caught.value.facts["expected"] == "a state of the program"


def test_a_state_in_the_place_of_an_input_is_refused(ops):
    p = Program(ops)
    with pytest.raises(ConfigError, match="cannot take keys as x_NF"):
        p.gelu(p.state("keys", (2, 4)))


def test_two_states_of_one_name_are_refused(ops):
    p = Program(ops)
    p.state("keys", SHAPE)
    with pytest.raises(ConfigError, match="two states are called 'keys'"):
        p.state("keys", SHAPE)


def test_a_program_over_a_state_is_not_differentiable(ops):
    p = Program(ops)
    weight = p.parameter("weight", (3 * H * D, 4), lambda rng, shape: np.ones(shape, np.float32))
    x = p.input("x", (B, 4), "float32")
    qkv = p.matmul(x, weight, None).reshape(B, 1, 3, H, D)
    cache = p.state("keys", SHAPE), p.state("values", SHAPE)
    out = p.attention_decode(*cache, qkv, p.input("position", (B,)))
    dispatch = Dispatch(ops, {"every_op": "reference"})
    with pytest.raises(ConfigError, match="attention_decode has no backward"):
        make_plan(p, out, dispatch, Precision(), train=True)
