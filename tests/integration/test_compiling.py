"""What a backend spends compiling is told apart from what a step takes."""

import pytest

from harness.plugins.compile_clock import CompileClock

SLOW_TO_COMPILE = '''
"""out = gelu(x), after half a second of compiling, once."""

import time

import numpy as np

from harness import hookimpl

device, arrays, computes = "host", "numpy", {"fp32": "f32"}
spent = 0.0


@hookimpl
def gelu_forward(out_NF, x_NF):
    global spent
    if not spent:
        time.sleep(0.5)
        spent = 0.5
    np.copyto(out_NF, x_NF / (1 + np.exp(-1.702 * x_NF)))


@hookimpl
def compile_seconds():
    return spent
'''


def test_compiling_is_said_once_and_no_part_of_the_step(train, workplace):
    (workplace / "slow.py").write_text(SLOW_TO_COMPILE)
    outcome = train("ops.gelu_forward=./slow.py", "ops.matmul_gelu=expand", "steps=2")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("compiled  kernels of ") == 1
    assert "slow.py in 0.5 s" in outcome.out
    (record,) = outcome.records("compiling")
    assert record["seconds"] == pytest.approx(0.5)
    first, second = outcome.records()
    assert first["step_ms"] < 400
    assert second["step_ms"] < 400


def test_a_backend_that_does_not_compile_says_nothing(train):
    outcome = train("steps=1")
    assert "compiled" not in outcome.out
    assert outcome.records("compiling") == []


def test_a_lap_counts_from_the_last_one():
    seconds = iter([1.0, 3.5, 3.5])
    backend = type("Backend", (), {"name": "b", "__contains__": lambda self, hook: True})()
    backend.functions = {"compile_seconds": lambda: next(seconds)}
    clock = CompileClock([backend])
    assert clock.lap() == {"b": 2.5}
    assert clock.lap() == {}
