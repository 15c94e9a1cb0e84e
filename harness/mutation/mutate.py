"""Break a backend's source in small ways, and see whether the conformance suite notices.

A mutant is the backend with one mistake in one file. The mistake is made in memory: the package is
imported anew with the changed source in place of that file. The suite then judges it half by half until
something is refused. First comes the quick list, whose arrays are small. Then come large arrays, which a
kernel does in several blocks; a backend that says it is slow, in a simulator, is spared these.
A mutant that nothing refuses has survived: the mistake makes no difference, or the suite has a gap.
"""

import argparse
import ast
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from harness.conformance.judge import judge
from harness.device import HOOKS
from harness.errors import NumericsError, PluginError
from harness.mutation.mutants import Mutation, mutations_of
from harness.mutation.mutated_package import Replaced, Subject
from harness.mutation.report import Fate, write_report
from harness.mutation.workers import Worker, wait_for_any
from harness.plugins.loading import all_ops, check, installed, load

WORKERS = 2
POLL_S = 0.2
KILLED_SHARE = 0.95


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness mutate`."""
    parser.add_argument("backend", nargs="?", default="numpy")
    parser.add_argument("--op", action="append", dest="ops", help="only this op (repeatable)")
    parser.add_argument("--limit", type=int, help="draw this many mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", metavar="DIR")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`harness mutate`. Returns the exit code."""
    return run_mutate(
        arguments.backend,
        ops=arguments.ops,
        limit=arguments.limit,
        seed=arguments.seed,
        report=arguments.report,
    )


def run_mutate(
    backend: str = "numpy",
    ops: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    report: str | Path | None = None,
) -> int:
    """Judge mutants of a backend, and print those that survived. Returns 0 if 95 % or more were noticed.

    ops: only the files of these ops. limit: how many mutants, drawn by `seed`; without it, all.
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
    """For each file: the hooks to judge on large cases, and all hooks that it has a part in.

    All hooks are the file's own, then those of the files that use it. Large cases judge its own, and
    the backward of each file that uses it.
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

    A worker that dies or hangs is replaced, and its mutant counts as noticed.
    """
    waiting = list(reversed(mutations))
    workers = [Worker(subject) for _ in range(min(WORKERS, len(waiting)))]
    try:
        while waiting or any(worker.mutation for worker in workers):
            for worker in workers:
                if worker.mutation is None and waiting:
                    worker.begin(waiting.pop())
            wait_for_any([worker for worker in workers if worker.mutation], POLL_S)
            for worker in workers:
                fate = worker.fate()
                if fate is not None:
                    yield fate
    finally:
        for worker in workers:
            worker.stop()


def _show_progress(fates: list[Fate], total: int) -> None:
    """Show one line that is overwritten on a terminal; elsewhere a line for each tenth."""
    done, survived = len(fates), sum(fate.survived for fate in fates)
    line = f"{done}/{total} judged, {survived} survived"
    if sys.stderr.isatty():
        print(f"\r{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done == total or done * 10 // total != (done - 1) * 10 // total:
        print(line, file=sys.stderr, flush=True)
