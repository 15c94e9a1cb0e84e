import numpy as np
import pytest

from harness.bench import cases
from harness.bench.cases import Bound, Shape, make_case, matrix, shapes_of
from harness.errors import ConfigError, NumericsError
from harness.plugins.loading import load_file, load_reference


@pytest.fixture(scope="module")
def reference(ops):
    return load_reference(ops)


WRONG = """
import numpy as np
from harness import hookimpl

device, arrays, computes = "host", "numpy", {"fp32": "f32"}

@hookimpl
def gelu_forward(out_NF, x_NF):
    %s
"""


@pytest.fixture
def kernel(tmp_path, ops):
    """A backend with one gelu_forward, whose body is given."""

    def make(body):
        file = tmp_path / "kernel.py"
        file.write_text(WRONG % body)
        return load_file(file, ops)

    return make


def gelu_case(ops):
    op = ops["gelu"]
    return make_case(op, op.forward, Shape("small", {"N": 8, "F": 16}))


def test_every_half_has_a_small_case_that_the_reference_passes(ops, reference):
    for op, half, shape in matrix(ops, (), ("small",)):
        assert Bound(reference, make_case(op, half, shape)).check() <= 1, half.name


def test_every_op_has_one_small_shape_and_its_own_real_ones(ops):
    for op in ops.values():
        kinds = [shape.kind for shape in shapes_of(op)]
        assert kinds == ["small", *["real"] * len(op.shapes)]


def test_a_wrong_kernel_is_refused(ops, kernel):
    backend = kernel("np.multiply(x_NF, 0.5, out=out_NF)")
    with pytest.raises(NumericsError, match="is wrong, and is not timed") as refused:
        Bound(backend, gelu_case(ops)).check()
    assert refused.value.slug == "benchmark-refused"
    assert "out_NF is off by" in refused.value.facts["found"]
    assert "kernel.py" in refused.value.facts["where"]


def test_a_kernel_that_writes_nothing_is_refused(ops, kernel):
    with pytest.raises(NumericsError):
        Bound(kernel("pass"), gelu_case(ops)).check()


def test_a_kernel_that_is_right_once_only_is_refused_after_its_rounds(ops, kernel):
    exact = "0.5 * x_NF * (1 + np.tanh(np.sqrt(2 / np.pi) * (x_NF + 0.044715 * x_NF**3)))"
    once = f"if not globals().setdefault('done', []): out_NF[...] = {exact}; done.append(1)"
    bound = Bound(kernel(once), gelu_case(ops))
    bound.check()
    bound.setup()
    bound()
    with pytest.raises(NumericsError):
        bound.check_last()


def test_state_is_fresh_in_every_round(ops, reference):
    op = ops["sgd"]
    bound = Bound(reference, make_case(op, op.forward, shapes_of(op)[0]))
    bound()
    bound()
    assert bound.check() <= 1
    with pytest.raises(NumericsError):
        bound()  # a second update of the same state
        bound.check_last()


def test_a_large_flat_case_is_checked_in_slices_to_its_last_element(ops, reference, monkeypatch):
    monkeypatch.setattr(cases, "CHUNK", 10)
    op = ops["adamw"]
    bound = Bound(reference, make_case(op, op.forward, Shape("small", {"P": 25})))
    assert bound.check() <= 1
    bound._buffers["param_P"][24] += 1e-3
    with pytest.raises(NumericsError, match="is wrong"):
        bound.check_last()


def test_a_backward_is_given_what_the_forward_saved(ops):
    op = ops["layernorm"]
    case = make_case(op, op.backward, Shape("small", {"N": 3, "C": 50}))
    x_NC, mean_N = case.values["x_NC"], case.values["mean_N"]
    np.testing.assert_allclose(mean_N, x_NC.mean(axis=1), rtol=0, atol=1e-6)  # float32, 50 terms
    assert case.values["accumulate"] is False
    assert not np.all(case.values["dout_NC"] == case.values["dout_NC"][0, 0])


def test_ops_and_halves_are_chosen_by_name(ops):
    halves = [half.name for _, half, _ in matrix(ops, ("gelu_backward", "sgd"), ("small",))]
    assert halves == ["gelu_backward", "sgd"]
    with pytest.raises(ConfigError, match="gelo"):
        matrix(ops, ("gelo",), ("small",))
