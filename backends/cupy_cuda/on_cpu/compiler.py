"""Compile a source of CUDA C++ for the CPU, with g++ and cuda_on_cpu.h, and keep the result on disk."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from harness.errors import ResourceError

FOLDER = Path(__file__).parent


class Pool(ctypes.Structure):
    """The stacks that all libraries share, and their settings; fibers.h says what each is."""

    _fields_ = tuple((n, ctypes.c_size_t) for n in ("stacks", "count", "room", "held", "flush"))


POOL = Pool()

KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\(([^,)]*)[^)]*\)\s*)?(\w+)\s*\(")
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-w", "-fno-strict-aliasing")


@cache
def compiled(name, text, defines):
    """The shared library of a source. Raises ResourceError where there is no compiler."""
    entries = "".join(
        f"CUDA_ON_CPU_KERNEL({kernel}, {bounds or 1024})\n"
        for bounds, kernel in KERNEL.findall(text)
    )
    whole = f'#include "cuda_on_cpu.h"\n#line 1 "{name}.cu"\n{text}\n{entries}'
    flags = [*FLAGS, *(f"-D{key}={value}" for key, value in defines)]
    digest = hashlib.sha256("\0".join([whole, _headers(), *flags]).encode()).hexdigest()
    library = _folder() / f"{name}-{digest[:16]}.so"
    if not library.exists():
        _compile(name, whole, flags, library)
    loaded = ctypes.CDLL(str(library))
    loaded.use_pool(ctypes.byref(POOL))
    return loaded


@cache
def _headers():
    return "".join(file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.h")))


def _compile(name, text, flags, library):
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise ResourceError(
            "CUDA on the CPU needs a C++ compiler, and there is no g++",
            slug="no-compiler",
            do="install g++ (Debian: apt install g++), or set CXX",
        )
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        source, made = Path(folder) / f"{name}.cpp", Path(folder) / library.name
        source.write_text(text, encoding="utf-8")
        command = [compiler, *flags, f"-I{FOLDER}", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}.cu does not compile for the CPU:\n{done.stderr}")
        made.replace(library)  # whole or not at all: another process may be compiling the same


@cache
def _folder():
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = base / "gpt2-harness" / "cuda-on-cpu"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="cuda-on-cpu-"))
