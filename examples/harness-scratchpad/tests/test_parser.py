"""The parser reads the answer behind a scratchpad, and keeps a parser's promises."""

from __future__ import annotations

import random

import pytest
from harness.registry import Registry
from harness.testing.conformance import Check, Subject, checks
from hypothesis import given
from hypothesis import strategies as st

from harness_scratchpad.command import KINDS
from harness_scratchpad.parser import ScratchpadParser
from harness_scratchpad.problems import Kind, response

OUTPUTS = {
    "<scratch>\n2 + 5 , 6 carry 1\n</scratch>\n8 6": "86",
    "8 6": "86",
    "1 0 6": "106",
    "The sum is 86.": "86",
    "29 + 57 = 86": "86",
    "2 9 + 5 7 = 8 6": "86",
    "<scratch>x 7</scratch>\n-37": "-37",
    "<scratch>x 7</scratch> The answer is **1,234**.": "1234",
    "x 7 </scratch>\n12": "12",  # the prompt had opened it
    "<scratch>2 + 5 , 6 carry 1": None,
    "<scratch>2 + 5 , 6 carry 1\n8 6": None,
    "The answer is 85. <scratch>2 + 5": None,
    "<scratch>8 6</scratch>": None,
    "<scratch>8 6</scratch>\n": None,
    "<scratch>x 1</scratch> wait: <scratch>x 2</scratch>\n2": "2",
    "<scratch>x 1</scratch>\n1\n\nProblem: 3 + 4\nAnswer: <scratch>x 7</scratch>\n7": "1",
    "8 6\n\nProblem: 3 + 4\nGive the sum alone.\nAnswer: 7": "86",
    "": None,
    "no number": None,
}
SUBJECT = Subject("parsers", "scratchpad", outputs=tuple(OUTPUTS))


@pytest.mark.parametrize("check", checks("parsers"), ids=str)
def test_it_keeps_its_promises(check: Check) -> None:
    check(SUBJECT)


@pytest.mark.parametrize(("output", "answer"), OUTPUTS.items())
def test_it_reads(output: str, answer: str | None) -> None:
    assert Registry().parser("scratchpad").parse(output) == answer


@pytest.mark.parametrize("scratchpad", [True, False])
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@given(seed=st.integers(0, 2**32), place=st.integers(0, 9))
def test_what_is_trained_is_read_back(kind: Kind, scratchpad: bool, seed: int, place: int) -> None:
    lengths = (*kind.lengths, *kind.longer)
    problem = kind.draw(random.Random(seed), lengths[place % len(lengths)])
    assert ScratchpadParser().parse(response(problem, scratchpad)) == problem.gold


@given(seed=st.integers(0, 2**32), cut=st.floats(0, 1))
def test_a_scratchpad_cut_short_has_no_answer(seed: int, cut: float) -> None:
    work, end, _ = response(KINDS["addition"].draw(random.Random(seed), 5), True).partition("</scratch>")
    unfinished = f"{work}{end}"[: 1 + int(cut * (len(work) + len(end) - 2))]
    assert end not in unfinished
    whole = unfinished.startswith("<scratch>")
    assert not whole or ScratchpadParser().parse(unfinished) is None


@given(st.text(alphabet="<scratch>/ 0123456789.,-\n", max_size=60))
def test_an_answer_is_a_plain_decimal(output: str) -> None:
    answer = ScratchpadParser().parse(output)
    assert answer is None or ScratchpadParser().parse(answer) == answer
