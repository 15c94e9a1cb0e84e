import time

import pytest

from harness.bench.roofline import Work, floor_of, score, work_of

MIB = 1 << 20


def test_bytes_and_flops_of_a_matmul_are_those_counted_by_hand(ops):
    half = ops.half("matmul_forward")
    work = work_of(half, {"N": 2, "I": 3, "O": 5})
    assert work.moved_bytes == 4 * (2 * 5 + 2 * 3 + 5 * 3 + 5)  # out, x, weight, bias
    assert work.flops == 2 * 2 * 3 * 5


def test_bytes_of_an_update_count_state_both_ways(ops):
    # param, m and v are read and written, grad is read; lr, two corrections and clip are 4 floats.
    assert work_of(ops.half("adamw"), {"P": 1000}).moved_bytes == 4 * (3 * 2 * 1000 + 1000 + 4)


def test_bfloat16_activations_are_half_the_bytes(ops):
    half, dims = ops.half("gelu_forward"), {"N": 4, "F": 8}
    assert work_of(half, dims).moved_bytes == 2 * work_of(half, dims, "bf16").moved_bytes


def test_a_gather_states_its_own_bytes(ops):
    dims = {"B": 1, "T": 2, "C": 3, "V": 50304, "X": 1024}
    work = work_of(ops.half("embedding_forward"), dims)
    assert work.moved_bytes == 4 * (3 * 2 * 3 + 2 + 1)


def test_the_floor_is_the_longer_of_moving_and_computing(peaks):
    moving = floor_of(Work(moved_bytes=10**9, flops=10**9), peaks)
    assert (moving.seconds, moving.bound) == (pytest.approx(0.1), "memory")
    computing = floor_of(Work(moved_bytes=10**9, flops=10**11), peaks)
    assert (computing.seconds, computing.bound) == (pytest.approx(1.0), "compute")


def test_a_score_is_what_hand_arithmetic_says(peaks):
    found = score(Work(moved_bytes=10**9, flops=10**9), 0.4, peaks)
    assert found.bytes_per_s == 2.5e9
    assert found.flops_per_s == 2.5e9
    assert found.copy_percent == pytest.approx(25)  # of 10 GB/s
    assert found.matmul_percent == pytest.approx(2.5)  # of 100 GFLOP/s
    assert found.roofline_percent == pytest.approx(25)  # the floor is 0.1 s
    assert not found.in_cache
    assert found.cached_copy_percent is None


def test_a_case_is_in_cache_below_four_last_level_caches(peaks):
    assert floor_of(Work(4 * MIB - 1, 0), peaks).in_cache
    assert not floor_of(Work(4 * MIB, 0), peaks).in_cache


def test_a_case_in_cache_may_be_above_the_roofline_and_is_told_its_share_of_the_cache(peaks):
    found = score(Work(MIB, 0), MIB / 20e9, peaks)
    assert found.roofline_percent == pytest.approx(200)
    assert found.in_cache
    assert found.cached_copy_percent == pytest.approx(50)  # one thread's 40 GB/s is the best


def test_a_slower_kernel_has_a_smaller_percentage(peaks):
    work = Work(10**6, 10**6)
    assert score(work, 2e-3, peaks).roofline_percent == pytest.approx(
        score(work, 1e-3, peaks).roofline_percent / 2
    )


def test_the_measured_percentage_of_a_deliberately_slow_kernel_is_smaller(ops, peaks):
    from harness.bench.cases import Bound, make_case, shapes_of
    from harness.bench.timing import interleave
    from harness.plugins.loading import load_reference

    op = ops["residual"]
    bound = Bound(load_reference(ops), make_case(op, op.forward, shapes_of(op)[0]))

    def slow():
        time.sleep(0.003)
        bound()

    timings = interleave({"as it is": bound, "slow": slow}, rounds=5)
    work = work_of(op.forward, bound.case.dims)
    percent = {n: score(work, t.median_s, peaks).roofline_percent for n, t in timings.items()}
    assert percent["slow"] < percent["as it is"] / 2
