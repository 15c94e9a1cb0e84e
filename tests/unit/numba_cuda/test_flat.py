"""Kernels over the flat arena, where the cases of conformance are too small or do not look."""

import ml_dtypes
import numpy as np
import pytest
from numba import config

from backends.numba_cuda._fours import TILE
from backends.numba_cuda._launch import BLOCKS_PER_MULTIPROCESSOR
from backends.numba_cuda._machine import machine
from backends.numba_cuda.adamw import adamw
from backends.numba_cuda.adamw_master import adamw_master
from backends.numba_cuda.cast import cast
from backends.numba_cuda.clip_scale import clip_scale
from backends.numba_cuda.guard import guard
from backends.numba_cuda.sgd import sgd
from backends.numba_cuda.squared_norm import squared_norm
from backends.numba_cuda.stochastic_cast import stochastic_cast
from harness.ops import adamw as adamw_op
from harness.ops import sgd as sgd_op
from harness.ops.stochastic_cast import round_at_random

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM, reason="kernels are compiled here, for the GPU that is there"
)

BF16, FP32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
SETTINGS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1}
KEY = np.array([0x12345678, -7], np.int32)

# Beyond what the grid of the simulator's two multiprocessors takes at once; then a tile of which a
# thread has four elements, another three, at an odd place.
P = 2 * BLOCKS_PER_MULTIPROCESSOR * TILE + TILE - 77


def put(array):
    """A copy on the device."""
    here = machine()
    buffer = here.view(here.empty(array.nbytes), 0, array.shape, array.dtype)
    here.from_host(buffer, array)
    return buffer


def get(buffer, dtype=None):
    """A copy on the host."""
    array = np.empty(buffer.shape, dtype or buffer.dtype)
    machine().to_host(array, buffer)
    return array


def float32(*numbers):
    return np.array(numbers, np.float32)


def state(rng, count=P):
    """param, m, v, grad, and small buffers lr, correction, clip."""
    param, m, grad = (rng.normal(size=count).astype(np.float32) for _ in range(3))
    v = (rng.random(count) ** 2).astype(np.float32)
    return [param, m, v, grad, float32(0.01), float32(1 - 0.9**7, 1 - 0.999**7), float32(0.7)]


def stepped(arrays):
    """param, m and v after adamw."""
    buffers = [put(array) for array in arrays]
    adamw(*buffers, **SETTINGS)
    return [get(buffer) for buffer in buffers[:3]]


def stepped_master(arrays, key, first=0):
    """param, m, v and low after adamw_master."""
    param, *rest = (put(array) for array in arrays)
    low_P = put(np.full(arrays[0].shape, np.nan, BF16))
    key = key if key is None else put(key)
    adamw_master(param, low_P, *rest, key, **SETTINGS, first=first)
    return [get(param), get(rest[0]), get(rest[1]), get(low_P, BF16)]


def rounded(x, out=BF16, first=0):
    """x after stochastic_cast."""
    buffer = put(np.full(x.shape, np.nan, out))
    stochastic_cast(buffer, put(x), put(KEY), first)
    return get(buffer, out)


def norm_of(x):
    total = put(float32(np.nan))
    squared_norm(total, put(x))
    return get(total)[0]


@pytest.mark.parametrize("source", [BF16, FP32])
@pytest.mark.parametrize("to", [BF16, FP32])
def test_cast_rounds_as_numpy_does_beyond_the_first_stride(rng, source, to):
    x = rng.normal(size=P).astype(source)
    out = put(np.full(P, np.nan, to))
    cast(out, put(x))
    assert get(out, to).tobytes() == x.astype(to).tobytes()


@pytest.mark.parametrize("count", [255, 256, 257, 511, 513, 767, 768, 769, 1023, 1024, 1025])
def test_every_end_of_a_tile_is_reached_and_none_overrun(rng, count):
    x, room = rng.normal(size=count).astype(np.float32), np.full(count + TILE, 7, np.float32)
    here, memory = machine(), machine().empty(room.nbytes)
    whole = here.view(memory, 0, room.shape, FP32)
    here.from_host(whole, room)
    cast(here.view(memory, 0, (count,), FP32), put(x))
    np.testing.assert_array_equal(get(whole), np.concatenate([x, room[count:]]))


@pytest.mark.parametrize("first", [0, (1 << 34) - 2 * TILE])
def test_a_stochastic_cast_rounds_each_element_by_its_own_word(rng, first):
    x = rng.normal(size=P).astype(np.float32)
    np.testing.assert_array_equal(rounded(x, FP32, first), round_at_random(x, KEY, first))


def test_a_stochastic_cast_makes_no_infinity_and_keeps_those_there_are():
    largest = np.finfo(np.float32).max
    x = np.repeat(float32(largest, -largest, np.inf, -np.inf, np.nan), 64)
    out = rounded(x).astype(np.float32)
    finite = np.float32(ml_dtypes.finfo(BF16).max)
    np.testing.assert_array_equal(out, np.where(np.isfinite(x), np.copysign(finite, x), x))


def test_adamw_is_right_beyond_the_first_stride(rng):
    arrays = state(rng)
    expected = adamw_op.reference_forward(*(a.astype(np.float64) for a in arrays), **SETTINGS)
    for actual, reference in zip(stepped(arrays), expected, strict=True):
        np.testing.assert_allclose(actual, reference, rtol=1e-5, atol=1e-6)


def test_a_small_decay_keeps_its_digits(rng):
    # Each parameter is rounded to 2^-24 of itself, either way; a decay that is off is off for all.
    param = rng.uniform(1, 2, 20_000).astype(np.float32)
    zeros = [np.zeros_like(param) for _ in range(3)]
    after, _, _ = stepped([param, *zeros, float32(1e-4), float32(0.1, 0.001), float32(1)])
    decayed = (param.astype(np.float64) - after) / param
    assert decayed.mean() == pytest.approx(1e-4 * SETTINGS["weight_decay"], rel=1e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_right_beyond_the_first_stride(rng, momentum):
    param, velocity, _, grad, lr, _, clip = state(rng)
    given = velocity if momentum else None
    buffers = [array if array is None else put(array) for array in (param, given, grad, lr, clip)]
    sgd(*buffers, momentum, 0.1)
    reference = sgd_op.reference_forward(
        param.astype(np.float64), given, grad.astype(np.float64), lr, clip, momentum, 0.1
    )
    for buffer, expected in zip(buffers[: 2 if momentum else 1], reference, strict=False):
        np.testing.assert_allclose(get(buffer), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_leaves_every_bit_where_the_clip_is_nan(rng, momentum):
    param, velocity, _, grad, lr, _, _ = state(rng, 1000)
    buffers = [put(a) for a in (param, velocity, grad, lr, float32(np.nan))]
    if momentum == 0:
        buffers[1] = None
    sgd(*buffers, momentum, 0.1)
    assert get(buffers[0]).tobytes() == param.tobytes()
    assert momentum == 0 or get(buffers[1]).tobytes() == velocity.tobytes()


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("clip", [0.7, np.nan])
def test_adamw_master_is_adamw_and_a_cast_bit_for_bit(rng, key, clip):
    arrays = [*state(rng)[:-1], float32(clip)]
    *moved, low = stepped_master(arrays, key)
    for actual, expected, before in zip(moved, stepped(arrays), arrays, strict=False):
        assert actual.tobytes() == expected.tobytes()
        assert np.isnan(clip) == (actual.tobytes() == before.tobytes())
    expected = moved[0].astype(BF16) if key is None else rounded(moved[0])
    assert low.tobytes() == expected.tobytes()


def test_adamw_master_does_a_part_of_the_arena_as_within_the_whole(rng):
    arrays, cut = state(rng, 9001), 5004
    parts = [
        stepped_master([a[part] for a in arrays[:4]] + arrays[4:], KEY, part.start)
        for part in (slice(0, cut), slice(cut, 9001))
    ]
    for left, right, whole in zip(*parts, stepped_master(arrays, KEY), strict=True):
        assert np.concatenate([left, right]).tobytes() == whole.tobytes()


def test_the_norm_of_a_long_run_is_right_to_the_last_digits(rng):
    # Every number of the same sign: sums that grow. More blocks than one.
    x = rng.uniform(0.5, 1, 90_003).astype(np.float32)
    assert norm_of(x) == pytest.approx((x.astype(np.float64) ** 2).sum(), rel=2.0**-23)


@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_the_bits_of_the_norm_do_not_depend_on_the_card(monkeypatch, multiprocessors):
    # 2^24 + 1 is no float32: which numbers one thread adds is seen in the last bits.
    x = np.zeros(1 << 16, np.float32)
    x[::1024] = 1
    x[0] = 2.0**12
    first = norm_of(x)
    monkeypatch.setattr(machine(), "multiprocessors", multiprocessors)
    assert norm_of(x).tobytes() == first.tobytes()


@pytest.mark.parametrize("where", [0, P // 2, P - 4, P - 1])
@pytest.mark.parametrize("one", [np.nan, -np.inf, 3e38])
def test_guard_sees_one_number_anywhere(one, where):
    x, scale = np.ones(P, np.float32), put(float32(0.25))
    x[where] = one
    guard(scale, put(x))
    np.testing.assert_equal(get(scale)[0], np.float32(0.25 if np.isfinite(one) else np.nan))


def test_the_clip_scale_is_rounded_once(rng):
    for total, limit in zip(10 ** rng.uniform(-6, 6, 50), rng.uniform(0.1, 2, 50), strict=True):
        total_1, scale = float32(total), put(float32(1))
        clip_scale(scale, put(total_1), float(limit))
        exact = min(1.0, limit / (np.sqrt(float(total_1[0])) + 1e-6))
        assert get(scale)[0] == np.float32(exact)


def test_a_captured_step_takes_the_learning_rate_and_the_clip_of_its_replay(rng):
    arrays = state(rng, 1000)
    buffers = [put(array) for array in arrays]
    replay = machine().capture([lambda: adamw(*buffers, **SETTINGS)])
    later = [*arrays[:4], float32(0.5), float32(0.3, 0.2), float32(0.1)]
    for buffer, array in zip(buffers[4:], later[4:], strict=True):
        machine().from_host(buffer, array)
    replay()
    for buffer, expected in zip(buffers, stepped(later), strict=False):
        assert get(buffer).tobytes() == expected.tobytes()


def test_a_pass_over_the_arena_is_one_launch_and_the_norm_two(rng):
    arrays = state(rng, 100)
    buffers = [put(array) for array in arrays]
    low, key, one = put(np.empty(100, BF16)), put(KEY), put(float32(1))
    squared_norm(one, buffers[3])  # takes its scratch
    calls = {
        "adamw": (1, lambda: adamw(*buffers, **SETTINGS)),
        "adamw_master": (
            1,
            lambda: adamw_master(buffers[0], low, *buffers[1:], key, **SETTINGS, first=0),
        ),
        "sgd": (1, lambda: sgd(buffers[0], buffers[1], buffers[3], *buffers[4::2], 0.9, 0.1)),
        "cast": (1, lambda: cast(low, buffers[0])),
        "stochastic_cast": (1, lambda: stochastic_cast(low, buffers[0], key, 0)),
        "guard": (1, lambda: guard(one, buffers[0])),
        "clip_scale": (1, lambda: clip_scale(one, buffers[4], 1.0)),
        "squared_norm": (2, lambda: squared_norm(one, buffers[3])),
    }
    for name, (launches, call) in calls.items():
        before = sum(machine().launches.values())
        # Captured: no copy, no wait and no memory is asked for.
        machine().capture([call])()
        assert sum(machine().launches.values()) - before == launches, name
