"""The parsers behind the registry's door, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import harness.parsers
from harness.parsers.plugin import harness_parsers
from harness.types import Example

PARSERS: dict[str, Any] = {parser.name: parser for parser in harness_parsers()}


def test_names() -> None:
    assert set(PARSERS) == {
        "final-number", "last-number", "choice", "choices", "short_answer", "math", "verdict", "preference",
        "loglikelihood", "loglikelihood_tokens", "loglikelihood_bytes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "output", "answer"),
    [
        ("final-number", "The answer is 18.\nThere are 3 steps.", "18"),
        ("last-number", "The answer is 18.\nThere are 3 steps.", "3"),
        ("choice", "The correct answer is B.", "B"),
        ("verdict", "**True**", "unsafe"),
        ("preference", "Output (b)", "2"),
        ("preference", "tie", "0"),
        ("preference", "", None),
    ],
)
def test_answers_are_text(name: str, output: str, answer: str | None) -> None:
    assert PARSERS[name].parse(output) == answer
    assert PARSERS[name].parse(output, Example(id="1", fields={})) == answer


def test_choice_uses_the_examples_options() -> None:
    example = Example(id="1", fields={"options": ["Paris", "London", "Rome", "Oslo", "Bern"]})
    assert PARSERS["choice"].parse("The correct answer is London.", example) == "B"
    assert PARSERS["choice"].parse("The correct answer is London.") is None
    assert PARSERS["choice"].parse("E", example) == "E"
    assert PARSERS["choice"].parse("F", example) is None


def test_golds_are_the_examples() -> None:
    example = Example(id="1", fields={"answers": ["NYC"]}, gold="New York City")
    assert PARSERS["short_answer"].parse("The answer is NYC.", example) == "New York City"
    assert PARSERS["short_answer"].parse("The answer is Rome.", example) == "rome"
    assert (
        PARSERS["math"].parse("\\boxed{\\dfrac12}", Example(id="1", fields={}, gold="\\frac{1}{2}")) == "\\frac{1}{2}"
    )
    assert PARSERS["math"].parse("\\boxed{3}") == "3"
    assert PARSERS["choices"].parse("E and A", Example(id="1", fields={"options": list("vwxyz")})) == "AE"


def test_explanations_are_text_too() -> None:
    output = "<think>Output (a)?</think>Output (b)"
    found = PARSERS["preference"].explain(output)
    assert (found.answer, output[found.start : found.end]) == ("2", "Output (b)")
    example = Example(id="1", fields={"options": ["Paris", "London"]})
    assert PARSERS["choice"].explain("A. London", example).disagrees


def test_public_names() -> None:
    assert set(harness.parsers.__all__) == {
        "Explanation", "canonical_number", "is_thought_only", "parse_choice", "parse_choices", "parse_last_number",
        "parse_math", "parse_number", "parse_preference", "parse_short_answer", "parse_verdict", "without_reasoning",
    }  # fmt: skip
    assert all(getattr(harness.parsers, name).__doc__ for name in harness.parsers.__all__)


def test_importing_the_library_imports_the_standard_library_only() -> None:
    script = (
        "import sys; before = set(sys.modules); import harness.parsers; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'harness'}), "
        "sorted(n for n in sys.modules if n.startswith('harness.') "
        "and not n.startswith(('harness.parsers', 'harness.version'))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "[] []"
