"""Gold answers are Python's own, and no problem for training is one for tests."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from harness.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st

from harness_scratchpad import addition, polynomial, program
from harness_scratchpad.addition import ADDITION
from harness_scratchpad.command import KINDS
from harness_scratchpad.problems import Kind, for_tests

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
seeds = st.integers(0, 2**32)


@given(seeds, st.integers(1, 30))
def test_sums_are_sums(seed: int, digits: int) -> None:
    problem = addition.draw(random.Random(seed), digits)
    first, second = (int(number.replace(" ", "")) for number in problem.question.split("+"))
    assert len(str(first)) == len(str(second)) == digits == problem.length
    assert problem.gold == problem.answer.replace(" ", "") == str(first + second)
    assert int(problem.work[-1].replace(" ", "")) == first + second
    assert len(problem.work) == digits + 2


@given(st.data(), st.integers(1, 12))
def test_every_line_of_a_sum_is_right(data: st.DataObject, digits: int) -> None:
    number = st.integers(10 ** (digits - 1), 10**digits - 1)
    first, second = data.draw(number), data.draw(number)
    for done, line in enumerate(addition.solve(first, second).work[:-1]):
        left, _, right = line.partition(",")
        part, _, carry = right.partition("carry")
        upper, lower = (int(side.replace(" ", "") or 0) for side in (left.split("+") if "+" in left else ("", "")))
        so_far = int(part.replace(" ", "") or 0) + int(carry) * 10**done
        assert (upper + lower) * 10**done + so_far == first + second


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=6).filter(lambda each: each[0]), st.integers(-9, 9))
def test_polynomials_have_the_value_that_python_gives(coefficients: list[int], x: int) -> None:
    problem = polynomial.solve(coefficients, x)
    asked, _, _ = problem.question.partition(" where ")
    assert int(problem.gold) == eval(asked, {"x": x}) == sum(c * x**n for n, c in enumerate(reversed(coefficients)))
    assert problem.work[-1].endswith(f"total {problem.gold}")
    for line in problem.work:
        term, _, value = line.partition(",")[0].partition(" = ")
        assert eval(term, {"x": x}) == int(value)


@given(seeds, st.integers(1, 20))
def test_programs_end_as_python_ends_them(seed: int, steps: int) -> None:
    problem = program.draw(random.Random(seed), steps)
    values: dict[str, int] = {}
    exec(problem.question.partition("\n")[2], {}, values)
    assert problem.gold == problem.answer == str(values["x"])
    assert len(problem.work) == steps == problem.length
    assert problem.work[-1].endswith(f"-> {' '.join(f'{name} {value}' for name, value in values.items())}")


def test_a_program_that_never_ends_is_executed_for_ever() -> None:
    lines = program.execute(["x = 1", "while x > 0:", "    x = x + 1"])
    assert [line for line, _ in islice(lines, 5)] == ["x = 1", "while x > 0:", "x = x + 1", "while x > 0:", "x = x + 1"]


def test_a_loop_behind_a_condition_and_another_loop_is_executed_as_python_does() -> None:
    lines = [
        "x = 0", "y = 5", "while x < 2:", "    x = x + 1", "if x > 9:", "    y = 0", "while y > 3:", "    y = y - 1",
        "    x = x + y", "x = x * 2",
    ]  # fmt: skip
    values: dict[str, int] = {}
    exec("\n".join(lines), {}, values)
    assert list(program.execute(lines))[-1][1] == values == {"x": 18, "y": 3}


@kinds
@settings(max_examples=20)
@given(one=seeds, other=seeds)
def test_training_never_sees_a_test(kind: Kind, one: int, other: int) -> None:
    length = kind.longer[0]
    trained = kind.problems(length, 40, one, test=False)
    tested = kind.problems(length, 40, other, test=True)
    assert not {problem.question for problem in trained} & {problem.question for problem in tested}
    assert all(for_tests(problem.question) for problem in tested)


@kinds
@settings(max_examples=20)
@given(seed=seeds, count=st.integers(1, 40))
def test_problems_differ_and_fewer_are_the_first_of_more(kind: Kind, seed: int, count: int) -> None:
    length = kind.lengths[-1]
    more = kind.problems(length, 50, seed, test=True)
    assert len({problem.question for problem in more}) == 50
    assert {problem.length for problem in more} == {length}
    assert kind.problems(length, count, seed, test=True) == more[:count]


def test_one_problem_in_eight_is_for_tests() -> None:
    every = [addition.solve(first, second).question for first in range(10, 100) for second in range(10, 100)]
    share = sum(map(for_tests, every)) / len(every)
    assert 0.11 < share < 0.14


def test_more_than_there_are_is_an_error_with_its_remedy() -> None:
    with pytest.raises(ConfigError, match=r"addition: about \d+ .* of length 1 \(digits\) are for tests, not 500"):
        ADDITION.problems(1, 500, 0, test=True)
