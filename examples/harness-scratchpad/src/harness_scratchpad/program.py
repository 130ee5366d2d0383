"""Small programs, executed a line a step.

They are real Python, of which there are assignments of at most one operation, and ``if`` and ``while`` over a
comparison with a body of assignments. `execute` runs nothing else: no program is handed to Python.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from harness_scratchpad.problems import Kind, Problem

_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_COMPARISONS = {"<": operator.lt, ">": operator.gt, "==": operator.eq}
_INDENT = "    "

#: Programs whose values leave these bounds are not given: they are to test execution, not long multiplication.
_LARGEST = 999


def execute(program: Sequence[str]) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield each line as it is executed, with the values that the variables have then.

    A program that never ends gives lines for ever.

    >>> for line, values in execute(["x = 2", "while x < 4:", "    x = x + 1"]):
    ...     print(line, values)
    x = 2 {'x': 2}
    while x < 4: {'x': 2}
    x = x + 1 {'x': 3}
    while x < 4: {'x': 3}
    x = x + 1 {'x': 4}
    while x < 4: {'x': 4}
    """
    values: dict[str, int] = {}
    at, loop, loop_end = 0, 0, -1
    while at < len(program):
        line = program[at].strip()
        words = line.rstrip(":").split()
        if words[0] in ("if", "while"):
            _, left, comparison, right = words
            end = _body_end(program, at)
            if words[0] == "while":
                loop, loop_end = at, end
            if _COMPARISONS[comparison](_value(left, values), _value(right, values)):
                at += 1
            else:
                at, loop_end = end, -1
        else:
            name, _, left, *rest = words
            value = _value(left, values)
            values[name] = _OPERATIONS[rest[0]](value, _value(rest[1], values)) if rest else value
            at += 1
        yield line, dict(values)
        if at == loop_end:
            at = loop


def _value(word: str, values: Mapping[str, int]) -> int:
    return values[word] if word in values else int(word)


def _body_end(program: Sequence[str], header: int) -> int:
    """Return where the indented lines behind a header end."""
    end = header + 1
    while end < len(program) and program[end].startswith(_INDENT):
        end += 1
    return end


def solve(program: Sequence[str]) -> Problem:
    """Return what `x` is when a program has ended, with each executed line and its values as work.

    >>> problem = solve(["x = 2", "y = 3", "if x < 3:", "    y = y * x", "x = y - 1"])
    >>> print("\\n".join((*problem.work, problem.answer)))
    x = 2 -> x 2
    y = 3 -> x 2 y 3
    if x < 3: -> x 2 y 3
    y = y * x -> x 2 y 6
    x = y - 1 -> x 5 y 6
    5
    """
    steps = list(execute(program))
    work = tuple(f"{line} -> {' '.join(f'{name} {value}' for name, value in values.items())}" for line, values in steps)
    answer = str(steps[-1][1]["x"])
    return Problem("\n".join(("run this program", *program)), work, answer, answer, len(steps))


def draw(chance: random.Random, steps: int) -> Problem:
    """Draw a program that executes so many lines; its variables are x and, from two lines on, y."""
    program = [f"{name} = {chance.randint(0, 9)}" for name in "xy"[:steps]]
    trace = list(execute(program))
    while len(trace) < steps:
        longer = [*program, *_piece(chance, trace[-1][1])]
        found = list(islice(execute(longer), steps + 1))
        if len(found) <= steps and all(abs(value) <= _LARGEST for _, values in found for value in values.values()):
            program, trace = longer, found
    return solve(program)


def _piece(chance: random.Random, values: Mapping[str, int]) -> list[str]:
    """Draw lines to append where the variables have these values: an assignment, a condition or a loop."""
    name, other = chance.sample("xy", 2)
    kind = chance.choice(("", "if", "while"))
    if kind == "if":
        test = f"{name} {chance.choice(list(_COMPARISONS))} {values[name] + chance.randint(-3, 3)}"
        return [f"if {test}:", f"{_INDENT}{_assignment(chance, chance.choice('xy'))}"]
    if kind == "while":
        counted = f"{_INDENT}{name} = {name} + {chance.randint(1, 3)}"
        body = [f"{_INDENT}{_assignment(chance, other)}", counted][chance.randint(0, 1) :]
        return [f"while {name} < {values[name] + chance.randint(1, 9)}:", *body]
    return [_assignment(chance, name)]


def _assignment(chance: random.Random, name: str) -> str:
    right = chance.choice(("x", "y", *map(str, range(1, 10))))
    return f"{name} = {chance.choice('xy')} {chance.choice(list(_OPERATIONS))} {right}"


PROGRAM = Kind("program", draw, "x at its end", "steps", lengths=(3, 4, 5, 6, 7, 8), longer=(9, 10, 11, 12))
