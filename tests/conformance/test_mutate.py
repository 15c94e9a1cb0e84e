"""`harness mutate` breaks a backend's source, and the conformance suite notices."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import NumericsError, PluginError
from harness.mutation import mutate as tool
from harness.mutation import report as mutation_report
from harness.mutation import workers
from harness.mutation.mutants import mutate, mutations_of
from harness.plugins import all_ops

KERNEL = '''
"""A text, with 1 + 1 in it."""
import numpy as np

WIDTH = 4 << 10
SCALE = 0.5


def scaled(out_N, x_N, first=0):
    if first > 1:
        return
    for n in range(len(x_N)):
        out_N[n] = x_N[n] * SCALE - first
    np.subtract(x_N, out_N, out=out_N, axis=1)
    out_N[...] = x_N[1:]
    np.add(x_N, out_N)
'''


@pytest.fixture(scope="module")
def softmax():
    return tool.read_subject("numpy", ["softmax"])


def changes_of(source):
    return {mutation.change for mutation in mutations_of(source, "kernel.py")}


def doctored(subject, line):
    """The subject with one more line at the end of softmax.py, and the mutations of that line."""
    source = subject.files["softmax.py"] + f"\n{line}\n"
    subject = replace(subject, files={**subject.files, "softmax.py": source})
    count = source.count("\n")
    found = [m for m in mutations_of(source, "softmax.py") if m.line >= count]
    return subject, found


def test_every_kind_of_mistake_is_made():
    assert changes_of(KERNEL) >= {
        "* → /",
        "- → +",
        "> → >=",
        "test → not test",
        "0.5 → 0",
        "0.5 → 1",
        "1 → 2",
        "statement left out",
        "subtract → add",
        "arguments of subtract exchanged",
        "out= left out",
        "axis= left out",
        "x[...] = → x =",
        "range from 1",
        "range one short",
        "a:b → :b",
    }


def test_texts_imports_and_sizes_of_tiles_stay_as_they_are():
    lines = KERNEL.splitlines()
    spared = {i + 1 for i, line in enumerate(lines) if line.startswith(('"""', "import", "WIDTH"))}
    assert not spared & {mutation.line for mutation in mutations_of(KERNEL, "kernel.py")}


def test_arguments_that_commute_are_not_exchanged():
    assert "arguments of add exchanged" not in changes_of(KERNEL)


def test_each_mistake_changes_the_line_that_it_names():
    for mutation in mutations_of(KERNEL, "kernel.py"):
        source, before, after = mutate(KERNEL, mutation)
        assert before != after or "not first" in source, mutation
        assert compile(source, "kernel.py", "exec")


def test_the_same_seed_draws_the_same_mutants(softmax):
    assert tool.draw(softmax, 10, 1) == tool.draw(softmax, 10, 1) != tool.draw(softmax, 10, 2)
    assert len(tool.draw(softmax, 10, 1)) == 10


def test_a_file_is_judged_by_the_ops_that_use_it():
    subject = tool.read_subject("numpy")
    assert subject.hooks["softmax.py"][:2] == ("softmax_forward", "softmax_backward")
    assert subject.hooks["layernorm.py"][-1] == "residual_layernorm_backward"
    helpers = [name for name in subject.hooks if name.startswith("_")]
    assert helpers and all(len(subject.hooks[name]) >= 2 for name in helpers)


def test_nineteen_of_twenty_mistakes_are_noticed():
    subject = tool.read_subject("numpy", ["residual", "softmax", "layernorm", "sgd"])
    tool.expect_all_passed(subject)
    fates = list(tool.fates_of(subject, tool.draw(subject, 20, seed=0)))
    survivors = [str(fate.mutation) for fate in fates if fate.survived]
    assert len(fates) == 20
    assert len(survivors) <= 1, survivors


def test_a_mutant_that_kills_its_process_is_noticed_and_the_next_one_is_judged(softmax):
    subject, found = doctored(softmax, 'import os; len("") > 0 and os._exit(3)')
    crash = next(m for m in found if m.change == "and → or")
    quick = next(m for m in tool.draw(subject, None, 0) if m.change == "subtract → add")
    fates = {fate.mutation: fate.how for fate in tool.fates_of(subject, [crash, crash, quick])}
    assert fates == {crash: "crash", quick: "quick"}


def test_a_mutant_that_never_ends_is_noticed(softmax, monkeypatch):
    monkeypatch.setattr(workers, "MUTANT_S", 2.0)
    subject, found = doctored(softmax, "while 1 < 1: pass")
    endless = next(m for m in found if m.change == "< → <=")
    (fate,) = tool.fates_of(subject, [endless])
    assert fate.how == "timeout"
    assert fate.after == "while 1 <= 1:"


def test_a_mutant_leaves_files_and_modules_as_they_were(softmax):
    import backends.numpy_cpu.softmax as before

    source = Path(before.__file__).read_text()
    mutation = next(m for m in tool.draw(softmax, None, 0) if m.change == "subtract → add")
    fate = workers.judge_mutant(softmax, mutation, all_ops())
    assert fate.how == "quick"
    assert fate.by.startswith("value: softmax_")
    assert sys.modules["backends.numpy_cpu.softmax"] is before
    assert Path(before.__file__).read_text() == source


def test_a_backend_that_is_refused_as_it_is_cannot_be_mutated(softmax):
    source = softmax.files["softmax.py"].replace("np.subtract", "np.add")
    wrong = replace(softmax, files={**softmax.files, "softmax.py": source})
    with pytest.raises(NumericsError, match="refused as it is") as error:
        tool.expect_all_passed(wrong)
    assert error.value.slug == "mutate-needs-a-right-backend"


def test_a_backend_without_sources_cannot_be_mutated():
    with pytest.raises(PluginError) as error:
        tool.read_subject("reference")
    assert error.value.slug == "not-mutable"


def test_a_backend_of_a_device_is_broken_in_its_simulator():
    subject = tool.read_subject("numba_cuda", ["gelu"])
    assert subject.slow and not any(subject.large.values())
    possible = tool.draw(subject, None, 0)
    put = next(m for m in possible if m.change == "arguments of put exchanged")
    slope = next(m for m in reversed(possible) if m.change == "- → +")
    fates = {fate.mutation: fate for fate in tool.fates_of(subject, [put, slope])}
    assert {fate.how for fate in fates.values()} == {"quick"}
    assert fates[slope].by.startswith("value: gelu_backward")


def test_a_backend_of_a_device_cannot_be_mutated_where_it_is_not_simulated(monkeypatch):
    backend = replace(tool.load("numba_cuda", all_ops()), slow="")
    monkeypatch.setattr(tool, "load", lambda *_: backend)
    with pytest.raises(PluginError) as error:
        tool.read_subject("numba_cuda")
    assert error.value.slug == "not-mutable"


def test_files_for_another_machine_are_not_broken():
    subject = tool.read_subject("numba_cuda")
    assert {"_gpu.py", "simulator/machine.py"} <= set(subject.files)
    assert not {"_gpu.py", "simulator/machine.py"} & set(subject.hooks)


def test_the_report_keeps_the_explanation_of_a_survivor(softmax, tmp_path):
    mutation = tool.draw(softmax, 1, 0)[0]
    fate = mutation_report.Fate(mutation, "", before="a = 1", after="a = 2")
    mutation_report.write_report(tmp_path, softmax, [fate], seed=0)
    path = tmp_path / "survivors.md"
    assert mutation_report.UNEXPLAINED in path.read_text()
    path.write_text(
        path.read_text().replace(mutation_report.UNEXPLAINED, "Only speed depends on it.")
    )
    mutation_report.write_report(tmp_path, softmax, [fate], seed=0)
    assert "Only speed depends on it." in path.read_text()
