"""What a parser promises: it is total, pure, closed, and linear in the output's length."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from unittest import SkipTest

from harness.interfaces import Parser
from harness.testing.conformance.check import Check, quoted, require
from harness.testing.conformance.corpus import PIECES, hostile_texts
from harness.testing.conformance.fresh_process import in_fresh_process
from harness.testing.conformance.subject import Subject
from harness.types import Example

#: What a parser may be given beside the output: nothing, or an example with the usual fields.
_EXAMPLES = (
    None,
    Example("a", {"question": "Which?", "options": ["Paris", "London", "A B", "the "]}, gold="A", group="g"),
    Example("b", {"question": "Which?", "options": ["", "\ud800", "(B)", "1,000", "\x00"]}, gold="1"),
    Example("c", {}),
)

#: Growth is watched up to so many characters; work that is quadratic and takes 2 ms here takes seconds on a million.
_LONGEST = 2**15
_SECONDS = 120.0

#: Longer texts are read once, for what they may break, and not again.
_SHORT = 10_000


def it_reads_any_text(subject: Subject) -> None:
    """Any text at all gives a text or None, and never an exception."""
    for output, example in _cases(subject):
        try:
            answer = subject.plugin.parse(output, example)
        except Exception as error:
            given = f"{quoted(output)}{'' if example is None else f' with the fields {quoted(example.fields)}'}"
            raise AssertionError(f"it raises {type(error).__name__}: {error} on {given}") from error
        require(answer is None or isinstance(answer, str), f"{quoted(output)} gives {quoted(answer)}, not text or None")


def the_same_output_gives_the_same_answer(subject: Subject) -> None:
    """An output is read alike the second time, and in a process whose hashes are others."""
    here = answers(subject)
    for again, where in (
        (answers(subject), "the second time"),
        (in_fresh_process(subject, "parsers.answers"), "in a new process"),
    ):
        for (output, _), one, other in zip(_cases(subject, _SHORT), here, again, strict=True):
            require(one == other, f"{quoted(output)} gives {quoted(one)}, and {quoted(other)} {where}")


def answers(subject: Subject) -> list[str | None]:
    """Return what the parser reads in each case but the longest."""
    parser: Parser = subject.plugin
    return [parser.parse(output, example) for output, example in _cases(subject, _SHORT)]


def answers_are_canonical(subject: Subject) -> None:
    """An answer, given as an output by itself, is never read as another one."""
    found: dict[str, str] = {}
    for output, example in _cases(subject, _SHORT):
        if example is None and (answer := subject.plugin.parse(output)) is not None:
            found.setdefault(answer, output)
    if not found:
        raise SkipTest("it finds no answer in the usual outputs; give Subject(outputs=…) such as it reads")
    for answer, output in found.items():
        again = subject.plugin.parse(answer)
        same = again is None or again == answer
        require(same, f"{quoted(output)} gives {quoted(answer)}, but {quoted(answer)} itself gives {quoted(again)}")


def time_grows_with_the_length(subject: Subject) -> None:
    """Twice the text takes twice the time, not four times: nothing that is repeated makes it quadratic."""
    slow = in_fresh_process(subject, "parsers.growth", seconds=_SECONDS)
    if slow is not None:
        piece, length, before, after = slow
        grown = f"{4 * length:,} characters take {after / before:.0f} times as long as {length:,}"
        raise AssertionError(f"repeated {quoted(piece)}: {grown} ({after * 1000:.0f} ms), not 4 times")


def growth(subject: Subject) -> tuple[str, int, float, float] | None:
    """Return the first repeated text whose reading takes more than linear time, a length, and two times in seconds."""
    gc.disable()
    pieces = (*PIECES, *(f"{output} " for output in subject.outputs if output))
    for piece in pieces:
        print(f"repeated {quoted(piece)}", file=sys.stderr, flush=True)  # for whoever ends this process
        slow = _slow(subject.plugin.parse, piece)
        if slow is not None:
            return (piece, *slow)
    return None


def _slow(parse: Callable[[str], object], piece: str) -> tuple[int, float, float] | None:
    """Return a length and the seconds that it and four times the length take, where that is far more than fourfold.

    Only processor time counts, so that a busy machine makes no difference; what looks slow is measured again.
    """

    def seconds(length: int, repeats: int) -> float:
        text = (piece * (length // len(piece) + 1))[:length] + " B 1 safe"
        times = []
        for _ in range(repeats):
            started = time.thread_time()
            parse(text)
            times.append(time.thread_time() - started)
        return min(times)

    length, found = 128, [seconds(32, 1), seconds(64, 1)]
    while length <= _LONGEST:
        found.append(seconds(length, 1))
        if found[-1] > 0.002 and found[-1] > 9 * found[-3]:
            before, after = seconds(length // 4, 5), seconds(length, 3)
            # Work within a window of so many characters ends to grow beyond it.
            goes_on = after > 0.1 or seconds(4 * length, 1) > 9 * after
            if after > 0.002 and after > 9 * before and goes_on:
                return length // 4, before, after
        if found[-1] > 0.5:
            return None
        length *= 2
    return None


def _cases(subject: Subject, longest: int | None = None) -> Iterator[tuple[str, Example | None]]:
    """Yield outputs, up to a length if one is given: each by itself and, if it is short, with examples too."""
    for output in (*subject.outputs, *hostile_texts()):
        if longest is None or len(output) <= longest:
            yield output, None
        if len(output) <= _SHORT:
            yield from ((output, example) for example in _EXAMPLES[1:])


CHECKS = [
    Check(it_reads_any_text),
    Check(the_same_output_gives_the_same_answer),
    Check(answers_are_canonical),
    Check(time_grows_with_the_length),
]
