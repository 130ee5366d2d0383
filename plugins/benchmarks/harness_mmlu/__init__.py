"""MMLU: multiple-choice questions on 57 subjects, from abstract algebra to world religions.

Hendrycks et al. 2021, https://arxiv.org/abs/2009.03300. Asked as CS336's alignment assignment asks it (section 3.2).
Worked examples from the dev split, where wanted, stand between the task and the question, each with its answer in the
form that the task asks for, ``Answer: The correct answer is B.``, and all divided by blank lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.errors import nearest
from harness.hookspecs import hookimpl
from harness.interfaces import BaseBenchmark, Benchmark, DataSource
from harness.prompts import Shot, ShotsAs, with_shots
from harness.types import Choices, Example, Generation, Message
from harness_mmlu.questions import LETTERS, Question, Split, read_questions
from harness_mmlu.subjects import CATEGORY_OF

#: The dev split has five questions a subject.
_MOST_SHOTS = 5

_TASK = (
    "Answer the following multiple choice question about {subject}. Respond with a single sentence of the form "
    '"The correct answer is _", filling the blank with the letter corresponding to the correct answer '
    "(i.e., A, B, C or D)."
)


@dataclass(frozen=True)
class MMLU(BaseBenchmark):
    """The benchmark; its fields are its options.

    `subjects` are names as in the data (``high_school_geography``), none for all 57: in a run file
    ``subjects = ["anatomy", "virology"]``. `shots` is the number of worked examples, 0 to 5, the first of the subject's
    dev split, before the question in one text or as turns of a conversation (`shots_as`).

    `generation` is greedy. The answer asked for is one sentence, and a completion ends where the model ends it or
    begins a new turn, so a high limit costs time only where a model goes on and on. A low one turns the answers of
    models that reason first into wrong ones: 2,048 tokens leave chat models room to do so; models that think at length
    need more: ``--set mmlu.generation.max_tokens=32768``.
    """

    name: ClassVar[str] = "mmlu"
    title: ClassVar[str] = "MMLU"
    citation: ClassVar[str] = (
        "Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding, arXiv:2009.03300"
    )
    parsers: ClassVar[tuple[str, ...]] = ("choice",)
    scorer: ClassVar[str] = "exact"

    split: Split = "test"
    subjects: tuple[str, ...] = ()
    shots: int = 0
    shots_as: ShotsAs = "text"
    generation: Generation = Generation(max_tokens=2048)

    def __post_init__(self) -> None:
        for subject in self.subjects:
            if subject not in CATEGORY_OF:
                raise ValueError(f"unknown subject {subject!r}{nearest(subject, CATEGORY_OF)}")
        if not 0 <= self.shots <= _MOST_SHOTS:
            raise ValueError(f"shots must be 0 to {_MOST_SHOTS}, not {self.shots}")
        if self.shots and self.split == "dev":
            raise ValueError("shots are drawn from the split dev, so they cannot be given with split=dev")

    def examples(self, source: DataSource) -> Sequence[Example]:
        """Return the questions, subject by subject in alphabetical order, each in the order of its file.

        Group is the subject, category one of the four usual ones (see `harness_mmlu.subjects`). Raises DataError for
        files that are missing and for malformed rows.
        """
        subjects = self.subjects or tuple(CATEGORY_OF)
        worked: dict[str, list[dict[str, Any]]] = {}
        if self.shots:
            for subject, questions in read_questions(source, "dev", subjects).items():
                worked[subject] = [{**_fields(q), "answer": q.answer} for q in questions[: self.shots]]
        return [
            self._example(subject, number, question, worked.get(subject))
            for subject, questions in read_questions(source, self.split, subjects).items()
            for number, question in enumerate(questions)
        ]

    def _example(self, subject: str, number: int, question: Question, shots: list[dict[str, Any]] | None) -> Example:
        fields = {"subject": subject.replace("_", " "), **_fields(question)}
        if shots is not None:
            fields["shots"] = shots
        identifier = f"{subject}-{self.split}-{number:04d}"
        return Example(identifier, fields, question.answer, subject, CATEGORY_OF[subject])

    def instruction(self, example: Example) -> str | Sequence[Message]:
        """Return the task, the worked examples if any, and the question with its options, up to ``Answer:``."""
        fields = example.fields
        shots = [Shot(_block(shot), f"The correct answer is {shot['answer']}.") for shot in fields.get("shots", ())]
        return with_shots(_TASK.format(subject=fields["subject"]), shots, _block(fields), self.shots_as)

    def choices(self, example: Example) -> Choices:
        """Return the letters, behind the sentence that the task asks for up to there."""
        return Choices({letter: letter for letter in LETTERS}, lead="The correct answer is")


def _fields(question: Question) -> dict[str, Any]:
    return {"question": question.text, "options": list(question.options)}


def _block(fields: Mapping[str, Any]) -> str:
    """Return a question, its options on a line each, and ``Answer:``."""
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, fields["options"], strict=True)]
    return "\n".join([f"Question: {fields['question']}", *options, "Answer:"])


@hookimpl
def harness_benchmarks() -> Iterable[Benchmark]:
    """Provide `mmlu`."""
    return [MMLU()]
