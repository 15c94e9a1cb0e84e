"""What all tests share: whole folders run on all cores, and kernels of a GPU on the CPU without one.

Where there is no GPU, the kernels of `cupy` and `numba_cuda` run on the CPU (docs/gpu.md). And Ctrl-C
means something: a shell starts a job in the background with SIGINT ignored, and the commands that tests
interrupt would inherit that.

`pytest` and `pytest tests/FOLDER` start one worker process for each core (pytest-xdist). A file's tests
stay in one process. So do the suite's tests of one op, where a case is made once for all backends, but
for those of numba, whose ops share what they compile. One file, one test, `--pdb`, `-s` and benchmarks
run in one process; `-n 0` asks for that, `-n 4` for four workers.

A plain `pytest` holds every backend to its list of fp32. The lists of other precisions of the backends
that compile or simulate take a fifth of the time: `pytest -m low_precision` runs them, and so does
`pytest tests/conformance`, as any choice of tests.

The tests start hundreds of processes. Where Python may keep no bytecode beside the sources, as in many
containers, each would compile the same libraries anew: they keep it with pytest's own cache instead.
"""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from harness.machine.threads import cores_allowed

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = REPOSITORY / "tests"
SUITE = "tests/conformance/test_suite.py"
MAX_WORKERS = 8  # a worker with every backend loaded takes about 1 GB

# Begun first, since they take longest: a long group that begins last leaves the other cores idle.
LONGEST_FIRST = (
    "suite of numba",
    "suite attention",
    "suite attention_decode",
    "suite matmul_cross_entropy",
    "suite matmul_gelu",
    "suite lora",
    "suite",
    "tests/docs/test_tutorial.py",
    "tests/docs/test_commands.py",
    "tests/integration/test_numba_cuda_runs.py",
    "tests/integration/test_cupy_runs.py",
    "tests/integration/test_peak_memory.py",
)


def gpu_there() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )


def keep_bytecode() -> None:
    """In this process and those that it starts, if only the places beside the sources are ruled out."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = str(REPOSITORY / ".pytest_cache" / "bytecode")
        sys.pycache_prefix = os.environ.setdefault("PYTHONPYCACHEPREFIX", folder)
        sys.dont_write_bytecode = False


keep_bytecode()

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

if not gpu_there():
    os.environ.setdefault("HARNESS_CUDA_ON_CPU", "1")
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read as numba is imported

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the options
def pytest_cmdline_main(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    option = config.option
    if option.numprocesses is None and option.dist == "no" and not option.tx and worth_it(config):
        option.numprocesses = min(cores_allowed(), MAX_WORKERS)
    if option.numprocesses:
        option.loadscopereorder = False  # the order is ours: see LONGEST_FIRST


def asked_for(config: pytest.Config) -> list[Path]:
    """The files and folders on the command line, or those of pyproject.toml."""
    return [(config.invocation_params.dir / argument).resolve() for argument in config.args]


def worth_it(config: pytest.Config) -> bool:
    """Whether whole folders of tests run, and nobody wants to see one process at work."""
    option = config.option
    alone = option.usepdb or option.trace or option.capture == "no" or option.collectonly
    folders = asked_for(config)
    whole = all(folder in (REPOSITORY, TESTS) or folder.parent == TESTS for folder in folders)
    timed = option.benchmark_only or option.benchmark_enable or folders == [TESTS / "benchmarks"]
    return not alone and not timed and whole and cores_allowed() > 1


def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Hand out whole groups. (Called in the process that starts the workers.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log) if config.option.dist in ("load", "loadscope") else None


def parameters_of(test: str) -> list[str]:
    """`test[numba-gelu_forward-fp32]` -> backend, half-op, precision; of a reference: op and seed."""
    return test.partition("[")[2].rstrip("]").split("-")


def group_of(nodeid: str) -> str:
    """The tests that share a process: those of an op, those of a page, those of a file."""
    path, _, test = nodeid.partition("::")
    if path == SUITE:
        words = parameters_of(test)
        if words[0] == "numba":
            return "suite of numba"  # its ops share compiled helpers
        return "suite " + re.sub("_(forward|backward)$", "", words[len(words) > 2])
    if path.startswith("tests/unit/numba_cpu/"):
        return "tests/unit/numba_cpu"
    if path == "tests/docs/test_commands.py":
        return nodeid
    return path


LEFT_OUT = "low_precision"
"""Marks what a plain `pytest` leaves out: see docs/decisions/tests-in-minutes.md."""

COMPILED_OR_SIMULATED = ("numba", "numba_cuda", "cupy")


def is_left_out(nodeid: str) -> bool:
    """Whether it is a test of bf16 or tf32 on a backend that compiles or simulates."""
    path, _, test = nodeid.partition("::")
    words = parameters_of(test)
    in_list = path == SUITE and len(words) == 3
    return in_list and words[0] in COMPILED_OR_SIMULATED and words[2] != "fp32"


def is_plain(config: pytest.Config) -> bool:
    """Whether all tests were asked for, and none by its file, name or mark."""
    chosen = config.option.markexpr or config.option.keyword
    return not chosen and all(folder in (REPOSITORY, TESTS) for folder in asked_for(config))


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_itemcollected(item: pytest.Item) -> None:
    if is_left_out(item.nodeid):
        item.add_marker(LEFT_OUT)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a plain run leaves out is deselected; in a worker, the longest groups come first."""
    if is_plain(config):
        left_out = [item for item in items if item.get_closest_marker(LEFT_OUT)]
        items[:] = [item for item in items if not item.get_closest_marker(LEFT_OUT)]
        config.hook.pytest_deselected(items=left_out)
    if hasattr(config, "workerinput"):
        rank = {name: number for number, name in enumerate(LONGEST_FIRST)}

        def place(item: pytest.Item) -> int:
            group = group_of(item.nodeid)
            return rank.get(group, rank.get(re.split(" |::", group)[0], len(rank)))

        items.sort(key=place)


def pytest_sessionstart() -> None:
    """A pytest that a test starts is no worker, whatever started the test."""
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    os.environ.pop("PYTEST_XDIST_WORKER_COUNT", None)


def pytest_terminal_summary(terminalreporter) -> None:
    """What this run left out, in one line, with the commands that run it."""
    config = terminalreporter.config
    if config.option.benchmark_only or config.option.benchmark_enable or config.option.collectonly:
        return
    left_out = "not timed: the benchmarks (uv run pytest --benchmark-only)"
    if is_plain(config):
        names = "numba, numba_cuda and cupy"
        lists = f"the lists of bf16 and tf32 of {names} (uv run pytest -m {LEFT_OUT})"
        left_out = f"not run: {lists}; {left_out}"
    terminalreporter.write_line(left_out)


@pytest.fixture
def shared_data() -> Path:
    """Texts and tokenizer files that are too large for the repository."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("HARNESS_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("no shared data: set HARNESS_SHARED_DATA to the folder that has it")
    return folder


@pytest.fixture
def gpt2_files(shared_data, monkeypatch) -> None:
    """tiktoken finds GPT-2's two files without a network."""
    if not (shared_data / "tiktoken").is_dir():
        pytest.skip("no tiktoken folder in the shared data")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
