"""Small mistakes in CUDA C++, found by reading its text line by line.

Comments, strings and preprocessor lines are left alone, and so is what the CPU does not compile (the
PTX in `#ifndef CUDA_ON_CPU`): nothing here could notice a mistake there. Binary operators are known by
the spaces around them, as clang-format leaves them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One mistake. line counts from 1; what stood from `begin` to `end` in it is `put` now."""

    file: str
    line: int
    begin: int
    end: int
    put: str
    kind: str

    def applied(self, text: str) -> str:
        lines = text.split("\n")
        before = lines[self.line - 1]
        lines[self.line - 1] = before[: self.begin] + self.put + before[self.end :]
        return "\n".join(lines)

    def shown(self, text: str) -> tuple[str, str]:
        """The line as it was and as it is."""
        after = self.applied(text)
        return tuple(t.split("\n")[self.line - 1].strip() for t in (text, after))  # type: ignore


REPLACED = (
    ("operator", r"(?<= )\+(?= )", ("-",)),
    ("operator", r"(?<= )-(?= )", ("+",)),
    ("operator", r"(?<= )\*(?= )", ("/",)),
    ("operator", r"(?<= )/(?= )", ("*",)),
    ("operator", r"(?<= )%(?= )", ("/",)),
    ("operator", r"(?<= )\+=(?= )", ("-=", "=")),
    ("operator", r"(?<= )-=(?= )", ("+=",)),
    ("operator", r"(?<= )\*=(?= )", ("=",)),
    ("comparison", r"(?<= )<(?= )", ("<=", ">=")),
    ("comparison", r"(?<= )<=(?= )", ("<",)),
    ("comparison", r"(?<= )>(?= )", (">=",)),
    ("comparison", r"(?<= )>=(?= )", (">",)),
    ("comparison", r"(?<= )==(?= )", ("!=",)),
    ("comparison", r"(?<= )!=(?= )", ("==",)),
    ("logic", r"(?<= )&&(?= )", ("||",)),
    ("logic", r"(?<= )\|\|(?= )", ("&&",)),
    ("constant", r"(?<![\w.])0(?![\w.])", ("1",)),
    ("constant", r"(?<![\w.])1(?![\w.])", ("0", "2")),
    ("constant", r"(?<![\w.])0\.0f(?!\w)", ("1.0f",)),
    ("constant", r"(?<![\w.])1\.0f(?!\w)", ("0.0f",)),
    ("extreme", r"\bfmaxf\b", ("fminf",)),
    ("extreme", r"\bmax(?=\()", ("min",)),
    ("extreme", r"\bmin(?=\()", ("max",)),
    ("barrier", r"__sync(?:threads|warp)\(\);", (";",)),
    ("accumulate", r"\baccumulate(?= \?)|!accumulate\b", ("true", "false")),
    ("bound", r"(?<=for \()[^;]*; \w+ < [^;]+(?=;)", ("{} - 1",)),
    ("shuffle", r"(?<=int bits = )16(?=;)", ("8",)),
)
"""Kind, what is replaced, and by what; {} is what stood there."""

SWAPPED = (
    ("warp", "lane"),
    ("mean", "rstd"),
    ("threadIdx.x", "threadIdx.y"),
    ("blockIdx.x", "blockIdx.y"),
    ("row", "column"),
    ("n", "c"),
    ("N", "C"),
    ("b", "t"),
    ("T", "H"),
    ("i", "j"),
    ("r", "c"),
    ("dout", "x"),
    ("m", "v"),
    ("dx", "dout"),
)
"""Names that are mistaken for one another, where both stand in a line."""

STEP = r"for \([^;]*;[^;]*;[^)]*\)"
"""Of a loop; an operator in it is left alone, because a loop without end teaches nothing."""

STATEMENT = re.compile(r"\s*(?:[\w.>()\[\] +*/%-]+ [-+*/^]?= .*|store_\w+\(.*\)|\w+ \^= .*);\s*$")
DECLARATION = re.compile(
    r"\s*(?:return|const|static|typedef|struct|else|for|if|#|[\w:<>]+[*&]* [*&]?\w+(?:\[.*\])* =)"
)


def mutations_of(file: str, text: str) -> list[Mutation]:
    """Every mistake that can be made in this text, in its order."""
    found = [m for n, line in _code(text) for m in _of_line(file, n, line)]
    return list(dict.fromkeys(found))


def _of_line(file: str, number: int, line: str) -> Iterator[Mutation]:
    steps = list(re.finditer(STEP, line))
    for kind, pattern, puts in REPLACED:
        for match in re.finditer(pattern, line):
            if kind == "operator" and any(m.start() < match.start() < m.end() for m in steps):
                continue
            for put in puts:
                made = put.format(match[0])
                yield Mutation(file, number, *match.span(), made, kind)
    if re.match(r"extern|__device__|template|struct|static", line.strip()):
        return  # names there are those of arguments
    for pair in SWAPPED:
        for one, other in (pair, pair[::-1]):
            if _places(other, line):
                for begin in _places(one, line):
                    yield Mutation(file, number, begin, begin + len(one), other, "name")
    if STATEMENT.match(line) and not DECLARATION.match(line):
        indent = len(line) - len(line.lstrip())
        yield Mutation(file, number, indent, len(line.rstrip()), ";", "statement")


def _places(name: str, line: str) -> list[int]:
    return [m.start() for m in re.finditer(rf"(?<![\w.]){re.escape(name)}(?![\w])", line)]


def _code(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are compiled on the CPU, numbered, with blanks for comments and strings."""
    taken: list[bool] = []
    goes_on = False
    for number, line in enumerate(text.split("\n"), 1):
        if goes_on or line.lstrip().startswith("#"):
            _directive(line.strip(), taken)
            goes_on = line.endswith("\\")
            continue
        line = re.sub(r'"[^"]*"', lambda m: '"' * len(m[0]), line)
        line = line.split("//")[0]
        if line.strip() and all(taken):
            yield number, line


def _directive(line: str, taken: list[bool]) -> None:
    """Whether what follows is compiled on the CPU; other conditions than CUDA_ON_CPU may be."""
    if re.match(r"#if", line):
        without = line.startswith("#ifndef CUDA_ON_CPU") or "!defined(CUDA_ON_CPU)" in line
        taken.append(not without)
        _branches.append("CUDA_ON_CPU" in line)
    elif line.startswith("#else") and _branches[-1]:
        taken[-1] = not taken[-1]
    elif line.startswith("#endif"):
        taken.pop()
        _branches.pop()


_branches: list[bool] = []
"""Of the open conditions, whether it is about CUDA_ON_CPU."""
