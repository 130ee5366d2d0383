"""Chat templates, which are programs that come with a model: run in a sandbox, for a bounded time, to a bounded size.

What a template finds in its sandbox is what transformers gives it
(https://huggingface.co/docs/transformers/chat_templating_writing), so that it writes here what it writes there. Chance
alone is kept from it: a prompt is the same whenever it is made.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
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

#: How often that may be made of all texts and lists together, and how many characters an item of a list counts for.
_TIMES, _ITEM = 16, 8

#: Bits that a whole number may have.
_BITS = 100_000

#: Numbers beyond which no template has reason to round, or to indent JSON.
_PLACES = 1000

#: What a template is given beside what all are.
NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})

_steps: ContextVar[int] = ContextVar("steps")
_room: ContextVar[int] = ContextVar("room")
_left: ContextVar[int] = ContextVar("left")


class TemplateBounds(TemplateError):
    """A template takes too long, or writes too much."""


def given(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    generating: bool,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
    moment: datetime | None = None,
    lists: bool = False,
) -> dict[str, Any]:
    """Return the names that a template finds: `messages`, a tokenizer's special tokens, and `arguments` over others.

    Dates are those of `moment`, by default of now. There are no tools and no documents unless the arguments have some;
    with `lists` that is empty lists, which some templates insist on.
    """
    none: list[Any] | None = [] if lists else None
    return {
        **getattr(tokenizer, "special_tokens_map", {}),
        "strftime_now": lambda form: (moment or datetime.now().astimezone()).strftime(form),
        "tools": none,
        "documents": none,
        **arguments,
        "messages": messages,
        "add_generation_prompt": generating,
    }


def render(template: str, given: Mapping[str, Any], size: int) -> str:
    """Return what a template makes of the names `given`, whose texts have `size` characters.

    Raises jinja2.TemplateError where it is broken, refuses what it is given, or goes beyond the bounds.
    """
    room = MOST_CHARACTERS + 8 * size
    _steps.set(0)
    _room.set(room)
    _left.set(_TIMES * room)
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


def literals(template: str) -> str:
    """Return the texts that stand in a template, in its expressions too; all of one that cannot be read."""
    try:
        tree = _environment().parse(template)
    except Exception:  # whoever renders it says why
        return template
    values = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return "\n".join([*(node.data for node in tree.find_all(nodes.TemplateData)), *values])


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    made = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters.update(tojson=_tojson, format=_format, random=_at_random)
    made.filters.update({name: _counted(name, each) for name, each in made.filters.items()})
    made.globals.update(raise_exception=_raise)
    del made.globals["lipsum"]
    return made


@lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    if len(template) > limits.TEMPLATE.value:
        raise TemplateBounds(f"it is larger than {limits.TEMPLATE.told} ({limits.TEMPLATE})")
    environment = _environment()
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
            if isinstance(many, int):
                _check(len(one) * many)
        elif operator == "+" and _sized(left) and _sized(right):
            _check(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            if _WIDE.search(left):
                raise _too_large()
            _check(_formatted(left, "%", right if isinstance(right, tuple) else (right,)))
        elif operator in "**" and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _BITS:
                raise _too_large()
        return _made(super().call_binop(context, operator, left, right))

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
        if isinstance(text := getattr(function, "__self__", None), str):
            _check(_size(function.__name__, text, *values, **named))
        return _made(ImmutableSandboxedEnvironment.call(self, context, function, *values, **named))


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
    _check(len(text))
    return text


def _check(size: int) -> None:
    if size > _room.get():
        raise _too_large()


def _made(value: Any) -> Any:
    """Count what has been made; TemplateBounds where it is too much in all."""
    if _sized(value):
        left = _left.get() - len(value) * (1 if isinstance(value, str) else _ITEM)
        if left < 0:
            raise _too_large()
        _left.set(left)
    return value


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that makes no text of any length, and whose results count."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def bounded(*values: Any, **named: Any) -> Any:
        given = [*values]
        if name in ("join", "sum") and len(given) > first and not _sized(given[first]):
            given[first] = list(given[first])
        _check(_size(name, *given[first:], **named))
        return _made(function(*given, **named))

    return bounded


def _size(name: str, value: Any, *given: Any, **named: Any) -> int:
    """Return the most characters that a filter or a method of texts may make; 0 for those that make what they get."""
    others = [*given, *named.values()]
    longest = max([0, *(len(each) for each in others if isinstance(each, str))])
    widest = max([0, *(abs(each) for each in others if isinstance(each, int | float))])
    text = value if isinstance(value, str) else ""
    if name == "join":
        parts = given[0] if text and given and not isinstance(given[0], str) else value
        parts = parts if _sized(parts) else [*parts]
        between = text if parts is not value else max([*(str(each) for each in others), ""], key=len)
        return sum(len(str(part)) for part in parts) + len(between) * len(parts)
    if name == "sum":
        return len(value) * sum(len(each) for each in value if _sized(each)) // _TIMES
    if name == "replace":
        old = str(given[0]) if given else str(named.get("old", named.get("s", "")))
        return len(str(value)) + str(value).count(old) * longest
    if name == "format":
        return _formatted(text, "{%", others)
    if name in ("indent", "wordwrap"):
        return len(str(value)) + (str(value).count("\n") + 1 if name == "indent" else len(str(value))) * longest
    if name == "translate":
        return _room.get() + 1
    if name == "expandtabs":
        return len(text) + text.count("\t") * int(widest or 8)
    if name in ("round", "tojson") and widest > _PLACES:
        return _room.get() + 1
    return 0


def _formatted(pattern: str, marks: str, values: Any) -> int:
    """Return as many characters as a pattern comes to, each of whose marks may stand for the longest of the values."""
    longest = max([0, *(len(each) for each in values if isinstance(each, str))])
    return len(pattern) + sum(map(pattern.count, marks)) * longest


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


def _at_random(*_: Any) -> None:
    raise TemplateError("it writes what chance gives (random)")


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
