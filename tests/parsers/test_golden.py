"""Every hand-written case: one JSON object a line with the output, the expected answer and the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from harness.parsers import (
    Explanation,
    parse_choice,
    parse_choices,
    parse_last_number,
    parse_math,
    parse_number,
    parse_preference,
    parse_short_answer,
    parse_verdict,
)

PARSERS: Final[dict[str, Callable[..., Any]]] = {
    "choice": parse_choice,
    "choices": parse_choices,
    "last_number": parse_last_number,
    "math": parse_math,
    "number": parse_number,
    "preference": parse_preference,
    "short_answer": parse_short_answer,
    "verdict": parse_verdict,
}
#: What the golden files must hold at least.
FEWEST: Final = {
    "choice": 800, "choices": 40, "last_number": 60, "math": 35, "number": 500, "preference": 200, "short_answer": 40,
    "verdict": 200,
}  # fmt: skip
TOLD: Final = ("options", "letters", "golds", "gold")


def golden(name: str) -> list[dict[str, Any]]:
    lines = (Path(__file__).parent / f"{name}.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", PARSERS)
def test_golden_cases(name: str) -> None:
    parse = PARSERS[name]
    wrong = []
    for number, case in enumerate(golden(name), start=1):
        arguments = {key: case[key] for key in TOLD if key in case}
        found = parse(case["output"], **arguments)
        if found != case["expected"]:
            wrong.append(f"{name}.jsonl:{number}: {found!r}, not {case['expected']!r}: {case['output']!r}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", PARSERS)
def test_every_case_is_explained(name: str) -> None:
    parse = PARSERS[name]
    for case in golden(name):
        arguments = {key: case[key] for key in TOLD if key in case}
        found = parse(case["output"], **arguments, explain=True)
        assert isinstance(found, Explanation)
        assert found.answer == case["expected"], case["output"]
        assert found.rule
        assert 0 <= found.start <= found.end <= len(case["output"])
        assert found.answer is None or found.end > found.start, case["output"]


@pytest.mark.parametrize("name", PARSERS)
def test_golden_files_are_large_varied_and_explained(name: str) -> None:
    cases = golden(name)
    assert len(cases) >= FEWEST[name]
    assert len({str([case["output"], *map(case.get, TOLD)]) for case in cases}) == len(cases)
    assert all(case["reason"] for case in cases)
    unreadable = sum(case["expected"] is None for case in cases)
    assert 0 < unreadable < len(cases) * 2 // 3
