"""Numeric answers: the final number of a worked solution, and the plain last number."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, overload

from harness.parsers.labels import foreign_labels
from harness.parsers.normalize import lowered, plain_characters, plain_markup
from harness.parsers.number_asides import (
    CHECKING,
    NUMBERLESS,
    SECTION,
    is_about,
    is_line_about,
    refuses,
    without_code,
)
from harness.parsers.numerals import Numeral, numerals, numerals_backwards
from harness.parsers.reading import Explanation, located, readable
from harness.parsers.statements import SENTENCE_END, UNSTATED, is_disowned, is_supposed, last_of

_MARKER: Final = re.compile(
    r"####|\\(?:f?boxed|fbox)|(?<!/)\banswers?\b(?! (?:choices?|options?)\b)|\bans\b(?=\.?\s?[:=]|\.\s)"
)
#: Every marker begins with one of these, which are found much faster.
_MARKER_CUES: Final = ("####", "\\", "ans")
# What joins "answer" to its value: "to the question" and the like, then a verb or a sign; or a heading of its own.
_LINK: Final = re.compile(
    rf"""(?:\s?\([^()\n]{{0,40}}\))?
        (?:,?[ ](?!(?:{UNSTATED}|as)\b)(?![a-z]{{1,8}}n't)
            [^\s.:=?!]{{1,24}}){{0,12}}?
        ["'\s)\]]{{0,9}}
        (?:(?:[ ](?:should|would|must|will)[ ]be|\b(?:is|was|are|equals|comes[ ](?:out[ ])?to))\b
            |[:=→>]|->|-(?=[ ])|(?<=\bans)\.)""",
    re.VERBOSE,
)
_HEADING_LINK: Final = re.compile(r"[ \t:]{0,9}\n")
_LEAD: Final = re.compile(
    r"""[\s"'(\[{<:=>≈~]*+
        (?:(?:therefore|thus|hence|then|so|clearly|simply|just|only|exactly|approximately|approx\.?|about|around|roughly
            |nearly|a[ ]total[ ]of|equal[ ]to|given[ ]by|either|between|from|indeed|now|also|still|and|final|the
            |value|number|of|that
            |[a-z][ ]?(?==)|\\boxed|usd?|eur|gbp|inr|chf|idr|rs\.?|rp\.?|tk\.?|kr\.?|r(?=\$)
            |negative|minus|[-+$€£¥₹₩₽])
         [\s"'(\[{:=≈~,]*+){0,8}+""",
    re.VERBOSE,
)
_SPELLED: Final = re.compile(
    r"(?:an? )?(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w{3,5}teen|twenty|thirty|forty"
    r"|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|dozen|half|none|nothing)\b"
)
# "31 * 11 = 341 calories in 11 bars": what the result is of.
_OF_WHAT: Final = re.compile(
    r"(?:\s(?!(?:and|but|or|so|then|thus|hence|which|while|is|are|was|were|has|have|had|leaves?|leaving|gets?"
    r"|makes?|means"
    r"|equals?|if|because|since)\b)[^\W\d_][^\W\d_'’-]{0,15}){1,10}\s?[$€£]?\Z"
)
# "18 more stamps to reach 50": what it is for.
_MORE_TO: Final = re.compile(
    r"(?<![\w.,])[$€£]?\d[\d.,]*+\s(?:more|additional|further)(?:\s[^\W\d_]{1,16}){0,5}?\s(?:to|until"
    r"|before)\s(?:\w{1,8}\s){0,2}"
    r"(?:reach\w*|gets?\sto|has|have|had|having|make|fill|complete|afford)\s(?:\w{1,8}\s){0,2}[$€£]?(?=\d)"
)
_OPERATION: Final = re.compile(r"[ ]?(?:[-+*×÷/x·][ ]?[($]?(?=\d)|to the power)")
_RANGE: Final = re.compile(r"(?:\s?%|\s?°[CF]?|\s[^\W\d]{1,12})?\s?(?:,? or|to|and|-|/)\s(?:to )?[$€£]?(?=\d)")
_UNIT: Final = re.compile(r"[ %]?[^\W\d]{0,12}")
_PREDICATE: Final = re.compile(r"\s(?:is|was|would be|must be) (?:the|our|my|your)(?: (?:final|correct|right))* \Z")
_LABEL: Final = re.compile(
    r"\b(?:steps?|questions?|problem|example|exercise|figure|fig\.|table|equation|eq\.|section|option|choice|method"
    r"|note)"
    r"\s?[#(]?\Z"
)
_DENIED: Final = re.compile(r"(?:\bnot|n't|\brather than|\binstead of)(?: (?:be|just|only|equal to))?\s[$€£-]{0,2}\Z")
# But not a calculation, "(2 * 9 = 18)"; "[1]" behind a word is a reference.
_PARENTHESIS: Final = re.compile(r"\(\s?(?:=|(?![^()\n=]*=))[^()\n]*+\)|(?<=[a-z.])[ ]?\[\d{1,2}\]")
_BEFORE_RESULT: Final = re.compile(r"[=:] ?\Z")
_ROUNDED: Final = re.compile(r"\bround(?:s|ed|ing)? (?:up |down |off )?to (?:about )?\$?[0-9]")
_CLAUSE_END: Final = re.compile(r"\(|[,;]\s")
_ITEM: Final = re.compile(r"(?:\A|\n)[ \t>#-]*+(?:\()?(\d{1,3})[.):](?=[ \t]+\S)")
_SCOPE: Final = 300


class _Statement(NamedTuple):
    """An explicit statement: its answer, or None where what it states cannot be read as one number.

    It stands at `start` to `end`. `taken_back` is where the text goes on after a statement that it calls wrong.
    """

    answer: str | None
    start: int
    end: int
    taken_back: int | None = None


@overload
def parse_number(output: str, *, explain: Literal[False] = False) -> str | None: ...
@overload
def parse_number(output: str, *, explain: Literal[True]) -> Explanation[str]: ...
def parse_number(output: str, *, explain: bool = False) -> str | Explanation[str] | None:
    r"""Return the final number that the output gives as its answer, in canonical spelling, or None.

    With `explain` the result is an `Explanation`: the number, the rule that read it, and where it stands. Only the
    response is read, without reasoning, and of it the first turn, after its last retraction (see
    `harness.parsers.reasoning`, `.turns` and `.statements`), without code in a programming language.

    *An explicit statement counts first*, the last one where there are several: a number after ``####``, in
    ``\boxed{}`` or ``<answer>``, after "the answer is", "Answer:", "final answer =" and the like (also under a heading
    "Final answer", and in the languages of `harness.parsers.labels`), or before "is the answer". Of a statement such as
    "the answer is 540 meters (0.54 km)" the number right after it counts; of "the answer is 2 * 9 = 18" the number
    after the last equals sign. A statement supposed, denied or called wrong ("if the answer is 5", "the answer is not
    5") does not count. One that says there is no number ("#### infinite", "the answer is undefined") is None.

    *Otherwise the last number counts*, leaving out labels ("Step 2:", "3." before an item of a list), numbers denied
    ("not 20"), ranks ("3rd"), what a result is of ("= 341 calories in 11 bars") and, where there is a number outside,
    those in parentheses and in lines about the answer ("Note: …", "Confidence: 95%", "Check: …").

    A number may have a sign, currency, a percent sign (dropped), units, separators, decimals, a fraction with a finite
    value, scientific notation or a scale word; see `canonical_number`. After a label of a language that writes a
    decimal comma, commas and points are read as that language writes them ("Die Antwort ist 3,5").

    Unreadable, hence None: no number; a number spelled out; a range, ratio, date, time or unfinished expression in the
    deciding place ("3-5", "3:30", "5 or 6", "9 * 2"); a fraction without finite decimal value; a comma that may be a
    decimal comma or a list ("2,5"); an exponent beyond ±400; a refusal ("I cannot determine the answer"). A hyphen
    between digits is never a sign.

    >>> parse_number("16 - 3 - 4 = 9 eggs, so 9 * 2 = $18. The answer is $18.00.\n\nQ: John has 5 apples")
    '18'
    >>> parse_number("She makes 9 * 2 = 18 dollars.\n#### 1,018")
    '1018'
    >>> parse_number("The cost is $64.\nStep 2: done"), parse_number("540 meters (i.e. 0.54 km)")
    ('64', '540')
    >>> parse_number("So 18 are left.\n\nConfidence: 95%", explain=True)
    Explanation(answer='18', rule='the last number', start=3, end=5, disagrees=False)
    >>> parse_number("The answer is eighteen."), parse_number("The change is 3-5"), parse_number("")
    (None, None, None)
    """
    output = without_code(output)
    found = _read(readable(output, _answers))
    return located(found, output, _answers) if explain else found.answer


def _answers(text: str) -> bool:
    return _read(plain_markup(text)).end > 0


def _read(text: str) -> Explanation[str]:
    """Read the final number out of a text without markup."""
    if not any(digit in text for digit in "0123456789"):
        return Explanation(None, "no number" if text.strip() else "no response")
    statement = _stated(text)
    if statement is None:
        return _last_counting(text)
    if statement.taken_back is not None:
        found = _last_counting(text[statement.taken_back :])
        shift = statement.taken_back
        return found._replace(start=found.start + shift, end=found.end + shift) if found.end else found
    rule = "a number behind a label" if statement.answer else "a statement without one number"
    return Explanation(statement.answer, rule, statement.start, statement.end)


@overload
def parse_last_number(output: str, *, explain: Literal[False] = False) -> str | None: ...
@overload
def parse_last_number(output: str, *, explain: Literal[True]) -> Explanation[str]: ...
def parse_last_number(output: str, *, explain: bool = False) -> str | Explanation[str] | None:
    """Return the last number in the output, in canonical spelling, or None where there is none.

    This is the rule of the CS336 assignment, to compare with figures that were made with it: the text is taken whole,
    with no regard to reasoning, turns, statements, labels or retractions. Numbers are written as `canonical_number`
    reads them; of a range, ratio, date or expression without a value the last part counts ("3-5" is 5). With `explain`
    the result is an `Explanation`.

    >>> parse_last_number("She sold 15 clips.")
    '15'
    >>> parse_last_number("48/2 = 24 in May, so 48 + 24 = 72 altogether (1,072 with the others)")
    '1072'
    >>> parse_last_number("She sold fifteen clips.") is None
    True
    """
    places = list(range(len(output) + 1)) if explain else None
    text = plain_markup(plain_characters(output, places), places)
    last = next((numeral for numeral in numerals_backwards(text) if not numeral.is_ordinal), None)
    if places is None:
        return _last_part(last) if last else None
    if last is None:
        return Explanation(None, "no number")
    return Explanation(_last_part(last), "the last number", places[last.start], places[last.end - 1] + 1)


def _last_part(last: Numeral) -> str | None:
    """Return the value of a number, or of its last part where it is a range, ratio or date."""
    value = last.value()
    if value is not None or last.exponent or last.power or last.raised:
        return value
    part = re.split(r"[^0-9.]", last.digits)[-1]
    part = part if part.count(".") < 2 else part.rpartition(".")[2]
    return last._replace(start=last.end - len(part), digits=part).value()


def _stated(text: str) -> _Statement | None:
    """Return the last explicit statement of the text, or None where it has none."""
    lower = lowered(text)
    foreign = _foreign(text, lower)
    end = len(text)
    cues = [at for cue in _MARKER_CUES if (at := lower.find(cue)) >= 0]
    if not cues:
        return foreign
    for marker in last_of(_MARKER.finditer(lower, min(cues))):
        if foreign and foreign.start > marker.start():
            break
        statement = _read_statement(text, lower, marker, end)
        if statement and not is_supposed(lower, marker.start(), marker.end() + 40):
            return statement
        end = marker.start()
    return foreign


def _foreign(text: str, lower: str) -> _Statement | None:
    """Return the last statement in another language, with its numbers as that language writes them."""
    end = len(text)
    for label in foreign_labels(lower, choices=False):
        statement = _linked(text, lower, label.start, label.end, min(end, label.end + _SCOPE), False, label.comma)
        if statement:
            return statement
        end = label.start
    return None


def _read_statement(text: str, lower: str, marker: re.Match[str], end: int) -> _Statement | None:
    """Read the statement that a marker opens, at most up to `end`."""
    at = marker.end()
    end = min(end, at + _SCOPE)
    word = marker[0]
    if word == "####":
        scope_end = _line_end(text, at, min(len(text), at + _SCOPE))
        first = next(numerals(text, at, scope_end), None)
        is_stated = lower[at:scope_end].strip("#: \t") and not SECTION.match(lower, at)
        if first is None and is_stated and not text[scope_end:].strip():
            return _Statement(None, marker.start(), scope_end)
        words = lower[at : first.start].lstrip() if first else ""
        if NUMBERLESS.match(words) or _SPELLED.match(words):
            return _Statement(None, marker.start(), scope_end)
        if first is None or not _LEAD.fullmatch(lower, at, first.start) or _is_item(text, first):
            return None
        return _judged(text, lower, marker.start(), first, scope_end)
    if word[0] == "\\":
        return _boxed(text, lower, marker.start(), end)
    link = _LINK.match(lower, at, end)
    if link is None:
        link = _HEADING_LINK.match(lower, at, end) if _opens_line(lower, marker.start()) else None
        if link is None:
            return _subject(text, lower, marker.start())
    return _linked(text, lower, marker.start(), link.end(), end, heading=link.re == _HEADING_LINK)


def _subject(text: str, lower: str, end: int) -> _Statement | None:
    """Read "18 is the answer", where "answer" stands at `end`."""
    start = max(0, end - 80)
    predicate = _PREDICATE.search(lower, start, end)
    number = next(numerals_backwards(text, start, predicate.start()), None) if predicate else None
    if predicate is None or number is None or not _UNIT.fullmatch(text, number.end, predicate.start()):
        return None
    return _Statement(number.value(), number.start, end)


def _linked(
    text: str, lower: str, start: int, at: int, end: int, heading: bool, comma: bool = False
) -> _Statement | None:
    """Read the number in the sentence that starts at `at`, behind a label at `start`."""
    lead = _LEAD.match(lower, at, end)
    content = lead.end() if lead else at
    if _SPELLED.match(lower, content) or NUMBERLESS.match(lower, content):
        return _Statement(None, start, content + 1)
    scope_end = _sentence_end(text, content, end)
    found = [numeral for numeral in numerals(text, at, scope_end) if not numeral.is_ordinal]
    if not found:
        return None
    first = found[0]
    if _is_item(text, first) and "\n" in text[at : first.start]:
        return None
    if _LEAD.fullmatch(lower, at, first.start):
        if comma and (value := first.value_with_comma()) is not None:
            return _Statement(value, start, first.end)
        return _judged(text, lower, start, first, scope_end)
    values = {numeral.value() for numeral in found if _counts(lower, numeral)}
    if heading or len(values) != 1:
        return None
    return _Statement(values.pop(), start, scope_end, scope_end if is_disowned(lower, scope_end) else None)


def _boxed(text: str, lower: str, start: int, end: int) -> _Statement | None:
    """Read the number in the braces behind the ``\\boxed`` that stands at `start`."""
    at = lower.find("{", start, start + 12)
    at = start if at < 0 else at
    depth, close = 0, end
    for index in range(at, end):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth <= 0:
                close = index
                break
    found = list(numerals(text, at, close))
    if not found:
        inside = lower[at:close].lstrip("{ ")
        numberless = _SPELLED.match(inside) or NUMBERLESS.match(inside)
        return _Statement(None, start, close + 1) if numberless else None
    if _LEAD.fullmatch(lower, at, found[0].start) or "=" in text[at : found[0].start]:
        return _judged(text, lower, start, found[0], close, end_of_statement=close + 1)
    return None


def _judged(
    text: str, lower: str, start: int, first: Numeral, scope_end: int, end_of_statement: int | None = None
) -> _Statement:
    """Decide what a statement says whose first number is `first`: it, a result after "=", or nothing readable."""
    end = scope_end if end_of_statement is None else end_of_statement
    if is_disowned(lower, end) or is_disowned(lower, first.end):
        return _Statement(None, start, end, taken_back=end)
    clause = _CLAUSE_END.search(text, first.end, scope_end)
    stop = clause.start() if clause else scope_end
    if rounded := _ROUNDED.search(lower, first.end, scope_end):
        return _Statement(next(numerals(text, rounded.end() - 1, scope_end)).value(), start, scope_end)
    equals = text.rfind("=", first.end, stop)
    if equals >= 0 and (result := next(numerals(text, equals, stop), None)):
        value = (first if _OPERATION.match(lower, result.end) else result).value()  # "18 = 9 * 2" is 18
        return _Statement(value, start, result.end)
    if _OPERATION.match(lower, first.end) or _is_range(text, lower, first, scope_end):
        return _Statement(None, start, first.end)
    return _Statement(first.value(), start, first.end)


def _is_range(text: str, lower: str, first: Numeral, scope_end: int) -> bool:
    """Tell whether another number follows as alternative or upper end: "5 or 6", "3 to 5 km"."""
    alternative = _RANGE.match(lower, first.end, scope_end)
    other = next(numerals(text, alternative.end(), scope_end), None) if alternative else None
    if alternative is None or other is None or (first.value() is not None and other.value() == first.value()):
        return False
    units = lower[first.end : first.end + 14].split()[:1], lower[other.end : other.end + 14].split()[:1]
    named = all(unit and unit[0].strip(".,").isalpha() for unit in units)
    return not (named and units[0] != units[1] and units[0] != ["or"] and " or " in alternative[0])


def _last_counting(text: str) -> Explanation[str]:
    """Return the last number that is no label, rank or aside."""
    if (checking := CHECKING.search(text)) and any(digit in text[: checking.start()] for digit in "0123456789"):
        text = text[: checking.start()]
    lower = lowered(text)
    if refuses(lower):
        return Explanation(None, "a refusal")
    items = _items(text)
    aside: Numeral | None = None
    end = len(text)
    while end >= 0:
        start = text.rfind("\n", 0, end) + 1
        spans = [found.span() for found in _PARENTHESIS.finditer(text, start, end)]
        about = is_line_about(text, lower, start, end)
        for numeral in numerals_backwards(text, start, end):
            while spans and spans[-1][0] > numeral.start:
                spans.pop()
            if numeral.start in items or not _counts(lower, numeral):
                continue
            opens, closes = spans[-1] if spans else (0, 0)
            in_parentheses = numeral.start < closes and not _BEFORE_RESULT.search(text[max(0, opens - 2) : opens])
            if about or in_parentheses or is_about(lower, numeral.start, numeral.end):
                aside = aside or numeral
                continue
            numeral = _aimed(text, lower, start, _result(text, lower, start, numeral))
            if is_disowned(lower, numeral.end):
                return Explanation(None, "a number that is called wrong", numeral.start, numeral.end)
            return _explained(numeral, "the last number")
        end = start - 1
    return _explained(aside, "the last number, an aside") if aside else Explanation(None, "no number")


def _explained(numeral: Numeral, rule: str) -> Explanation[str]:
    value = numeral.value()
    return Explanation(value, rule if value else "a last number that is not one number", numeral.start, numeral.end)


def _result(text: str, lower: str, line: int, last: Numeral) -> Numeral:
    """Return the result of which `last` says what it is of ("= 341 calories in 11 bars"), or `last` itself."""
    equals = text.rfind("=", max(line, last.start - 120), last.start)
    result = next(numerals(text, equals, last.start), None) if equals >= 0 else None
    if result is None or text[equals + 1 : result.start].strip("$€£ -"):
        return last
    if _OPERATION.match(lower, result.end) or not _OF_WHAT.fullmatch(lower, result.end, last.start):
        return last
    return result


def _aimed(text: str, lower: str, line: int, last: Numeral) -> Numeral:
    """Return how many more are needed where `last` says up to what ("18 more stamps to reach 50"), or `last` itself."""
    more = next(last_of(_MORE_TO.finditer(lower, max(line, last.start - 80), last.start + 1)), None)
    first = next(numerals(text, more.start(), last.start), None) if more and more.end() == last.start else None
    return first or last


def _counts(lower: str, numeral: Numeral) -> bool:
    before = lower[max(0, numeral.start - 24) : numeral.start]
    return not (numeral.is_ordinal or _LABEL.search(before) or _DENIED.search(before))


def _items(text: str) -> frozenset[int]:
    """Return where the numbers of a numbered list stand: 1 opens a list, each next number goes on with it."""
    places: set[int] = set()
    expected = 0
    for found in _ITEM.finditer(text):
        number = int(found[1])
        if number == 1 or number == expected:
            places.add(found.start(1))
            expected = number + 1
    return frozenset(places)


def _is_item(text: str, numeral: Numeral) -> bool:
    """Tell whether a number looks like that of a list or heading: "1. First …" """
    return len(numeral.digits) <= 2 and re.match(r"[.):] +[A-Za-z]", text[numeral.end : numeral.end + 8]) is not None


def _opens_line(lower: str, start: int) -> bool:
    """Tell whether only heading words stand between the start of the line and `start`."""
    line = lower[max(0, start - 40) : start].rpartition("\n")[2]
    return re.fullmatch(r"[ \t#>:\d.-]*(?:(?:the|my|our|final|correct)\s)*", line) is not None


def _line_end(text: str, start: int, end: int) -> int:
    found = text.find("\n", start, end)
    return min(end, len(text)) if found < 0 else found


def _sentence_end(text: str, start: int, end: int) -> int:
    found = SENTENCE_END.search(text, start, end)
    return found.start() if found else end
