"""Where there is no GPU, the kernels of `cupy` and `numba_cuda` run on the CPU (docs/gpu.md).

And Ctrl-C means something: a shell starts a job in the background with SIGINT ignored, and the commands
that tests interrupt would inherit that.
"""

import ctypes
import os
import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


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


if not gpu_there():
    os.environ.setdefault("HARNESS_CUDA_ON_CPU", "1")
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read as numba is imported

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
