"""A million adversarial characters are read, in a process that is killed where it takes far longer than it may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SCRIPT: Final = """
import sys
from harness.parsers import *
options = ["Paris", "London", "A B", "the "]
parsers = (
    parse_choice, lambda text: parse_choice(text, options), parse_number, parse_last_number, parse_verdict,
    parse_preference, canonical_number, parse_choices, parse_short_answer, parse_math, without_reasoning,
    lambda text: parse_choice(text, options, explain=True),
)
for piece in sys.argv[2:]:
    text = (piece * (int(sys.argv[1]) // len(piece) + 1))[: int(sys.argv[1])]
    for parse in parsers:
        parse(text + "B 1 safe")
"""
#: Unbounded repetition, nesting, near misses of every marker and of every long pattern.
PIECES: Final = (
    ("9", "1,234,", "1-", "1 1/1 ", "234 ", "(1", "½", "1x10^", "1. x\n"),
    ("the answer is ", "best ", "A\n", "B is correct ", "\\boxed{", "therefore ", "so it is ", "is B. ", "A and "),
    (
        "\n#",
        "\n# Quer",
        "Question ",
        "<think>",
        "</s",
        "wait, ",
        "* ",
        "_",
        "~~a",
        "\\frac{1}{",
        '"',
        "if the answer is 1 ",
    ),
    (
        "unsafe or safe ",
        "response is ",
        "not ",
        "output (a) is ",
        "1 > 2 ",
        "'rank': 1, ",
        "model ",
        "i prefer ",
        "[[A",
    ),
    (
        "(A) and ",
        "A, ",
        "(A) for ",
        "antwort ist ",
        "答案",
        "[THINK]",
        "<|channel|>",
        "$x$ ",
        "= 1 a b ",
        "```python\n",
        "Question 1: x\n",
        "A: 8 ",
    ),
)


@pytest.mark.parametrize("pieces", PIECES, ids=["numbers", "choices", "turns", "judges", "others"])
def test_a_hundred_thousand_adversarial_characters(pieces: tuple[str, ...]) -> None:
    # Quadratic work would take hundreds of times longer than the few seconds that linear work takes.
    subprocess.run([sys.executable, "-c", SCRIPT, "100000", *pieces], cwd=ROOT, check=True, timeout=100)


#: What has been slow once: quadratic work on any of these takes minutes.
SLOW_ONCE: Final = (
    ("parse_choice", "the answer is "), ("parse_choice", "therefore "), ("parse_choice", "A\n"), ("parse_choice",
    "B is correct "),
    ("parse_choice", "best "), ("parse_number", "½"), ("parse_number", "(1"), ("parse_number", "1 1/1 "),
    ("parse_number", "answer "),
    ("parse_last_number", "1,234,"), ("parse_verdict", "therefore "), ("parse_verdict", "response is "),
    ("parse_preference", "output (a) is "), ("parse_preference", "'rank': 1, "), ("canonical_number", "9"),
    ("parse_choices", "(A) and "),
)  # fmt: skip


def test_a_million_adversarial_characters() -> None:
    script = (
        "import sys; import harness.parsers\n"
        "for name, piece in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    getattr(harness.parsers, name)((piece * 1_000_000)[:1_000_000] + 'B 1 safe')\n"
    )
    arguments = [argument for pair in SLOW_ONCE for argument in pair]
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, check=True, timeout=100)


def test_a_million_different_characters() -> None:
    script = (
        "from harness.parsers import *\n"
        "text = ''.join(map(chr, range(0x110000)))\n"
        "for parse in (parse_choice, parse_number, parse_last_number, parse_verdict, parse_preference):\n"
        "    parse(text)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=100)
