"""The faults: every place in a file where something small can be wrong, and how."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip

#: A function, a node in it, what puts another in its place, and what makes that of it.
_Place: TypeAlias = tuple[str, Any, Callable[[Any], None], Callable[[Any], Any]]

#: Types, messages and decorators, in which nothing is changed.
_LEFT = {"annotation", "returns", "decorator_list", "exc", "cause", "bases"}


@dataclass(frozen=True)
class Mutant:
    """One fault: `key` names it wherever in the file its function stands, `line` where that is now."""

    file: str
    function: str
    key: str
    line: int
    source: Callable[[], str]


def mutants(file: str, text: str) -> Iterator[Mutant]:
    """Yield every fault of a file, in the order of its source; what its `source` returns is the file with it."""
    seen: dict[str, int] = {}
    for number, (function, node, _, change) in enumerate(_places(ast.parse(text))):
        key = f"{file} {function}: {_short(node)} -> {_short(change(copy.deepcopy(node)))}"
        seen[key] = seen.get(key, 0) + 1

        def source(number: int = number) -> str:
            tree = ast.parse(text)
            _, node, put, change = list(_places(tree))[number]
            put(change(node))
            return ast.unparse(ast.fix_missing_locations(tree))

        yield Mutant(file, function, key + (f" ({seen[key]})" if seen[key] > 1 else ""), node.lineno, source)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _places(parent: Any, function: str = "") -> Iterator[_Place]:
    """Yield what can be changed below a node; names in it are those of functions, with their classes."""
    for name, value in ast.iter_fields(parent):
        is_left = name in _LEFT or (name == "args" and not isinstance(parent, ast.Call))
        if is_left or isinstance(parent, ast.JoinedStr) or (name == "keywords" and isinstance(parent, ast.ClassDef)):
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST):
                continue
            inner = function
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                inner = f"{function}.{node.name}".lstrip(".")

            def put(new: Any, name: str = name, value: Any = value, index: int | None = index) -> None:
                if index is None:
                    setattr(parent, name, new)
                else:
                    value[index] = new

            if inner:
                yield from ((inner, node, put, change) for change in _changes(node))
            yield from _places(node, inner)


def _changes(node: Any) -> Iterator[Callable[[Any], Any]]:
    """Yield what can be made of a node: at most one thing."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OTHER:
        yield lambda n: _with(n, ops=[_OTHER[type(n.ops[0])](), *n.ops[1:]])
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in _OTHER:
        yield lambda n: _with(n, op=_OTHER[type(n.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield lambda n: n.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield lambda n: ast.Constant(not n.value if isinstance(n.value, bool) else n.value + 1)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield lambda n: _with(n, test=ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield lambda n: ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield lambda n: ast.Pass()
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
        yield lambda n: _with(n, func=ast.Name("max" if n.func.id == "min" else "min", ast.Load()))


def _with(node: Any, **parts: Any) -> Any:
    for name, value in parts.items():
        setattr(node, name, value)
    return node
