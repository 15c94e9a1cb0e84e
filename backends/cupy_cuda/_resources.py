"""Compile every kernel for real, and say what it takes of a multiprocessor: registers, spills, memory.

    python -m backends.cupy_cuda._resources [--write] [--again]

--write records it in experiments/cuda_kernels, and fills the table of its README. What is recorded of
the same source, defines and options is not compiled again, but with --again.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backends.cupy_cuda import plugin  # noqa: F401 - importing it makes every Source
from backends.cupy_cuda._compilers import compiler, figures
from backends.cupy_cuda._cubin import COMPILE_OPTIONS
from backends.cupy_cuda._launch import Source

ARCHITECTURES = ("sm_80", "sm_90")
FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "cuda_kernels"
RECORD = FOLDER / "record.json"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
COLUMNS = ("registers", "spill_bytes", "stack_bytes", "shared_bytes")


def variants():
    """(source, defines, architecture): all that the compile test compiles, each once."""
    sources = {source.name: source for source in Source.every}
    return sorted(
        {
            (name, tuple(map(tuple, defines)), architecture)
            for name in sources
            for source in Source.every
            if source.name == name
            for defines in source.variants
            for architecture in ARCHITECTURES
        }
    )


def recorded():
    """(source, defines, architecture) -> digest and kernels, of the last --write."""
    if not RECORD.exists():
        return {}
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["variants"]
    return {(row["source"], row["defines"], row["architecture"]): row for row in rows}


def is_recorded(variant, known):
    """Whether the record has this variant, of the source as it is now."""
    return known.get(_key(variant), {}).get("digest") == _digest(variant)


def measure(variant, known=None):
    """A row of the record: what each kernel of one variant takes. known: the record, or None."""
    if known and is_recorded(variant, known):
        return known[_key(variant)]
    row = dict(zip(("source", "defines", "architecture"), _key(variant), strict=True))
    try:
        kernels = figures(_text(variant), *variant[1:])
    except ValueError as error:
        raise ValueError(f"{row} does not compile:\n{error}") from None
    return {**row, "digest": _digest(variant), "compiler": compiler().name, "kernels": kernels}


def measure_all(variants, known=None):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda variant: measure(variant, known), variants))


def table(rows):
    """A line for each kernel and variant, sm_80 beside sm_90."""
    lines = [
        "| kernel | file | defines | registers | spilled bytes | stack bytes | shared bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    by_kernel: dict = {}
    for row in rows:
        for kernel, found in row["kernels"].items():
            of = by_kernel.setdefault((row["source"], kernel, row["defines"]), {})
            of[row["architecture"]] = found
    for (source, kernel, defines), found in sorted(by_kernel.items()):
        cells = [" / ".join(str(found[a][column]) for a in ARCHITECTURES) for column in COLUMNS]
        cells = [re.sub(r"^(\d+) / \1$", r"\1", cell) for cell in cells]
        lines.append(f"| {kernel} | {source}.cu | `{defines}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(rows):
    options = " ".join(COMPILE_OPTIONS)
    whole = {"compiler": compiler().name, "options": options, "variants": rows}
    RECORD.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    readme = FOLDER / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    made = f"{compiler().name}, `{options}`; where two numbers differ, sm_80 / sm_90.\n\n"
    readme.write_text(before + BEGIN + made + table(rows) + END + after, encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", action="store_true", help="record it in experiments/cuda_kernels"
    )
    parser.add_argument("--again", action="store_true", help="compile what is recorded, too")
    asked = parser.parse_args(argv)
    if compiler() is None:
        sys.exit("no nvrtc and no nvcc: pip install nvidia-cuda-nvrtc-cu12 brings the former")
    rows = measure_all(variants(), None if asked.again else recorded())
    print(f"{compiler().name}; sm_80 / sm_90\n\n{table(rows)}", end="")
    if asked.write:
        write(rows)


def _text(variant):
    return next(source for source in Source.every if source.name == variant[0]).text


def _key(variant):
    source, defines, architecture = variant
    return source, " ".join(f"{name}={value}" for name, value in defines), architecture


def _digest(variant):
    words = re.sub(
        r"//[^\n]*|#line [^\n]*", "", _text(variant)
    ).split()  # a comment changes nothing
    whole = [words, variant, COMPILE_OPTIONS]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
