"""The layout of the flat arenas: decayed parameters first, each at a multiple of 128 bytes."""

import numpy as np
import pytest

from harness.device import ALIGNMENT
from harness.graph.program import Program
from harness.models.gpt2 import build
from harness.planning.layout import BF16_WEIGHTS, arena_bytes, make_layout


@pytest.fixture
def program(ops):
    """Groups that are declared in another order than the arena's."""
    program = Program(ops)
    for name, shape, options in (
        ("frozen", (3, 5), {"decay": True, "trained": False}),
        ("bias", (5,), {}),
        ("weight", (7, 5), {"decay": True}),
        ("other", (40,), {"decay": True}),
    ):
        program.parameter(name, shape, lambda rng, shape: np.zeros(shape), **options)
    return program


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


def test_an_arena_holds_all_parameters_or_the_trained_ones_in_its_own_dtype(program):
    layout = make_layout(program)
    assert arena_bytes(layout, "parameter") == 4 * layout.total
    assert arena_bytes(layout, BF16_WEIGHTS) == 2 * layout.total
    assert arena_bytes(layout, "gradient") == 4 * layout.trained
