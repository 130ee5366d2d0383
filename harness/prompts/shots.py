"""Worked examples before a question: in one text, or as turns of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from harness.types import Message

#: How worked examples are shown.
ShotsAs: TypeAlias = Literal["text", "turns"]


class Shot(NamedTuple):
    """A worked example: its question as the last one is asked, and the answer as the model is to give it."""

    question: str
    answer: str


def with_shots(task: str, shots: Sequence[Shot], question: str, form: ShotsAs = "text") -> str | tuple[Message, ...]:
    """Return the instruction that shows `shots`, in their order, before `question`; `task` stands before all, once.

    As ``text`` all are divided by blank lines, each answer behind its question. As ``turns`` a question is a message of
    the user's and its answer one of the model's.

    >>> with_shots("Add.", [Shot("1 + 1 =", "2")], "2 + 2 =")
    'Add.\\n\\n1 + 1 = 2\\n\\n2 + 2 ='
    """
    if form == "text" or not shots:
        return "\n\n".join(filter(None, [task, *(spaced(shot.question, shot.answer) for shot in shots), question]))
    turns = [Message(role, text) for shot in shots for role, text in zip(("user", "assistant"), shot, strict=True)]
    first = turns[0]._replace(content="\n\n".join(filter(None, [task, turns[0].content])))
    return (first, *turns[1:], Message("user", question))


def spaced(before: str, text: str) -> str:
    """Return both, a space between them where there is no white space."""
    return f"{before}{'' if not before or not text or before[-1].isspace() else ' '}{text}"
