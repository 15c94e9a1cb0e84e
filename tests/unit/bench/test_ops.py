import json
from dataclasses import replace

import pytest
import threadpoolctl

from harness.bench.cases import Bound, Shape, make_case
from harness.bench.ops import REFUSED, bench_case, load_all, run_bench_ops
from harness.bench.report import as_markdown, as_text, cells, duration, figure
from harness.bench.timing import interleave
from harness.errors import ConfigError, PluginError
from harness.plugins.loading import load

SMALL_GELU = Shape("small", {"N": 8, "F": 16})
REAL_GELU = Shape("real", {"N": 256, "F": 3072})


def bench(ops, peaks, *names, shape=SMALL_GELU):
    op = ops["gelu"]
    return bench_case(op, op.forward, shape, load_all(names, ops), peaks, budget_s=0.01)


def test_numpy_multiplies_matrices_thirty_times_faster_than_plain_loops(ops):
    op = ops["matmul"]
    case = make_case(op, op.forward, Shape("small", {"N": 64, "I": 256, "O": 512}))
    calls = {name: Bound(load(name, ops), case) for name in ("numpy", "python")}
    # One BLAS thread, and the best of three: other programs on the machine are not the question.
    with threadpoolctl.threadpool_limits(1):
        for call in calls.values():
            call.check()
        timings = interleave(calls, rounds=3, warmups=0)
    assert min(timings["python"].seconds) >= 30 * min(timings["numpy"].seconds)


def test_a_timed_row_has_its_numbers(ops, peaks):
    (row,) = bench(ops, peaks, "reference")
    assert row.status == "timed"
    assert row.timing.rounds >= 3
    assert row.work.moved_bytes == 2 * 4 * 8 * 16
    assert 0 < row.error <= 1
    record = row.record()
    assert record["score"]["roofline_percent"] == pytest.approx(
        100 * row.work.moved_bytes / 10e9 / record["timing"]["median_s"]
    )


def test_a_wrong_kernel_is_refused_before_timing_and_the_others_are_timed(tmp_path, ops, peaks):
    file = tmp_path / "wrong.py"
    file.write_text(
        "from harness import hookimpl\n\n@hookimpl\ndef gelu_forward(out_NF, x_NF):\n"
        "    out_NF[...] = 0\n"
    )
    wrong, right = bench(ops, peaks, str(file), "reference")
    assert (wrong.status, wrong.timing) == ("refused", None)
    assert "times its tolerance" in wrong.reason
    assert right.status == "timed"


def test_a_kernel_that_raises_is_refused_with_its_error(tmp_path, ops, peaks):
    file = tmp_path / "raises.py"
    file.write_text(
        "from harness import hookimpl\n\n@hookimpl\ndef gelu_forward(out_NF, x_NF):\n"
        "    raise RuntimeError('no such device')\n"
    )
    (row,) = bench(ops, peaks, str(file))
    assert (row.status, row.reason) == ("refused", "RuntimeError: no such device")


def test_plain_loops_are_excused_real_shapes_and_counted(ops, peaks):
    (row,) = bench(ops, peaks, "python", shape=REAL_GELU)
    assert row.status == "excused"
    text = as_text([row], peaks)
    assert "1 excused" in text
    assert "excused: 1 of python: plain loops take minutes" in text


def test_a_backend_that_is_slow_here_is_not_timed(tmp_path, ops, peaks):
    file = tmp_path / "simulated.py"
    file.write_text(
        "from harness import hookimpl\n\nslow = 'in a simulator'\n\n@hookimpl\n"
        "def gelu_forward(out_NF, x_NF):\n    raise AssertionError('it was called')\n"
    )
    (row,) = bench(ops, peaks, str(file))
    assert (row.status, row.reason) == ("excused", "in a simulator")


def test_a_backend_without_the_half_is_unsupported(tmp_path, ops, peaks):
    file = tmp_path / "empty.py"
    file.write_text("device = 'host'\n")
    (row,) = bench(ops, peaks, str(file))
    assert row.status == "unsupported"


def test_a_backend_that_was_named_must_load(ops):
    with pytest.raises(PluginError, match="numpi"):
        load_all(["numpi"], ops)


def test_the_command_prints_a_table_and_writes_both_files(tmp_path, peaks):
    shown = []
    code = run_bench_ops(
        ["reference"],
        ["residual"],
        shapes="small",
        report=tmp_path / "made" / "ops",
        budget_s=0.01,
        peaks=peaks,
        show=shown.append,
    )
    assert code == 0
    text = "\n".join(shown)
    assert "residual_forward N64 C64: reference" in text
    assert "% roofline" in text
    record = json.loads((tmp_path / "made" / "ops.json").read_text())
    assert record["counts"] == {"timed": 2}
    assert [row["half"] for row in record["rows"]] == ["residual_forward", "residual_backward"]
    assert record["peaks"]["machine"]["cpu"] == "a processor"
    assert "| residual_forward N64 C64 | reference |" in (tmp_path / "made" / "ops.md").read_text()


def test_the_command_fails_where_a_result_is_wrong(tmp_path, peaks):
    file = tmp_path / "wrong.py"
    file.write_text(
        "from harness import hookimpl\n\n@hookimpl\ndef gelu_forward(out_NF, x_NF):\n    pass\n"
    )
    shown = []
    code = run_bench_ops([str(file)], ["gelu"], shapes="small", peaks=peaks, show=shown.append)
    assert code == REFUSED == 6
    assert "refused: gelu_forward" in "\n".join(shown)


def test_shapes_that_there_are_not_are_refused(peaks):
    with pytest.raises(ConfigError, match="huge"):
        run_bench_ops(shapes="huge", peaks=peaks)


def test_rows_in_cache_are_labelled_and_the_label_explained(ops, peaks):
    rows = bench(ops, peaks, "reference")
    assert "memory, in cache" in cells(rows[0], rows[0])
    for text in (as_text(rows, peaks), as_markdown(rows, peaks)):
        assert "below four last-level caches" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.5, "1.5 s"), (0.412, "412 ms"), (2.5e-5, "25 us"), (3.21e-7, "0.321 us")],
)
def test_a_duration_has_three_figures_and_a_unit(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (4.5, "4.5"), (99.96, "100"), (100, "100"), (12345.6, "12346"),
     (0.0000123, "0.0000123")],
)  # fmt: skip
def test_a_figure_has_no_exponent(value, text):
    assert figure(value) == text


def test_a_kernel_that_turns_wrong_while_it_is_timed_is_refused(tmp_path, ops, peaks):
    file = tmp_path / "tires.py"
    file.write_text(
        "from harness import hookimpl\n\ncalls = []\n\n@hookimpl\n"
        "def residual_forward(out_NC, a_NC, b_NC):\n"
        "    calls.append(1)\n    if len(calls) < 4:\n        out_NC[...] = a_NC + b_NC\n"
    )
    op = ops["residual"]
    shape = Shape("small", {"N": 8, "C": 16})
    (row,) = bench_case(op, op.forward, shape, load_all([str(file)], ops), peaks, budget_s=0.01)
    assert (row.status, row.timing) == ("refused", None)
    assert row.reason.startswith("after timing: out_NC is off by inf times")


def test_rows_above_the_matmul_peak_say_that_it_was_measured_badly(ops, peaks):
    (row,) = bench(ops, peaks, "reference")
    too_fast = replace(row, score=replace(row.score, matmul_percent=150.0))
    assert "1 rows are above 115% of the matmul peak" in as_text([too_fast], peaks)
    assert "matmul peak" not in as_text([row], peaks).partition("% roofline")[2]
