"""Break a backend's source in small ways, and see whether the conformance suite notices.

Each mutant is the backend with one mistake in one file, made in memory: its package is imported anew
with the mistaken source in place of that file, and judged half by half until something is refused: first
on the quick list, whose arrays are small, then on large ones, which a kernel does in several blocks
(not where the backend says that it is slow: in a simulator).
What nothing refuses has survived: the mistake makes no difference, or the suite has a gap.
"""

import ast
import itertools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from harness.conformance.cases.listing import Case, elements_of
from harness.conformance.judge import judge
from harness.contract import Half, Op, OpTable
from harness.device.hooks import HOOKS
from harness.errors import NumericsError, PluginError
from harness.mutation.mutants import Mutation, mutate, mutations_of
from harness.mutation.mutated_package import Replaced, Subject
from harness.mutation.report import Fate, write_report
from harness.plugins.loading import Backend, all_ops, check, installed, load

WORKERS = 2
KILLED_SHARE = 0.95

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


def run_mutate(
    backend: str = "numpy",
    ops: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    report: str | Path | None = None,
) -> int:
    """Judge mutants of a backend, print what survived. Returns 0 if 95 % or more were noticed.

    ops: only the files of these ops. limit: how many mutants, drawn by `seed`; all of them without.
    report: a folder for record_mutants.json and survivors.md.
    """
    subject = read_subject(backend, ops)
    chosen = draw(subject, limit, seed)
    print(
        f"{len(chosen)} mutants of backend '{backend}' at {', '.join(subject.precisions)}",
        flush=True,
    )
    expect_all_passed(subject)
    fates: list[Fate] = []
    for fate in fates_of(subject, chosen):
        fates.append(fate)
        _show_progress(fates, len(chosen))
    fates.sort(key=lambda fate: chosen.index(fate.mutation))
    survivors = [fate for fate in fates if fate.survived]
    share = 1 - len(survivors) / max(1, len(fates))
    for fate in survivors:
        print(f"survived  {fate.mutation}\n          {fate.before}\n          {fate.after}")
    on_large = sum(fate.how == "large" for fate in fates)
    print(
        f"{len(fates) - len(survivors)} of {len(fates)} noticed, {100 * share:.1f} %; "
        f"{on_large} of them by large cases only"
    )
    if report is not None:
        write_report(Path(report), subject, fates, seed)
    return 0 if share >= KILLED_SHARE else 1


def read_subject(backend: str, ops: Sequence[str] | None = None) -> Subject:
    """The sources of an installed backend that runs as Python. Raises PluginError for any other.

    A backend for a device runs so where it says that it is slow: in a simulator of the device.
    """
    table = all_ops()
    loaded = load(backend, table)
    runs_here = loaded.device == "host" or loaded.slowness
    if not runs_here or loaded.module is None or backend not in installed():
        raise PluginError(
            f"backend '{backend}' cannot be mutated",
            slug="not-mutable",
            expected="an installed backend of Python source that runs on the host, or in a simulator",
        )
    plugin = loaded.module.__name__
    package = plugin.rpartition(".")[0]
    folder = Path(loaded.module.__file__ or "").parent
    files = {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*.py"))
    }
    halves = [hook for hook in loaded.functions if hook not in HOOKS]
    large, hooks = _hooks_of_files(files, package, halves)
    used = _imported_at_once(files, package, f"{plugin.rpartition('.')[2]}.py")
    wanted = used if ops is None else {f"{table[op].name}.py" for op in ops}
    return Subject(
        backend,
        package,
        plugin,
        files,
        dict.fromkeys(large, ()) if loaded.slowness else large,
        {name: hooks[name] for name in files if hooks[name] and name in wanted},
        tuple(loaded.computes),
        bool(loaded.slowness),
    )


def _hooks_of_files(
    files: dict[str, str], package: str, functions: Iterable[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """For each file the hooks for large cases, and all those that it has a part in.

    The second are its own, then those of the files that use it; large cases are for its own, and for
    one of each file that uses it, the backward.
    """
    uses = {
        name: _imported(ast.walk(ast.parse(source)), package) & set(files)
        for name, source in files.items()
    }
    own = {
        name: tuple(
            node.name
            for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef) and node.name in set(functions)
        )
        for name, source in files.items()
    }

    def reaches(name: str, target: str, seen: frozenset[str] = frozenset()) -> bool:
        nexts = uses[name] - seen
        return target in nexts or any(reaches(n, target, seen | nexts) for n in nexts)

    users = {name: [other for other in files if reaches(other, name)] for name in files}
    hooks = {name: own[name] + tuple(h for u in users[name] for h in own[u]) for name in files}
    large = {
        name: own[name] + tuple(own[user][-1] for user in users[name] if own[user])
        for name in files
    }
    return large, hooks


def _imported_at_once(files: dict[str, str], package: str, file: str) -> set[str]:
    """The files that importing one file runs. What a function imports may be for another machine."""
    found, waiting = {file}, [file]
    while waiting:
        tree = ast.parse(files[waiting.pop()])
        fresh = _imported(tree.body, package) & set(files) - found
        found |= fresh
        waiting += fresh
    return found


def _imported(nodes: Iterable[ast.AST], package: str) -> set[str]:
    """The files of the package that these nodes import from."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            inside = module.removeprefix(package).lstrip(".")
            if node.level or module == package or module.startswith(package + "."):
                found |= {f"{inside}.py"} if inside else {f"{a.name}.py" for a in node.names}
    return found


def draw(subject: Subject, limit: int | None, seed: int) -> list[Mutation]:
    """`limit` of the possible mutations, the same for the same seed; all of them if None."""
    possible = [m for name in subject.hooks for m in mutations_of(subject.files[name], name)]
    if limit is None or limit >= len(possible):
        return possible
    chosen = np.random.default_rng(seed).choice(len(possible), limit, replace=False)
    return [possible[i] for i in sorted(chosen)]


def expect_all_passed(subject: Subject) -> None:
    """Raise NumericsError if the backend is refused as it is: its mutants would be too."""
    ops = all_ops()
    hooks = dict.fromkeys(h for hooks in subject.hooks.values() for h in hooks)
    with Replaced(subject, "", "") as package:
        backend = check(package.load(), subject.backend, "its sources", ops)
        for hook, precision in itertools.product(hooks, subject.precisions):
            verdict = judge(backend, hook, ops, precision=precision, stop_after=1)
            if verdict.status not in ("passed", "unsupported"):
                raise NumericsError(
                    f"backend '{subject.backend}' is refused as it is, before it is broken",
                    slug="mutate-needs-a-right-backend",
                    found=f"{verdict.status}: {verdict.failures[0] if verdict.failures else hook}",
                    do=f"harness check {subject.backend}::{hook}",
                )


def fates_of(subject: Subject, mutations: Sequence[Mutation]) -> Iterator[Fate]:
    """Judge mutants in worker processes, and yield each one's fate as it is known.

    A worker that dies or does not answer is replaced, and its mutant counts as noticed.
    """
    waiting = list(reversed(mutations))
    workers = [Worker(subject) for _ in range(min(WORKERS, len(waiting)))]
    try:
        while waiting or any(worker.mutation for worker in workers):
            for worker in workers:
                if worker.mutation is None and waiting:
                    worker.begin(waiting.pop())
            wait([worker.pipe for worker in workers if worker.mutation], timeout=0.2)
            for worker in workers:
                fate = worker.fate()
                if fate is not None:
                    yield fate
    finally:
        for worker in workers:
            worker.stop()


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


def _show_progress(fates: list[Fate], total: int) -> None:
    """A line that is written over on a terminal; a line for each tenth elsewhere."""
    done, survived = len(fates), sum(fate.survived for fate in fates)
    line = f"{done}/{total} judged, {survived} survived"
    if sys.stderr.isatty():
        print(f"\r{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done == total or done * 10 // total != (done - 1) * 10 // total:
        print(line, file=sys.stderr, flush=True)
