"""Which cases a half-op is judged on, all derived from its signature; each has a name to rebuild it.

    layernorm_backward[N=7,C=33,large-mean,seed=3,fp32,accumulate,no-dx]

Shapes are 1, primes, and the sizes on either side of tiles; data are what kernels get wrong; every
buffer that may be None is, in every combination; settings, aliases and `accumulate` both ways.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.conformance.cases.case import CACHE, Case, data_of, elements_of, letters_of, work_of
from harness.conformance.cases.data import row_styles_of, styles_of
from harness.contract import Acc, Half, Op

TILE_EDGES = (33, 129, 257, 7, 31, 9, 127, 255, 8, 32)
SMALL = (1, 2, 3, 5, 7, 8, 9, 13)
# Whole packs of 16 bytes, which kernels read in another way than odd rows; no two letters alike.
ALIGNED = (
    (40, 48, 24, 32, 16),
    (16, 24, 8, 32, 40),
    (8, 16, 24, 32, 40),
    (2, 4, 16, 8, 24),
    (1, 8, 2, 8, 16),
)
MEDIUM = ((37, 33, 31, 29, 23), (17, 13, 19, 11, 7), (9, 7, 5, 11, 3), (3, 5, 2, 7, 4))

# Work of one case: the op's FLOPs and the elements of its buffers together. Plain Python does some
# five million a second, so a case is milliseconds there.
WORK = 30_000
# A wide case is for what only shows on larger arrays: temporaries (64 KiB and more), long sums.
WIDE_ELEMENTS = 1 << 14
WIDE_WORK = 8_000_000
# Of an op whose buffers are single numbers.
DRAWS = 48
# A real GPT-2 shape that takes seconds in float64 is left to the model's own tests.
REAL_ELEMENTS = 30_000_000
REAL_WORK = 3_000_000_000


def cases_of(
    op: Op, hook: str, precision: str, *, seeds: Sequence[int] = (0,), wide: bool = True
) -> list[Case]:
    """The fixed list of a half-op: shapes, styles, None, settings, aliases, NaN rows, wide arrays.

    seeds: each draws other mixed shapes and other data. wide: with the case of larger arrays.
    """
    half = op.half(hook)

    def listed() -> tuple[Case, ...]:
        found: dict[str, Case] = {}
        for seed in seeds:
            for case in _cases_of_seed(op, half, precision, seed, wide):
                found.setdefault(case.id, case)
        return tuple(found.values())

    key = ("list", op.file, hook, precision, tuple(seeds), wide)
    return list(CACHE.get(key, listed, lambda cases: 1024 * len(cases)))


def _cases_of_seed(op: Op, half: Half, precision: str, seed: int, wide: bool) -> Iterator[Case]:
    if not letters_of(op, half):
        yield from _cases_of_numbers(op, half, precision, seed)
        return
    rng = np.random.default_rng([seed, len(half.name)])
    proposed = [_valid(op, half, dims) for dims in _shapes(op, half, rng, seed)]
    shapes = [dims for dims in proposed if dims is not None]
    if not shapes:
        # Let the op file's own error be seen: no shape that we thought of suits it.
        threes = dict.fromkeys(letters_of(op, half), 3)
        data_of(op, Case(half.name, tuple(threes.items())))
    accumulates = "accumulate" in half.signature
    turn = itertools.count(seed)

    def case(dims: Mapping[str, int], style: str = "normal", **more: Any) -> Case:
        add = accumulates and next(turn) % 2 == 1
        made = Case(half.name, tuple(dims.items()), style, seed, precision, add)
        return replace(made, **more)

    styles = styles_of(op, half)
    for i, dims in enumerate(shapes):
        yield case(dims, styles[(i + seed) % len(styles)])
        if max(dims.values()) > TILE_EDGES[0] - 3:
            # A tile's edge is met by plain numbers too, and by the ids at the end of their range.
            for style in (one for one in styles if one in ("normal", "end-ids")):
                yield case(dims, style)
    hard = [d for d in shapes if min(d.values()) > 1] or shapes
    medium = max(hard, key=lambda d: (min(d.values()), elements_of(half, d)))
    # An odd number of small shapes, so that each style meets `accumulate` both ways in time.
    small = [d for d in hard if d is not medium][-5:] or hard
    for i, style in enumerate(styles):
        yield case(medium, style)
        yield case(small[(i + seed) % len(small)], style)
    if _only_rounds(op, half, medium):
        for dims in (medium, *small[:2]):
            yield case(dims, "halves")
    for i, without in enumerate(_without(half)):
        for add in (False, True) if accumulates else (False,):
            yield case(small[i % len(small)], without=without, accumulate=add)
    for name, value in _settings(op, half, medium):
        for style in ("normal", "tiny" if "tiny" in styles else "normal"):
            yield case(medium, style, settings=((name, value),))
    for alias in half.may_alias:
        for dims in (medium, small[0]):
            yield case(dims, alias=alias)
    for style in row_styles_of(half):
        for dims in (medium, *small[:2]):
            yield case(dims, style)
    if wide:
        dims = _wide(op, half)
        yield case(dims)
        yield case(dims, styles[1 % len(styles)])
    aligned = _aligned(op, half)
    if aligned is not None:
        for style in dict.fromkeys(("normal", styles[1 % len(styles)])):
            for add in (False, True) if accumulates else (False,):
                yield case(aligned, style, accumulate=add)


def _cases_of_numbers(op: Op, half: Half, precision: str, seed: int) -> Iterator[Case]:
    """Of a half-op without letters there is one shape: other numbers take the place of others."""
    for draw in range(DRAWS):
        yield Case(half.name, (), "normal", DRAWS * seed + draw, precision)
        for setting in _settings(op, half, {}):
            yield Case(half.name, (), "normal", DRAWS * seed + draw, precision, settings=(setting,))


def _shapes(op: Op, half: Half, rng: np.random.Generator, seed: int) -> Iterator[dict[str, int]]:
    """Proposals: all 1; each letter 1; mixed, one letter at a tile's edge; all of them medium."""
    letters = letters_of(op, half)
    ones = dict.fromkeys(letters, 1)
    yield ones
    for letter in letters:
        sizes = itertools.cycle((5, 3, 7, 2))
        others = {other: next(sizes) for other in letters}
        if len(letters) > 1:
            yield {**others, letter: 1}
        yield {**others, letter: 2}
    # Where two letters are equal, rows pass for columns.
    yield dict.fromkeys(letters, 5)
    rounds = max(3, -(-6 // max(1, len(letters))))
    for turn in range(rounds):
        for letter in letters:
            edge = TILE_EDGES[(turn + rounds * seed) % len(TILE_EDGES)]
            dims = {other: int(rng.choice(SMALL)) for other in letters}
            yield _fit(half, {**dims, letter: edge}, WORK)
    for primes in MEDIUM:
        dims = {letter: primes[i % len(primes)] for i, letter in enumerate(letters)}
        if work_of(half, dims) <= WORK:
            yield dims
            break


def _aligned(op: Op, half: Half) -> dict[str, int] | None:
    """The largest shape of ALIGNED that the op can have and that is not too much work."""
    letters = letters_of(op, half)
    for sizes in ALIGNED:
        proposed = dict(zip(letters, itertools.cycle(sizes), strict=False))
        if work_of(half, proposed) > 2 * WORK:
            continue  # and more so once it is grown until it is valid
        dims = _valid(op, half, proposed)
        if dims is not None and work_of(half, dims) <= 2 * WORK:
            return dims
    return None


def _fit(half: Half, dims: dict[str, int], limit: int) -> dict[str, int]:
    """The same shape, its smaller letters made smaller until the work is within the limit."""
    dims = dict(dims)
    while work_of(half, dims) > limit:
        shrinkable = sorted((size, letter) for letter, size in dims.items() if size > 1)
        if not shrinkable:
            break
        _, letter = shrinkable[-2] if len(shrinkable) > 1 else shrinkable[-1]
        dims[letter] = max(s for s in (1, 2, 3, 5, 7, 15, 31, 63) if s < dims[letter])
    return dims


def _valid(op: Op, half: Half, dims: dict[str, int]) -> dict[str, int] | None:
    """The shape if the op can have it, or with one letter grown until it can (X >= T), or None."""
    if _accepts(op, half, dims):
        return dims
    for letter in reversed(dims):
        grown = {**dims, letter: dims[letter] + max(dims.values())}
        if _accepts(op, half, grown):
            return grown
    return None


def _accepts(op: Op, half: Half, dims: Mapping[str, int]) -> bool:
    try:
        data_of(op, Case(half.name, tuple(dims.items())))
    except (ValueError, IndexError, ZeroDivisionError):
        return False
    return True


def _only_rounds(op: Op, half: Half, dims: Mapping[str, int]) -> bool:
    """Whether nothing is computed: a copy, or a cast, whose results are exact."""
    data = data_of(op, Case(half.name, tuple(dims.items())))
    return not any(np.any(magnitude.S) for magnitude in data.magnitudes.values())


def _without(half: Half) -> list[tuple[str, ...]]:
    """Every combination of buffers that may be None, as long as one output is left."""
    optional = [a.name for a in half.signature.buffers if a.optional]
    outputs = {a.name for a in half.signature.outputs}
    return [
        chosen
        for count in range(1, len(optional) + 1)
        for chosen in itertools.combinations(optional, count)
        if outputs - set(chosen)
    ]


def _settings(op: Op, half: Half, dims: Mapping[str, int]) -> Iterator[tuple[str, Any]]:
    """Other values of settings: of those that the contract knows, of switches, and of numbers."""
    example = op.example_settings(dims)
    for argument in half.signature.settings:
        if argument.name == "vocab_size":
            for value in sorted({1, dims["V"] - 1, dims["V"]} - {0, example["vocab_size"]}):
                yield argument.name, value
        elif argument.kind is bool and argument.name != "accumulate":
            yield argument.name, not example[argument.name]
        elif argument.kind is float:
            # Half of it stays in any range: a rate, a decay, an eps.
            yield argument.name, example[argument.name] / 2


def _wide(op: Op, half: Half) -> dict[str, int]:
    """A shape whose every output but vectors is at least 64 KiB, with no size a power of two."""
    letters = letters_of(op, half)
    dims = dict.fromkeys(letters, 3)
    for size in (5, 9, 17, 33, 65, 129, 257, 513, 1025, 4097, 16385, 65537):
        for letter in reversed(letters):
            grown = {**dims, letter: size}
            if work_of(half, grown) <= WIDE_WORK and size > dims[letter]:
                dims = grown
            if _large_enough(half, dims):
                return _valid(op, half, dims) or dims
    return _valid(op, half, dims) or dims


def _large_enough(half: Half, dims: Mapping[str, int]) -> bool:
    return largest_of(half, dims) >= WIDE_ELEMENTS


def largest_of(half: Half, dims: Mapping[str, int]) -> int:
    """The elements of the largest buffer."""
    return max(math.prod(half.signature.shape_of(a, dims)) for a in half.signature.buffers)


def shows_temporaries(op: Op, case: Case) -> bool:
    """Whether arrays a case would take are seen among small blocks, and threads are not worth it.

    In threads, NumPy buffers each cast and broadcast by itself; real GPT-2 shapes may have them.
    """
    half, dims = op.half(case.hook), dict(case.dims)
    return _large_enough(half, dims) and largest_of(half, dims) <= 4 * WIDE_ELEMENTS


def is_wide(op: Op, case: Case) -> bool:
    """Whether a case is too large for plain loops, and large enough to show temporaries."""
    half = op.half(case.hook)
    dims = dict(case.dims)
    return _large_enough(half, dims) or work_of(half, dims) > 8 * WORK


def real_case(op: Op, hook: str, precision: str) -> Case | None:
    """The smallest of the op's real GPT-2 shapes, or None where that takes long in float64."""
    half = op.half(hook)
    reasonable = [
        dims
        for dims in op.shapes
        if elements_of(half, dims) <= REAL_ELEMENTS and work_of(half, dims) <= REAL_WORK
    ]
    if not reasonable:
        return None
    dims = min(reasonable, key=lambda d: work_of(half, d))
    add = any(a.role is Acc for a in half.signature.outputs)
    return Case(hook, tuple(dims.items()), "normal", 0, precision, add)


def drawn_case(op: Op, hook: str, precision: str, choose: Callable[[Sequence[Any]], Any]) -> Case:
    """A case whose every part is chosen from a list; hypothesis and seeded generators choose."""
    half = op.half(hook)
    sizes = sorted({*SMALL, *TILE_EDGES})
    proposed = {letter: choose(sizes) for letter in letters_of(op, half)}
    dims = _valid(op, half, _fit(half, proposed, WORK))
    if dims is None:
        dims = next(
            d for d in _shapes(op, half, np.random.default_rng(0), 0) if _valid(op, half, d)
        )
        dims = _valid(op, half, dims) or dims
    styles = (*styles_of(op, half), *row_styles_of(half))
    settings = [None, *_settings(op, half, dims)]
    setting = choose(settings)
    return Case(
        hook,
        tuple(dims.items()),
        choose(styles),
        choose(range(1 << 16)),
        precision,
        "accumulate" in half.signature and choose((False, True)),
        choose([(), *_without(half)]),
        (setting,) if setting else (),
        choose([None, *half.may_alias]),
    )
