"""NVIDIA's compilers, as far as they say what a kernel takes: nvrtc where it is installed, else nvcc.

Neither needs a GPU. nvrtc is what CuPy uses, here without CuPy: the library of the package
nvidia-cuda-nvrtc, or of a CUDA installation.
"""

import ctypes
import ctypes.util
import importlib.util
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from backends.cupy_cuda._cubin import COMPILE_OPTIONS

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


@cache
def compiler():
    """A compiler, or None where there is none."""
    for file in _nvrtc_files():
        try:
            return Nvrtc(ctypes.CDLL(str(file)))
        except OSError:
            continue
    nvcc = shutil.which("nvcc")
    return Nvcc(nvcc) if nvcc else None


def figures(text, defines, architecture):
    """Kernel -> registers, spill_bytes, stack_bytes, shared_bytes. Raises ValueError with the log."""
    log = compiler().log(text, [f"-D{key}={value}" for key, value in defines], architecture)
    found, kernel = {}, None
    for line in log.splitlines():
        if entry := ENTRY.search(line):
            kernel = found.setdefault(entry[1], {})
        elif kernel is None:
            continue
        elif stack := STACK.search(line):
            kernel["stack_bytes"] = int(stack[1])
            kernel["spill_bytes"] = int(stack[2]) + int(stack[3])
        elif used := USED.search(line):
            kernel["registers"] = int(used[1])
            shared = SHARED.search(line)
            kernel["shared_bytes"] = int(shared[1]) if shared else 0
            kernel = None
    return found


class Nvrtc:
    def __init__(self, library):
        self._library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.name = f"nvrtc {major.value}.{minor.value}"

    def log(self, text, defines, architecture):
        options = [f"-arch={architecture}", *COMPILE_OPTIONS, *defines]
        encoded = [option.encode() for option in (*options, "--ptxas-options=-v")]
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        source = text.encode()
        self._library.nvrtcCreateProgram(
            ctypes.byref(program), source, b"kernels.cu", 0, None, None
        )
        try:
            array = (ctypes.c_char_p * len(encoded))(*encoded)
            status = self._library.nvrtcCompileProgram(program, len(encoded), array)
            self._library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            self._library.nvrtcGetProgramLog(program, log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))
        words = log.value.decode()
        if status:
            raise ValueError(words)
        return words


class Nvcc:
    def __init__(self, path):
        self._path = path
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True
        ).stdout
        self.name = "nvcc " + re.search(r"release ([\d.]+)", said)[1]

    def log(self, text, defines, architecture):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "kernels.cu"
            source.write_text(text, encoding="utf-8")
            options = ["-cubin", f"-arch={architecture}", *COMPILE_OPTIONS, *defines]
            command = [self._path, *options, "-Xptxas", "-v", str(source), "-o", f"{folder}/out"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(done.stderr)
        return done.stderr


def _nvrtc_files():
    found = importlib.util.find_spec("nvidia")
    for place in (found.submodule_search_locations or ()) if found else ():
        yield from sorted(Path(place).glob("*/lib/libnvrtc.so.*"))
    system = ctypes.util.find_library("nvrtc")
    if system:
        yield system
