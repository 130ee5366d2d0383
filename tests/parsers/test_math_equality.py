"""What `math` calls equal: with math-verify where it is installed, and without it."""

from __future__ import annotations

import time
from importlib.util import find_spec

import pytest

from harness.parsers import math_equality
from harness.parsers.math_answer import equal, parse_math

#: Answers that only algebra finds equal to the gold, or not.
ALGEBRA = [
    (r"\frac{\sqrt{8}}{2}", r"\sqrt{2}", True),
    (r"(x+1)^2", r"x^2+2x+1", True),
    (r"2^{-1}", r"\frac{1}{2}", True),
    (r"\{2, 1\}", r"\{1, 2\}", True),
    (r"\frac{\pi}{3}", r"\frac{2\pi}{6}", True),
    (r"x^2+2x", r"x^2+2x+1", False),
    (r"(1, 2)", r"(2, 1)", False),
]


@pytest.mark.skipif(find_spec("math_verify") is None, reason="math-verify is not installed")
class TestWithMathVerify:
    @pytest.mark.parametrize(("answer", "gold", "same"), ALGEBRA)
    def test_algebra_decides(self, answer: str, gold: str, same: bool) -> None:
        assert equal(answer, gold) is same
        assert (parse_math(rf"So it is \boxed{{{answer}}}.", gold) == gold) is same

    @pytest.mark.parametrize(
        "answer", ["9^{9^{9^9}}", r"\sum_{n=1}^{10^9} \sin(n!)", "(" * 300, r"\frac{", "\0\n", "1!!!"]
    )
    def test_nothing_takes_long_or_fails(self, answer: str) -> None:
        began = time.monotonic()
        assert equal(answer, "7") is False
        assert time.monotonic() - began < math_equality.SECONDS + math_equality.STARTING
        assert equal(r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"), "the process is there again"


@pytest.mark.parametrize(("answer", "gold", "same"), ALGEBRA)
def test_without_math_verify_what_is_not_the_same_text_is_not_equal(
    monkeypatch: pytest.MonkeyPatch, answer: str, gold: str, same: bool
) -> None:
    monkeypatch.setattr(math_equality, "find_spec", lambda name: None)
    math_equality.verified.cache_clear()
    assert equal(answer, gold) is False
    assert equal(rf"\left( {gold} \right)", f"({gold})") and equal("1{,}200", "1200.0")
    math_equality.verified.cache_clear()
