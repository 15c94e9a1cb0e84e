"""A process that judges mutants one after another, each within a time and a memory limit."""

import itertools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.conformance.cases.case import Case, elements_of
from harness.conformance.judge import judge
from harness.contract import Half, Op, OpTable
from harness.mutation.mutants import Mutation, mutate
from harness.mutation.mutated_package import Replaced, Subject
from harness.mutation.report import Fate
from harness.plugins.loading import Backend, all_ops, check

# A case takes milliseconds and a large one a second: a kernel that takes this long loops.
CASE_S = 10.0
MUTANT_S = 180.0
# In a simulator a case takes seconds, and what every op uses is judged on all of them.
SLOW_CASE_S, SLOW_MUTANT_S = 40.0, 1200.0
# Elements of a large case: several times what a core's own cache holds, and half a second in float64.
LARGE_ELEMENTS = 3_000_000
FLAT_RUN = 5_000_011
# A mutant that allocates without end is stopped before the machine is.
MAX_BYTES = 8 << 30


@dataclass
class Worker:
    """A process that judges one mutant after another, for a bounded time each."""

    subject: Subject
    mutation: Mutation | None = None
    began_s: float = 0.0
    pipe: Any = field(init=False)
    process: Any = field(init=False)

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        # Spawned: a fork would inherit the locks of BLAS's threads.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(self.subject, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, mutation: Mutation) -> None:
        self.mutation, self.began_s = mutation, time.monotonic()
        self.pipe.send(mutation)

    def fate(self) -> Fate | None:
        """What became of the mutant, None while it is not known or there is none."""
        mutation, spent_s = self.mutation, time.monotonic() - self.began_s
        if mutation is None:
            return None
        try:
            if self.pipe.poll():
                fate: Fate = self.pipe.recv()
                self.mutation = None
                return fate
            how = "" if self.process.is_alive() else "crash"
        except (EOFError, ConnectionError):
            how = "crash"
        if not how and spent_s < (SLOW_MUTANT_S if self.subject.slow else MUTANT_S):
            return None
        self.stop()
        self._start()
        self.mutation = None
        _, before, after = mutate(self.subject.files[mutation.file], mutation)
        return Fate(mutation, how or "timeout", "", before, after, spent_s)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(subject: Subject, pipe: Any) -> None:
    """What a worker does: answer each mutation with its fate, until the pipe is closed."""
    _limit_memory()
    ops = all_ops()
    # What a mutant prints is not part of the report.
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    while True:
        try:
            mutation = pipe.recv()
        except EOFError:
            return
        pipe.send(judge_mutant(subject, mutation, ops))


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

    Once the longest letters are halved, once the shortest, and then with hard data too. A flat run is
    long instead: such kernels share their work among threads from some millions of numbers on.
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
    """The shape with letters of its largest buffer halved, one after another, as `choose` says."""
    dims = dict(shape)
    while elements_of(half, dims) > LARGE_ELEMENTS:
        sizes = {b: math.prod(half.signature.shape_of(b, dims)) for b in half.signature.buffers}
        largest = max(sizes, key=lambda buffer: sizes[buffer])
        letters = [letter for letter in largest.dims if dims.get(letter, 0) > 8]
        dims[choose(letters, key=lambda letter: dims[letter])] //= 2
    return dims
