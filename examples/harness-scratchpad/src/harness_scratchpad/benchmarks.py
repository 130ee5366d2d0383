"""The benchmarks: each kind of problem, in the lengths that models are trained on and in longer ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.hookspecs import hookimpl
from harness.interfaces import BaseBenchmark, Benchmark, DataSource
from harness.types import Example, Generation

from harness_scratchpad.addition import ADDITION
from harness_scratchpad.polynomial import POLYNOMIAL
from harness_scratchpad.problems import LONGEST, Kind, Problem, digest
from harness_scratchpad.program import PROGRAM

IN_DISTRIBUTION, LONGER = "in distribution", "longer"


@dataclass(frozen=True)
class _Scratchpad(BaseBenchmark):
    """A kind of problem as a benchmark; the fields of a subclass are its options.

    `scratchpad` says whether models are asked to show their work. There are `count` problems of each length, drawn with
    `seed`: `lengths` are reported as in distribution, `longer` beside them.
    """

    kind: ClassVar[Kind]
    citation: ClassVar[str] = (
        "Nye et al. 2021, Show Your Work: Scratchpads for Intermediate Computation with Language Models, "
        "arXiv:2112.00114"
    )
    parsers: ClassVar[tuple[str, ...]] = ("scratchpad",)
    scorer: ClassVar[str] = "exact"

    scratchpad: bool = True
    count: int = 100
    seed: int = 0
    lengths: tuple[int, ...] = ()
    longer: tuple[int, ...] = ()
    generation: Generation = Generation(max_tokens=1024)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")
        every = (*self.lengths, *self.longer)
        if not every or len(set(every)) < len(every):
            raise ValueError(f"lengths and longer must be different lengths, at least one, not {list(every)}")
        for length in every:
            if not 1 <= length <= LONGEST:
                raise ValueError(f"a length must be from 1 to {LONGEST}, not {length}")

    def examples(self, source: DataSource) -> Sequence[Example]:
        """Return the problems by length, those of `lengths` first; ConfigError where there are not enough of one."""
        return [
            self._example(problem, category)
            for category, lengths in ((IN_DISTRIBUTION, self.lengths), (LONGER, self.longer))
            for length in lengths
            for problem in self.kind.problems(length, self.count, self.seed, test=True)
        ]

    def _example(self, problem: Problem, category: str) -> Example:
        return Example(
            f"{problem.length:02}-{digest(problem.question).hex()[:12]}",
            {"question": problem.question},
            problem.gold,
            f"{self.kind.measure} {problem.length:02}",  # sorted as numbers
            category,
        )

    def instruction(self, example: Example) -> str:
        """Return the problem, and whether the work is to be shown."""
        return self.kind.instruction(example.fields["question"], self.scratchpad)


@dataclass(frozen=True)
class Addition(_Scratchpad):
    """Sums of two numbers; a length is their digits."""

    kind: ClassVar[Kind] = ADDITION
    name: ClassVar[str] = "scratchpad-addition"
    title: ClassVar[str] = "Addition"

    lengths: tuple[int, ...] = ADDITION.lengths
    longer: tuple[int, ...] = ADDITION.longer


@dataclass(frozen=True)
class Polynomial(_Scratchpad):
    """Values of polynomials; a length is a degree."""

    kind: ClassVar[Kind] = POLYNOMIAL
    name: ClassVar[str] = "scratchpad-polynomial"
    title: ClassVar[str] = "Polynomials"

    lengths: tuple[int, ...] = POLYNOMIAL.lengths
    longer: tuple[int, ...] = POLYNOMIAL.longer


@dataclass(frozen=True)
class Program(_Scratchpad):
    """What small programs come to; a length is the lines executed."""

    kind: ClassVar[Kind] = PROGRAM
    name: ClassVar[str] = "scratchpad-program"
    title: ClassVar[str] = "Programs"

    lengths: tuple[int, ...] = PROGRAM.lengths
    longer: tuple[int, ...] = PROGRAM.longer


@hookimpl
def harness_benchmarks() -> Iterable[Benchmark]:
    """Provide `scratchpad-addition`, `scratchpad-polynomial` and `scratchpad-program`."""
    return [Addition(), Polynomial(), Program()]
