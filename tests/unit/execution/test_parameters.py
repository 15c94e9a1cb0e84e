"""The flat arenas: views of them, the same initial bits everywhere, and to the host and back."""

import numpy as np
import pytest

from harness.device import ALIGNMENT, HOST
from harness.errors import CheckpointError
from harness.execution.parameters import Parameters
from harness.graph.program import Program


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
