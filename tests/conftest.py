"""What all tests share: whole folders run on all cores, and kernels of a GPU on the CPU without one.

Where there is no GPU, the kernels of `cupy` and `numba_cuda` run on the CPU (docs/gpu.md). And Ctrl-C
means something: a shell starts a job in the background with SIGINT ignored, and the commands that tests
interrupt would inherit that.

`pytest` and `pytest tests/FOLDER` start one worker process for each core (pytest-xdist). A file's tests
stay in one process. So do the suite's tests of one op, where a case is made once for all backends, but
for those of numba, whose ops share what they compile. One file, one test,
`--pdb`, `-s` and benchmarks run in one process; `-n 0` asks for that, `-n 4` for four workers.

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

from harness.machine.threads import cores_allowed

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = REPOSITORY / "tests"
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


def worth_it(config: pytest.Config) -> bool:
    """Whether whole folders of tests run, and nobody wants to see one process at work."""
    option = config.option
    alone = option.usepdb or option.trace or option.capture == "no" or option.collectonly
    folders = [(config.invocation_params.dir / argument).resolve() for argument in config.args]
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


def group_of(nodeid: str) -> str:
    """The tests that share a process: those of an op, those of a page, those of a file."""
    path, _, test = nodeid.partition("::")
    if path == "tests/conformance/test_suite.py":
        words = (
            test.partition("[")[2].rstrip("]").split("-")
        )  # backend, half and precision, or op and seed
        if words[0] == "numba":
            return "suite of numba"  # its ops share compiled helpers
        return "suite " + re.sub("_(forward|backward)$", "", words[len(words) > 2])
    if path.startswith("tests/unit/numba_cpu/"):
        return "tests/unit/numba_cpu"
    if path == "tests/docs/test_commands.py":
        return nodeid
    return path


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, the longest groups come first."""
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
    """What this run left out, in one line."""
    config = terminalreporter.config
    if not (
        config.option.benchmark_only or config.option.benchmark_enable or config.option.collectonly
    ):
        terminalreporter.write_line(
            "not timed here: the benchmarks (uv run pytest --benchmark-only)"
        )


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
