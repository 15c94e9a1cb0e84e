"""Find environment variables that hold a library back, and say what they cost and what to type.

Nothing here changes the environment: a variable that somebody set is theirs.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.machine.reexec import CORETYPE

LEVELS = ("SSE", "AVX", "AVX2", "AVX-512")
"""Vector instructions of x86, each about twice as wide as the one before it."""

_OF_LEVEL = (
    "Katmai Coppermine Northwood Prescott Banias Atom Core2 Penryn Dunnington Nehalem Athlon Opteron "
    "Opteron_SSE3 Barcelona Bobcat Nano",
    "Sandybridge Bulldozer Piledriver Steamroller Excavator",
    "Haswell Zen",  # Zen's are Haswell's with other block sizes
    "SkylakeX Cooperlake SapphireRapids",
)
KERNEL_LEVELS = {
    name.lower(): level for level, names in enumerate(_OF_LEVEL) for name in names.split()
}
"""OpenBLAS's kernel types by the instructions they are written in; those of x86 alone."""

FLAGS = (
    {"sse2"},
    {"avx"},
    {"avx2", "fma"},
    {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
)

SLOWED = {
    "MKL_ENABLE_INSTRUCTIONS": ("mkl", "matrix products of MKL"),
    "ONEDNN_MAX_CPU_ISA": ("torch", "matrix products of oneDNN"),
    "DNNL_MAX_CPU_ISA": ("torch", "matrix products of oneDNN"),
    "ATEN_CPU_CAPABILITY": ("torch", "PyTorch's own loops"),
    "NUMBA_CPU_NAME": ("numba", "what Numba compiles"),
    "NUMBA_CPU_FEATURES": ("numba", "what Numba compiles"),
    "NUMBA_DISABLE_INTEL_SVML": ("numba", "exp and tanh in what Numba compiles"),
    "NUMBA_ENABLE_AVX": ("numba", "what Numba compiles"),
    "NUMBA_OPT": ("numba", "what Numba compiles"),
    "NUMBA_DISABLE_JIT": ("numba", "every kernel of Numba: nothing is compiled"),
    "NPY_DISABLE_CPU_FEATURES": ("numpy", "NumPy's own loops"),
}
"""Variables that hold a library back: which library has to be there, and what is slower then."""

HARMLESS = {
    "NUMBA_DISABLE_JIT": ("0",),
    "NUMBA_DISABLE_INTEL_SVML": ("0",),
    "NUMBA_ENABLE_AVX": ("1",),
    "NUMBA_OPT": ("3", "max"),
    "NUMBA_CPU_NAME": ("host",),
    "ONEDNN_MAX_CPU_ISA": ("ALL", "DEFAULT"),
    "DNNL_MAX_CPU_ISA": ("ALL", "DEFAULT"),
}

SPEED_VARIABLES = (CORETYPE, *SLOWED)

WORTH_A_WARNING = 1.1
"""Times as long: below it is noise."""


@dataclass(frozen=True)
class Pin:
    """A variable that is set. text: what it does, and at what cost. is_slower: something is lost."""

    variable: str
    text: str
    do: str
    is_slower: bool = True

    def __str__(self) -> str:
        return f"{self.text}\n{self.do}" if self.do else self.text


@dataclass(frozen=True)
class Facts:
    """What the judgement depends on; a test can state another machine.

    level: of the processor's vector instructions; None where it is not x86, or the system is silent.
    cost: how many times as long matrix products were measured to take; None: never measured.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    level: int | None = field(default_factory=lambda: processor_level())
    libraries: Sequence[Mapping[str, Any]] = ()
    present: frozenset[str] = frozenset()
    cost: float | None = None


def facts() -> Facts:
    """This process: the libraries that are loaded now, and the cost if it was measured."""
    from harness.machine.blas import libraries

    found = libraries()
    names = {str(library["internal_api"]) for library in found}
    present = frozenset(names | ({"numpy", "numba", "torch"} & set(sys.modules)))
    cost = None
    if os.environ.get(CORETYPE):
        from harness.machine.blas_speed import cached_cost

        cost = cached_cost()
    return Facts(libraries=found, present=present, cost=cost)


def pins(known: Facts) -> list[Pin]:
    """Each variable that may hold back a loaded library, even where nothing is known to be lost."""
    found = [_coretype(known)]
    for variable, (library, what) in SLOWED.items():
        value = known.environment.get(variable, "").strip()
        if not value or library not in known.present or value in HARMLESS.get(variable, ()):
            continue
        text = f"{variable}={value} may slow down {what}"
        found.append(Pin(variable, text, f"env -u {variable} COMMAND"))
    return [pin for pin in found if pin is not None]


def _coretype(known: Facts) -> Pin | None:
    value = known.environment.get(CORETYPE)
    chosen = [
        str(library.get("architecture", "unknown"))
        for library in known.libraries
        if library["internal_api"] == "openblas"
    ]
    if not value or not chosen:
        return None
    kernels = chosen[0]
    level = KERNEL_LEVELS.get(kernels.lower())
    ways_out = f"blas_kernel=library, or env -u {CORETYPE} COMMAND"
    is_set = f"{CORETYPE}={value} is set"
    if known.cost is not None and known.cost >= WORTH_A_WARNING:
        text = f"{is_set}: matrix products take {known.cost:.2f} times as long (harness doctor)"
        return Pin(CORETYPE, text, ways_out)
    if level is None or known.level is None:
        text = f"{is_set}: kernels {kernels}; `harness doctor` measures what it costs"
        return Pin(CORETYPE, text, ways_out, is_slower=False)
    if level > known.level:
        text = f"{is_set}: kernels for {LEVELS[level]}, which this processor lacks; it may crash"
        return Pin(CORETYPE, text, ways_out)
    if level == known.level:
        text = (
            f"{is_set}: this processor has nothing above {LEVELS[level]}, so nothing known is lost"
        )
        return Pin(CORETYPE, text, "", is_slower=False)
    text = f"{is_set}: kernels for {LEVELS[level]}, and this processor has {LEVELS[known.level]}; "
    if known.cost is not None:
        text += f"matrix products take {known.cost:.2f} times as long, so nothing is lost"
        return Pin(CORETYPE, text, "", is_slower=False)
    return Pin(CORETYPE, f"{text}`harness doctor` measures what it costs", ways_out)


def processor_level(file: Path = Path("/proc/cpuinfo")) -> int | None:
    """The index in LEVELS of the best instructions that the processor says it has."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    has = set(flags.split())
    return max((level for level, needed in enumerate(FLAGS) if needed <= has), default=None)
