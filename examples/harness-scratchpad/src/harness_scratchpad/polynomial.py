"""Values of polynomials in one variable, a term a step."""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness_scratchpad.problems import Kind, Problem


def solve(coefficients: Sequence[int], x: int) -> Problem:
    """Return the value of a polynomial at `x`, worked out; `coefficients` begin with that of the highest power.

    A line of the scratchpad holds a term, its value, and the total so far. Terms with a coefficient of 0 are left out.

    >>> problem = solve([-7, 0, 7, 5], 2)
    >>> problem.question, problem.answer
    ('-7 * x ** 3 + 7 * x + 5 where x = 2', '-37')
    >>> print("\\n".join(problem.work))
    -7 * x ** 3 = -56 , total -56
    7 * x = 14 , total -42
    5 = 5 , total -37
    """
    degree = len(coefficients) - 1
    terms = [(each, degree - place) for place, each in enumerate(coefficients) if each]
    total, work = 0, []
    for coefficient, power in terms:
        value = coefficient * x**power
        total += value
        work.append(f"{_term(coefficient, power)} = {value} , total {total}")
    question = " + ".join(_term(*term) for term in terms).replace("+ -", "- ")
    return Problem(f"{question} where x = {x}", tuple(work), str(total), str(total), degree)


def _term(coefficient: int, power: int) -> str:
    return f"{coefficient}{('', ' * x', f' * x ** {power}')[min(power, 2)]}"


def draw(chance: random.Random, degree: int) -> Problem:
    """Draw a polynomial of this degree with coefficients from -9 to 9, and an x from -5 to 5."""
    leading = chance.choice([each for each in range(-9, 10) if each])
    return solve([leading, *(chance.randint(-9, 9) for _ in range(degree))], chance.randint(-5, 5))


POLYNOMIAL = Kind("polynomial", draw, "the value", "degree", lengths=(1, 2, 3), longer=(4, 5))
