"""Run the benchmarks only when asked, check each case before it is timed, print one table of all.

    pytest --benchmark-only                       everything that is installed
    pytest --benchmark-only -k "matmul and numpy"

Without --benchmark-only (or --benchmark-enable) the benchmarks are deselected, and counted as such.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.bench.cases import Bound, make_case
from harness.bench.ops import devices_of, finished, load_all, one_line, reason_not_to_run
from harness.bench.report import Row, as_json, as_markdown, as_text, shown, write
from harness.bench.timing import Timing
from harness.machine.peaks import peaks as measured_peaks
from harness.plugins.loading import all_ops

FOLDER = Path(__file__).parent
ROWS = pytest.StashKey[list[Row]]()
DEVICES = pytest.StashKey[dict]()


def pytest_collection_modifyitems(config, items):
    if config.getoption("benchmark_only") or config.getoption("benchmark_enable"):
        return
    ours = [item for item in items if FOLDER in item.path.parents]
    if ours:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if FOLDER not in item.path.parents]


@pytest.fixture(scope="session")
def ops():
    return all_ops()


@pytest.fixture(scope="session")
def backends(ops):
    """Every installed backend, or the reason why it cannot run."""
    return load_all((), ops)


@pytest.fixture(scope="session")
def peaks():
    return measured_peaks()


@pytest.fixture(scope="session")
def devices(request, backends):
    """Backend -> what its device reaches, of those on a device."""
    return request.config.stash.setdefault(DEVICES, devices_of(backends, "fp32"))


@pytest.fixture(scope="session")
def rows(request):
    """What the table at the end is made of."""
    return request.config.stash.setdefault(ROWS, [])


@pytest.fixture(scope="module")
def case_maker(request):
    """The data of a half at a shape: drawn when first needed, shared by the backends."""
    op, half, shape = request.param
    made = []

    def make():
        if not made:
            made.append(make_case(op, half, shape))
        return made[0]

    make.half, make.shape = half, shape
    return make


@pytest.fixture
def checked_call(case_maker, backend_name, backends, devices, rows, peaks):
    """The call to be timed, after its result was found right; the test adds its timing by `done`."""
    backend, half, shape = backends[backend_name], case_maker.half, case_maker.shape
    row = Row(half.name, str(shape), shape.kind, backend_name, "not run", "stopped before the end")
    status, reason = reason_not_to_run(backend, backend_name, half, shape.kind)
    if status:
        rows.append(replace(row, status=status, reason=reason))
        pytest.skip(f"{status}: {reason}")
    try:
        call = Bound(backend, case_maker())
        error = call.check()
    except Exception as wrong:
        rows.append(replace(row, status="refused", reason=one_line(wrong)))
        raise
    row = replace(
        row, status="timed", reason="", error=error, source=backend.source,
        where=shown(backend.where(half.name)),
    )  # fmt: skip

    def done(timing):
        if call.device_seconds is not None:
            # pytest-benchmark knows the host's clock alone, which counts the launching and the waiting.
            timing = Timing(tuple(call.device_seconds() for _ in timing.seconds))
        rows.append(finished(row, call, timing, devices.get(backend_name, peaks)))
        return rows[-1]

    call.done = done
    return call


def pytest_terminal_summary(terminalreporter, config):
    found = config.stash.get(ROWS, [])
    if not found:
        return
    peaks, devices = measured_peaks(), config.stash.get(DEVICES, {})
    terminalreporter.section("ops against the roofline")
    terminalreporter.write_line(as_text(found, peaks, devices))
    if config.pluginmanager.hasplugin("cacheprovider"):
        stem = Path(config.cache.mkdir("harness-benchmarks")) / "ops"
        files = write(stem, as_json(found, peaks, devices), as_markdown(found, peaks, devices))
        terminalreporter.write_line("written: " + ", ".join(map(str, files)))
