"""Compile every kernel, and say what it takes of a multiprocessor: registers, spills, memory.

    python -m backends.numba_cuda._resources [--write] [--again]

--write records it in experiments/numba_kernels, and fills the table of its README. What is recorded of
the same source is not compiled again, but with --again. No GPU is asked.
"""

import argparse
import ast
import hashlib
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from backends.numba_cuda._compile_only import compiler, figures, launches, missing

ARCHITECTURES = ("sm_80", "sm_90")
HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "experiments" / "numba_kernels"
RECORD = FOLDER / "record.json"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
COLUMNS = ("registers", "spill_bytes", "stack_bytes", "shared_bytes", "f64")
NOTHING_COMPILES = 3  # exit code where a compiler is missing
HOST_ONLY = ("_machine", "_scratch")
"""Helpers of which no kernel has anything."""


def recorded():
    """(kernel, types, architecture) -> its row, of the last --write."""
    if not RECORD.exists():
        return {}
    return {key_of(row): row for row in json.loads(RECORD.read_text(encoding="utf-8"))["kernels"]}


def key_of(row):
    return row["kernel"], row["types"], row["architecture"]


def is_recorded(launch, architecture, known):
    """Whether the record has this kernel, of the source as it is now."""
    row = known.get((launch.name, launch.signature, architecture), {})
    return row.get("digest") == digest(launch.kernel.py_func.__module__)


def measure(launch, architecture, known):
    """A row of the record. known: the record, whose rows are not compiled again."""
    if is_recorded(launch, architecture, known):
        row = known[launch.name, launch.signature, architecture]
        return {**row, "threads": launch.threads}
    return {
        "kernel": launch.name,
        "types": launch.signature,
        "architecture": architecture,
        "threads": launch.threads,
        "digest": digest(launch.kernel.py_func.__module__),
        "compiler": compiler(),
        **figures(launch, architecture),
    }


def measure_all(again=False):
    """The rows of every launch. A process for each architecture: device functions are compiled once."""
    command = [sys.executable, "-m", "backends.numba_cuda._resources"]
    more = ["--again"] if again else []
    running = [
        subprocess.Popen([*command, "--only", architecture, *more], stdout=subprocess.PIPE)
        for architecture in ARCHITECTURES
    ]
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit("a kernel does not compile")  # its compiler has said why
    rows = [json.loads(line) for text in said for line in text.splitlines()]
    return sorted(rows, key=key_of)


def _one_of_each_file():
    return list({launch.kernel.py_func.__module__: launch for launch in launches()}.values())


@cache
def digest(module):
    """Of a kernel's file and of the helpers that it imports, without comments and docstrings."""
    texts, todo = {}, [module.rpartition(".")[2]]
    while todo:
        name = todo.pop()
        file = HERE / f"{name}.py"
        if name not in texts and name not in HOST_ONLY and file.exists():
            tree = ast.parse(file.read_text(encoding="utf-8"))
            texts[name] = _without_docstrings(tree)
            todo += _imported(tree)
    return hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()[:16]


def _without_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            kept = [one for one in node.body if not _is_text(one)]
            node.body = kept or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imported(tree):
    package = "backends.numba_cuda"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
            yield node.module.rpartition(".")[2]


def table(rows):
    """A line for each kernel and kind of storage; of its lists of types the most and the least."""
    lines = [
        "| kernel | storage | lists of types | threads | registers | spilled bytes | stack bytes "
        "| shared bytes | lines in double |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by_kernel: dict = {}
    for row in rows:
        storage = "bfloat16" if "uint16" in row["types"] else "float32"
        by_kernel.setdefault((row["kernel"], storage), []).append(row)
    for (kernel, storage), found in sorted(by_kernel.items()):
        kinds = len({row["types"] for row in found})
        threads = max(row["threads"] for row in found)
        cells = [" / ".join(_range(found, a, column) for a in ARCHITECTURES) for column in COLUMNS]
        cells = [re.sub(r"^(\S+) / \1$", r"\1", cell) for cell in cells]
        lines.append(f"| {kernel} | {storage} | {kinds} | {threads} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _range(rows, architecture, column):
    found = [row[column] for row in rows if row["architecture"] == architecture]
    least, most = min(found, default=0), max(found, default=0)
    return f"{least}" if least == most else f"{least}-{most}"


def write(rows):
    whole = {"compiler": compiler(), "kernels": rows}
    FOLDER.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    readme = FOLDER / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    made = f"{compiler()}; where two numbers differ, sm_80 / sm_90.\n\n"
    readme.write_text(before + BEGIN + made + table(rows) + END + after, encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", action="store_true", help="record it in experiments/numba_kernels"
    )
    parser.add_argument("--again", action="store_true", help="compile what is recorded, too")
    parser.add_argument("--only", metavar="sm_90", help="one architecture's rows, a line each")
    parser.add_argument("--sample", action="store_true", help="of --only: one kernel of each file")
    asked = parser.parse_args(argv)
    if missing():
        print(missing(), file=sys.stderr)
        sys.exit(NOTHING_COMPILES)
    if asked.only:
        known = {} if asked.again or asked.sample else recorded()
        todo = _one_of_each_file() if asked.sample else launches()
        for launch in todo:
            print(json.dumps(measure(launch, asked.only, known)), flush=True)
        return
    rows = measure_all(asked.again)
    print(f"{compiler()}; sm_80 / sm_90\n\n{table(rows)}", end="")
    if asked.write:
        write(rows)


if __name__ == "__main__":
    main()
