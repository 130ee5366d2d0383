"""What an object does, as a digest: for plugins given as objects, of which no distribution and version speak.

A parser in a notebook that is edited between two sessions is another parser, and what it read before is not to be mixed
with what it reads now.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

#: Attributes of classes that say where they stand and how they were made, not what they do.
_ABOUT = {
    "__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__firstlineno__", "__static_attributes__", "__qualname__", "__dataclass_fields__",
    "__dataclass_params__", "__match_args__", "__abstractmethods__", "__parameters__", "__orig_bases__",
    "__protocol_attrs__", "_abc_impl",
}  # fmt: skip


def behaviour(plugin: Any) -> str:
    """Return 12 hex digits that change with an object's code and values, and are the same in another process.

    They cover its class with the bases, functions and constants of the same package that it uses, and its attributes.
    Of other packages only names and the fields of dataclasses count, as their code is not the object's own.
    """
    package = type(plugin).__module__.partition(".")[0]
    digest = hashlib.sha256()
    for part in _Reader(package).parts(plugin):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:12]


class _Reader:
    """Goes through a value and all that it is made of, each thing once; `package` is where its own code lies."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._seen: dict[int, Any] = {}  # the values are held, so that no id is given again

    def parts(self, value: Any) -> Iterator[str]:
        """Yield texts that say what `value` is."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            yield f"{type(value).__name__} {value!r}"
        elif id(value) in self._seen:
            yield "again"
        else:
            self._seen[id(value)] = value
            yield f"{type(value).__module__}.{type(value).__qualname__}"
            yield from self._made_of(value)

    def _made_of(self, value: Any) -> Iterator[str]:
        if isinstance(value, list | tuple):
            for each in value:
                yield from self.parts(each)
        elif isinstance(value, set | frozenset):
            yield from sorted("\n".join(_Reader(self._package).parts(each)) for each in value)
        elif isinstance(value, Mapping):
            for key in sorted(value, key=repr):
                yield repr(key)
                yield from self.parts(value[key])
        elif isinstance(value, re.Pattern):
            yield from (repr(value.pattern), str(value.flags))
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, types.CodeType):
            yield value.co_code.hex()
            yield from value.co_names
            yield from self.parts(value.co_consts)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        else:
            yield from self._object(value)

    def _class(self, value: type) -> Iterator[str]:
        yield f"{value.__module__}.{value.__qualname__}"
        if self._own(value):
            for name in sorted(set(vars(value)) - _ABOUT):
                yield name
                yield from self.parts(vars(value)[name])
            for base in value.__bases__:
                yield from self.parts(base)

    def _function(self, value: types.FunctionType) -> Iterator[str]:
        yield f"{value.__module__}.{value.__qualname__}"
        if self._own(value):
            yield from self.parts(value.__code__)
            yield from self.parts((value.__defaults__, value.__kwdefaults__))
            for cell in value.__closure__ or ():
                yield from self.parts(cell.cell_contents)
            for name in sorted(_names(value.__code__) & set(value.__globals__)):
                yield name
                yield from self.parts(value.__globals__[name])

    def _object(self, value: Any) -> Iterator[str]:
        if isinstance(value, types.MethodType):
            yield from self.parts((value.__func__, value.__self__))
        elif isinstance(value, classmethod | staticmethod):
            yield from self.parts(value.__func__)
        elif isinstance(value, property):
            yield from self.parts(value.fget)
        elif isinstance(value, functools.partial):
            yield from self.parts((value.func, value.args, value.keywords))
        elif isinstance(value, types.ModuleType):
            yield value.__name__
        else:
            yield from self.parts(type(value))
            yield from self.parts(self._values(value))

    def _values(self, value: Any) -> dict[str, Any]:
        """Return an object's attributes; of one of another package those that it is compared by."""
        if self._own(type(value)):
            slots = [name for base in type(value).__mro__ for name in vars(base).get("__slots__", ())]
            return {**{name: getattr(value, name, None) for name in slots}, **getattr(value, "__dict__", {})}
        if dataclasses.is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {}

    def _own(self, value: Any) -> bool:
        return str(getattr(value, "__module__", "")).partition(".")[0] == self._package


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function uses, those of the functions within it too."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))
