"""The machine on numba-cuda and cuda.bindings themselves, over a libcuda.so that only writes down calls.

What is held here: our calls have the names and arguments of those packages, and a launch gets
through them: kernels are compiled, handed over with each argument in its place, and not run.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the pretended driver needs gcc"),
]

HERE = Path(__file__).parent
BEGIN = """
import ctypes
import ml_dtypes
import numpy as np
from numba import cuda
from backends.numba_cuda import _gpu
from harness.errors import HarnessError

gpu = _gpu.open_gpu()

@cuda.jit
def add(out_N, x_N, bias_N, count, scale):
    i = cuda.grid(1)
    if i < count:
        out_N[i] = x_N[i] * scale
        if bias_N is not None:
            out_N[i] += bias_N[i]

def of(count, dtype=np.float32):
    return gpu.view(gpu.empty(4096), 256, (count,), dtype)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the pretended libcuda.so."""
    made = tmp_path_factory.mktemp("driver")
    source, library = HERE / "fake_libcuda.c", made / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    (made / "libcuda.so").symlink_to(library.name)
    return made


@pytest.fixture
def say(folder, tmp_path):
    """Run lines of Python after BEGIN on the pretended driver: what they print, and its calls."""

    def run(lines, **environment):
        log = tmp_path / "log"
        kept = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
        settings = {"LD_LIBRARY_PATH": str(folder), "FAKE_CUDA_LOG": str(log), **environment}
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:backends", "-c", BEGIN + lines],
            env=kept | settings, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1], log.read_text().split("\n")[:-1]

    return run


def test_arrays_go_there_and_back_on_a_stream_of_its_own(say):
    printed, calls = say("""
for dtype in (np.float32, np.int32, ml_dtypes.bfloat16):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    there = gpu.view(gpu.empty(1024), 128, (3, 4), dtype)
    gpu.from_host(there, values)
    found, again = np.zeros_like(values), np.zeros_like(values)
    gpu.to_host(found, there)
    gpu.begin_read(there)(again)
    print((found == values).all(), (again == values).all())
gpu.zero(there)
gpu.to_host(found, there)
print(found.any())
""")
    assert printed == ["True True"] * 3 + ["False"]
    assert calls[0] == "cuStreamCreate 1"  # CU_STREAM_NON_BLOCKING
    on = [call for call in calls if " on " in call]
    assert on and all(call.endswith(" on 0x57") for call in on)


def test_a_launch_hands_over_each_argument_and_does_not_wait(say):
    _, calls = say("""
x, out = of(5), of(5)
ctypes.CDLL("libcuda.so.1").fake_params(17)
gpu.launch(add, (3, 2), 64, [out, x, None, 5, np.float32(2)])
print(gpu.compile_seconds > 0)
""")
    (launch,) = [call for call in calls if call.startswith("launch ")]
    assert "grid 3,2,1 block 64,1,1 on 0x57" in launch
    values = [int(word, 16) for word in launch.partition(": ")[2].split()]
    out, x = values[:7], values[7:14]
    for array in (out, x):  # meminfo, parent, size, itemsize, where, shape, strides
        assert array[:4] == [0, 0, 5, 4] and array[5:] == [5, 4]
    assert out[4] != x[4]
    # None as a null pointer; a count of 64 bits; 2.0 in float32
    assert [values[14], values[15], values[16] & 0xFFFFFFFF] == [0, 5, 0x40000000]
    assert not [call for call in calls if "Synchronize" in call]


def test_a_graph_is_captured_made_ready_and_launched_on_the_stream(say):
    printed, calls = say("""
x, out = of(5), of(5)
def call(): gpu.launch(add, 1, 32, [out, x, None, 5, np.float32(2)])
call()
replay = gpu.capture([call, lambda: gpu.zero(out)])
replay()
for take in (lambda: gpu.empty(5), lambda: cuda.device_array(5)):
    try:
        gpu.capture([take])
    except HarnessError as error:
        print(error.slug)
""")
    assert printed == ["capture-took-memory"] * 2
    begin = calls.index("cuStreamBeginCapture 0x57 2")  # relaxed, as CuPy's
    assert [call.split()[0] for call in calls[begin : begin + 8]] == [
        *("cuStreamBeginCapture", "launch", "cuMemsetD8Async", "cuStreamEndCapture"),
        *("cuGraphInstantiate", "cuGraphDestroy", "cuGraphUpload", "cuGraphLaunch"),
    ]
    assert calls[begin + 7] == "cuGraphLaunch 0x7 on 0x57"


def test_what_cupy_would_hand_over_is_taken_without_a_wait(say):
    printed, calls = say("""
class Foreign:
    def __init__(self, address, dtype):
        self.shape, self.dtype, self.size, self.nbytes = (5,), np.dtype(dtype), 5, 10
        self.__cuda_array_interface__ = {
            "shape": (5,), "typestr": "<V2", "data": (address, False), "version": 3, "stream": 1}
own = of(5, ml_dtypes.bfloat16)
address = own.__cuda_array_interface__["data"][0]
taken = gpu.adapt(Foreign(address, ml_dtypes.bfloat16))
print(taken.dtype, taken.shape, taken.__cuda_array_interface__["data"][0] == address)
print(gpu.adapt(own) is own)
""")
    assert printed == ["uint16 (5,) True", "True"]
    assert not [call for call in calls if "Synchronize" in call]


def test_it_is_described_and_measures_by_its_events(say):
    printed, calls = say("""
print(gpu.versions)
print(gpu.capability, gpu.multiprocessors, gpu.free_bytes())
print(gpu.device_seconds(lambda: None))
try:
    gpu.empty(1 << 40)
except HarnessError as error:
    print(error.slug)
""")
    assert printed[0].startswith("Pretended H100 (compute capability 9.0), driver 13.0, numba-cuda")
    assert printed[1:] == ["(9, 0) 132 1073741824", "0.0025", "device-memory-too-small"]
    assert [call for call in calls if "Event" in call][-3:] == [
        *("cuEventRecord on 0x57", "cuEventRecord on 0x57", "cuEventSynchronize")
    ]


OWN = """
import sys
from backends.numba_cuda import _kept
from pathlib import Path
_kept.HERE = Path(sys.path[0])
import kernels

x, out = of(5), of(5)
for factor in (2, 3):
    gpu.launch(kernels.make(factor), 1, 32, [out, x, None])
print(gpu.compile_seconds > 0)
"""
KERNEL = """
from numba import cuda
from helper import times

def make(factor):
    @cuda.jit
    def scale(out_N, x_N, bias_N):
        i = cuda.grid(1)
        if i < x_N.size:
            out_N[i] = times(x_N[i], factor)
            if bias_N is not None:
                out_N[i] += bias_N[i]
    return scale
"""
HELPER = """
from numba import cuda

@cuda.jit(device=True)
def times(x, factor): return x * factor
"""


@pytest.fixture
def own(tmp_path):
    """A folder of kernels that stands for the backend's."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "kernels.py").write_text(KERNEL)
    (folder / "helper.py").write_text(HELPER)
    return folder


@pytest.fixture
def compiles(say, own, tmp_path):
    """Whether a new process compiles the kernels of that folder, or finds them on disk."""

    def ask(lines=OWN, kept=tmp_path / "kept"):
        first = f"import sys; sys.path.insert(0, {str(own)!r})\n"
        printed, _ = say(first + lines, NUMBA_CACHE_DIR=str(kept))
        return printed == ["True"]

    return ask


def test_a_second_process_compiles_nothing(compiles, tmp_path):
    assert compiles()
    assert not compiles()
    assert len(list((tmp_path / "kept").rglob("*.nbc"))) == 2, "a kernel for each factor"


@pytest.mark.parametrize("file", ["kernels.py", "helper.py"])
def test_an_edit_of_a_kernel_or_of_its_helper_compiles_anew(compiles, own, file):
    assert compiles()
    edited = own / file
    stat = edited.stat()
    edited.write_text(edited.read_text().replace("x", "y"))
    os.utime(edited, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert compiles()


def test_a_kernel_of_another_s_file_is_compiled_in_each_process(compiles, tmp_path):
    lines = OWN.replace("_kept.HERE =", "elsewhere =")
    assert compiles(lines) and compiles(lines)
    assert not list((tmp_path / "kept").rglob("*.nbc"))


def test_where_nothing_can_be_written_kernels_are_compiled_in_each_process(compiles, tmp_path):
    (tmp_path / "file").write_text("")
    assert compiles(kept=tmp_path / "file")
    full = OWN.replace("import kernels", """import kernels
def full(*_): raise OSError(28, "No space left on device")
from numba.cuda.core.caching import IndexDataCacheFile
IndexDataCacheFile.save = full""")  # fmt: skip
    assert compiles(full) and compiles(full)


@pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed")
def test_cupy_takes_the_same_stream():
    import cupy

    from harness.device import Stream

    shared = Stream(0x57)
    taken = cupy.cuda.Stream.from_external(shared)
    assert taken.ptr == 0x57
    for method in ("use", "begin_capture", "end_capture", "synchronize", "__enter__"):
        assert hasattr(taken, method)
