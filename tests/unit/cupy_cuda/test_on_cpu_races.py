"""Kernels with the usual mistakes are noticed, and the right one beside each passes."""

import numpy as np
import pytest

from backends.cupy_cuda._launch import f32, i32, i64
from backends.cupy_cuda.on_cpu.machine import ORDERS

N, BLOCKS = 256, 3


@pytest.fixture
def races(kernels):
    return kernels("races")


@pytest.fixture
def summed(races, same_in_every_order):
    """The sums of each block's numbers by a kernel, the same in every order, and as NumPy has them."""

    def run(kernel, threads, x_BN):
        def once():
            sum_B = np.zeros(len(x_BN), np.float32)
            races.run(kernel, len(x_BN), threads, sum_B, x_BN, order=races.machine.order)
            return [sum_B]

        (sum_B,) = same_in_every_order(races.machine, once)
        # Whole numbers: every order of addition gives the same.
        np.testing.assert_array_equal(sum_B, x_BN.sum(axis=1))

    return run


def whole_numbers(rng, *shape):
    return rng.integers(1, 100, size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("kernel", "threads"), [("tree", N), ("shuffled", 32), ("shuffled_by_halves", 32)]
)
def test_a_sum_with_its_barriers_is_the_same_in_every_order(summed, rng, kernel, threads):
    summed(kernel, threads, whole_numbers(rng, BLOCKS, threads))


@pytest.mark.parametrize(
    "kernel", ["tree_without_a_barrier", "tree_that_begins_early", "tree_in_lock_step"]
)
def test_a_sum_that_lacks_a_barrier_is_noticed(summed, rng, kernel):
    with pytest.raises(AssertionError):
        summed(kernel, N, whole_numbers(rng, BLOCKS, N))


def test_a_shuffle_too_few_is_noticed(summed, rng):
    with pytest.raises(AssertionError):
        summed("shuffled_one_short", 32, whole_numbers(rng, BLOCKS, 32))


def test_a_lane_that_has_ended_gives_nan(races, rng):
    sum_B = np.zeros(1, np.float32)
    races.run("shuffled_after_some_left", 1, 32, sum_B, whole_numbers(rng, 1, 32))
    assert np.isnan(sum_B[0])


def test_a_lane_that_is_not_there_gives_nan(races, rng):
    sum_B = np.zeros(1, np.float32)
    races.run("shuffled", 1, 16, sum_B, whole_numbers(rng, 1, 32))
    assert np.isnan(sum_B[0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kernel", "threads", "words"),
    [
        (
            "shuffled_in_two_places",
            32,
            r"lane \d+ of its warp waits for it elsewhere, at races.cu:",
        ),
        ("shuffled_outside_its_mask", 32, "its own lane is not in the mask 0000ffff"),
    ],
)
def test_a_warp_that_does_not_meet_is_an_error(races, kernel, threads, words, order):
    with pytest.raises(RuntimeError, match=words) as error:
        races.run(
            kernel, 1, threads, np.zeros(32, np.float32), np.zeros(32, np.float32), order=order
        )
    assert str(error.value).startswith(f"{kernel}: thread (")
    assert "of block (0, 0, 0), races.cu:" in str(error.value)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", ["half_waits", "warp_waits_for_those_at_a_block_barrier"])
def test_a_divergent_barrier_is_an_error_that_says_where(races, kernel, order):
    with pytest.raises(
        RuntimeError, match=r"\d, 0, 0\) of block \(0, 0, 0\).* a divergent barrier"
    ):
        races.run(kernel, 2 if order == 0 else 1, N, np.zeros(N, np.float32), order=order)


def test_the_machine_goes_on_after_an_error(races, summed, rng):
    for _ in range(20):
        with pytest.raises(RuntimeError, match="a divergent barrier"):
            races.run("half_waits", 1, N, np.zeros(N, np.float32))
    summed("tree", N, whole_numbers(rng, BLOCKS, N))


def test_threads_that_have_ended_are_not_waited_for(races, same_in_every_order):
    def once():
        out_N = np.zeros(N, np.float32)
        races.run("some_leave_early", 1, N, out_N, order=races.machine.order)
        return [out_N]

    (out_N,) = same_in_every_order(races.machine, once)
    np.testing.assert_array_equal(out_N[: N // 2], np.arange(N // 2)[::-1])


@pytest.mark.parametrize(
    ("kernel", "shared_bytes"),
    [("reads_what_nobody_wrote", 0), ("reads_dynamic_that_nobody_wrote", 4 * (N + 1))],
)
def test_shared_memory_that_nobody_wrote_is_nan(races, kernel, shared_bytes):
    out_N = np.zeros(N, np.float32)
    races.run(kernel, 1, N, out_N, shared_bytes=shared_bytes)
    np.testing.assert_array_equal(out_N[:-1], 1)
    assert np.isnan(out_N[-1])


def test_a_block_does_not_find_what_another_left(races):
    out_B = np.zeros(3, np.float32)
    races.run("counts_blocks", 3, 32, out_B)
    np.testing.assert_array_equal(out_B, [1, np.nan, np.nan])


@pytest.mark.parametrize(("kernel", "grid"), [("all_write_one", 1), ("blocks_write_one", 9)])
def test_two_that_write_one_place_are_noticed(races, same_in_every_order, kernel, grid):
    def once():
        out = np.zeros(1, np.float32)
        races.run(kernel, grid, 64, out, order=races.machine.order)
        return [out]

    with pytest.raises(AssertionError, match="depends on the order of threads"):
        same_in_every_order(races.machine, once)


@pytest.mark.parametrize(
    ("grid", "block", "arguments", "words"),
    [
        (1, 32, (i64(1), i64(2), f32(3)), "argument 1 is .*int64.*, not i"),
        (1, 32, (i32(1), 2, f32(3)), "argument 2 is .*int.*, not l"),
        (1, 32, (i32(1), i64(2), np.float64(3)), "argument 3 is .*float64.*, not f"),
        (1, 32, (i32(1), i64(2)), "taken takes 4, not 3"),
        (1, 1025, (i32(1), i64(2), f32(3)), "more than 1024 threads"),
        (0, 32, (i32(1), i64(2), f32(3)), "a grid of"),
    ],
)
def test_a_launch_that_a_gpu_would_refuse_is_an_error(races, grid, block, arguments, words):
    with pytest.raises(AssertionError, match=words):
        races.run("taken", grid, block, np.zeros(1, np.float32), *arguments)


def test_arguments_arrive(races):
    out = np.zeros(1, np.float32)
    races.run("taken", 1, 1, out, i32(1), i64(1 << 33), f32(0.5))
    assert out[0] == np.float32((1 << 33) + 1.5)


def test_too_much_shared_memory_is_an_error(races):
    with pytest.raises(AssertionError, match="300000 bytes of shared memory"):
        races.run("taken", 1, 1, np.zeros(1), i32(1), i64(1), f32(1), shared_bytes=300_000)


def test_a_trap_says_which_thread(races):
    with pytest.raises(RuntimeError, match=r"trapped: thread \(40, 0, 0\) of block \(0, 0, 0\)"):
        races.run("trapped", 1, 64, np.zeros(1, np.float32))


def test_a_block_beyond_the_launch_bounds_is_an_error(races):
    races.run("bounded", 1, N // 2, np.zeros(1, np.float32))
    with pytest.raises(RuntimeError, match="bounded: a block beyond N / 2 threads"):
        races.run("bounded", 1, N // 2 + 32, np.zeros(1, np.float32))


@pytest.mark.parametrize("kernel", ["local_array", "shared_array", "pack_of_numbers"])
def test_an_index_beyond_an_array_is_an_error_that_says_where(races, kernel):
    out = np.zeros(1, np.float32)
    races.run(kernel, 1, 8, out, i32(4))
    assert out[0] == 3
    with pytest.raises(RuntimeError, match=r"races\.cu:\d+: index 4 is beyond the array"):
        races.run(kernel, 1, 8, out, i32(5))
