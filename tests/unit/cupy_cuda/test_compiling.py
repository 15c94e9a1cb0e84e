"""Every kernel compiles for real, for sm_80 and sm_90, without a spill and with registers to spare.

What experiments/cuda_kernels has recorded of the same source is not compiled again: an edit is compiled
here, and after `python -m backends.cupy_cuda._resources --write` it is recorded.
"""

import re
from time import monotonic

import pytest

from backends.cupy_cuda import _resources
from backends.cupy_cuda._compilers import Nvrtc, compiler, figures
from backends.cupy_cuda._launch import Source
from backends.cupy_cuda._resources import ARCHITECTURES, measure, recorded, table, variants
from backends.cupy_cuda.on_cpu.compiler import KERNEL

REGISTERS = 65536  # of a multiprocessor
GROWTH = 8  # registers that another version of the compiler may take
BUDGET_S = 40

needs_compiler = pytest.mark.skipif(
    compiler() is None, reason="there is no nvrtc and no nvcc (pip install nvidia-cuda-nvrtc-cu12)"
)


@pytest.fixture(scope="module")
def measured():
    """The rows of what is recorded or can be compiled in time, and how many are neither."""
    known, rows, left, start = recorded(), [], 0, monotonic()
    for variant in sorted(variants(), key=lambda v: v[2] != "sm_90"):
        up_to_date = _resources.is_recorded(variant, known)
        if up_to_date or (compiler() is not None and monotonic() - start < BUDGET_S):
            rows.append(measure(variant, known))
        else:
            left += 1
    return rows, left


def kernels(rows):
    """(what to call it, kernel, its figures, the row)"""
    for row in rows:
        for kernel, found in row["kernels"].items():
            yield f"{kernel} ({row['defines']}, {row['architecture']})", kernel, found, row


def test_every_kernel_was_compiled(measured):
    rows, left = measured
    for row in rows:
        (source,) = {s.name: s for s in Source.every if s.name == row["source"]}.values()
        assert set(row["kernels"]) == {name for _, name in KERNEL.findall(source.text)}, row[
            "source"
        ]
    if left:
        pytest.skip(
            f"{left} of {left + len(rows)} variants changed since they were recorded, and were not "
            "compiled now: python -m backends.cupy_cuda._resources --write"
        )


def test_no_kernel_spills_registers_to_memory(measured):
    spilling = [name for name, _, found, _ in kernels(measured[0]) if found["spill_bytes"]]
    assert not spilling, spilling


def test_no_kernel_takes_more_than_the_48_kib_of_static_shared_memory(measured):
    assert all(found["shared_bytes"] <= 48 << 10 for _, _, found, _ in kernels(measured[0]))


def test_registers_have_not_grown(measured):
    known = recorded()
    for name, kernel, found, row in kernels(measured[0]):
        assert found["registers"] <= 255
        before = known.get((row["source"], row["defines"], row["architecture"]), {})
        if kernel in before.get("kernels", {}):
            assert found["registers"] <= before["kernels"][kernel]["registers"] + GROWTH, name


def test_a_kernel_without_launch_bounds_fits_with_the_most_threads_that_a_block_has(measured):
    """With launch bounds the compiler sees to it; a launch beyond them is an error on the CPU too."""
    texts = {source.name: source.text for source in Source.every}
    for name, kernel, found, row in kernels(measured[0]):
        bounds = {k: bound for bound, k in KERNEL.findall(texts[row["source"]])}[kernel]
        if not bounds:
            assert found["registers"] * 1024 <= REGISTERS, (
                f"{name}: {found['registers']} registers; give it __launch_bounds__"
            )


# -- the measuring itself ---------------------------------------------------------------------------

SPILLS = """
extern "C" __global__ void __launch_bounds__(1024, 2) greedy(float* x, const float* y, int n) {
  float held[128];
  __shared__ float room[100];
  for (int i = 0; i < 128; i++) held[i] = y[threadIdx.x + i * n];
  room[threadIdx.x % 100] = held[5];
  __syncthreads();
  for (int turn = 0; turn < n; turn++)
    for (int i = 0; i < 128; i++) held[i] = held[i] * held[(i + 1) % 128] + room[turn % 100];
  for (int i = 0; i < 128; i++) x[threadIdx.x + i * n] = held[i];
}
extern "C" __global__ void modest(float* x) { x[threadIdx.x] += 1; }
"""


@needs_compiler
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_kernel_that_spills_is_seen(architecture):
    found = figures(SPILLS, (), architecture)
    assert set(found) == {"greedy", "modest"}
    assert found["greedy"]["spill_bytes"] > 0
    assert found["greedy"]["registers"] <= 32
    assert found["greedy"]["shared_bytes"] == 400
    assert found["modest"]["spill_bytes"] == found["modest"]["shared_bytes"] == 0
    assert found["modest"]["registers"] < 32


@needs_compiler
def test_a_source_that_does_not_compile_is_an_error_with_the_compilers_words():
    with pytest.raises(ValueError, match="nowhere"):
        figures('extern "C" __global__ void f(float* x) { x[0] = nowhere; }', (), "sm_90")


@needs_compiler
def test_defines_and_options_reach_the_compiler():
    text = 'extern "C" __global__ void NAME(float* x) { if constexpr (sizeof(x) == 8) x[0] = 1; }'
    assert set(figures(text, (("NAME", "chosen"),), "sm_80")) == {"chosen"}


def test_a_log_of_nvrtc_and_one_of_nvcc_are_read_alike(monkeypatch):
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'both' for 'sm_90'
ptxas info    : Function properties for both
{lead}    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 55 registers, used 1 barriers, 256 bytes smem, 400 bytes cmem[0]
ptxas info    : Function properties for helper
{lead}    96 bytes stack frame, 9 bytes spill stores, 9 bytes spill loads
"""
    for lead in ("ptxas         .", ""):
        fake = type("Fake", (), {"log": lambda *_, lead=lead: log.format(lead=lead)})()
        monkeypatch.setattr("backends.cupy_cuda._compilers.compiler", lambda fake=fake: fake)
        assert figures("", (), "sm_90") == {
            "both": {"registers": 55, "spill_bytes": 12, "stack_bytes": 16, "shared_bytes": 256}
        }


def test_the_table_shows_both_architectures_where_they_differ():
    def row(architecture, registers):
        found = {"registers": registers, "spill_bytes": 0, "stack_bytes": 0, "shared_bytes": 128}
        return {
            "source": "gelu", "defines": "ELEMENT=float", "architecture": architecture,
            "kernels": {"gelu_forward": found},
        }  # fmt: skip

    last = table([row("sm_80", 30), row("sm_90", 32)]).splitlines()[-1]
    assert last == "| gelu_forward | gelu.cu | `ELEMENT=float` | 30 / 32 | 0 | 0 | 128 |"


@needs_compiler
def test_the_compiler_says_its_version():
    assert re.fullmatch(r"(nvrtc|nvcc) \d+\.\d+", compiler().name)
    assert isinstance(compiler(), Nvrtc) == compiler().name.startswith("nvrtc")
