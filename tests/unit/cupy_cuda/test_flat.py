"""Kernels over the flat arena, where the cases of conformance are too small or do not look."""

import math

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda._machine import machine
from backends.cupy_cuda.adamw import adamw
from backends.cupy_cuda.adamw_master import adamw_master
from backends.cupy_cuda.cast import cast
from backends.cupy_cuda.clip_scale import clip_scale
from backends.cupy_cuda.guard import guard
from backends.cupy_cuda.sgd import sgd
from backends.cupy_cuda.squared_norm import squared_norm
from backends.cupy_cuda.stochastic_cast import stochastic_cast
from harness.ops import adamw as adamw_op
from harness.ops import sgd as sgd_op
from harness.ops.stochastic_cast import round_at_random

BF16 = np.dtype(ml_dtypes.bfloat16)
SETTINGS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1}
KEY = np.array([0x12345678, -7], np.int32)

# Beyond twice what the whole grid takes at once on the CPU machine (4 x 8 blocks of 256 threads of 4
# elements), and three elements more than whole quads.
P = 2 * 4 * 8 * 256 * 4 + 1023


def put(array):
    """A copy on the device."""
    here = machine()
    buffer = here.view(here.empty(array.nbytes), 0, array.shape, array.dtype)
    here.from_host(buffer, array)
    return buffer


def get(buffer):
    """A copy on the host."""
    array = np.empty(buffer.shape, buffer.dtype)
    machine().to_host(array, buffer)
    return array


def float32(*numbers):
    return np.array(numbers, np.float32)


def state(rng, count=P):
    """param, m, v, grad, and small buffers lr, correction, clip."""
    param, m, grad = (rng.normal(size=count).astype(np.float32) for _ in range(3))
    v = (rng.random(count) ** 2).astype(np.float32)
    return [param, m, v, grad, float32(0.01), float32(1 - 0.9**7, 1 - 0.999**7), float32(0.7)]


def stepped(arrays, **settings):
    """param, m and v after adamw."""
    buffers = [put(array) for array in arrays]
    adamw(*buffers, **{**SETTINGS, **settings})
    return [get(buffer) for buffer in buffers[:3]]


def stepped_master(arrays, key, first=0, low=BF16):
    """param, m, v and low after adamw_master."""
    param, *rest = (put(array) for array in arrays)
    low_P = put(np.full(arrays[0].shape, np.nan, low))
    key = key if key is None else put(key)
    adamw_master(param, low_P, *rest, key, **SETTINGS, first=first)
    return [get(buffer) for buffer in (param, *rest[:2], low_P)]


def rounded(x, out=BF16, first=0):
    """x after stochastic_cast."""
    buffer = put(np.full(x.shape, np.nan, out))
    stochastic_cast(buffer, put(x), put(KEY), first)
    return get(buffer)


def norm_of(x):
    total = put(float32(np.nan))
    squared_norm(total, put(x))
    return get(total)[0]


# -- random words -----------------------------------------------------------------------------------


def test_philox_gives_the_words_that_its_authors_publish(kernels):
    # Random123, kat_vectors: philox4x32, 10 rounds.
    counter = np.array(
        [[0] * 4, [0xFFFFFFFF] * 4, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]], np.uint32
    )
    key = np.array([[0] * 2, [0xFFFFFFFF] * 2, [0xA4093822, 0x299F31D0]], np.uint32)
    known = np.array(
        [
            [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ],
        np.uint32,
    )
    words = np.zeros_like(known)
    kernels("philox").run("words", 1, len(known), words, counter, key)
    np.testing.assert_array_equal(words, known)


@pytest.mark.parametrize("out", [BF16, np.dtype(np.float32)])
@pytest.mark.parametrize("first", [0, 4 * P + 1, (1 << 34) - 64])
def test_a_stochastic_cast_rounds_each_element_by_its_own_word(rng, out, first):
    first -= first % 4
    x = rng.normal(size=P).astype(np.float32)
    np.testing.assert_array_equal(
        rounded(x, out, first).astype(np.float32), round_at_random(x, KEY, first)
    )


def test_a_stochastic_cast_counts_on_to_the_last_element():
    for count in range(1, 40):
        x = np.full(
            count, 1 + 1 / 256, np.float32
        )  # halfway: a wrong word is seen half of the time
        np.testing.assert_array_equal(rounded(x, first=8), round_at_random(x, KEY, 8).astype(BF16))


def test_a_stochastic_cast_is_right_in_the_mean():
    # 0.3 of the way from 1 to the next bfloat16, which is 1 + 1/128.
    share, count = 0.3, 40_000
    x = np.full(count, 1 + share / 128, np.float32)
    up = (rounded(x).astype(np.float64) - 1) * 128
    assert set(np.unique(up)) == {0.0, 1.0}
    deviation = math.sqrt(share * (1 - share) / count)
    assert abs(up.mean() - share) < 5 * deviation


def test_a_stochastic_cast_makes_no_infinity_and_keeps_those_there_are():
    largest = np.finfo(np.float32).max
    x = np.repeat(float32(largest, -largest, np.inf, -np.inf, np.nan), 64)
    out = rounded(x).astype(np.float32)
    finite = np.float32(ml_dtypes.finfo(BF16).max)
    np.testing.assert_array_equal(out, np.where(np.isfinite(x), np.copysign(finite, x), x))


# -- one pass over the arena ------------------------------------------------------------------------


@pytest.mark.parametrize("to", [BF16, np.dtype(np.float32)])
@pytest.mark.parametrize("source", [BF16, np.dtype(np.float32)])
def test_cast_rounds_as_numpy_does_beyond_the_first_stride(rng, source, to):
    x = rng.normal(size=P).astype(source)
    out = put(np.full(P, np.nan, to))
    cast(out, put(x))
    assert get(out).tobytes() == x.astype(to).tobytes()


def test_adamw_is_right_beyond_the_first_stride(rng):
    arrays = state(rng)
    wide = [array.astype(np.float64) for array in arrays]
    expected = adamw_op.reference_forward(*wide, **SETTINGS)
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


@pytest.mark.parametrize("key", [None, KEY])
def test_adamw_master_is_adamw_and_a_cast_bit_for_bit(rng, key):
    arrays = state(rng)
    *moved, low = stepped_master(arrays, key)
    for actual, expected in zip(moved, stepped(arrays), strict=True):
        assert actual.tobytes() == expected.tobytes()
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


def test_a_clip_that_is_nan_makes_no_update(rng):
    arrays = [*state(rng, 1001)[:-1], float32(np.nan)]
    *moved, low = stepped_master(arrays, None)
    for actual, plain, before in zip(moved, stepped(arrays), arrays, strict=False):
        assert actual.tobytes() == plain.tobytes() == before.tobytes()
    assert low.tobytes() == arrays[0].astype(BF16).tobytes()
    param, velocity, _, grad, lr, _, clip = arrays
    buffers = [put(array) for array in (param, velocity, grad, lr, clip)]
    sgd(*buffers, 0.9, 0.1)
    assert get(buffers[0]).tobytes() == param.tobytes()
    assert get(buffers[1]).tobytes() == velocity.tobytes()


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


# -- norm, guard, clip ------------------------------------------------------------------------------


def test_the_norm_of_millions_is_right_to_the_last_digits(rng):
    # More than the most blocks take at once, and every number of the same sign: sums that grow.
    x = rng.uniform(0.5, 1, 5_000_003).astype(np.float32)
    assert norm_of(x) == pytest.approx((x.astype(np.float64) ** 2).sum(), rel=2.0**-23)


@pytest.mark.parametrize("multiprocessors", [1, 2, 3, 4, 132])
def test_the_bits_of_the_norm_do_not_depend_on_the_card(monkeypatch, multiprocessors):
    # 2^24 + 1 is no float32: which numbers one thread adds is seen in the last bits.
    x = np.zeros(1 << 19, np.float32)
    x[::8192] = 1
    x[0] = 2.0**12
    first = norm_of(x)
    monkeypatch.setattr(machine(), "multiprocessors", multiprocessors)
    assert norm_of(x).tobytes() == first.tobytes()


@pytest.mark.parametrize(("one", "norm"), [(np.nan, np.nan), (np.inf, np.inf), (1e30, np.inf)])
def test_the_norm_is_not_finite_where_a_number_or_a_square_is_not(rng, one, norm):
    x = rng.normal(size=50_003).astype(np.float32)
    x[-1] = one
    np.testing.assert_equal(norm_of(x), np.float32(norm))


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
        exact = min(1.0, limit / (math.sqrt(float(total_1[0])) + 1e-6))
        assert get(scale)[0] == np.float32(exact)


# -- all of them ------------------------------------------------------------------------------------


def test_the_order_of_threads_changes_no_bit(rng, same_in_every_order):
    arrays = state(rng, 20_003)
    param, velocity, _, grad, lr, _, clip = arrays
    poisoned = np.where(np.arange(20_003) % 7, param, np.inf).astype(np.float32)

    def everything():
        descended = [put(array) for array in (param, velocity, grad, lr, clip)]
        sgd(*descended, 0.9, 0.1)
        low, scale = put(np.empty(param.shape, BF16)), put(float32(1))
        cast(low, put(param))
        guard(scale, put(poisoned))
        results = [get(buffer) for buffer in (*descended[:2], low, scale)]
        return [*results, *stepped_master(arrays, KEY), rounded(param), norm_of(param)]

    same_in_every_order(everything)


def test_a_pass_over_the_arena_is_one_launch_and_the_norm_two(rng):
    arrays = state(rng)
    buffers = [put(array) for array in arrays]
    low, key, one = put(np.empty(P, BF16)), put(KEY), put(float32(1))
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
