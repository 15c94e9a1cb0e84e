"""Does every half-op give the right numbers on the device? The suite's fixed list, and a real shape.

There is a worker for each backend and precision, and one for each library that is not the default, since
a backend takes its settings only once. Workers run side by side: most of the time the host is busy.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from harness.acceptance.part import Check, Part, Request, Result, Unavailable
from harness.conformance.cases.listing import real_case
from harness.conformance.judge import judge
from harness.contract import OpTable
from harness.plugins.loading import Backend, all_ops, configure, load

TOUCHED = {"matmul": ("matmul", "classifier"), "attention": ("attention",)}
"""Setting -> how the ops begin that it changes; of any other setting, all ops are asked."""

REHEARSED = ("gelu", "residual")  # kernels on the CPU are slow: the machinery is what is tried
SHOWN = 12


def workers(request: Request) -> list[str]:
    """`cupy fp32`, and `cupy fp32 attention=flash` for what is not the default."""
    found = []
    for name, backend in request.backends.items():
        plain = [f"{name} {precision}" for precision in backend["precisions"]]
        others = [
            f"{worker} {option}={value}"
            for option, values in backend["options"].items()
            if option in TOUCHED
            for value in values[1:]
            for worker in plain
        ]
        found += plain[:1] if request.rehearsal else plain + others
    return found


def checks(request: Request, worker: str, found: Mapping[str, Result]) -> Iterator[Check]:
    name, precision, *settings = worker.split()
    ops = all_ops()
    backend = load(name, ops)
    given = dict(setting.split("=", 1) for setting in settings)
    configure(backend, given)
    hooks = [hook for hook in ops.hooks if hook in backend and _is_touched(ops, hook, given)]
    if request.rehearsal:
        hooks = [hook for hook in hooks if ops.op_of(hook).name in REHEARSED]
    if not hooks:
        yield "ops", _nothing
    for hook in hooks:
        yield hook, partial(_judged, backend, hook, ops, precision, real=False)
    for hook in hooks:
        if not request.rehearsal:
            yield (
                f"{hook} at a real shape",
                partial(_judged, backend, hook, ops, precision, real=True),
            )


def _is_touched(ops: OpTable, hook: str, given: Mapping[str, str]) -> bool:
    op = ops.op_of(hook).name
    return not given or any(op.startswith(TOUCHED[option]) for option in given)


def _nothing() -> Result:
    raise Unavailable("the backend has none of these ops")


def _judged(backend: Backend, hook: str, ops: OpTable, precision: str, real: bool) -> Result:
    cases = None
    if real:
        case = real_case(ops.op_of(hook), hook, precision)
        if case is None:
            raise Unavailable("its real shapes take long in float64: part losses has them")
        cases = [case]
    verdict = judge(backend, hook, ops, precision=precision, cases=cases)
    if verdict.status in ("unsupported", "not run"):
        raise Unavailable(f"{verdict.status}: {verdict.reason}")
    result: dict[str, Any] = {
        "ok": verdict.status in ("passed", "xfail"),
        "cases": verdict.cases,
        "arithmetic": verdict.arithmetic,
        "worst": verdict.worst[0],
    }
    if verdict.status == "xfail":
        result["xfail"] = verdict.reason
    if verdict.failures:
        first = verdict.failures[0]
        result["reason"] = f"{verdict.failed_cases} of {verdict.cases} cases: {first}"[:2000]
        result["fresh"] = True
    return result


def lines(found: Mapping[str, Mapping[str, Result]]) -> list[str]:
    text = ["| backend, precision | halves right | wrong | not run | cases | worst err/tolerance |"]
    text += ["|---|---:|---:|---:|---:|---:|"]
    failed = []
    for worker, results in found.items():
        right = [r for r in results.values() if r["ok"]]
        wrong = {name: r for name, r in results.items() if r["ok"] is False}
        skipped = sum(r["ok"] is None for r in results.values())
        cases = sum(r.get("cases", 0) for r in results.values())
        worst = max((r["worst"] for r in right), default=0.0)
        text.append(
            f"| {worker} | {len(right)} | {len(wrong)} | {skipped} | {cases} | {worst:.2f} |"
        )
        failed += [
            f"* wrong: {worker} {name}: {str(r.get('reason', '')).partition(chr(10))[0]}"
            for name, r in wrong.items()
        ]
    more = [f"* and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
    return [*text, "", *failed[:SHOWN], *more]


PART = Part(
    "conformance",
    "Does every half-op give the right numbers on the device?",
    0.26,
    workers,
    checks,
    lines,
    at_once=6,
)
