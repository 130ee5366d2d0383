"""Outputs of another model to compare with, joined by the instruction's text and never by position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError

#: How many instructions of a kind a message names; the counts are always of all.
_NAMED = 3

#: … and how many characters of each.
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Reference:
    """What another model, `generator`, gave to an instruction."""

    output: str
    generator: str


#: What each row of a file of reference outputs must have; ``generator``, the model's name, may be there too.
REFERENCE_FIELDS = ("instruction", "output")


def reference_fault(row: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a row of reference outputs, or None."""
    for field in REFERENCE_FIELDS:
        if not isinstance(row[field], str):
            return f"{field!r} must be text"
    return None


def join_references(
    instructions: Iterable[str], rows: Sequence[Mapping[str, Any]], place: Path | str, *, whole: bool = True
) -> dict[str, Reference]:
    """Return the reference of each instruction, from the rows of the file `place`.

    White space at an instruction's ends does not matter. Raises DataError, one line that names the first of each kind
    and counts all, for instructions that the file lacks, has twice, or (where `whole` says that these are all
    instructions of the benchmark) has beside them.
    """
    wanted = {instruction.strip(): instruction for instruction in instructions}
    found: dict[str, Reference] = {}
    twice: dict[str, None] = {}
    extra: dict[str, None] = {}
    for row in rows:
        instruction, output = (row[field] for field in REFERENCE_FIELDS)
        key = instruction.strip()
        if key in found or key in extra:
            twice[key] = None
        elif key in wanted:
            found[key] = Reference(output, str(row.get("generator") or Path(place).stem))
        else:
            extra[key] = None
    missing = [key for key in wanted if key not in found]
    kinds = {"missing": missing, "there twice": list(twice), "of no example": list(extra) if whole else []}
    problems = [f"{len(keys)} {what} ({_names(keys)})" for what, keys in kinds.items() if keys]
    if problems:
        raise DataError(f"{place}: needs each instruction once, but has {', '.join(problems)}; mend the file")
    return {wanted[key]: reference for key, reference in found.items()}


def _names(keys: Sequence[str]) -> str:
    texts = (" ".join(key.split()) for key in keys[:_NAMED])
    named = [repr(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…") for text in texts]
    return ", ".join([*named, *(["…"] if len(keys) > _NAMED else [])])
