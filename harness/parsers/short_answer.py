"""Short answers in free form: a name, a date, a few words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final, Literal, overload

from harness.parsers.labels import foreign_labels
from harness.parsers.normalize import lowered, plain_characters, plain_markup
from harness.parsers.numerals import canonical_number
from harness.parsers.reading import Explanation, located, readable
from harness.parsers.statements import UNSTATED, has_any, is_disowned, is_supposed, last_of

#: More words than this are no short answer.
MOST_WORDS: Final = 12
_LABEL: Final = re.compile(
    r"\\(?:f?boxed|fbox)\{|####|<answer>|\b(?:final[ ])?answers?\b[\"']?"
    rf"(?:[ ](?!(?:{UNSTATED})\b)(?![a-z]{{1,8}}n't)[^\s.:=?!]{{1,24}}){{0,8}}?"
    r"(?:[ ](?:is|was|are|would[ ]be|should[ ]be|must[ ]be)\b:?|\s?[:=→]|[ ]-(?=[ ])|[ \t]*\n)"
)
_LABEL_CUES: Final = ("answer", "boxed", "fbox", "####")
_END: Final = re.compile(
    r"[.!?](?=\s|\Z)(?<!\b[A-Z]\.)(?<!\b(?:Mr|Dr|St|Jr|Sr|vs|No|Rs|Rp|Tk)\.)(?<!\bMrs\.)|\n|</?answer>"
    r"|,?[ ](?:because|since|which[ ](?:is|was|has)|as[ ](?:it|he|she|they|the)|who[ ](?:is|was))\b"
)
_LEAD: Final = re.compile(
    r"(?:(?:it|he|she|this|that|they|there)(?:'s|'re|[ ](?:is|was|are|were))|(?:i"
    r"|we)[ ](?:think|believe|would"
    r"[ ]say)(?:[ ]that)?(?:[ ]it(?:'s|[ ]is))?|therefore|thus|so|probably|likely|certainly)[,:]?[ ]"
)
_NO_ANSWER: Final = re.compile(
    r"(?:i|we)[ ](?:do[ ]not|don't|cannot|can't|am[ ]not|'m[ ]not)\b|i'm[ ](?:not|sorry|unable)|(?:unknown"
    r"|not[ ](?:known|sure|given|enough)|none[ ]given|n/a|no[ ]answer|unanswerable)\b"
)
_ARTICLES: Final = re.compile(r"\b(?:an?|the)\b")
_PUNCTUATION: Final = re.compile(r"[^\w\s]|_")


@overload
def parse_short_answer(
    output: str, golds: Sequence[str] | None = None, *, explain: Literal[False] = False
) -> str | None: ...
@overload
def parse_short_answer(
    output: str, golds: Sequence[str] | None = None, *, explain: Literal[True]
) -> Explanation[str]: ...
def parse_short_answer(
    output: str, golds: Sequence[str] | None = None, *, explain: bool = False
) -> str | Explanation[str] | None:
    r"""Return the short answer that the output gives, normalised, or None.

    With `golds`, the texts that are right, an answer that is equal to one of them once both are normalised is returned
    as the first of them, so that right answers are equal to it. `normalized_answer` says what makes no difference.
    With `explain` the result is an `Explanation`.

    *What counts*, of the response without reasoning, its first turn after its last retraction: what stands behind the
    last "the answer is", "Answer:", ``####``, ``\boxed{`` or ``<answer>``, in any language of `harness.parsers.labels`,
    up to the end of the sentence or a reason; else the whole response where it is one sentence, or its first line where
    a blank line follows. "It is" and the like before it is left out.

    *None*: more than twelve words, a refusal, nothing, an answer that is supposed, denied or called wrong. Nothing is
    looked for within a text: an output that only mentions a gold is not right.

    >>> parse_short_answer("The answer is the **Eiffel Tower**."), parse_short_answer("It was 1,789.")
    ('eiffel tower', '1789')
    >>> parse_short_answer("J. R. R. Tolkien", ["Tolkien", "J.R.R. Tolkien"])
    'Tolkien'
    >>> parse_short_answer("I do not know."), parse_short_answer("Not Paris, as some say, but perhaps Rome.")
    (None, None)
    """
    found = _read(readable(output, _answers))
    if found.answer is not None and golds:
        spellings = {_compact(normalized_answer(gold)) for gold in golds}
        if _compact(found.answer) in spellings:
            found = found._replace(answer=golds[0])
    return located(found, output, _answers) if explain else found.answer


def normalized_answer(text: str) -> str:
    """Return a short answer in the form in which two are compared.

    Case, articles, punctuation, spacing, accents, markup and the spelling of numbers make no difference, as in the
    evaluation of SQuAD and TriviaQA, which keep accents.

    >>> normalized_answer("  The *Café* de Flore! "), normalized_answer("1,000.0")
    ('cafe de flore', '1000')
    """
    plain = plain_markup(plain_characters(text)).strip()
    number = _number(plain)
    if number is not None:
        return number
    decomposed = unicodedata.normalize("NFD", plain)
    bare = "".join(each for each in decomposed if unicodedata.category(each) != "Mn")
    words = " ".join(_ARTICLES.sub(" ", _PUNCTUATION.sub(" ", unicodedata.normalize("NFC", bare).lower())).split())
    return _number(words) or words


def _number(text: str) -> str | None:
    return canonical_number(text) if len(text) < 100 else None


def _compact(text: str) -> str:
    return text.replace(" ", "")


def _answers(text: str) -> bool:
    return _read(plain_markup(text)).answer is not None


def _read(text: str) -> Explanation[str]:
    """Read the answer out of a text without markup."""
    if not text.strip():
        return Explanation(None, "no response")
    lower = lowered(text)
    for start, at in _labels(lower):
        if is_supposed(lower, start):
            continue
        at += len(text[at:]) - len(text[at:].lstrip(" \t\n:\"'({["))
        end = _end(text, at)
        if is_disowned(lower, end):
            return Explanation(None, "an answer that is taken back", start, end)
        return _explained(text, lower, at, end, "what stands behind a label")
    line_end = text.find("\n\n")
    end = len(text) if line_end < 0 else line_end
    sentence_end = _end(text, 0)
    if text[sentence_end:end].strip(" .!\n"):
        return Explanation(None, "more than one sentence, and no label")
    return _explained(text, lower, 0, sentence_end, "the whole response" if line_end < 0 else "the first line")


def _labels(lower: str) -> list[tuple[int, int]]:
    """Return where labels start and end, the last one first."""
    found = []
    if has_any(lower, _LABEL_CUES):
        found += [label.span() for label in last_of(_LABEL.finditer(lower))]
    found += [(label.start, label.end) for label in foreign_labels(lower, choices=False)]
    return sorted(found, reverse=True)


def _end(text: str, at: int) -> int:
    found = _END.search(text, at, at + 400)
    return found.start() if found else min(len(text), at + 400)


def _explained(text: str, lower: str, start: int, end: int, rule: str) -> Explanation[str]:
    lead = _LEAD.match(lower, start, end)
    start = lead.end() if lead else start
    if _NO_ANSWER.match(lower, start) or lower.startswith(("not ", "no, ")):
        return Explanation(None, "a refusal")
    answer = normalized_answer(text[start:end])
    if not answer or len(answer.split()) > MOST_WORDS:
        return Explanation(None, "nothing, or more than a few words", start, end)
    return Explanation(answer, rule, start, end)
