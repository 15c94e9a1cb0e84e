"""Make small mistakes in a source file, one at a time, as somebody who writes a kernel might.

+ for -, < for <=, a constant one off, two arguments exchanged, a statement or an `out=` left out,
another axis, `x[...] = y` without the `[...]`. Docstrings, strings, imports, decorators and annotations
stay as they are, and so does what is the same either way: a + b for b + a. Whole-number constants of a
module stay too: they are sizes of tiles and blocks, on which no result depends.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Change = tuple[str, Callable[[], None]]

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
FUNCTIONS = {
    "add": "subtract",
    "subtract": "add",
    "multiply": "divide",
    "divide": "multiply",
    "maximum": "minimum",
    "exp": "exp2",
    "log": "log2",
    "sqrt": "square",
}
COMMUTATIVE = {"add", "multiply", "maximum", "minimum", "max", "min", "vecdot", "gcd", "allclose"}


@dataclass(frozen=True)
class Mutation:
    """One mistake that could be made in a file. place, turn: which node, and which of its mistakes."""

    file: str
    line: int
    change: str
    place: int
    turn: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.change}"


def mutations_of(source: str, file: str) -> list[Mutation]:
    """Every mistake that could be made in a file, in the order of its lines."""
    found = [
        Mutation(file, node.lineno, change, place, turn)
        for place, (host, node) in enumerate(_places(ast.parse(source)))
        for turn, (change, _) in enumerate(_changes(host, node))
    ]
    return sorted(found, key=lambda mutation: mutation.line)


def mutate(source: str, mutation: Mutation) -> tuple[str, str, str]:
    """The file with the mistake made, and the first line of its statement before and after."""
    tree = ast.parse(source)
    host, node = list(_places(tree))[mutation.place]
    _, make = list(_changes(host, node))[mutation.turn]
    before = _text(host)
    make()
    return ast.unparse(ast.fix_missing_locations(tree)), before, _text(host)


def _places(tree: ast.AST) -> Iterator[tuple[ast.stmt, Any]]:
    """Each node that may be changed, with the statement it is in; in the same order for every copy."""
    for block in _blocks(tree):
        for statement in block:
            if _is_text(statement) or isinstance(statement, (ast.Import, ast.ImportFrom)):
                continue
            if isinstance(tree, ast.Module) and block is tree.body and _is_size(statement):
                continue
            if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                yield from ((statement, node) for node in _nodes(statement))


def _blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield block


def _nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """A statement and the expressions in it, without the statements inside of it."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if hasattr(node, "lineno"):
            yield node
        children = [c for c in ast.iter_child_nodes(node) if not _is_left_alone(c)]
        waiting += reversed(children)


def _is_left_alone(node: ast.AST) -> bool:
    """Statements are places of their own; `strict=True` is a check, on which no result depends."""
    return isinstance(node, ast.stmt) or (isinstance(node, ast.keyword) and node.arg == "strict")


def _changes(host: ast.stmt, node: Any) -> Iterator[Change]:
    """The mistakes that can be made at a node: what it is called, and a function that makes it."""
    if isinstance(node, ast.BinOp):
        yield from _operator(node)
    elif isinstance(node, ast.AugAssign):
        yield from _operator(node)
        yield _drop(host)
    elif isinstance(node, ast.Compare):
        swapped = COMPARISONS[type(node.ops[0])]
        yield _set(_sign(node.ops[0]), _sign(swapped()), node, "ops", [swapped()])
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield _set(_sign(node.op), _sign(other), node, "op", other)
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield _set("test", "not test", node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield _set("-x", "x", node, "op", ast.UAdd())
    elif isinstance(node, ast.Constant):
        yield from _constant(node)
    elif isinstance(node, ast.Call):
        yield from _call(node)
    elif isinstance(node, ast.Slice):
        yield from _slice(node)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield "transpose left out", lambda: _become(node, node.value)
    elif isinstance(node, ast.Assign):
        yield from _assignment(node)
    elif isinstance(node, (ast.Expr, ast.Continue, ast.Break)) or _is_bare_return(node):
        yield _drop(host)


def _operator(node: ast.BinOp | ast.AugAssign) -> Iterator[Change]:
    other = OPERATORS.get(type(node.op))
    if other is not None:
        yield _set(_sign(node.op), _sign(other()), node, "op", other())
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)):

        def swap() -> None:
            node.left, node.right = node.right, node.left

        yield f"operands of {_sign(node.op)} exchanged", swap


def _constant(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield _set(str(value), str(not value), node, "value", not value)
    elif isinstance(value, int):
        for other in (value + 1, value - 1):
            yield _set(str(value), str(other), node, "value", other)
    elif isinstance(value, float):
        for changed in (0.0, value * 2, value * 1.01):
            yield _set(f"{value:g}", f"{changed:g}", node, "value", changed)


def _assignment(node: ast.Assign) -> Iterator[Change]:
    target: Any = node.targets[0]
    # Without `name = ...` the next line raises NameError, which proves nothing.
    if isinstance(target, ast.Subscript):
        yield _drop(node)
    if _is_whole(target):
        name = ast.Name(target.value.id, ast.Store())
        yield _set("x[...] =", "x =", node, "targets", [name])


def _call(node: ast.Call) -> Iterator[Change]:
    called = getattr(node.func, "attr", "") or getattr(node.func, "id", "")
    of_numpy = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "np"
    if of_numpy and called in FUNCTIONS:
        yield _set(called, FUNCTIONS[called], node.func, "attr", FUNCTIONS[called])
    arguments = node.args
    pair = [ast.dump(argument) for argument in arguments[:2]]
    plain = not any(isinstance(a, (ast.Starred, ast.Constant)) for a in arguments[:2])
    if plain and len({*pair}) == 2 and called not in COMMUTATIVE:

        def swap() -> None:
            arguments[0], arguments[1] = arguments[1], arguments[0]

        yield f"arguments of {called} exchanged", swap
    if called == "range" and len(arguments) == 1:
        yield "range from 1", lambda: arguments.insert(0, ast.Constant(1))
        shorter = ast.BinOp(arguments[0], ast.Sub(), ast.Constant(1))
        yield "range one short", lambda: arguments.__setitem__(0, shorter)
    for keyword in list(node.keywords):
        default = called == "reduce" and ast.unparse(keyword.value) == "0"
        if keyword.arg in ("out", "axis", "dtype", "mode") and not default:

            def leave_out(keyword: ast.keyword = keyword) -> None:
                node.keywords.remove(keyword)

            yield f"{keyword.arg}= left out", leave_out


def _slice(node: ast.Slice) -> Iterator[Change]:
    if node.lower is not None:
        yield _set("a:b", ":b", node, "lower", None)
    if node.upper is not None:
        yield _set("a:b", "a:", node, "upper", None)
        shorter = ast.BinOp(node.upper, ast.Sub(), ast.Constant(1))
        yield _set("a:b", "a:b-1", node, "upper", shorter)


def _set(was: str, becomes: str, node: Any, attribute: str, value: Any) -> Change:
    return f"{was} → {becomes}", lambda: setattr(node, attribute, value)


def _drop(host: Any) -> Change:
    return "statement left out", lambda: _become(host, ast.Pass())


def _become(node: Any, other: Any) -> None:
    """Turn a node into another where it stands: whoever holds it holds the other."""
    other = copy.copy(other)
    line = node.lineno
    node.__dict__.clear()
    node.__class__ = other.__class__
    node.__dict__.update(other.__dict__)
    node.lineno = line


def _is_text(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else node
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_bare_return(node: Any) -> bool:
    return isinstance(node, ast.Return) and node.value is None


def _is_size(statement: ast.stmt) -> bool:
    """Whether it is `NAME = 96 << 10`."""
    nodes = ast.walk(statement.value) if isinstance(statement, ast.Assign) else ()
    found = [n for n in nodes if not isinstance(n, (ast.operator, ast.BinOp))]
    return bool(found) and all(isinstance(n, ast.Constant) and type(n.value) is int for n in found)


def _is_whole(target: Any) -> bool:
    """Whether it is `x[...]`."""
    return (
        isinstance(target, ast.Subscript)
        and isinstance(target.slice, ast.Constant)
        and target.slice.value is ...
        and isinstance(target.value, ast.Name)
    )


def _sign(operator: ast.AST) -> str:
    """How an operator is written: `+`, `<=`, `and`."""
    left, right = ast.Name("a", ast.Load()), ast.Name("b", ast.Load())
    node: ast.expr
    if isinstance(operator, ast.cmpop):
        node = ast.Compare(left, [operator], [right])
    elif isinstance(operator, ast.boolop):
        node = ast.BoolOp(operator, [left, right])
    else:
        assert isinstance(operator, ast.operator)
        node = ast.BinOp(left, operator, right)
    return ast.unparse(node)[2:-2]


def _text(statement: ast.stmt) -> str:
    """The first line of a statement."""
    return ast.unparse(ast.fix_missing_locations(statement)).partition("\n")[0]
