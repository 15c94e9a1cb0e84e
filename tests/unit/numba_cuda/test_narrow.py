"""What a GPU is asked to round by, and what the simulator rounds by in its place."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from backends.numba_cuda._narrow import _rounded, narrow, wide

ROUNDS = """
import sys
import backends.numba_cuda._compile_only as compile_only
if compile_only.missing():
    sys.exit(compile_only.missing())
from numba import cuda, float32, uint16
from backends.numba_cuda._compile_only import Launch, ptx
from backends.numba_cuda._narrow import narrow, wide

@cuda.jit
def kernel(out_N, x_N):
    out_N[0] = narrow(out_N, wide(x_N[0]))

print(ptx(Launch(kernel, (uint16[::1], uint16[::1])), sys.argv[1]))
print(ptx(Launch(kernel, (float32[::1], float32[::1])), sys.argv[1]))
"""


def floats(rng):
    """Of every exponent and sign, halfway between two bfloat16 and beside it, and what is no number."""
    upper = np.repeat(np.arange(1 << 16, dtype=np.uint32) << 16, 5)
    lower = np.tile(np.array([0, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32), 1 << 16)
    drawn = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    return np.concatenate([upper | lower, drawn]).view(np.float32)


def test_integers_round_to_the_nearest_bfloat16_and_halves_to_even(rng):
    drawn = rng.choice(floats(rng), 5000, replace=False)
    barely = np.array([0x7F800001, 0xFF80FFFF], np.uint32).view(np.float32)  # NaN by the lower half
    x_N = np.concatenate([drawn, barely])
    with np.errstate(invalid="ignore"):
        expected = x_N.astype(ml_dtypes.bfloat16)
        ours = np.array([_rounded(None, x) for x in x_N], np.uint16).view(ml_dtypes.bfloat16)
    numbers = ~np.isnan(x_N)
    np.testing.assert_array_equal(ours[numbers].view(np.uint16), expected[numbers].view(np.uint16))
    assert np.isnan(ours[~numbers].astype(np.float32)).all()


def test_every_bfloat16_comes_back_as_it_was():
    buffer = np.arange(1 << 16, dtype=np.uint16)
    widened = buffer.view(ml_dtypes.bfloat16).astype(np.float32)
    for bits in buffer[::97]:
        x = wide(bits)
        assert x.view(np.uint32) >> 16 == bits
        if not np.isnan(x):
            assert x == widened[bits]
            assert narrow(buffer, x) == bits


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_a_gpu_rounds_by_its_own_instruction(architecture):
    variables = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    command = [sys.executable, "-c", ROUNDS, architecture]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.stderr.startswith("there is no "):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    of_bfloat16, of_float32 = done.stdout.split(".visible .entry")[1:3]
    assert of_bfloat16.count("cvt.rn.bf16.f32") == 1
    assert "cvt." not in of_float32.replace("cvta.", "")
