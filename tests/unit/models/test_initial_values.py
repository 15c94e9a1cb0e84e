"""Initial values: a parameter's bits come from the seed and its name alone."""

import hashlib

import numpy as np

from harness.graph.program import Program
from harness.models.initial_values import initial_values


def uniform(rng, shape):
    return rng.random(shape, np.float32)


def test_initial_values_depend_on_the_name_and_not_on_the_order(ops):
    program = Program(ops)
    bias = program.parameter("bias", (5,), uniform)
    other = program.parameter("other", (40,), uniform)
    alone = Program(ops).parameter("other", (40,), uniform)
    expected = initial_values(other, 7)
    assert initial_values(alone, 7).tobytes() == expected.tobytes()
    assert (initial_values(bias, 7) != expected[:5]).all()


def test_the_initial_bits_are_the_ones_that_were_published(ops):
    """Philox, keyed by the seed and the sha256 of the name: a counter-based stream, NumPy's own."""
    wte = Program(ops).parameter("wte", (4,), uniform)
    key = int.from_bytes(hashlib.sha256(b"wte").digest()[:8], "little")
    rng = np.random.Generator(np.random.Philox(key=np.array([3, key], np.uint64)))
    np.testing.assert_array_equal(initial_values(wte, 3), rng.random(4, np.float32))
    assert initial_values(wte, 3).tobytes().hex() == PUBLISHED


# Written down once; another value means that every run of every seed has changed.
PUBLISHED = "a81a803dabef023f88e1a03dbf47533f"
