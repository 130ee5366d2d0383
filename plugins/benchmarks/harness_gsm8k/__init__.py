"""GSM8K: grade-school word problems whose answer is one number.

Cobbe et al. 2021, https://arxiv.org/abs/2110.14168. Rows are JSON objects with ``question`` and ``answer``; the gold
answer stands behind ``####`` at the answer's end. Asked as CS336's alignment assignment asks it: the question, then
``Answer:``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.datasets import HubFile, Mapped
from harness.errors import DataError
from harness.hookspecs import hookimpl
from harness.interfaces import BaseBenchmark, Benchmark, DataSource
from harness.parsers import canonical_number
from harness.prompts import Shot, ShotsAs, with_shots
from harness.types import Example, Generation, Message

_REVISION = "740312add88f781978c0658806c59bc2815b9866"
_HUB = {
    "test": HubFile(
        "openai/gsm8k",
        "main/test-00000-of-00001.parquet",
        _REVISION,
        "ee7b8da9e381df27b9e3f7758a159ab2bdaa4dbaa910546cbbc47e0cb44e4f59",
    ),
    "train": HubFile(
        "openai/gsm8k",
        "main/train-00000-of-00001.parquet",
        _REVISION,
        "ea82612ea9582142387730c793eb67d3b12849002bc0b7fa6f8efafa7351419d",
    ),
}


@dataclass(frozen=True)
class GSM8K(BaseBenchmark):
    """The benchmark; its fields are its options.

    `shots` is the number of worked examples, the first of the split train with their solutions as they stand there,
    before the question in one text or as turns of a conversation (`shots_as`).
    """

    name: ClassVar[str] = "gsm8k"
    title: ClassVar[str] = "GSM8K"
    citation: ClassVar[str] = "Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems, arXiv:2110.14168"
    parsers: ClassVar[tuple[str, ...]] = ("final-number", "last-number")
    scorer: ClassVar[str] = "exact"

    split: Literal["test", "train"] = "test"
    shots: int = 0
    shots_as: ShotsAs = "text"
    generation: Generation = Generation(max_tokens=1024)

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise ValueError(f"shots must be 0 or more, not {self.shots}")
        if self.shots and self.split == "train":
            raise ValueError("shots are drawn from the split train, so they cannot be given with split=train")

    def examples(self, source: DataSource) -> Sequence[Example]:
        """Return the split's questions in the file's order; DataError names the first bad line and counts all."""
        worked: dict[str, Any] = {}
        if self.shots:
            rows = _rows(source, "train")
            if len(rows) < self.shots:
                raise DataError(f"gsm8k/train has {len(rows)} rows, fewer than the {self.shots} shots asked for")
            shots = [{name: rows[n][name] for name in ("question", "answer")} for n in range(self.shots)]
            worked = {"shots": shots}
        return Mapped(_rows(source, self.split), lambda index, row: self._example(index, row, worked))

    def _example(self, index: int, row: Mapping[str, Any], worked: Mapping[str, Any]) -> Example:
        fields = {"question": row["question"], **worked}
        return Example(f"{self.split}-{index:04d}", fields, gold_answer(row["answer"]))

    def instruction(self, example: Example) -> str | Sequence[Message]:
        """Return the worked examples if any, the question, a new line and ``Answer:``."""
        shots = [Shot(_asked(shot), shot["answer"]) for shot in example.fields.get("shots", ())]
        return with_shots("", shots, _asked(example.fields), self.shots_as)


def _asked(fields: Mapping[str, Any]) -> str:
    return f"{fields['question']}\nAnswer:"


def _rows(source: DataSource, split: Literal["test", "train"]) -> Sequence[Mapping[str, Any]]:
    return source.rows(f"gsm8k/{split}.jsonl", _HUB[split], required=("question", "answer"), check=_fault)


def gold_answer(answer: str) -> str | None:
    """Return the number behind the last ``####`` as a plain decimal, or None where there is none.

    >>> gold_answer("She has 5 boxes of 247.\\n#### 1,235")
    '1235'
    """
    _, marker, gold = answer.rpartition("####")
    return canonical_number(gold.strip()) if marker else None


def _fault(row: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a row, or None."""
    for field in ("question", "answer"):
        if not isinstance(row[field], str):
            return f"{field!r} must be text"
    return None if gold_answer(row["answer"]) is not None else "'answer' has no number behind ####"


@hookimpl
def harness_benchmarks() -> Iterable[Benchmark]:
    """Provide `gsm8k`."""
    return [GSM8K()]
