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
from time import perf_counter

from harness.errors import HarnessError, PluginError, ResourceError

FOLDER = Path(__file__).parent


class Pool(ctypes.Structure):
    """The stacks that all libraries share, and their settings; fibers.h says what each is."""

    _fields_ = tuple((n, ctypes.c_size_t) for n in ("stacks", "count", "room", "held", "flush"))


POOL = Pool()

KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\(([^,)]*)[^)]*\)\s*)?(\w+)\s*\(")
_spent: list[float] = []
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-ffp-contract=off", "-w", "-fno-strict-aliasing")
BOUNDS = ("-fsanitize=bounds-strict", "-fno-sanitize-recover=bounds-strict")
"""Check every index into an array of known size; strict: also of one that ends a struct."""
CLANG_BOUNDS = ("-fsanitize=bounds", "-fno-sanitize-recover=bounds")  # strict as it is


def compiled(name, text, defines):
    """The shared library of a source. Raises PluginError, or ResourceError without a compiler."""
    library = _compiled(name, text, defines)
    if isinstance(library, HarnessError):  # it is not tried again and again
        raise library
    return library


@cache
def _compiled(name, text, defines):
    entries = "".join(
        f"CUDA_ON_CPU_KERNEL({kernel}, {bounds or 1024})\n"
        for bounds, kernel in KERNEL.findall(text)
    )
    whole = f'#include "cuda_on_cpu.h"\n#line 1 "{name}.cu"\n{text}\n{entries}'
    flags = [*FLAGS, *(f"-D{key}={value}" for key, value in defines)]
    digest = hashlib.sha256("\0".join([whole, _headers(), *flags]).encode()).hexdigest()
    library = _folder() / f"{name}-{digest[:16]}.so"
    if not library.exists():
        start = perf_counter()
        try:
            _compile(name, whole, flags, library)
        except HarnessError as error:
            return error
        _spent.append(perf_counter() - start)
    loaded = ctypes.CDLL(str(library))
    loaded.use_pool(ctypes.byref(POOL))
    return loaded


def compile_seconds():
    """Seconds that this process has spent compiling so far; none for what was kept on disk."""
    return sum(_spent)


@cache
def _headers():
    return "".join(file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.h")))


def found_compiler():
    """The C++ compiler's path. Raises ResourceError where there is none."""
    asked = os.environ.get("CXX", "g++")
    compiler = shutil.which(asked)
    if compiler is None:
        raise ResourceError(
            f"CUDA on the CPU needs a C++ compiler, and there is no {asked}",
            slug="no-compiler",
            do="install g++ (Debian: apt install g++), or set CXX",
        )
    return compiler


def _compile(name, text, flags, library):
    compiler = found_compiler()
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        source, made = Path(folder) / f"{name}.cpp", Path(folder) / library.name
        source.write_text(text, encoding="utf-8")
        object_file = source.with_suffix(".o")
        checked = CLANG_BOUNDS if "clang" in Path(compiler).name else BOUNDS
        compiling = [*flags, *checked, f"-I{FOLDER}", "-c", str(source), "-o", str(object_file)]
        # Linked apart, without the sanitizer's own library: bounds.h takes its place.
        for arguments in (compiling, ["-shared", str(object_file), "-o", str(made)]):
            command = [compiler, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise PluginError(
                    f"{name}.cu does not compile for the CPU: {' '.join(flags)}",
                    slug="kernel-not-compiled",
                    reason=done.stderr,
                )
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
