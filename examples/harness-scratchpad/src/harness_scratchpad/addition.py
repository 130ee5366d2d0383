"""Multi-digit addition, one digit a step from the right, as in the paper's figure 2."""

from __future__ import annotations

import random

from harness_scratchpad.problems import Kind, Problem


def solve(first: int, second: int) -> Problem:
    """Return the sum of two positive numbers with as many digits each, worked out.

    Digits stand apart, so that a tokenizer gives each a token of its own. A line of the scratchpad holds the digits
    still to be added, those of the sum so far, and the carry; the last puts the carry in front.

    >>> problem = solve(29, 57)
    >>> problem.question, problem.answer, problem.gold
    ('2 9 + 5 7', '8 6', '86')
    >>> print("\\n".join(problem.work))
    2 9 + 5 7 , carry 0
    2 + 5 , 6 carry 1
    , 8 6 carry 0
    0 8 6
    """
    question = f"{spaced(first)} + {spaced(second)}"
    upper, lower, done, carry = str(first), str(second), "", 0
    work = [f"{question} , carry 0"]
    while upper:
        carry, digit = divmod(int(upper[-1]) + int(lower[-1]) + carry, 10)
        upper, lower, done = upper[:-1], lower[:-1], f"{digit}{done}"
        left = f"{spaced(upper)} + {spaced(lower)} " if upper else ""
        work.append(f"{left}, {spaced(done)} carry {carry}")
    total = first + second
    return Problem(question, (*work, spaced(f"{carry}{done}")), spaced(total), str(total), len(str(first)))


def spaced(digits: int | str) -> str:
    """Return a number with its digits apart.

    >>> spaced(107)
    '1 0 7'
    """
    return " ".join(str(digits))


def draw(chance: random.Random, digits: int) -> Problem:
    """Draw a sum of two numbers that have so many digits each."""
    least, most = 10 ** (digits - 1), 10**digits - 1
    return solve(chance.randint(least, most), chance.randint(least, most))


ADDITION = Kind("addition", draw, "the sum", "digits", lengths=(2, 3, 4, 5, 6, 7, 8), longer=(9, 10))
