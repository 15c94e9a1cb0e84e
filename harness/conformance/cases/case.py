"""One case of a half-op: its name, the name read back, its data, and the work that it is.

layernorm_backward[N=7,C=33,large-mean,seed=3,fp32,accumulate,no-dx]
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.conformance.cases.data import ALL_STYLES, Cache, Data, make_data, reads
from harness.contract import Half, Op, OpTable
from harness.contract.precision import POLICIES
from harness.contract.table import nearest
from harness.errors import ConfigError

CACHE = Cache(limit=256 << 20)


@dataclass(frozen=True)
class Case:
    """One call of a half-op, by everything that decides its bits.

    dims: letter -> size, in order of first use. without: names of buffers that are None.
    settings: those that differ from the op's example. alias: (output, input) that share memory.
    """

    hook: str
    dims: tuple[tuple[str, int], ...]
    style: str = "normal"
    seed: int = 0
    precision: str = "fp32"
    accumulate: bool = False
    without: tuple[str, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    alias: tuple[str, str] | None = None

    @property
    def id(self) -> str:
        parts = [f"{letter}={size}" for letter, size in self.dims]
        parts += [self.style, f"seed={self.seed}", self.precision]
        parts += ["accumulate"] if self.accumulate else []
        parts += [f"no-{_stem(name)}" for name in self.without]
        parts += [f"{name}={value}" for name, value in self.settings]
        parts += [f"alias:{_stem(self.alias[0])}={_stem(self.alias[1])}"] if self.alias else []
        return f"{self.hook}[{','.join(parts)}]"

    def __str__(self) -> str:
        return self.id


def _stem(name: str) -> str:
    return name.rpartition("_")[0]


def parse_case(text: str, ops: OpTable) -> Case:
    """The case of an id. Raises ConfigError, saying which part of it means nothing."""
    hook, bracket, rest = text.strip().partition("[")
    op = ops.op_of(hook)
    half = op.half(hook)
    if not bracket or not rest.endswith("]"):
        raise _unreadable(text, "it has no [...]", None)
    by_stem = {a.stem: a.name for a in half.signature.buffers}
    types = {a.name: a.kind for a in half.signature.settings}
    dims, settings, without = {}, {}, []
    case = Case(hook, ())
    for part in rest[:-1].split(","):
        key, equals, value = part.partition("=")
        if part in ALL_STYLES:
            case = replace(case, style=part)
        elif part in POLICIES:
            case = replace(case, precision=part)
        elif part == "accumulate":
            case = replace(case, accumulate=True)
        elif part.startswith("no-") and part[3:] in by_stem:
            without.append(by_stem[part[3:]])
        elif key == "seed" and value.isdigit():
            case = replace(case, seed=int(value))
        elif equals and key.isupper() and value.isdigit():
            dims[key] = int(value)
        elif key in types:
            kind = types[key]
            settings[key] = value == "True" if kind is bool else (kind or float)(value)
        elif key.removeprefix("alias:") in by_stem and value in by_stem:
            case = replace(case, alias=(by_stem[key.removeprefix("alias:")], by_stem[value]))
        else:
            known = [*ALL_STYLES, *POLICIES, "accumulate", *(f"no-{stem}" for stem in by_stem)]
            raise _unreadable(text, f"'{part}' means nothing here", nearest(part, known))
    missing = [letter for letter in letters_of(op, half) if letter not in dims]
    if missing:
        raise _unreadable(text, f"it does not say {', '.join(missing)}", None)
    return replace(
        case,
        dims=tuple(dims.items()),
        without=tuple(without),
        settings=tuple(settings.items()),
    )


def _unreadable(text: str, why: str, close: str | None) -> ConfigError:
    return ConfigError(
        f"no case is called '{text}': {why}",
        slug="unknown-case",
        nearest=close,
        do="copy an id from a report: layernorm_forward[N=7,C=33,large-mean,seed=3,fp32]",
    )


def data_of(op: Op, case: Case) -> Data:
    """The inputs of a case and what they must give; computed once, and kept while there is room."""
    half = op.half(case.hook)
    # What is left out changes the formula only where it is read; `State` is read and written.
    read = {a.name for a in half.signature.buffers if reads(half, a)}
    without = frozenset(case.without) & read
    settings = dict(case.settings)
    what = (case.dims, case.style, case.seed, case.precision, case.settings)
    key = (op.file, case.hook, what, without)

    def make() -> Data:
        dims = dict(case.dims)
        return make_data(op, half, dims, case.style, case.seed, case.precision, settings, without)

    return CACHE.get(key, make, _nbytes)


def _nbytes(data: Data) -> int:
    arrays = [*data.buffers.values(), *data.references.values()]
    # Twice: the tolerances are about as large as the references.
    return 4096 + 2 * sum(a.nbytes for a in arrays if a is not None)


def letters_of(op: Op, half: Half) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*op.forward.signature.letters, *half.signature.letters)))


def work_of(half: Half, dims: Mapping[str, int]) -> int:
    """FLOPs and elements of a call."""
    return half.count_flops(dims) + elements_of(half, dims)


def elements_of(half: Half, dims: Mapping[str, int]) -> int:
    return sum(math.prod(half.signature.shape_of(a, dims)) for a in half.signature.buffers)
