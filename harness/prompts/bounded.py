"""Chat templates, which are programs that come with a model: run in a sandbox, for a bounded time, to a bounded size.

The names that a template finds are those that transformers gives it
(https://huggingface.co/docs/transformers/chat_templating_writing), so that it writes here what it writes there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness import limits

#: Characters that a template may write beside the texts that it is given, and that any text in between may have.
MOST_CHARACTERS = 4_000_000

#: A width in a pattern of ``%`` or ``format`` that is beyond all bounds, or stands elsewhere.
_WIDE = re.compile(r"\d{7}|\*")

_steps: ContextVar[int] = ContextVar("steps")
_room: ContextVar[int] = ContextVar("room")


class TemplateBounds(TemplateError):
    """A template takes too long, or writes too much."""


def render(template: str, given: Mapping[str, Any], size: int) -> str:
    """Return what a template makes of the names `given`, whose texts have `size` characters.

    Raises jinja2.TemplateError where it is broken, refuses what it is given, or goes beyond the bounds.
    """
    room = MOST_CHARACTERS + 8 * size
    _steps.set(0)
    _room.set(room)
    written: list[str] = []
    try:
        for piece in _compiled(template).generate(**given):
            written.append(piece)
            room -= len(piece)
            if room < 0:
                raise _too_large()
    except TemplateError:
        raise
    except Exception as error:  # a template can raise whatever Python's operators and methods do
        raise TemplateError(f"{error or type(error).__name__}") from error
    return "".join(written)


@lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    if len(template) > limits.TEMPLATE.value:
        raise TemplateBounds(f"it is larger than {limits.TEMPLATE.told} ({limits.TEMPLATE})")
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters.update(tojson=_tojson, format=_format)
    environment.globals.update(raise_exception=_raise)
    try:
        tree = environment.parse(template)
        loops: list[Any] = [*tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))]
        for loop in loops:
            loop.body.insert(0, nodes.ExprStmt(_call(_step), lineno=loop.lineno))
        code = environment.compile(_without_concat(tree))
    except TemplateError:
        raise
    except Exception as error:  # nested too deeply, say
        raise TemplateError(f"it cannot be read ({type(error).__name__})") from error
    return Template.from_code(environment, code, environment.make_globals(None))


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox in which no operator and no method makes a text of any length."""

    intercepted_binops = frozenset({"*", "+", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Return what an operator gives."""
        if operator == "*" and (_sized(left) or _sized(right)):
            many, one = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(many, int) and len(one) * many > _room.get():
                raise _too_large()
        elif operator == "+" and _sized(left) and _sized(right):
            if len(left) + len(right) > _room.get():
                raise _too_large()
        elif (operator == "**" and abs(right) > 64) or (
            operator == "%" and isinstance(left, str) and _WIDE.search(left)
        ):
            raise _too_large()
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return `value`, the method ``format`` of a text, made safe; None for anything else."""
        if _WIDE.search(str(getattr(value, "__self__", ""))):
            raise _too_large()
        return super().wrap_str_format(value)

    def call(*arguments: Any, **named: Any) -> Any:
        """Call a function or a method with no number that would be a length beyond all bounds."""
        self, context, function, *values = arguments
        numbers = [each for each in (*values, *named.values()) if isinstance(each, int)]
        if any(abs(each) > MOST_CHARACTERS for each in numbers):
            raise _too_large()
        return ImmutableSandboxedEnvironment.call(self, context, function, *values, **named)


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}``, which marks what an assistant wrote; the text itself stays."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _call(function: Callable[..., Any], *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.ImportedName(f"{__name__}.{function.__name__}"), [*arguments], [], None, None)


def _without_concat(tree: nodes.Template) -> nodes.Template:
    """Return a template in which ``a ~ b`` is a call that looks at its length, and so are filters that widen."""

    def replaced(node: nodes.Node) -> nodes.Node:
        for name, value in list(node.iter_fields()):
            if isinstance(value, nodes.Node):
                setattr(node, name, replaced(value))
            elif isinstance(value, list):
                setattr(node, name, [replaced(each) if isinstance(each, nodes.Node) else each for each in value])
        if isinstance(node, nodes.Concat):
            return _call(_join, *node.nodes).set_lineno(node.lineno)
        if isinstance(node, nodes.Filter) and node.name in ("center", "indent") and node.args:
            node.args = [_call(_width, each) for each in node.args]
        return node

    found = replaced(tree)
    assert isinstance(found, nodes.Template)
    return found


def _step() -> str:
    taken = _steps.get() + 1
    if taken > limits.STEPS.value:
        raise TemplateBounds(f"it takes more than {limits.STEPS.told} steps ({limits.STEPS})")
    _steps.set(taken)
    return ""


def _join(*parts: Any) -> str:
    return _checked("".join(map(str, parts)))


def _width(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > MOST_CHARACTERS:
        raise _too_large()
    return value


def _checked(text: str) -> str:
    if len(text) > _room.get():
        raise _too_large()
    return text


def _too_large() -> TemplateBounds:
    return TemplateBounds(f"it writes more than {MOST_CHARACTERS:,} characters")


def _sized(value: Any) -> bool:
    return isinstance(value, str | list | tuple)


def _format(pattern: Any, *values: Any, **named: Any) -> str:
    if _WIDE.search(str(pattern)):
        raise _too_large()
    return str(pattern) % (named or values)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
