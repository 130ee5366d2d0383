r"""Mathematical answers: the final expression of a worked solution, and whether it equals the right one.

Equality is decided by math-verify (https://github.com/huggingface/Math-Verify) where it is installed, in a process of
its own that is ended when it takes too long or too much memory: computer algebra on a model's output may never come
back (``9^{9^{9^9}}``). Without it, numbers are compared as decimals and all else as text without its layout.
"""

from __future__ import annotations

import re
from typing import Final, Literal, overload

from harness.parsers.labels import foreign_labels
from harness.parsers.numerals import canonical_number
from harness.parsers.reading import Explanation
from harness.parsers.reasoning import response_spans
from harness.parsers.statements import UNSTATED, has_any, last_of
from harness.parsers.turns import turn_span

#: Longer expressions are not looked at.
LONGEST: Final = 400
#: A formula behind a label begins and ends within so many characters.
_REACH: Final = 2 * LONGEST + 4
_BOXED: Final = re.compile(r"\\(?:f?boxed|fbox)\s{0,3}(?=\{)")
_LABEL: Final = re.compile(
    rf"####|<answer>|\b(?:final[ ])?answers?\b(?:[ ](?!(?:{UNSTATED})\b)[^\s.:=?!$]{{1,24}}){{0,8}}?[*_]{{0,3}}"
    r"(?:[ ](?:is|are|would[ ]be)\b:?|\s?[:=→])",
    re.IGNORECASE,
)
_END: Final = re.compile(r"[.!?](?=\s|\Z)|\n|</answer>|,?[ ](?:because|since|as|where|which)\b")
_DOLLARS: Final = re.compile(
    r"\$\$([^$]{1,400})\$\$|\$([^$\n]{1,400})\$|\\\(([^\n]{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL
)
_LAYOUT: Final = re.compile(
    r"\\(?:left|right|displaystyle|,|;|:|!|quad|qquad|big|Big|bigg|Bigg)(?![A-Za-z])|\\[ ]|[\s$]"
)
_UNIT: Final = re.compile(r"\\(?:text|mathrm|mbox)\{\s*[A-Za-z .^0-9/]{1,30}\}\Z|\^?\\circ\Z|\\?%\Z|\^\{\\circ\}\Z")
_SPELLINGS: Final = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac(\d)(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\(?:le|leqslant)(?![A-Za-z])"), r"\\leq"),
    (re.compile(r"\\(?:ge|geqslant)(?![A-Za-z])"), r"\\geq"),
    (re.compile(r"\\(?:ne)(?![A-Za-z])"), r"\\neq"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]{1,80})\}"), r"\1"),
    (re.compile(r"\^\{(\w)\}"), r"^\1"),
    (re.compile(r"\\frac\{(-?\d{1,18})\}\{(\d{1,18})\}"), r"\1/\2"),
)
_TOWER: Final = re.compile(r"\^\{?[^{}^]{0,20}\^|\^\{?\d{4,}|\d{40}|!{2,}|\d{5,}!")


@overload
def parse_math(output: str, gold: str | None = None, *, explain: Literal[False] = False) -> str | None: ...
@overload
def parse_math(output: str, gold: str | None = None, *, explain: Literal[True]) -> Explanation[str]: ...
def parse_math(output: str, gold: str | None = None, *, explain: bool = False) -> str | Explanation[str] | None:
    r"""Return the mathematical expression that the output gives as its answer, or None.

    The result is LaTeX without its layout (spaces, ``\left``, ``\dfrac``, dollar signs, a unit behind it), or a number
    in canonical spelling. With `gold`, an answer that is mathematically equal to it is returned as the gold itself, so
    that right answers are equal to it. With `explain` the result is an `Explanation`.

    *What counts*, of the response without reasoning, its first turn: the last ``\boxed{…}``; else what stands behind
    the last "the answer is", "Answer:", ``####`` or ``<answer>``, up to the end of the sentence, there the first
    formula between dollar signs if there is one; else the last formula between dollar signs.

    *None*: no such expression, an unfinished one, or one of more than 400 characters.

    *Equality* is math-verify's where it is installed (`harness.parsers.math_equality`), except that towers of
    exponents and huge factorials are compared as text, and nothing takes more than a few seconds.

    >>> parse_math(r"So $x = \dfrac{1}{2}$ and the answer is \boxed{\dfrac{1}{2}}.")
    '0.5'
    >>> parse_math(r"The final answer is $\left( 3, \frac{\pi}{2} \right)$."), parse_math("There is none.")
    ('(3,\\frac{\\pi}{2})', None)
    """
    found = _read(output)
    if found.answer is not None and gold is not None and equal(found.answer, gold):
        found = found._replace(answer=gold)
    return found if explain else found.answer


def equal(answer: str, gold: str) -> bool:
    """Tell whether two expressions are mathematically equal, as far as that can be decided soon."""
    one, two = plain_expression(answer), plain_expression(gold)
    if one == two:
        return True
    if len(one) > LONGEST or len(two) > LONGEST or _TOWER.search(one) or _TOWER.search(two):
        return False
    from harness.parsers.math_equality import verified

    return verified(answer, gold) is True


def plain_expression(text: str) -> str:
    r"""Return an expression without its layout; a number in canonical spelling.

    >>> plain_expression(r"\left[ 0, \tfrac12 \right)"), plain_expression(r"1{,}200 \text{ cm}")
    ('[0,1/2)', '1200')
    """
    text = text.strip().strip("$").rstrip(".,;: ").replace("{,}", ",")
    text = text[:-1] if text.endswith("\\") else text
    bare = _UNIT.sub("", _LAYOUT.sub("", text)) or _LAYOUT.sub("", text)
    for pattern, spelling in _SPELLINGS:
        bare = pattern.sub(spelling, bare)
    return (canonical_number(bare) if len(bare) < 60 else None) or bare


def _read(output: str) -> Explanation[str]:
    spans = response_spans(output)
    start, end = (0, len(output)) if spans is None else (spans[0][0], spans[-1][1]) if spans else (0, 0)
    first, last = turn_span(output[start:end])
    start, end = start + first, start + last
    if not output[start:end].strip():
        return Explanation(None, "no response")
    if "boxed" in output or "fbox" in output:
        for found in last_of(_BOXED.finditer(output, start, end)):
            close = _closing(output, found.end(), end)
            if close is not None:
                return _explained(output, found.end() + 1, close, "the last box")
            return Explanation(None, "an unfinished box", found.start(), end)
    for label, at in _labels(output, start, end):
        stop = _END.search(output, at, min(end, at + LONGEST))
        stop_at = stop.start() if stop else min(end, at + LONGEST)
        formula = _DOLLARS.search(output, at, min(end, at + _REACH))
        if formula and not output[at : formula.start()].strip(" :*\n"):
            return _explained(output, *formula.span(formula.lastindex or 0), "a formula behind a label")
        if formula and formula.start() < stop_at:
            return _explained(output, *formula.span(formula.lastindex or 0), "a formula behind a label")
        if output[at:stop_at].strip(" :*"):
            return _explained(output, at, stop_at, "what stands behind a label")
        _ = label
    formula = next(last_of(_DOLLARS.finditer(output, start, end)), None)
    if formula is None:
        return Explanation(None, "no formula")
    return _explained(output, *formula.span(formula.lastindex or 0), "the last formula")


def _labels(output: str, start: int, end: int) -> list[tuple[int, int]]:
    lower = output.lower()
    found = []
    if has_any(lower, ("answer", "####")):
        found += [label.span() for label in last_of(_LABEL.finditer(output, start, end))]
    if len(lower) == len(output):
        found += [(each.start, each.end) for each in foreign_labels(lower[:end], choices=False) if each.start >= start]
    return sorted(found, reverse=True)


def _closing(text: str, at: int, end: int) -> int | None:
    """Return where the brace closes that opens at `at`, or None."""
    depth = 0
    for index in range(at, min(end, at + LONGEST + 2)):
        if text[index] == "\\":
            continue
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    return None


def _explained(text: str, start: int, end: int, rule: str) -> Explanation[str]:
    written = text[start:end].strip(" *\n")
    equals = written.rpartition("=")[2] if re.fullmatch(r"\s*\$?\s*[A-Za-z]\s*=[^=]+", written) else written
    answer = plain_expression(equals)
    if not answer or len(answer) > LONGEST or not re.search(r"[\w∞]", answer):
        return Explanation(None, "nothing, or too long an expression", start, end)
    return Explanation(answer, rule, start, end)
