"""Questions with several right options: which letters an output gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, overload

from harness.parsers.choice import parse_choice
from harness.parsers.labels import foreign_labels
from harness.parsers.normalize import lowered, plain_markup
from harness.parsers.reading import Explanation, located, readable
from harness.parsers.statements import UNSTATED, is_disowned, is_supposed, last_of

_LABEL: Final = re.compile(
    r"\\(?:f?boxed|fbox)|<answers?>"
    r"|\b(?:answers?|options?|choices?|solutions?|selections?|letters?|statements?|selected"
    r"|correct(?:[ ]ones)?)\b[\"']?"
    rf"(?:[ ](?!(?:{UNSTATED})\b)(?![a-z]{{1,8}}n't)[^\s.:=?!]{{1,24}}){{0,8}}?"
    r"(?:[ ](?:is|are|should[ ]be|must[ ]be|would[ ]be)\b:?|\s?[:=→]|[ ]-(?=[ ]))"
    r"|\b(?:i|we)[ ](?:would[ ])?(?:choose|select|pick|go[ ]with)\b"
    r"|\b(?:therefore|thus|hence|so)\b,?(?=[ ])"
)
_FILLER: Final = re.compile(
    r"[\s:>\"'-]*+(?:(?:both|all[ ]of|the|options?|choices?|letters?|answers?|statements?)\b[\s:]*+){0,4}+"
)
_LABELLED: Final = "letters behind a label"
#: What calls the letters before it the answer.
_CALLED: Final = re.compile(
    r"[ ]are[ ](?:(?:both|all|the)[ ]){0,2}(?:correct|right|true)(?: answers| options| choices| statements| ones)?"
    r"(?=[ ]?(?:[.,;:!)\n]|\Z|while\b|because\b|since\b|as\b))"
)
#: Marks around a letter that stands on a line of its own.
_MARKS: Final = " \t*•-.,;()[]\"'"
_BEHIND: Final = re.compile(
    r"[)\]}\"'$.,;:! ]*(?:\Z|[^\x00-\x7f]|\n|</|(?<=[.;:!)\]\"'$])\s|[ ](?:because|since|as|is|only|which)\b)"
)


@overload
def parse_choices(
    output: str, options: Sequence[str] | None = None, letters: str = "ABCD", *, explain: Literal[False] = False
) -> str | None: ...
@overload
def parse_choices(
    output: str, options: Sequence[str] | None = None, letters: str = "ABCD", *, explain: Literal[True]
) -> Explanation[str]: ...
def parse_choices(
    output: str, options: Sequence[str] | None = None, letters: str = "ABCD", *, explain: bool = False
) -> str | Explanation[str] | None:
    r"""Return the letters of the options that the output gives as its answer, or None.

    The result has each letter once, in the order of `letters`, with nothing between ("ACD"). `options` are their texts,
    as in `parse_choice`. With `explain` the result is an `Explanation`. What is read of an output is what
    `parse_choice` reads.

    *What counts*: letters in a row behind a label ("The answers are A and C", "Answer: A, C, D", ``\boxed{A, C}``,
    ``{"answer": ["A", "C"]}``, "I choose B & D") or as the whole response or its last line, joined by commas, "and",
    "&", "+", "/" or, in the order of the alphabet, by line ends or nothing ("ACD"); the label may be of any language of
    `harness.parsers.labels`. Without a label, letters that are called correct count ("A and C are correct"), unless
    `options` are given and `parse_choice` reads one of them. The last such row counts. Where there is none, the one
    letter that `parse_choice` reads is the answer.

    *None*: letters joined by "or"; a row that is supposed, denied or called wrong; letters in prose.

    >>> parse_choices("The correct answers are A and C."), parse_choices("Answer: D, B"), parse_choices("ACD")
    ('AC', 'BD', 'ACD')
    >>> parse_choices("The answer is B."), parse_choices("A or C"), parse_choices("BAD luck")
    ('B', None, None)
    """
    if not letters:
        found: Explanation[str] = Explanation(None, "no letters to look for")
        return found if explain else None

    def answers(text: str) -> bool:
        return _read(plain_markup(text), letters) is not None

    row = _read(readable(output, answers), letters)
    is_labelled = row is not None and row.rule == _LABELLED
    if row is None or (options and not is_labelled and parse_choice(output, options, letters)):  # "C. both A and B"
        return parse_choice(output, options, letters, explain=explain)  # type: ignore[call-overload, no-any-return]
    return located(row, output, answers) if explain else row.answer


def _read(text: str, letters: str) -> Explanation[str] | None:
    """Return the last row of letters, with the answer None where it says nothing clear, or None without a row."""
    lower = lowered(text)
    row = _row(letters)
    labels = [label.span() for label in last_of(_LABEL.finditer(lower))]
    labels += [(label.start, label.end) for label in foreign_labels(lower, choices=True)]
    for start, end in sorted(labels, reverse=True):
        found = row.match(text, _behind_filler(lower, end))
        if found is None or not _BEHIND.match(lower, found.end()):
            continue
        if is_supposed(lower, start) or is_disowned(lower, found.end()):
            return Explanation(None, "letters that are supposed or taken back", start, found.end())
        answer = _letters(found[0], letters)
        if answer is None or len(answer) > 1:
            return Explanation(answer, _LABELLED, start, found.end())
        return None
    if called := _called(text, lower, row, letters):
        return called
    for start, end in ((0, len(text)), (text.rstrip().rfind("\n") + 1, len(text))):
        written = text[_behind_filler(lower, start) : end].strip(" \t\n.#>*-")
        if written and row.fullmatch(written):
            answer = _letters(written, letters)
            if answer is None or len(answer) > 1:
                return Explanation(answer, "letters on a line of their own", start, end)
    return None


def _behind_filler(lower: str, at: int) -> int:
    return _FILLER.match(lower, at).end()  # type: ignore[union-attr]  # it matches the empty string


def _called(text: str, lower: str, row: re.Pattern[str], letters: str) -> Explanation[str] | None:
    """Find "A and C are correct", the last such sentence."""
    for called in last_of(_CALLED.finditer(lower)):
        start = max(0, called.start() - 80)
        subjects = [found for found in row.finditer(text, start, called.start()) if found.end() == called.start()]
        if not subjects or text[max(0, subjects[0].start() - 1) : subjects[0].start()].isalnum():
            continue
        answer = _letters(subjects[0][0], letters)
        if not is_supposed(lower, subjects[0].start()) and (answer is None or len(answer) > 1):
            return Explanation(answer, "letters called correct", subjects[0].start(), called.end())
    return None


def _letters(written: str, letters: str) -> str | None:
    """Return the letters of a row in their order, None where they are alternatives.

    Letters on lines that do not follow one another are no row, which "" says: a model that goes round.
    """
    if re.search(r"\bor\b", written, re.IGNORECASE):
        return None
    lines = [line.strip(_MARKS) for line in written.split("\n")]
    if len(lines) > 1 and lines != sorted(set(lines)):
        return ""
    named = set(re.sub(r"(?i:\band\b|\boption\b)", "", written))
    return "".join(letter for letter in dict.fromkeys(letters) if letter.upper() in named) or None


@lru_cache(maxsize=64)
def _row(letters: str) -> re.Pattern[str]:
    upper = sorted({letter.upper() for letter in letters if len(letter.upper()) == 1})
    if not upper:
        return re.compile("(?!)")
    one = "[" + re.escape("".join(upper)) + "]"
    together = "".join(f"{re.escape(letter)}?" for letter in upper)
    bracketed = rf"[(\[{{\"'$]{{0,4}}{one}[)\]}}\"'$]{{0,4}}"
    joint = (  # nothing is tried in two ways
        r"(?>[.,;]?\n[ \t*•-]{0,9}|[ \t,;/&+]{1,4})(?>(?i:and|or|y|et|und|e|и|和|と)\b[ \t,]{1,2})?(?>(?i:option)[ ])?"
    )
    return re.compile(
        rf"(?:{bracketed}(?:{joint}{bracketed}){{1,25}}+"
        rf"|[(\[{{\"'$]{{0,4}}(?={one}{{2}}){together}[)\]}}\"'$]{{0,4}}|{bracketed})"
        r"(?![\w'-])"
    )
