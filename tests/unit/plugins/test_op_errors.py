"""What a plugin raises is an error with the plugin's name and line, however it came to run."""

import pytest

from harness.errors import PluginError
from harness.plugins.loading import load
from harness.plugins.op_errors import naming_the_op

SOURCE = """
import math
import numpy as np

@hookimpl
def gelu_forward(out_NF, x_NF):
    np.zeros(-1)  # in NumPy

def kernel():
    math.exp(1e9)
"""


@pytest.fixture
def mine(backend_file, ops):
    return load(backend_file("mine", SOURCE), ops)


def raised(backend, call):
    with pytest.raises(PluginError) as caught, naming_the_op([backend]):
        call()
    assert caught.value.slug == "op-raised"
    return caught.value


def line(text):
    return next(n for n, words in enumerate(SOURCE.splitlines(), 2) if text in words)


def test_the_line_is_the_plugin_s_own_where_a_library_raised(mine, monkeypatch):
    monkeypatch.setattr(mine.module.np, "zeros", _library)
    error = raised(mine, lambda: mine.functions["gelu_forward"](None, None))
    assert error.headline.startswith("gelu_forward of backend '")
    assert error.facts["where"].endswith(f"mine.py:{line('in NumPy')}")
    assert "test_op_errors.py:" in error.facts["inside"]


def _library(shape):
    raise ValueError("negative dimensions are not allowed")


def test_what_a_captured_step_runs_of_a_file_is_named_with_the_file(mine):
    """A replayed kernel: the function that launched it is long done."""
    error = raised(mine, mine.module.kernel)
    assert "mine.py' raised OverflowError" in error.headline
    assert error.facts["where"].endswith(f"mine.py:{line('math.exp')}")
    assert "inside" not in error.facts


def test_what_no_plugin_raised_stays_as_it_is(mine):
    with pytest.raises(ValueError, match="negative"), naming_the_op([mine]):
        _library(-1)
