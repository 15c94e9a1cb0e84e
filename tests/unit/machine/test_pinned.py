"""What the environment holds back is said with cost and remedy, on machines that are only stated."""

import numpy  # noqa: F401 - its BLAS is what is looked at
import pytest

from harness.errors import ConfigError, ResourceError
from harness.machine import blas, blas_speed, computed_with, pinned
from harness.machine import reexec as start_again
from harness.machine.pinned import LEVELS, Facts, pins, processor_level
from harness.machine.threads import Threads

AVX2, AVX512 = LEVELS.index("AVX2"), LEVELS.index("AVX-512")


def machine(
    level=AVX512, kernels="Haswell", cost=None, present=("openblas", "numpy"), **environment
):
    library = {"internal_api": "openblas", "architecture": kernels}
    return Facts(environment, level, [library], frozenset(present), cost)


def test_a_kernel_below_the_processor_is_a_warning_with_both_ways_out():
    (pin,) = pins(machine(OPENBLAS_CORETYPE="Haswell"))
    assert pin.is_slower
    assert "kernels for AVX2, and this processor has AVX-512" in pin.text
    assert "harness doctor" in pin.text
    assert "blas_kernel=library" in pin.do and "env -u OPENBLAS_CORETYPE" in pin.do


def test_a_measured_cost_is_told_and_a_measured_nothing_is_no_warning():
    (pin,) = pins(machine(OPENBLAS_CORETYPE="Haswell", cost=1.874))
    assert pin.is_slower and "1.87 times as long" in pin.text
    (pin,) = pins(machine(OPENBLAS_CORETYPE="Haswell", cost=1.02))
    assert not pin.is_slower and "1.02 times as long" in pin.text


@pytest.mark.parametrize("kernels", ["Haswell", "Zen"])
def test_the_processors_own_level_costs_nothing_known(kernels):
    (pin,) = pins(machine(level=AVX2, kernels=kernels, OPENBLAS_CORETYPE=kernels))
    assert not pin.is_slower and "nothing known is lost" in pin.text


def test_kernels_above_the_processor_may_crash():
    (pin,) = pins(machine(level=AVX2, kernels="SkylakeX", OPENBLAS_CORETYPE="SkylakeX"))
    assert pin.is_slower and "may crash" in pin.text


@pytest.mark.parametrize(("level", "kernels"), [(None, "neoversen1"), (AVX2, "Zen9")])
def test_of_unknown_kernels_nothing_is_claimed(level, kernels):
    (pin,) = pins(machine(level=level, kernels=kernels, OPENBLAS_CORETYPE=kernels))
    assert not pin.is_slower and "measures what it costs" in pin.text


@pytest.mark.parametrize(
    ("variable", "value", "present", "is_told"),
    [
        ("NPY_DISABLE_CPU_FEATURES", "AVX2", ("numpy",), True),
        ("NPY_DISABLE_CPU_FEATURES", "", ("numpy",), False),
        ("MKL_ENABLE_INSTRUCTIONS", "AVX2", ("mkl",), True),
        ("MKL_ENABLE_INSTRUCTIONS", "AVX2", ("numpy", "openblas"), False),
        ("NUMBA_DISABLE_JIT", "1", ("numba",), True),
        ("NUMBA_DISABLE_JIT", "0", ("numba",), False),
        ("NUMBA_DISABLE_JIT", "1", ("numpy",), False),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", ("torch",), True),
        ("OPENBLAS_CORETYPE", "", ("numpy",), False),
    ],
)
def test_a_variable_is_told_where_it_holds_back_what_is_there(variable, value, present, is_told):
    found = pins(machine(present=present, **{variable: value}))
    assert [pin.variable for pin in found] == [variable] * is_told
    assert all(f"{variable}={value}" in pin.text and variable in pin.do for pin in found)


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ("fpu sse2 ssse3", "SSE"),
        ("sse2 avx", "AVX"),
        ("sse2 avx avx2", "AVX"),
        ("sse2 avx avx2 fma", "AVX2"),
        ("sse2 avx avx2 fma avx512f avx512cd", "AVX2"),
        ("sse2 avx avx2 fma avx512f avx512bw avx512dq avx512vl", "AVX-512"),
    ],
)
def test_the_level_is_read_from_the_processors_flags(tmp_path, flags, level):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert LEVELS[processor_level(file)] == level
    file.write_text("CPU architecture: 8\nFeatures : asimd\n")
    assert processor_level(file) is None
    assert processor_level(tmp_path / "missing") is None


# -- the header -----------------------------------------------------------------------------------


class Computing:
    name, device, arrays = "mine", "host", "numpy"

    def __init__(self, describe=None):
        self.functions = {} if describe is None else {"describe_libraries": describe}


TWO = Threads(2, 2)


def header(monkeypatch, facts, threads=TWO, backends=(), blas_kernel="environment"):
    monkeypatch.setattr(pinned, "facts", lambda: facts)
    return computed_with.computed_with(threads, backends, blas_kernel)


def test_a_header_on_a_pinned_machine_warns_and_says_what_to_type(monkeypatch):
    facts = machine(OPENBLAS_CORETYPE="Haswell", cost=1.9)
    lines = list(header(monkeypatch, facts).lines())
    assert lines[0] == "threads   2 of 2 cores"
    assert lines[1].startswith(
        "warning   OPENBLAS_CORETYPE=Haswell is set: matrix products take 1.90"
    )
    assert lines[2].startswith("          do: blas_kernel=library, or env -u OPENBLAS_CORETYPE")


def test_a_header_on_a_machine_of_the_same_level_has_a_note_and_no_warning(monkeypatch):
    found = header(monkeypatch, machine(level=AVX2, OPENBLAS_CORETYPE="Haswell"))
    assert found.warnings == () and "nothing known is lost" in found.notes[0]


def test_a_header_says_where_blas_kernel_had_no_effect(monkeypatch):
    facts = machine(OPENBLAS_CORETYPE="Haswell")
    found = header(monkeypatch, facts, blas_kernel="library")
    assert "not one of them" in found.warnings[-1]
    monkeypatch.setattr(start_again, "_left_out", "OPENBLAS_CORETYPE=Haswell")
    found = header(monkeypatch, facts, blas_kernel="library")
    assert "sets it again" in found.warnings[-1]


def test_numba_cannot_have_more_than_its_variable_says(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    facts = machine(present=("numba",))
    (warning,) = header(monkeypatch, facts, Threads(2, 2, "threads=2")).warnings
    assert "NUMBA_NUM_THREADS=1" in warning


def test_each_backend_says_what_it_computes_with_and_numpys_arrays_mean_numpys_blas(monkeypatch):
    def fail():
        raise RuntimeError("no idea")

    for describe, words in [
        (lambda: "Numba 1\n  2 threads", "Numba 1 2 threads"),
        (fail, "unknown (RuntimeError: no idea)"),
        (None, blas.describe("numpy")),
    ]:
        found = header(monkeypatch, machine(), backends=[Computing(describe)])
        assert found.libraries == {"mine": words}


def test_numpys_own_library_is_told_apart_from_anothers(monkeypatch):
    scipys = {"internal_api": "openblas", "filepath": "/x/scipy.libs/a.so", "version": "1"}
    numpys = {"internal_api": "openblas", "filepath": "/x/numpy.libs/b.so", "version": "2"}
    numpys |= {"architecture": "SkylakeX", "num_threads": 2}
    monkeypatch.setattr(blas, "libraries", lambda: [scipys, numpys])
    assert blas.describe("numpy") == "NumPy's OpenBLAS 2, kernels SkylakeX, 2 threads"
    assert blas.describe("scipy") == "SciPy's OpenBLAS 1"
    monkeypatch.setattr(blas, "libraries", list)
    assert "of its own choice" in blas.describe("numpy")


# -- starting again -------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """What would have been executed; a machine where Haswell is set."""
    calls = []
    monkeypatch.setattr(start_again.os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(start_again, "_left_out", None)
    monkeypatch.delenv(start_again.NOTE, raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    return calls


def test_a_command_starts_again_without_the_variable_and_with_a_note(started):
    start_again.start_again_if_asked(["library", "library"], is_command=True)
    ((_, arguments, environment),) = started
    assert arguments[1:] == start_again.sys.orig_argv[1:]
    assert "OPENBLAS_CORETYPE" not in environment
    assert environment[start_again.NOTE] == "OPENBLAS_CORETYPE=Haswell"


@pytest.mark.parametrize(
    ("kernel", "is_command", "coretype", "note"),
    [
        ("environment", True, "Haswell", ""),
        ("library", False, "Haswell", ""),
        ("library", True, "", ""),
        ("library", True, "Haswell", "OPENBLAS_CORETYPE=Haswell"),
    ],
)
def test_nothing_starts_that_was_not_asked_for_or_was_started_already(
    started, monkeypatch, kernel, is_command, coretype, note
):
    monkeypatch.setenv("OPENBLAS_CORETYPE", coretype)
    if note:
        monkeypatch.setenv(start_again.NOTE, note)
    start_again.start_again_if_asked([kernel], is_command=is_command)
    assert started == []


def test_runs_of_a_sweep_cannot_differ_in_it(started):
    with pytest.raises(ConfigError) as caught:
        start_again.start_again_if_asked(["environment", "library"], is_command=True)
    assert caught.value.slug == "blas-kernel-swept" and started == []


def test_a_system_that_starts_nothing_is_one_clear_error(started, monkeypatch):
    def fail(*arguments):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(start_again.os, "execve", fail)
    with pytest.raises(ResourceError) as caught:
        start_again.start_again_if_asked(["library"], is_command=True)
    assert caught.value.slug == "not-started-again"


# -- the measurement ------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "{}", '{"cost": "2"}', '{"cost": -1.0}', "[" * 9999])
def test_a_cost_that_cannot_be_read_was_never_measured(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    speed = blas_speed.Speed(2, as_is=1e9, kernels="a", one_thread=None, unset=2e9)
    blas_speed.keep(speed)
    assert blas_speed.cached_cost() == 2.0
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    assert blas_speed.cached_cost() is None, "of another variable"
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    (file,) = tmp_path.glob("*/coretype-*.json")
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert blas_speed.cached_cost() is None
