"""Which example of a benchmark an output is for: the one of its id or, where ids differ, the one of its question."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from harness.calls import question_of
from harness.datasets.ids import IdIndex
from harness.errors import DataError
from harness.interfaces import Benchmark
from harness.types import Example, RecordedOutput

#: Fields in which benchmarks keep the question alone; else it is what their instruction says.
_QUESTION = ("question", "instruction", "problem", "prompt")

#: So many characters of a question are quoted.
_QUOTED = 60


class Pairing:
    """The examples of outputs that are added one by one, each checked; `indices` are theirs, in the outputs' order.

    An id counts only where the question, if the output comes with one, is the example's too. Where a question stands
    several times among the examples, outputs with it take them in turn. `samples` is how many outputs each example has.
    It takes 32 bytes an example.
    """

    def __init__(self, benchmark: Benchmark, examples: Sequence[Example]) -> None:
        self.indices = array("q")
        self.by_id = self.by_text = 0
        self._benchmark = benchmark
        self._examples = examples
        self._ids = IdIndex()
        for example in examples:
            self._ids.add(example.id)
        self.samples = 1
        self._taken = bytearray(len(examples))
        self._further = set[tuple[int, int]]()  # of repeats after the first
        self._faults = 0
        self._first = ""

    def add(self, output: RecordedOutput) -> None:
        """Find the example of the next output."""
        fault = self._fault(output)
        if fault is not None:
            self._faults += 1
            self._first = self._first or f"{output.place}: {fault}"

    @property
    def selection(self) -> array[int]:
        """The examples that have an output, in the benchmark's order."""
        further = {index for index, _ in self._further}
        return array("q", (index for index, taken in enumerate(self._taken) if taken or index in further))

    def check(self, paths: Sequence[Path]) -> None:
        """Raise DataError, telling the first, where outputs have no example of their own, or there is no output."""
        total = len(self.indices) + self._faults
        if self._faults:
            raise DataError(f"{self._first} ({self._faults:,} of {total:,} outputs cannot be used)")
        if not total:
            raise DataError(f"{paths[0]}: no outputs in it")
        selection = self.selection
        if total < len(selection) * self.samples:
            places = ((index, repeat) for index in selection for repeat in range(self.samples))
            index, repeat = next(each for each in places if not self._has(*each))
            example = self._examples[index].id
            raise DataError(f"{paths[0]}: no output {repeat + 1} of {self.samples} for the example {example!r}")

    def _fault(self, output: RecordedOutput) -> str | None:
        """Pair an output, or return why it cannot be."""
        if output.output is None and output.error is None:
            return f"no output{_named(output)}"
        found, by_id = self._by_id(output), True
        if found is None:
            found, by_id = self._by_text(output), False
        if found is None:
            return self._unknown(output)
        if not _same_options(self._examples[found], output):
            return f"its options are not those of the example {self._examples[found].id!r}{_named(output)}"
        if self._has(found, output.repeat):
            which = f"another output {output.repeat + 1}" if output.repeat else "a second output"
            return f"{which} for the example {self._examples[found].id!r}{_named(output)}"
        if output.repeat:
            self._further.add((found, output.repeat))
        else:
            self._taken[found] = 1
        self.samples = max(self.samples, output.repeat + 1)
        self.indices.append(found)
        self.by_id += by_id
        self.by_text += not by_id
        return None

    def _has(self, index: int, repeat: int) -> bool:
        return (index, repeat) in self._further if repeat else bool(self._taken[index])

    def _by_id(self, output: RecordedOutput) -> int | None:
        if output.id is None:
            return None
        for index in self._ids.candidates(output.id):
            example = self._examples[index]
            if example.id == output.id:
                asked = output.question is None or _plain(output.question) in self._questions(example)
                return index if asked else None
        return None

    def _by_text(self, output: RecordedOutput) -> int | None:
        """Return the example of the output's question; of several, the first with its options that has no output."""
        text = output.question or output.prompt
        if text is None:
            return None
        plain = _plain(text)
        places = dict.fromkeys(place // 2 for place in self._texts.candidates(plain))
        found = [place for place in places if plain in self._questions(self._examples[place])]
        same = [place for place in found if _same_options(self._examples[place], output)]
        free = [place for place in same if not self._has(place, output.repeat)]
        return next(iter([*free, *same, *found]), None)

    def _unknown(self, output: RecordedOutput) -> str:
        name, first = self._benchmark.name, self._examples[0].id
        if output.question is not None:
            quoted = " ".join(output.question.split())
            quoted = quoted if len(quoted) <= _QUOTED else f"{quoted[: _QUOTED - 1]}…"
            return f"{name} asks no question {quoted!r}{_named(output)}; are these outputs of another benchmark?"
        if output.id is not None:
            return (
                f"{name} has no example {output.id!r}, whose ids are like {first!r}; --map question=FIELD pairs by text"
            )
        return f"neither an id nor a question of {name} in it; --map id=FIELD or --map question=FIELD names them"

    @cached_property
    def _texts(self) -> IdIndex:
        """Two texts an example: its question, and its whole instruction."""
        found = IdIndex()
        for example in self._examples:
            for text in self._questions(example):
                found.add(text)
        return found

    def _questions(self, example: Example) -> tuple[str, str]:
        """Return an example's question and its whole instruction, white space apart."""
        fields = example.fields
        question = next((fields[name] for name in _QUESTION if isinstance(fields.get(name), str)), None)
        instruction = _plain(question_of(self._benchmark, example))
        return (instruction if question is None else _plain(question), instruction)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _same_options(example: Example, output: RecordedOutput) -> bool:
    """Whether the options, where both say them, are the same in the same order; MMLU-Pro fills them up with N/A."""
    options = example.fields.get("options")
    if output.options is None or not isinstance(options, list):
        return True
    ours, theirs = ([_plain(str(each)) for each in some if each != "N/A"] for some in (options, output.options))
    return ours == theirs


def _named(output: RecordedOutput) -> str:
    return "" if output.id is None else f" (id {output.id!r})"
