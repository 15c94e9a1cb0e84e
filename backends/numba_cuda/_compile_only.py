"""Compile what a GPU would be asked to run, where there is none: launches are written down, not made.

    launches()                   every kernel with every list of types that the half-ops launch it with
    figures(launch, "sm_90")     what one takes of a multiprocessor: NVVM compiles, ptxas says

It takes numba-cuda with NVVM and ptxas; NUMBA_ENABLE_CUDASIM must not be set.
"""

import inspect
import mmap
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import ml_dtypes
import numpy as np

from backends.numba_cuda import _machine
from backends.numba_cuda._compiled import SIMULATED
from backends.numba_cuda._narrow import as_bits
from harness.conformance.cases.case import letters_of
from harness.conformance.cases.listing import cases_of
from harness.contract.precision import dtype_under
from harness.device import HOST
from harness.plugins.loading import all_ops

HEAD_SIZES = (16, 32, 48, 64, 80, 96, 128, 192, 256)  # each may be a kernel of its own
MANY_ROWS = {"N": 65536, "B": 64, "P": 1 << 31, "V": 50304}
"""The most that a run of GPT-2 124M has: a grid must hold them, and nothing is computed."""

MAP_NORESERVE = 0x4000  # of Linux; Python 3.11 has no name for it
MAX_BLOCKS = (2**31 - 1, 65535, 65535)
MAX_THREADS = (1024, 1024, 64)
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Launch:
    """A kernel, by the types of its arguments. threads: of the largest block it was launched with."""

    kernel: object
    types: tuple
    threads: int = 0

    @property
    def name(self):
        """layernorm._forward; attention._forward(D=64) of a kernel that a function has made"""
        function = self.kernel.py_func
        held = inspect.getclosurevars(function).nonlocals
        made = ", ".join(f"{k}={v}" for k, v in sorted(held.items()) if isinstance(v, int | str))
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        return f"{name}({made})" if made else name

    @property
    def signature(self):
        """uint16 2d, float32 1d, int64, none"""
        return ", ".join(map(_short, self.types))


def missing():
    """What is not here that compiling takes, in words; empty where everything is."""
    if SIMULATED:
        return "NUMBA_ENABLE_CUDASIM is set: kernels are simulated"
    if find_spec("numba_cuda") is None:
        return "there is no numba-cuda (pip install numba-cuda[cu12])"
    from numba.cuda.cudadrv.nvvm import NVVM

    try:
        NVVM()
    except Exception as error:  # whatever the search for the library raises
        return f"there is no NVVM (pip install nvidia-cuda-nvcc-cu12): {error}"
    return "" if ptxas() else "there is no ptxas (pip install nvidia-cuda-nvcc-cu12)"


@cache
def ptxas():
    """The assembler: of a package nvidia-cuda-nvcc, or on PATH; None where there is none."""
    nvidia = find_spec("nvidia")
    for place in (nvidia.submodule_search_locations or ()) if nvidia else ():
        for file in sorted(Path(place).glob("*/bin/ptxas")):
            return str(file)
    return shutil.which("ptxas")


@cache
def compiler():
    """What compiles, by its versions; figures of two compilers may differ."""
    said = subprocess.run([ptxas(), "--version"], capture_output=True, text=True, check=True).stdout
    assembler = re.search(r"V([\d.]+)", said)[1]
    return f"numba-cuda {_version('numba-cuda')}, numba {_version('numba')}, ptxas {assembler}"


# -- what is launched -------------------------------------------------------------------------------


@cache
def launches():
    """Every launch of the half-ops, by kernel and types: in the cases of conformance and real shapes."""
    paper = Paper()
    _machine.use(paper)
    from backends.numba_cuda import plugin

    ops = all_ops()
    for hook in (hook for hook in ops.hooks if hasattr(plugin, hook)):
        for precision in plugin.computes:
            for buffers, settings in _calls(ops.op_of(hook), hook, precision):
                named = {name: _argument(value) for name, value in buffers.items()} | settings
                arguments = [named[a.name] for a in ops.half(hook).signature.arguments]
                getattr(plugin, hook)(*arguments)
    found = {(launch.name, launch.signature): launch for launch in paper.launches()}
    return [found[key] for key in sorted(found)]


def _calls(op, hook, precision):
    """(name -> (shape, dtype) or None, settings) of each call."""
    half = op.half(hook)
    cases = cases_of(op, hook, precision, wide=False)
    ways = {(case.without, case.settings, case.accumulate) for case in cases}
    shapes = {case.dims: set() for case in cases}
    for case in cases:
        shapes[case.dims].add((case.without, case.settings, case.accumulate))
    for dims in _larger_shapes(op, half):
        shapes[tuple(dims.items())] = ways
    for items, of_shape in shapes.items():
        dims = dict(items)
        for without, settings, accumulate in of_shape:
            buffers = {}
            for argument in half.signature.buffers:
                shape = half.signature.shape_of(argument, dims)
                dtype = dtype_under(precision, argument.role.dtype)
                buffers[argument.name] = None if argument.name in without else (shape, dtype)
            given = {**op.example_settings(dims), **dict(settings), "accumulate": accumulate}
            yield buffers, given
            if hook == "cast":  # a plan casts both ways
                shape = buffers["x_P"][0]
                for dtype in (ml_dtypes.bfloat16, np.float32):
                    yield {**buffers, "x_P": (shape, np.dtype(dtype))}, given


def _larger_shapes(op, half):
    """Real ones, each with every size of a head, and with as many rows as there may be."""
    for dims in op.shapes:
        real = {letter: dims.get(letter, 3) for letter in letters_of(op, half)}
        yield real
        yield {letter: max(size, MANY_ROWS.get(letter, 0)) for letter, size in real.items()}
        if "D" in real:
            yield from ({**real, "D": size} for size in HEAD_SIZES)


class Paper:
    """A machine that writes down what it is asked to launch. Its memory is never touched."""

    name, simulated, stream = "paper", False, 0
    capability, multiprocessors = (9, 0), 132
    versions, compile_seconds = "paper", 0.0

    def __init__(self):
        self._threads = {}

    def empty(self, nbytes):
        return _unwritten((nbytes,), np.dtype(np.uint8))

    def view(self, memory, offset, shape, dtype):
        return as_bits(HOST.view(memory, offset, shape, dtype))

    def launch(self, kernel, grid, block, arguments):
        from numba import typeof

        grid, block = _three(grid), _three(block)
        types = tuple(typeof(argument) for argument in arguments)
        name = Launch(kernel, types).name
        allowed = all(map(int.__le__, (*grid, *block), (*MAX_BLOCKS, *MAX_THREADS)))
        threads = int(np.prod(block))
        assert allowed and threads <= MAX_THREADS[0], f"CUDA refuses {name}[{grid}, {block}]"
        self._threads[kernel, types] = max(threads, self._threads.get((kernel, types), 0))

    def launches(self):
        return [Launch(kernel, types, most) for (kernel, types), most in self._threads.items()]

    def call(self, function):
        pass

    def zero(self, buffer):
        pass


def _argument(value):
    return None if value is None else as_bits(_unwritten(*value))


def _unwritten(shape, dtype):
    """An array of any size: pages that nobody writes take no memory."""
    count = int(np.prod(shape, dtype=np.int64))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    memory = mmap.mmap(-1, max(1, count * dtype.itemsize), flags=flags)
    return np.frombuffer(memory, np.uint8)[: count * dtype.itemsize].view(dtype).reshape(shape)


def _three(sizes):
    sizes = sizes if isinstance(sizes, tuple) else (sizes,)
    return tuple(int(size) for size in (*sizes, 1, 1)[:3])


# -- what is compiled -------------------------------------------------------------------------------


def figures(launch, architecture):
    """registers, spill_bytes, stack_bytes, shared_bytes of a kernel, and f64, its lines in double."""
    text = ptx(launch, architecture)
    limit = launch.kernel.targetoptions.get("max_registers")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(text, encoding="utf-8")
        options = ["-v", f"-arch={architecture}", *([f"-maxrregcount={limit}"] if limit else [])]
        command = [ptxas(), *options, str(source), "-o", f"{folder}/kernel.cubin"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{launch.name}({launch.signature}), {architecture}:\n{done.stderr}")
    return read_log(done.stderr) | {"f64": sum(".f64" in line for line in text.splitlines())}


def read_log(log):
    """What ptxas says of the one kernel of a file, and of the functions that it calls."""
    stacks = [tuple(map(int, found)) for found in STACK.findall(log)]
    shared = SHARED.search(log)
    return {
        "registers": int(USED.search(log)[1]),
        "spill_bytes": sum(stores + loads for _, stores, loads in stacks),
        "stack_bytes": sum(stack for stack, _, _ in stacks),
        "shared_bytes": int(shared[1]) if shared else 0,
    }


def ptx(launch, architecture):
    """A kernel as NVVM compiles it. One process is for one architecture: device functions are kept."""
    from numba import cuda, types
    from numba.cuda import dispatcher

    digits = architecture.removeprefix("sm_")
    capability = (int(digits[:-1]), int(digits[-1]))
    device = type("Device", (), {"compute_capability": capability})
    dispatcher.get_current_device = lambda: device  # it is asked when device functions are compiled
    options = launch.kernel.targetoptions
    text, _ = cuda.compile(
        launch.kernel.py_func, types.void(*launch.types), cc=capability, device=False, abi="numba",
        output="ptx", fastmath=options.get("fastmath", False),
        launch_bounds=options.get("launch_bounds"),
    )  # fmt: skip
    return text


def _short(kind):
    if not hasattr(kind, "ndim"):
        return str(kind)
    return f"{kind.dtype} {kind.ndim}d" + ("" if kind.layout == "C" else f" {kind.layout}")


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
