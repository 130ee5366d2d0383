"""Which branches of the parsers' regular expressions no golden case needs: ``python -m tests.mutants.branches``.

The golden cases are read once, and what each pattern is asked is kept. Then each alternative of each pattern is made
one that never matches, one at a time: where an answer of the pattern changes by it, the cases that asked are read
again until one comes out wrong. A branch that no case needs is printed. What is put into several patterns of a module,
and patterns that depend on the letters that count, are one.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from tests.parsers.test_golden import PARSERS, TOLD, golden

PACKAGE = "harness.parsers"
_CLASS_OF_LETTERS = re.compile(r"\[(?!A-Z\]|A-Za-z\]|a-z\])[A-Za-z]{2,52}\]|(?:[A-Z]\?){2,}")
_OPENS = re.compile(r"\((?:\?(?:P<\w+>|P=\w+|<[=!]|[=!>:]|[aiLmsux-]+:))?")
_COMPILE = re.compile


class Branch(NamedTuple):
    """The `number`-th alternative of a group in a module's patterns; letters that depend on a case have no name."""

    module: str
    group: str
    number: int
    text: str


class Case(NamedTuple):
    """A golden case and the parser that reads it."""

    parser: str
    output: str
    arguments: dict[str, Any]
    expected: Any

    def passes(self) -> bool:
        parse = getattr(import_module(PACKAGE), f"parse_{self.parser}")
        try:
            return bool(parse(self.output, **self.arguments) == self.expected)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # a group that did not match
            return False


class Asked:
    """Stands where a pattern does: keeps what each case asks it, and answers as it is told."""

    cases: list[Case]
    current: int | None = None

    def __init__(self, module: str, pattern: str, flags: int) -> None:
        self.module = module
        self.pattern = pattern
        self.flags = flags
        self.real = self.active = _COMPILE(pattern, flags)
        self.calls: list[tuple[int, str, tuple[Any, ...]]] = []

    def __eq__(self, other: object) -> bool:
        return other in (self.real, self.active) if isinstance(other, re.Pattern) else self is other

    def __hash__(self) -> int:
        return id(self)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def asked(*arguments: Any, **named: Any) -> Any:
            if Asked.current is not None:
                kind = name if name in ("match", "fullmatch", "search") else "finditer"
                text = arguments[1:2] if name in ("sub", "subn") else arguments[:1] if name == "split" else arguments
                self.calls.append((Asked.current, kind, text))
            return getattr(self.active, name)(*arguments, **named)

        return asked

    def branches(self) -> Iterator[tuple[Branch, int]]:
        """Yield the branches with where they start."""
        for group, spans in groups_of(self.pattern, bool(self.flags & re.VERBOSE)):
            whole = _plain(self.pattern[slice(*group)])
            for number, (start, end) in enumerate(spans):
                yield Branch(self.module, whole, number, _plain(self.pattern[start:end])), start

    def needs(self, start: int) -> bool:
        """Tell whether a golden case needs the branch that starts there."""
        changed = _COMPILE(f"{self.pattern[:start]}(?!){self.pattern[start:]}", self.flags)
        tried: set[int] = set()
        for number, kind, arguments in self.calls:
            if number in tried or _found(self.real, kind, arguments) == _found(changed, kind, arguments):
                continue
            tried.add(number)
            self.active = changed
            passed = Asked.cases[number].passes()
            self.active = self.real
            if not passed:
                return True
        return False


def _found(pattern: re.Pattern[str], kind: str, arguments: tuple[Any, ...]) -> list[Any]:
    found = getattr(pattern, kind)(*arguments)
    return [each and [each.span(group) for group in range((each.re.groups or 0) + 1)]
            for each in (found if kind == "finditer" else [found])]  # fmt: skip


def groups_of(pattern: str, verbose: bool) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]]]]:
    """Yield where the groups of a pattern stand that have several alternatives, and where these do."""
    opened: list[list[int]] = [[0]]  # where the alternatives of each open group begin
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 1
        elif character == "[":
            at = _class_end(pattern, at)
        elif character == "#" and verbose:
            at = len(pattern) if (end := pattern.find("\n", at)) < 0 else end
        elif character == "(":
            at = _OPENS.match(pattern, at).end() - 1  # type: ignore[union-attr]  # it matches a bracket
            opened.append([at + 1])
        elif character == "|":
            opened[-1].append(at + 1)
        elif character == ")":
            yield from _alternatives(opened.pop(), at)
        at += 1
    yield from _alternatives(opened.pop(), len(pattern))


def _alternatives(starts: list[int], end: int) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]]]]:
    if len(starts) > 1:
        yield (starts[0], end), [*zip(starts, [*(start - 1 for start in starts[1:]), end], strict=True)]


def _class_end(pattern: str, at: int) -> int:
    at += 2 if pattern.startswith("[^", at) else 1
    at += pattern.startswith("]", at)
    while pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at


def _plain(pattern: str) -> str:
    return _CLASS_OF_LETTERS.sub("[…]", " ".join(pattern.split()))


class Patterns:
    """The patterns that the parsers compile, imported anew with `Asked` in the place of each."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, int], Asked] = {}
        for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
            del sys.modules[name]
        for name in ("compile", "match", "search", "fullmatch", "sub", "split", "findall"):
            setattr(re, name, self._standing_for(name, getattr(re, name)))
        import_module(PACKAGE)

    def _standing_for(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def standing(pattern: Any, *arguments: Any, flags: int = 0, **named: Any) -> Any:
            module = sys._getframe(1).f_globals.get("__name__", "")
            if not module.startswith(PACKAGE) or not isinstance(pattern, str):
                return real(pattern, *arguments, **({"flags": flags} if flags else {}), **named)
            fixed = {"compile": 0, "sub": 2}.get(name, 1)
            given = int(arguments[fixed] if len(arguments) > fixed and name != "split" else flags)
            key = (module.removeprefix(f"{PACKAGE}."), pattern, given)
            asked = self.known.setdefault(key, Asked(*key)) if key not in self.known else self.known[key]
            return asked if name == "compile" else getattr(asked, name)(*arguments[:fixed], **named)

        return standing

    def branches(self) -> dict[Branch, list[tuple[Asked, int]]]:
        """Return every branch with the patterns that it stands in, and where."""
        found: dict[Branch, list[tuple[Asked, int]]] = {}
        for asked in self.known.values():
            for branch, start in asked.branches():
                found.setdefault(branch, []).append((asked, start))
        return found


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.mutants.branches", description=__doc__)
    arguments.add_argument("--module", action="append", help="only this module's patterns; may be repeated")
    options = arguments.parse_args()
    patterns = Patterns()
    Asked.cases = [
        Case(name, case["output"], {key: case[key] for key in TOLD if key in case}, case["expected"])
        for name in PARSERS
        for case in golden(name)
    ]
    begun = time.process_time()
    for number, case in enumerate(Asked.cases):
        Asked.current = number
        if not case.passes():
            print(f"a golden case fails as it is: {case}")
            return 2
    Asked.current = None
    total = needless = 0
    for branch, places in patterns.branches().items():
        if options.module and branch.module not in options.module:
            continue
        total += 1
        if not any(asked.needs(start) for asked, start in places):
            needless += 1
            print(f"{branch.module}: {branch.text}\n    of {branch.group[:160]}", flush=True)
    share = 1 - needless / total
    print(f"{total:,} branches, {time.process_time() - begun:.0f} s: {share:.1%} are needed by a golden case")
    return 0 if not needless else 1


if __name__ == "__main__":
    sys.exit(main())
