"""Every kernel compiles for sm_80 and sm_90, in float32 and bfloat16, within what a multiprocessor has.

The record in experiments/numba_kernels is held to these laws everywhere, and to the sources; where there
is a compiler, to the compiler too. After an edit: `python -m backends.numba_cuda._resources --write`.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.numba_cuda import _resources
from backends.numba_cuda._compile_only import read_log
from backends.numba_cuda._resources import ARCHITECTURES, RECORD, digest, recorded, table

FOLDER = Path(_resources.__file__).parent
REGISTERS = 65536  # of a multiprocessor
GRANULE = 8  # registers of a thread are given out in eights
SHARED_BYTES = 48 << 10  # static, of a block
OTHER_COMPILER = "registers are held to what the same compiler said, and this is "

DOUBLE = {
    "clip_scale": "its formula is in double: the sum of squares of a model may be beyond float32",
}
"""Files whose kernels may compute in double, and why. 32 or 64 times slower on most GPUs."""

STACK: dict[str, str] = {}
"""Kernels that may keep a stack, and why: it lies in the device's memory."""


def name_of(row):
    return f"{row['kernel']} ({row['types']}, {row['architecture']})"


def file_of(row):
    return row["kernel"].partition(".")[0]


def kernels_in_sources():
    """file._function of whatever is marked @cuda.jit and is no device function."""
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", ())]
            for mark in marks:
                if mark.startswith("cuda.jit") and "device=True" not in mark:
                    yield f"{file.stem}.{node.name}"


@pytest.fixture(scope="module")
def rows():
    return list(recorded().values())


def compiled(architecture, *more):
    """What is compiled now, in a process without the simulator; skips where nothing can be."""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    command = [sys.executable, "-m", "backends.numba_cuda._resources", "--only", architecture]
    done = subprocess.run(
        [*command, *more], capture_output=True, text=True, check=False,
        env=environment, cwd=FOLDER.parents[1],
    )  # fmt: skip
    if done.returncode == _resources.NOTHING_COMPILES:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- laws of the record -----------------------------------------------------------------------------


def test_every_kernel_is_recorded_for_both_architectures(rows):
    wanted = {(name, a) for name in kernels_in_sources() for a in ARCHITECTURES}
    found = {(row["kernel"].partition("(")[0], row["architecture"]) for row in rows}
    assert found == wanted


def test_every_kernel_that_stores_activations_is_recorded_in_bfloat16_too(rows):
    narrow = {file_of(row) for row in rows if "uint16" in row["types"]}
    only_float32 = {"_token_order", "adamw", "clip_scale", "guard", "sgd", "squared_norm"}
    assert {file_of(row) for row in rows} - narrow <= only_float32


def test_the_record_is_of_the_sources_as_they_are(rows):
    stale = {
        row["kernel"] for row in rows
        if row["digest"] != digest(f"backends.numba_cuda.{file_of(row)}")
    }  # fmt: skip
    assert not stale, f"python -m backends.numba_cuda._resources --write: {sorted(stale)}"


def test_no_kernel_spills_registers_to_memory(rows):
    assert not [name_of(row) for row in rows if row["spill_bytes"]]


def test_no_kernel_keeps_a_stack_but_those_that_are_listed(rows):
    assert not [name_of(row) for row in rows if row["stack_bytes"] and row["kernel"] not in STACK]


def test_no_kernel_takes_more_than_the_48_kib_of_static_shared_memory(rows):
    assert not [name_of(row) for row in rows if row["shared_bytes"] > SHARED_BYTES]


def test_no_kernel_computes_in_double_but_those_that_are_listed(rows):
    assert not [name_of(row) for row in rows if row["f64"] and file_of(row) not in DOUBLE]


def test_every_block_that_is_launched_has_its_registers(rows):
    for row in rows:
        registers = -(-row["registers"] // GRANULE) * GRANULE
        assert registers * row["threads"] <= REGISTERS, name_of(row)


def test_the_table_of_the_readme_is_the_record(rows):
    assert table(rows) in (RECORD.parent / "README.md").read_text(encoding="utf-8")


# -- the record and the compiler --------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_launched_is_what_is_recorded(rows, architecture):
    """Rows of an edited file are compiled for this, and may be the same."""
    found = {_resources.key_of(row): row["threads"] for row in compiled(architecture)}
    known = {
        _resources.key_of(row): row["threads"]
        for row in rows if row["architecture"] == architecture
    }  # fmt: skip
    assert found == known, "python -m backends.numba_cuda._resources --write"


def test_a_kernel_of_each_file_takes_what_the_record_says_of_it(rows):
    known = {_resources.key_of(row): row for row in rows}
    for row in compiled("sm_90", "--sample"):
        before = known[_resources.key_of(row)]
        if row["compiler"] != before["compiler"]:
            pytest.skip(OTHER_COMPILER + row["compiler"])
        assert row == before


# -- the measuring itself ---------------------------------------------------------------------------


def test_a_log_of_ptxas_is_read_with_the_functions_that_the_kernel_calls():
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6cudapy' for 'sm_90'
ptxas info    : Function properties for _ZN6cudapy
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 55 registers, used 1 barriers, 16 bytes cumulative stack size, 256 bytes smem
ptxas info    : Compile time = 1.000 ms
ptxas info    : Function properties for helper
    0 bytes stack frame, 2 bytes spill stores, 0 bytes spill loads
"""
    found = {"registers": 55, "spill_bytes": 14, "stack_bytes": 16, "shared_bytes": 256}
    assert read_log(log) == found


def test_a_comment_is_no_new_kernel_and_an_edit_of_a_helper_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(_resources, "HERE", tmp_path)
    op, helper = tmp_path / "op.py", tmp_path / "_helper.py"
    kernel = "from backends.numba_cuda._helper import one\nx = one"

    def now():
        digest.cache_clear()
        return digest("backends.numba_cuda.op")

    op.write_text(kernel)
    helper.write_text("one = 1")
    before = now()
    op.write_text(f'"""Words."""\n{kernel}  # why\n')
    helper.write_text("one = 1\n# the first\n")
    assert now() == before
    helper.write_text("one = 2")
    assert now() != before
    digest.cache_clear()
