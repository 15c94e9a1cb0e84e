"""A worker's process: it judges one mutant after another, within a memory limit.

    python -m harness.mutation.worker SUBJECT.json

Its first line is "ready". Then it answers each mutation with its fate, one line of JSON each, until its
input ends.
"""

import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from harness.conformance.cases.case import Case, elements_of
from harness.conformance.judge import judge
from harness.contract import Half, Op, OpTable
from harness.mutation.mutants import Mutation, mutate
from harness.mutation.mutated_package import Replaced, Subject
from harness.mutation.report import Fate
from harness.plugins.loading import Backend, all_ops, check

# A case takes milliseconds and a large one a second: a kernel that takes this long loops.
CASE_S = 10.0
# In a simulator a case takes seconds.
SLOW_CASE_S = 40.0
# Elements of a large case: several times what a core's own cache holds, and half a second in float64.
LARGE_ELEMENTS = 3_000_000
FLAT_RUN = 5_000_011
# A mutant that allocates without end is stopped before the machine is.
MAX_BYTES = 8 << 30
READY = "ready"


def main(argv: list[str]) -> int:
    # What a mutant prints is not an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    _limit_memory()
    subject = Subject.from_json(Path(argv[0]).read_text(encoding="utf-8"))
    ops = all_ops()
    # From here on only mutants print, some of them without end.
    os.dup2(nowhere, 2)
    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        fate = judge_mutant(subject, Mutation(**json.loads(line)), ops)
        print(json.dumps(asdict(fate)), file=answers, flush=True)
    return 0


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return  # Windows
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))


def judge_mutant(subject: Subject, mutation: Mutation, ops: OpTable) -> Fate:
    """Judge the backend with one mistake in it, in this process."""
    began_s = time.monotonic()
    source, before, after = mutate(subject.files[mutation.file], mutation)
    alive = Fate(mutation, "", "", before, after)

    def fate(how: str, by: str = "") -> Fate:
        return replace(alive, how=how, by=by, seconds=round(time.monotonic() - began_s, 3))

    with Replaced(subject, mutation.file, source) as package:
        try:
            plugin = package.load()
            backend = check(plugin, subject.backend, "a mutant", ops)
        except (Exception, SystemExit) as error:
            return fate("import", f"{type(error).__name__}: {error}")
        hooks = subject.hooks[mutation.file]
        for hook, precision in itertools.product(hooks, subject.precisions):
            by = _refused(backend, hook, ops, precision)
            if by:
                return fate("quick", by)
        hooks = subject.large[mutation.file]
        for hook, precision in itertools.product(hooks, subject.precisions):
            by = _refused(
                backend, hook, ops, precision, large_cases(ops.op_of(hook), hook, precision)
            )
            if by:
                return fate("large", by)
    return fate("")


def _refused(
    backend: Backend, hook: str, ops: OpTable, precision: str, cases: list[Case] | None = None
) -> str:
    """The law that one half of a mutant breaks first, and the case; empty if it breaks none."""
    limit_s = SLOW_CASE_S if backend.slowness else CASE_S
    try:
        verdict = judge(
            backend, hook, ops, precision=precision, cases=cases, stop_after=1, limit_s=limit_s
        )
    except SystemExit as error:
        return f"SystemExit: {error}"
    if verdict.status == "not run":
        return verdict.reason
    return "".join(f"{f.law}: {f.case.id}: {f.what}" for f in verdict.failures[:1])


def large_cases(op: Op, hook: str, precision: str) -> list[Case]:
    """The op's GPT-2 shapes, the first and the last, made as light as a case may be.

    Either the longest dimensions are halved or the shortest, the latter with hard data too. A flat op
    gets a long run instead: such kernels share work among threads only above some millions of numbers.
    """
    half = op.half(hook)
    found: dict[str, Case] = {}
    first, last = op.shapes[0], op.shapes[-1]
    for shape, choose, style in (
        (first, max, "normal"),
        (first, min, "normal"),
        (first, min, "offset"),
        (last, max, "normal"),
    ):
        dims = {"P": FLAT_RUN} if set(shape) == {"P"} else _lighter(half, shape, choose)
        for add in (False, True):
            if "accumulate" in half.signature or not add:
                case = Case(hook, tuple(dims.items()), style, 0, precision, add)
                found[case.id] = case
    return list(found.values())


def _lighter(half: Half, shape: Mapping[str, int], choose: Callable[..., str]) -> dict[str, int]:
    """The shape, made smaller: dimensions of its largest buffer are halved, as `choose` picks them."""
    dims = dict(shape)
    while elements_of(half, dims) > LARGE_ELEMENTS:
        sizes = {b: math.prod(half.signature.shape_of(b, dims)) for b in half.signature.buffers}
        largest = max(sizes, key=lambda buffer: sizes[buffer])
        letters = [letter for letter in largest.dims if dims.get(letter, 0) > 8]
        dims[choose(letters, key=lambda letter: dims[letter])] //= 2
    return dims


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
