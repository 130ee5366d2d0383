"""MMLU-Pro's questions from the data set's files: a Parquet file a split, or the same rows as JSON or JSON Lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from harness.datasets import HubFile
from harness.errors import DataError, nearest
from harness.interfaces import DataSource

Split: TypeAlias = Literal["test", "validation"]

LETTERS: Final = "ABCDEFGHIJ"
_FEWEST_OPTIONS: Final = 3

#: In alphabetical order.
CATEGORIES: Final = (
    "biology",
    "business",
    "chemistry",
    "computer science",
    "economics",
    "engineering",
    "health",
    "history",
    "law",
    "math",
    "other",
    "philosophy",
    "physics",
    "psychology",
)

_REVISION: Final = "b189ec765aa7ed75c8acfea42df31fdae71f97be"
_SHA256: Final[Mapping[Split, str]] = {
    "test": "0e24a191921c2f453518a537a8b2117bd137e7714d4ef1565e9ba06c1ecb9ad8",
    "validation": "139423c23722e480c807ac4a191409a710cfce4eba744c1d641cf88e730e2078",
}

#: What older versions of the data fill up the options with.
_NO_OPTION: Final = "N/A"

_COLUMNS: Final = ("question_id", "question", "options", "answer", "category")


class Question(NamedTuple):
    """One question: its id in the data, its text and options, the letter of the right one, and the authors' reasoning.

    `reasoning` is empty outside the split validation.
    """

    id: str
    text: str
    options: tuple[str, ...]
    answer: str
    category: str
    reasoning: str


def read_questions(source: DataSource, split: Split, categories: Collection[str], *, worked: int = 0) -> list[Question]:
    """Return the questions of `categories` in the file's order.

    Raises DataError, one line, for a file that is missing, for rows that are malformed (the first one's place, and
    their number), and for a category with fewer than `worked` questions that have the authors' reasoning.
    """
    name = f"mmlu-pro/{split}.parquet"
    hub = HubFile("TIGER-Lab/MMLU-Pro", f"data/{split}-00000-of-00001.parquet", _REVISION, _SHA256[split])
    rows = source.rows(name, hub, required=_COLUMNS, check=_fault)
    found = [_question(row) for row in rows if row["category"] in categories]
    if worked:
        found = [question for question in found if question.reasoning]
    counts = Counter(question.category for question in found)
    few = [category for category in categories if counts[category] < max(worked, 1)]
    if worked and few:
        raise DataError(f"{name}: fewer than {worked} worked examples (cot_content) for {', '.join(few)}; get it again")
    if not found:
        raise DataError(f"{name}: no questions of {', '.join(categories)} among its {len(rows):,} rows; get it again")
    return found


def _question(row: Mapping[str, Any]) -> Question:
    return Question(
        str(row["question_id"]),
        _lines(row["question"]),
        tuple(map(_lines, _options(row))),
        row["answer"],
        row["category"],
        _lines(row.get("cot_content") or ""),
    )


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _options(row: Mapping[str, Any]) -> list[str]:
    """Return the options without what fills them up at the end."""
    options = list(row["options"])
    while options and options[-1] == _NO_OPTION:
        options.pop()
    return options


def _fault(row: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a row, or None."""
    if isinstance(row["question_id"], bool) or not isinstance(row["question_id"], int | str):
        return f"'question_id' must be a whole number or text, not {row['question_id']!r}"
    if row["category"] not in CATEGORIES:
        return f"unknown category {row['category']!r}{nearest(str(row['category']), CATEGORIES)}"
    if not isinstance(row["question"], str) or not row["question"].strip():
        return "the question is empty"
    if not isinstance(row["options"], list) or not all(isinstance(option, str) for option in row["options"]):
        return "'options' must be a list of texts"
    options = _options(row)
    if not _FEWEST_OPTIONS <= len(options) <= len(LETTERS):
        return f"{len(options)} options, expected {_FEWEST_OPTIONS} to {len(LETTERS)}"
    answer, index = row["answer"], row.get("answer_index")
    if answer not in [*LETTERS[: len(options)]]:
        return f"the answer is {answer!r}, not one of A to {LETTERS[len(options) - 1]}"
    if index is not None and index != LETTERS.index(answer):
        return f"the answer is {answer!r}, and answer_index says {index!r}"
    return None if isinstance(row.get("cot_content"), str | None) else "'cot_content' must be text"
