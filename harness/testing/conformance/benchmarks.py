"""What a benchmark promises: examples that are always the same, and gold answers that can be reached."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from unittest import SkipTest

from harness.calls import messages_of
from harness.datasets.ids import IdIndex
from harness.interfaces import JudgedScorer, Parser, Scorer
from harness.testing.conformance.check import Check, quoted, require
from harness.testing.conformance.fresh_process import in_fresh_process
from harness.testing.conformance.subject import Subject
from harness.types import Example, Generation, JudgeQuestion, Sample

#: Of a larger benchmark, so many examples are looked at closely; ids and stability are checked on all.
_CLOSELY = 200

#: How models usually give an answer.
_PHRASES: tuple[Callable[[Example], str], ...] = (
    lambda example: f"The answer is {example.gold}.",
    lambda example: f"{example.gold}",
    lambda example: f"The correct answer is {example.gold}.",
    lambda example: f"Answer: {example.gold}",
    lambda example: f"#### {example.gold}",
    lambda example: f"<answer>{example.gold}</answer>",
    lambda example: f"\\boxed{{{example.gold}}}",
)


def it_says_what_it_is(subject: Subject) -> None:
    """Title and citation are lines of text, and generation, parsers and scorer are such as there are."""
    benchmark = subject.plugin
    for part in ("title", "citation"):
        text = getattr(benchmark, part)
        good = isinstance(text, str) and text.strip() == text != "" and text.isprintable()
        require(good, f"its {part} must be one line of text, not {quoted(text)}")
    require(isinstance(benchmark.generation, Generation), f"its generation is {quoted(benchmark.generation)}")
    require(isinstance(benchmark.parsers, tuple), f"its parsers must be a tuple of names, not {benchmark.parsers!r}")
    for parser in benchmark.parsers:
        subject.registry.parser(parser)
    subject.registry.scorer(benchmark.scorer)


def examples_are_indexed_alike_every_time(subject: Subject) -> None:
    """Examples can be counted, iterated over and indexed in any order, more than once, and are equal each time."""
    examples = subject.all_examples
    require(len(examples) > 0, "it has no examples")
    require(all(isinstance(example, Example) for example in examples), "its examples must be harness.types.Example")
    count = sum(1 for _ in examples)
    require(count == len(examples), f"iterating gives {count} examples, but there are {len(examples)}")
    for index, example in _some(subject):
        require(examples[index] == example, f"examples[{index}] is another the second time")
    try:
        beyond = examples[len(examples)]
    except IndexError:
        return
    raise AssertionError(f"examples[{len(examples)}] must raise IndexError, but gives {quoted(beyond)}")


def ids_are_unique(subject: Subject) -> None:
    """Every example has an id of its own: a text of one line."""
    ids = IdIndex()
    for example in subject.all_examples:
        good = isinstance(example.id, str) and example.id.isprintable() and example.id
        require(good, f"an id must be one line of text, not {quoted(example.id)}")
        ids.add(example.id)
    for first, second in ids.repeated(lambda position: subject.all_examples[position].id):
        raise AssertionError(f"examples {first} and {second} have the same id {subject.all_examples[first].id!r}")


def another_process_gives_the_same_examples(subject: Subject) -> None:
    """Ids, instructions, gold answers and all else are the same in a process whose hashes are others."""
    here = digests(subject)
    there = in_fresh_process(subject, "benchmarks.digests")
    require(len(here) == len(there), f"there are {len(here)} examples here and {len(there)} in a new process")
    for index, (one, other) in enumerate(zip(here, there, strict=True)):
        what = f"example {index} ({subject.all_examples[index].id!r})"
        require(one == other, f"{what} is another in a new process: does it depend on hashes, sets or the time?")


def digests(subject: Subject) -> list[str]:
    """Return a digest of each example and what is asked."""
    ask = subject.plugin.instruction
    found = []
    for example in subject.all_examples:
        whole = [example.id, example.group, example.category, example.gold, ask(example), _json(example)]
        found.append(hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16])
    return found


def fields_are_json(subject: Subject) -> None:
    """An example's fields come back from JSON as they were: a run is judged and scored again from what it recorded."""
    for _, example in _some(subject):
        same = json.loads(_json(example)) == dict(example.fields)
        require(
            same, f"the fields of {example.id!r} are others when read back from JSON: lists, not tuples; text as keys"
        )
        for part in (example.gold, example.group, example.category):
            require(part is None or isinstance(part, str), f"{example.id!r} has {quoted(part)} where text belongs")


def instructions_depend_on_the_example_alone(subject: Subject) -> None:
    """An instruction is text or messages, the same for the example as it is and as it is read back from a run."""
    ask = subject.plugin.instruction
    for _, example in _some(subject):
        asked = ask(example)
        said = f"the instruction of {example.id!r} is {quoted(asked)}"
        if not isinstance(asked, str):
            try:
                messages_of(asked)
            except ValueError as error:
                raise AssertionError(f"{said}, neither text nor messages: {error}") from error
        require(not isinstance(asked, str) or asked.strip(), said)
        require(ask(_read_back(example)) == asked, f"the instruction of {example.id!r} is another the second time")


def gold_answers_score_one(subject: Subject) -> None:
    """A gold answer, phrased as the benchmark asks, is read by the headline parser and gets the full score."""
    reader = _Reader.of(subject)
    phrases = (subject.phrase,) if subject.phrase is not None else _PHRASES
    failures: list[str] = []
    for phrase in phrases:
        failure = next(reader.missed(phrase), None)
        if failure is None:
            return
        failures.append(failure)
    remedy = "" if subject.phrase else "; give Subject(phrase=…) where a right answer looks otherwise"
    raise AssertionError(f"{failures[0]}{remedy}")


def other_answers_score_less(subject: Subject) -> None:
    """No answer, and the gold answer of another question, do not get the full score."""
    reader = _Reader.of(subject)
    gold = list(dict.fromkeys(example.gold for example in reader.examples))
    for example in reader.examples:
        require(reader.value(example, None) < 1, f"{example.id!r}: no answer gets the full score")
        other = next((one for one in gold if one != example.gold), None)
        if other is not None and reader.value(example, other) >= 1:
            different = _as_number(other) != _as_number(example.gold)
            require(not different, f"{example.id!r}: the answer {quoted(other)} gets the full score")


def its_scorer_takes_its_examples(subject: Subject) -> None:
    """The scorer scores its examples or, where a judge is needed, has questions about them."""
    scorer: Scorer = subject.registry.scorer(subject.plugin.scorer)
    if not scorer.judged:
        for _, example in _some(subject):
            scorer.score(example, None)
        return
    judged = cast(JudgedScorer, scorer)
    json.dumps(dict(judged.inputs(subject.all_examples)))
    for _, example in _some(subject):
        for question in judged.questions(example, "A response."):
            require(isinstance(question, JudgeQuestion), f"{example.id!r}: a question is {quoted(question)}")


def exports_are_json(subject: Subject) -> None:
    """Exported files have a plain name ending in .json or .jsonl, and records that are JSON objects, every time."""
    run = _Run(subject)
    first, second = (
        {
            name: [json.dumps(dict(record)) for record in records]
            for name, records in subject.plugin.exports(run).items()
        }
        for _ in range(2)
    )
    for name in first:
        good = isinstance(name, str) and name.endswith((".json", ".jsonl")) and not {"/", "\\"} & set(name)
        require(good, f"an exported file is called {name!r}: a plain name that ends in .json or .jsonl is needed")
    require(first == second, "the same run exports other records the second time")


@dataclass(frozen=True)
class _Reader:
    """The headline parser and the scorer of a benchmark, and examples with a gold answer."""

    parser: Parser
    scorer: Scorer
    examples: Sequence[Example]

    @classmethod
    def of(cls, subject: Subject) -> _Reader:
        """Return those of `subject`; SkipTest where a judge scores, or there is no parser or gold answer."""
        benchmark = subject.plugin
        scorer: Scorer = subject.registry.scorer(benchmark.scorer)
        if scorer.judged:
            raise SkipTest(f"its scorer {benchmark.scorer!r} asks a judge")
        if not benchmark.parsers:
            raise SkipTest("it has no parser")
        examples = [example for _, example in _some(subject) if example.gold is not None]
        if not examples:
            raise SkipTest("its examples have no gold answers")
        return cls(subject.registry.parser(benchmark.parsers[0]), scorer, examples)

    def value(self, example: Example, answer: str | None) -> float:
        """Return the headline score of an answer."""
        return float(next(iter(self.scorer.score(example, answer).values())))

    def missed(self, phrase: Callable[[Example], str]) -> Iterator[str]:
        """Yield what is wrong with each gold answer that is not reached when it is phrased so."""
        for example in self.examples:
            output = phrase(example)
            answer = self.parser.parse(output, example)
            value = self.value(example, answer)
            if value != 1:
                said = f"{self.parser.name} reads {quoted(answer)} in {quoted(output)}, which scores {value:g}"
                yield f"{example.id!r} has the gold answer {quoted(example.gold)}, but {said}"


class _Run:
    """A recorded run of the benchmark, as its exports would see it: answered, cut off, and failed."""

    model = "tiny"

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def samples(self) -> Iterator[Sample]:
        """Yield a sample for each of some examples."""
        for index, example in itertools.islice(_some(self._subject), 20):
            failed = index % 3 == 2
            output = "" if failed else f"An answer.\n\u202e\x1b[31m\ud800 {index}"
            yield Sample(
                id=example.id, index=index, group=example.group, fields=json.loads(_json(example)), prompt="prompt",
                prompt_tokens=3, completion_tokens=None if failed else 4, output=output,
                finish_reason=None if failed else "stop", answers={}, gold=example.gold, scores={},
                status="engine_error" if failed else "ok", error="it broke" if failed else None, seconds=0.5,
                category=example.category, response=output.strip(),
            )  # fmt: skip


def _some(subject: Subject) -> Iterator[tuple[int, Example]]:
    """Yield the examples to look at closely with their positions: the first, the last and others drawn at random."""
    count = len(subject.all_examples)
    drawn = range(count) if count <= _CLOSELY else {0, count - 1, *random.Random(0).sample(range(count), _CLOSELY - 2)}
    for index in sorted(drawn):
        yield index, subject.all_examples[index]


def _json(example: Example) -> str:
    """Return the fields as JSON; AssertionError where they are none."""
    try:
        return json.dumps(dict(example.fields), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the fields of {example.id!r} cannot be written as JSON: {error}") from None


def _read_back(example: Example) -> Example:
    fields: Mapping[str, Any] = json.loads(_json(example))
    return Example(example.id, fields, example.gold, example.group, example.category)


def _as_number(text: str | None) -> float | str | None:
    try:
        return float(text or "")
    except ValueError:
        return text


CHECKS = [
    Check(it_says_what_it_is),
    Check(examples_are_indexed_alike_every_time),
    Check(ids_are_unique),
    Check(fields_are_json),
    Check(instructions_depend_on_the_example_alone),
    Check(another_process_gives_the_same_examples),
    Check(its_scorer_takes_its_examples),
    Check(gold_answers_score_one),
    Check(other_answers_score_less),
    Check(exports_are_json),
]
