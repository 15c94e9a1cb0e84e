"""The flat arenas: decayed first, aligned, the same initial bits everywhere, and back and forth."""

import hashlib

import numpy as np
import pytest

from harness.device import ALIGNMENT, HOST
from harness.errors import CheckpointError
from harness.execution.parameters import Parameters, initial_values, make_layout
from harness.graph.program import Program
from harness.models.gpt2 import build


def normal(rng, shape):
    return rng.standard_normal(shape, np.float32)


@pytest.fixture
def program(ops):
    """Groups that are declared in another order than the arena's."""
    program = Program(ops)
    program.parameter("frozen", (3, 5), normal, decay=True, trained=False)
    program.parameter("bias", (5,), normal)
    program.parameter("weight", (7, 5), normal, decay=True)
    program.parameter("other", (40,), normal, decay=True)
    return program


@pytest.fixture
def parameters(program):
    parameters = Parameters(program, HOST)
    parameters.initialise(0)
    return parameters


def test_decayed_parameters_stand_first_then_trained_then_frozen(program):
    layout = make_layout(program)
    assert list(layout.offsets) == ["weight", "other", "bias", "frozen"]
    assert list(layout.offsets.values()) == sorted(layout.offsets.values())
    assert layout.offsets["bias"] == layout.decayed
    assert layout.offsets["frozen"] == layout.trained


def test_every_parameter_begins_at_a_multiple_of_128_bytes(program):
    layout = make_layout(program)
    assert all(4 * offset % ALIGNMENT == 0 for offset in layout.offsets.values())
    assert layout.offsets["other"] == 64  # 35 elements, rounded up to 32s


def test_gpt2_decays_its_matrices_and_nothing_else(ops, micro):
    program, _ = build(ops, micro, 1, 2)
    layout = make_layout(program)
    decayed = {name for name, offset in layout.offsets.items() if offset < layout.decayed}
    assert decayed == {name for name, p in program.parameters.items() if len(p.shape) == 2}
    assert layout.trained == layout.total


def test_the_views_of_an_arena_are_parts_of_it_in_the_right_place(parameters):
    flat = parameters.flat("parameter", 0, parameters.layout.total)
    assert flat.ctypes.data % ALIGNMENT == 0
    for name, offset in parameters.layout.offsets.items():
        view = parameters.view("parameter", name)
        assert np.shares_memory(view, flat)
        np.testing.assert_array_equal(view.ravel(), flat[offset : offset + view.size])


def test_the_gaps_between_parameters_are_zero(parameters):
    flat = parameters.flat("parameter", 0, parameters.layout.total).copy()
    for name, offset in parameters.layout.offsets.items():
        flat[offset : offset + parameters.view("parameter", name).size] = 0
    assert not flat.any()


def test_the_same_seed_gives_the_same_bits(program, parameters):
    again = Parameters(program, HOST)
    again.initialise(0)
    for name, values in parameters.to_host().items():
        assert values.tobytes() == again.to_host()[name].tobytes()


def test_another_seed_gives_other_values(program, parameters):
    other = Parameters(program, HOST)
    other.initialise(1)
    for name, values in parameters.to_host().items():
        assert not (values == other.to_host()[name]).any(), name


def test_initial_values_depend_on_the_name_and_not_on_the_order(program, ops):
    alone = Program(ops)
    again = alone.parameter("other", (40,), normal)
    expected = initial_values(program.parameters["other"], 7)
    assert initial_values(again, 7).tobytes() == expected.tobytes()
    assert (initial_values(program.parameters["bias"], 7) != expected[:5]).all()


def test_the_initial_bits_are_the_ones_that_were_published(ops):
    """Philox, keyed by the seed and the sha256 of the name: a counter-based stream, NumPy's own."""
    uniform = Program(ops).parameter("wte", (4,), lambda rng, shape: rng.random(shape, np.float32))
    key = int.from_bytes(hashlib.sha256(b"wte").digest()[:8], "little")
    rng = np.random.Generator(np.random.Philox(key=np.array([3, key], np.uint64)))
    np.testing.assert_array_equal(initial_values(uniform, 3), rng.random(4, np.float32))
    assert initial_values(uniform, 3).tobytes().hex() == PUBLISHED


# Written down once; another value means that every run of every seed has changed.
PUBLISHED = "a81a803dabef023f88e1a03dbf47533f"


def test_what_goes_to_the_host_comes_back(program, parameters):
    copy = Parameters(program, HOST)
    copy.from_host(parameters.to_host())
    for name, values in parameters.to_host().items():
        np.testing.assert_array_equal(copy.to_host()[name], values)


def test_arrays_on_the_host_are_copies(parameters):
    arrays = parameters.to_host()
    arrays["bias"][:] = 9
    assert not (parameters.view("parameter", "bias") == 9).any()


@pytest.mark.parametrize(
    ("change", "found"),
    [(lambda a: a.pop("weight"), "nothing"), (lambda a: a.update(weight=a["bias"]), "shape (5,)")],
    ids=["missing", "misshapen"],
)
def test_arrays_that_do_not_fit_the_model_are_refused(parameters, change, found):
    arrays = parameters.to_host()
    change(arrays)
    with pytest.raises(CheckpointError, match="does not fit the model: parameter weight") as caught:
        parameters.from_host(arrays)
    assert caught.value.facts["expected"] == "shape (7, 5)"
    assert caught.value.facts["found"] == found


def test_only_trained_parameters_have_gradients_and_moments(parameters):
    before = parameters.nbytes
    parameters.need("gradient")
    parameters.need("m")
    parameters.need("m")
    assert parameters.arenas == ("parameter", "gradient", "m")
    assert set(parameters.to_host("m")) == {"weight", "other", "bias"}
    assert parameters.nbytes == before + 2 * 4 * parameters.layout.trained
    assert not parameters.flat("m", 0, parameters.layout.trained).any()
