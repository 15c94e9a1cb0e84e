"""Draw a parameter's initial values: the same bits for a name and a seed, whatever else is drawn."""

import hashlib

import numpy as np

from harness.graph.program import Parameter


def initial_values(parameter: Parameter, seed: int) -> np.ndarray:
    """A parameter's initial values, float32 of its shape, drawn from a stream of its own."""
    values = parameter.init(named_stream(seed, parameter.name), parameter.shape)
    return np.ascontiguousarray(values, np.float32)


def named_stream(seed: int, name: str) -> np.random.Generator:
    """A counter-based generator keyed by the seed and a name: no draw depends on those before it."""
    digest = hashlib.sha256(name.encode()).digest()
    key = np.array([seed % 2**64, int.from_bytes(digest[:8], "little")], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
