"""MMLU-Pro: harder multiple-choice questions in 14 categories, with three to ten options.

Wang et al. 2024, https://arxiv.org/abs/2406.01574. Asked zero-shot as CS336's alignment assignment asks MMLU's
questions (section 3.2), or with up to five of the authors' worked examples of the category, whose reasoning is the
data's own (``cot_content`` of the split validation). The tasks are ``prompts/benchmark_mmlu_pro*.prompt``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from harness.errors import nearest
from harness.hookspecs import hookimpl
from harness.interfaces import BaseBenchmark, Benchmark, DataSource
from harness.prompts import Shot, ShotsAs, read_prompt, shipped_prompts, with_shots
from harness.types import Choices, Example, Generation, Message
from harness_mmlu_pro.questions import CATEGORIES, LETTERS, Question, Split, read_questions

#: The split validation has five questions a category.
_MOST_SHOTS = 5

#: How the data's reasoning begins; a question that is to be answered with reasoning ends in the second part of it.
_LEAD, _STEPS = "A: ", "Let's think step by step."


@dataclass(frozen=True)
class MMLUPro(BaseBenchmark):
    """The benchmark; its fields are its options.

    `categories` are names as in the data (``computer science``), none for all 14. `shots` is the number of worked
    examples, 0 to 5, the first of the category in the split validation, before the question in one text or as turns of
    a conversation (`shots_as`). `generation` is greedy, with room for a chain of reasoning; models that think at length
    need more: ``--set mmlu-pro.generation.max_tokens=32768``.
    """

    name: ClassVar[str] = "mmlu-pro"
    title: ClassVar[str] = "MMLU-Pro"
    citation: ClassVar[str] = (
        "Wang et al. 2024, MMLU-Pro: A More Robust and Challenging Multi-Task Language Understanding Benchmark, "
        "arXiv:2406.01574"
    )
    parsers: ClassVar[tuple[str, ...]] = ("choice",)
    scorer: ClassVar[str] = "exact"

    split: Split = "test"
    categories: tuple[str, ...] = ()
    shots: int = 0
    shots_as: ShotsAs = "text"
    generation: Generation = Generation(max_tokens=2048)

    def __post_init__(self) -> None:
        for category in self.categories:
            if category not in CATEGORIES:
                raise ValueError(f"unknown category {category!r}{nearest(category, CATEGORIES)}")
        if not 0 <= self.shots <= _MOST_SHOTS:
            raise ValueError(f"shots must be 0 to {_MOST_SHOTS}, not {self.shots}")
        if self.shots and self.split == "validation":
            raise ValueError("shots are drawn from the split validation, so they cannot be given with split=validation")

    def examples(self, source: DataSource) -> Sequence[Example]:
        """Return the questions in the file's order; an example's id is the data's question_id, its group the category.

        Raises DataError for files that are missing, for malformed rows, and for a category with too few worked
        examples.
        """
        categories = self.categories or CATEGORIES
        worked: dict[str, list[dict[str, Any]]] = {}
        if self.shots:
            for question in read_questions(source, "validation", categories, worked=self.shots):
                shots = worked.setdefault(question.category, [])
                if len(shots) < self.shots:
                    shots.append({**_fields(question), "reasoning": question.reasoning})
        return [_example(question, worked) for question in read_questions(source, self.split, categories)]

    def instruction(self, example: Example) -> str | Sequence[Message]:
        """Return the task, the worked examples if any, and the question with its options, up to ``Answer:``."""
        fields = example.fields
        letters = LETTERS[: len(fields["options"])]
        parts = {"category": fields["category"], "letters": f"{', '.join(letters[:-1])} or {letters[-1]}"}
        if "shots" not in fields:
            return with_shots(_filled("benchmark_mmlu_pro", parts), [], _block(fields))
        shots = [Shot(_block(shot), shot["reasoning"].removeprefix(_LEAD).strip()) for shot in fields["shots"]]
        task = _filled("benchmark_mmlu_pro_worked", parts)
        return with_shots(task, shots, f"{_block(fields)} {_STEPS}", self.shots_as)

    def choices(self, example: Example) -> Choices:
        """Return the letters, behind the sentence that the task asks for up to there; no reasoning comes before it."""
        letters = LETTERS[: len(example.fields["options"])]
        if "shots" in example.fields:
            return Choices({letter: f"({letter})" for letter in letters}, lead="The answer is")
        return Choices({letter: letter for letter in letters}, lead="The correct answer is")


def _example(question: Question, worked: Mapping[str, list[dict[str, Any]]]) -> Example:
    shots = {"shots": worked[question.category]} if worked else {}
    fields = {"category": question.category, **_fields(question), **shots}
    return Example(question.id, fields, question.answer, question.category)


def _fields(question: Question) -> dict[str, Any]:
    return {"question": question.text, "options": list(question.options)}


def _block(fields: Mapping[str, Any]) -> str:
    """Return a question, its options on a line each, and ``Answer:``."""
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, fields["options"], strict=False)]
    return "\n".join([f"Question: {fields['question']}", *options, "Answer:"])


@cache
def _template(name: str) -> str:
    return read_prompt(shipped_prompts()[name]).rstrip("\n")


def _filled(name: str, parts: Mapping[str, str]) -> str:
    """Return a prompt file with its parts put in at once, so that braces in a question mean nothing."""
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], _template(name))


@hookimpl
def harness_benchmarks() -> Iterable[Benchmark]:
    """Provide `mmlu-pro`."""
    return [MMLUPro()]
