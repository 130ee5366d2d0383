"""What a text stands by: statements it takes back, statements it only supposes, where a statement ends."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from harness.parsers.normalize import lowered

#: A retraction needs one of these; looking for them first keeps the common case fast.
_CUES: Final = (
    "wait", "actually", "mistake", "error", "scratch", "strike", "thought", "correct", "oops", "misread", "my bad",
    "miscalc", "miscount", "misspoke", "was wrong", "no,", "no ", "hmm", "sorry", "hold on",
)  # fmt: skip
_THAT: Final = (
    r"(?:that|this|it|my\s(?:answer|first\sanswer|calculation|reasoning))"
    r"(?:(?:'s|\sis|\swas)\s(?:\w{1,12}ly\s)?"
    r"(?:wrong|incorrect|not\s(?:right|correct|it|true)|mistaken|a\smistake|an\serror|false)"
    r"|\s(?:isn't|wasn't|can't\sbe|cannot\sbe|doesn't\sseem)\s(?:\w{1,12}ly\s)?(?:right|correct|it|true))\b"
)
_RETRACTION: Final = re.compile(
    rf"""(?<!\bif\s)(?<!\bor\s)\b(?:
        wait[\s,.!…:—-]{{1,6}}(?:no\b(?!\s(?:need|problem|doubt))|actually|sorry|i\s(?:made|forgot|mis)
            |{_THAT}|not\b|correction)
      | (?:scratch|strike)\sthat
      | on\ssecond\sthoughts?
      | let\sme\scorrect\s(?:that|this|myself|my)
      | i\sstand\scorrected
      | correction\s?:
      | (?:i|i've|i\shave)\s(?:just\s)?(?:made|make)\s(?:a|an)\s(?:\w{{1,12}}\s)?(?:mistake|error)
      | my\s(?:mistake|bad)\b
      | i\swas\s(?:wrong|mistaken)
      | i\s(?:misread|misspoke|miscalculated|miscounted)
      | oops\b
      | (?:actually|hmm|sorry|oh),?\sno\b(?!\s(?:need|problem|doubt|one))
      | no,?\s(?:actually|wait|sorry)\b
      | hold\son[\s,.!…—-]{{1,6}}(?:no\b|{_THAT})
      | sorry,\s(?:that\sshould|it\sshould|i\smeant)
      | actually,?\s(?:it|that)\s(?:should|must)\sbe
      | actually,?\sit(?:'s|\sis)(?=\s[$(]?(?:\d|[a-j]\b))
      | actually,?(?=\s(?:option\s|choice\s)?\(?[a-j]\)?\s(?:is|must|should)\b)
      | (?<=[.!?\n]\s)no,\s(?:it|that|the\sanswer)(?:'s|\s(?:is|should\sbe|must\sbe))(?=\s[$("]?(?:\d|[a-j]\b))
    )""",
    re.VERBOSE,
)
_PUNCTUATION: Final = re.compile(r"(?:[\s,:;!?—]|\.(?!\d))*+")
_DISOWNED: Final = re.compile(
    r"[^.!?\n]{0,100}+[.!?]*+[\s—-]*+"
    rf"(?:(?:oh|hmm|no|actually|sorry|but|however|well|ah)[,.!…—\s-]{{1,5}})*+"
    rf"{_THAT}"
    rf"|[^.!?\n]{{0,100}}?(?:,|—|-|\bbut)\s(?:although |though |which )?{_THAT}"
)
_SUPPOSITION: Final = re.compile(
    r"\b(?:if|whether|unless|suppose|supposing|assume|assuming|imagine|might|may|could|initially|originally|at first"
    r"|(?:i|we|i'd|i had) (?:first )?(?:thought|assumed|guessed)"
    r"|(?:some|many|most|several) (?:\w+ )?(?:would|will|say|think|claim|believe)"
    r"|people|students|tempting|tempted|mistakenly|wrongly|incorrectly|why|not sure|unsure|not certain|don't know"
    r"|do not know|unclear|cannot|can't|couldn't|unable|don't (?:think|believe)"
    r"|do not (?:think|believe)|doubt|never"
    r"|not (?:say|claim|mean|imply|that|the case)|no (?:evidence|reason)|isn't|wouldn't|would not)\b[^.!?\n;,]*+\Z"
)
_CONDITION: Final = re.compile(
    r"\b(?:if|in case|provided|supposing|assuming|otherwise|in (?:that|which|this) case|had|should (?:the|it|he"
    r"|she|they|an?|this|that)|were (?:it|the|he"
    r"|she|they|there))\b"
    r"[^.!?\n]*+\Z"
)
_CLAUSE_START: Final = re.compile(r".*(?:[.!?\n;,:—]|\b(?:but|so|therefore|hence|thus|then|and)\b)", re.DOTALL)

#: Words behind "answer" in a sentence that speaks of it and does not state it: "the answer may be …".
UNSTATED: Final = "not|cannot|never|could|may|might|neither|because|since"

SENTENCE_END: Final = re.compile(r"[.!?](?=[\s\"')\]])|\n")


#: An output with more statements or lines than this repeats itself; the others are not looked at one by one.
MOST: Final = 1000


def has_any(text: str, words: tuple[str, ...]) -> bool:
    """Tell whether one of the words stands in the text: much faster than the pattern that needs it."""
    for word in words:  # noqa: SIM110 (a generator would take three times as long)
        if word in text:
            return True
    return False


def last_of(found: Iterator[re.Match[str]]) -> Iterator[re.Match[str]]:
    """Yield matches from the last to the first, at most `MOST` of them."""
    return reversed(deque(found, maxlen=MOST))


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with where they start; of very many, `MOST` from either end."""
    lines: list[tuple[int, str]] = []
    at = 0
    for line in text.split("\n"):
        if line and not line.isspace():
            lines.append((at, line))
        at += len(line) + 1
    return iter(lines[:MOST] + lines[MOST:][-MOST:])


def standing(text: str) -> str:
    """Return the text after its last retraction ("wait, no", "scratch that", "I made a mistake", …), or all of it.

    >>> standing("It is 5. Scratch that: 6")
    '6'
    >>> standing("It is 5. If I made a mistake, tell me.")
    'It is 5. If I made a mistake, tell me.'
    """
    return text[standing_from(text) :]


def standing_from(text: str) -> int:
    """Return where `standing` begins in a text."""
    lower = lowered(text)
    if not has_any(lower, _CUES):
        return 0
    end = 0
    for found in _RETRACTION.finditer(lower):
        end = found.end()
    return _PUNCTUATION.match(text, end).end() if end else 0  # type: ignore[union-attr]  # matches anything


def is_disowned(lower: str, end: int) -> bool:
    """Tell whether the words right after a statement, up to the next sentence, call it wrong.

    `lower` is the text in lower case, `end` where the statement ends in it.

    >>> is_disowned("the answer is a. no, that's wrong.", 15)
    True
    >>> is_disowned("the answer is a. that is right.", 15)
    False
    """
    return _DISOWNED.match(lower, end, end + 200) is not None


def is_supposed(lower: str, start: int, end: int | None = None) -> bool:
    """Tell whether the clause before a statement makes it a supposition, a doubt or someone else's opinion.

    `end` is where the words that introduce the statement end: with "would" among them, an "if" anywhere earlier in the
    sentence makes it a supposition too.

    >>> is_supposed("if the answer is a", 3)
    True
    >>> is_supposed("if we add them, the answer is a", 16)
    False
    """
    clause = lower[max(0, start - 80) : start]
    if end is not None and " would" in lower[start:end] and _CONDITION.search(clause):
        return True
    border = _CLAUSE_START.match(clause)
    return _SUPPOSITION.search(clause, border.end() if border else 0) is not None
