"""A small case of every half-op that is a backend's own kernel, for a tool that slows kernels down.

    python -m harness.acceptance.few_cases cupy [op ...]

Exit code 6 where a result is wrong. A line `case` is printed for each, so that they can be counted.
"""

import math
import sys

from harness.conformance.cases.case import Case
from harness.conformance.cases.listing import cases_of
from harness.conformance.judge import judge
from harness.contract import OpTable
from harness.errors import NumericsError
from harness.plugins.loading import all_ops, configure, load

LIBRARIES_OWN = {"cupy": ("matmul", "matmul_gelu")}
"""Backend -> ops that are libraries' kernels, which have been looked at by others and take long here."""

OWN_KERNELS = {"attention": "flash"}
"""Setting -> the value by which an own kernel is taken in a library's place."""

PRECISIONS = ("fp32", "bf16")
MIN_SIZE = 3  # a dimension of 1 or 2 hides what neighbours do to one another
LIMIT_S = 300.0


def small_case(ops: OpTable, hook: str, precision: str) -> Case:
    """The smallest one in which every dimension is at least 3."""
    found = cases_of(ops.op_of(hook), hook, precision, wide=False)
    fair = [case for case in found if min((n for _, n in case.dims), default=1) >= MIN_SIZE]
    return min(fair or found, key=lambda case: math.prod(size for _, size in case.dims))


def main(argv: list[str]) -> int:
    name, *wanted = argv
    ops = all_ops()
    backend = load(name, ops)
    own = {
        key: value for key, value in OWN_KERNELS.items() if value in backend.options.get(key, ())
    }
    configure(backend, own)
    wrong = 0
    for hook in ops.hooks:
        op = ops.op_of(hook).name
        if (
            hook not in backend
            or op in LIBRARIES_OWN.get(name, ())
            or (wanted and op not in wanted)
        ):
            continue
        for precision in PRECISIONS:
            if backend.computes_in(op, precision) is None:
                continue
            cases = [small_case(ops, hook, precision)]
            verdict = judge(backend, hook, ops, precision=precision, cases=cases, limit_s=LIMIT_S)
            print("case\n" * verdict.cases, end="", flush=True)
            if verdict.status == "failed":
                wrong += 1
                print(verdict, flush=True)
    return NumericsError.exit_code if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
