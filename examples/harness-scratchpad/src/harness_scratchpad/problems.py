"""What a problem is, how it is asked and answered, and which problems are for training."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from harness.errors import ConfigError

BEGIN, END = "<scratch>", "</scratch>"

#: The length of a problem, in any kind's measure: a scratchpad for more would be longer than contexts are.
LONGEST = 100

#: One problem in so many is for tests.
_TEST_SHARE = 8

#: After so many draws in a row that give nothing new, there is taken to be nothing new.
_PATIENCE = 2_000


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with its solution.

    `question` is what is to be solved, `work` the lines of its scratchpad, `answer` the answer as it is written at the
    end, and `gold` the same as a number, as the parser ``scratchpad`` gives it. `length` is how long the problem is, in
    its kind's own measure: digits, a degree, executed lines.
    """

    question: str
    work: tuple[str, ...]
    answer: str
    gold: str
    length: int


@dataclass(frozen=True)
class Kind:
    """A kind of problem: how one is drawn, what is asked, and the measure of its length.

    `draw` takes a source of chance and a length. `lengths` are those that models are trained on, `longer` those beyond.
    """

    name: str
    draw: Callable[[random.Random, int], Problem]
    wanted: str
    measure: str
    lengths: tuple[int, ...]
    longer: tuple[int, ...]

    def instruction(self, question: str, scratchpad: bool) -> str:
        """Return what is asked, with a scratchpad or without."""
        if scratchpad:
            return f"Problem: {question}\nWork between {BEGIN} and {END}, then give {self.wanted}.\nAnswer:"
        return f"Problem: {question}\nGive {self.wanted} alone.\nAnswer:"

    def problems(self, length: int, count: int, seed: int, *, test: bool) -> list[Problem]:
        """Return `count` different problems of one length, for tests or for training.

        The same arguments give the same problems, and fewer are the first of more. Raises ConfigError where there are
        not so many.
        """
        found = list(islice(self._drawn(length, seed, test), count))
        if len(found) < count:
            use = "tests" if test else "training"
            raise ConfigError(
                f"{self.name}: about {len(found):,} different problems of length {length} ({self.measure}) are "
                f"for {use}, not {count:,}; ask for fewer, or leave this length out"
            )
        return found

    def _drawn(self, length: int, seed: int, test: bool) -> Iterator[Problem]:
        chance = random.Random(f"{self.name}/{length}/{seed}")
        seen: set[str] = set()
        idle = 0
        while idle < _PATIENCE:
            problem = self.draw(chance, length)
            idle += 1
            if problem.question not in seen and for_tests(problem.question) == test:
                seen.add(problem.question)
                idle = 0
                yield problem


def for_tests(question: str) -> bool:
    """Return whether a problem is for tests; training never sees one, whatever the seeds and counts on either side.

    Its digest decides, so that no list has to be kept and passed around.
    """
    return digest(question)[0] < 256 // _TEST_SHARE


def digest(question: str) -> bytes:
    """Return the sha256 of a question."""
    return hashlib.sha256(question.encode()).digest()


def response(problem: Problem, scratchpad: bool) -> str:
    """Return how a model is to answer: the scratchpad's lines between its marks, then the answer; or the answer."""
    lines: Sequence[str] = (BEGIN, *problem.work, END) if scratchpad else ()
    return "\n".join((*lines, problem.answer))
