"""What stands beside a number that answers: code, refusals, and what a model says about its answer."""

from __future__ import annotations

import re
from typing import Final

# What a statement says that has no number as answer.
NUMBERLESS: Final = re.compile(
    r"(?:an?\s)?(?:never\b|forever\b|nobody\b|infinit\w*|∞|\\infty|undefined|unknown|indeterminate"
    r"|undetermined|impossible|unlimited|not\s(?:a\snumber|enough"
    r"|possible|defined|determin\w*|given|known|clear|available|applicable)|no\s(?:solution|answer|number|such)"
    r"|does\snot\sexist|dne\b|nan\b"
    r"|n/a\b|null\b|(?:cannot|can't|can\snot|could\snot)\s(?:be\s)?(?:determine|compute|calculate|know|find|solve"
    r"|answer)\w*"
    r"|unanswerable|inconclusive|unable\b|insufficient)"
)
# "I cannot determine the answer": what number stands there is the question's.
_REFUSAL: Final = re.compile(
    r"\b(?:i|we|one|it)(?:'m|\sam|\sare|\sis)?\s(?:\w{3,12}ly\s)?(?:can(?:no|')t|can\snot|could\snot|couldn't"
    r"|unable\sto"
    r"|do\snot\sknow|don't\sknow|not\sable\sto|impossible\sto|not\spossible\sto)"
)
_ASKS_FOR_MORE: Final = re.compile(
    r"\bwithout\s(?:more|further|additional|knowing|any|the)\b|\b(?:more|additional|further|enough"
    r"|sufficient)\s(?:information|data|details|context)\b"
    r"|\b(?:missing|incomplete)\s(?:information|data)\b"
)
# A line about the answer: how sure the model is, how it checks it, what it cost.
_ABOUT: Final = re.compile(
    r"[\s>#*(\[-]*+(?:(?:my|the|final|overall|estimated|self)[ -])?(?:confidence|certainty|likelihood"
    r"|difficulty|tokens?"
    r"|time\s(?:taken|used|spent|elapsed)|word\scount|checks?|checking|verification|verify|proof|sanity\scheck"
    r"|double[ -]check|to\s(?:check|verify)|let(?:'s|\sus|\sme)\s(?:check|verify|double[ -]?(?:check)?)"
    r"|we\scan\s(?:check|verify)"
    r"|note|remark|hint|references?|sources?|step\scount|number\sof\ssteps|steps\s(?:used|taken)|feedback|p\.?s\.?)\b"
    r"(?:\s(?:level|score|used))?(?:\s?[:=(-]|\sis\b|\s?\d|,)",
)
# The same of words that may be what was asked for: only as a label of its own, behind a blank line.
_RATING: Final = re.compile(
    r"[\s>#*(\[-]*+(?:(?:final|overall|self)[ -])?(?:score|rating|grade|probability|quality|accuracy|stars?"
    r"|level|steps?)\s?:"
)
_CONFIDENT: Final = re.compile(
    r"\b(?:i\s?(?:'m|am)\s(?:about\s|around\s|approximately\s)?[0-9.]+\s?%\s(?:sure|confident|certain)"
    r"|(?:with|at)\s(?:a\s)?certainty|confidence\b"
    r"|(?:probability|chance|likelihood)\s(?:of\sbeing|that\s(?:i\sam|i'm|this\sis|it\sis))\s(?:right|correct)\b"
    r"|i\s(?:have\s)?(?:double-?\s?)?(?:checked|verified)|i(?:'d|\swould)?\srate\b)"
)
_AROUND_END: Final = re.compile(r"[.!?;,]\s|[\n(]")
CHECKING: Final = re.compile(
    r"\n[ \t#*]*(?:verification|verifying|check|checking|proof|sanity check|double[ -]check)[ \t]*:?[ \t*]*\n",
    re.IGNORECASE,
)
_LACKS: Final = re.compile(
    r"\b(?:not|isn't|without)\s(?:\w{1,8}\s)?enough\s(?:information|data|details)|\binsufficient\s(?:information"
    r"|data|details)"
    r"|\b(?:more|additional|further)\s(?:information|data|details)\s(?:is|are|would\sbe)\s(?:needed|required|necessary)"
)
_CODE: Final = re.compile(
    r"```[ \t]*(?:python\d?|py|javascript|js|typescript|ts|java|c|cpp|c\+\+|csharp|c#|r|ruby|go|rust|sql|bash"
    r"|sh|shell|matlab|julia|php"
    r"|haskell|scala|kotlin|swift|lua|perl|sympy|wolfram|mathematica)[ \t]*\n(?:.*?(?:```|\Z))",
    re.DOTALL | re.IGNORECASE,
)
SECTION: Final = re.compile(
    r"[\s*#]*(?:(?:the|final)\s)?(?:step|explanation|solution|note|conclusion|answer|verification|summary|check"
    r"|detail|part"
    r"|method|reasoning|result)"
)
_NOTE: Final = re.compile(r"\W*(?:note|remark|hint)\b[^\n:]{0,20}:", re.IGNORECASE)
# "It is impossible to determine how many of the 5 pens are red."
_UNDETERMINED: Final = re.compile(
    r"\b(?:impossible|not possible|unable|no way|cannot|can't|can not|could not|couldn't)\b(?: to)?(?: be)?"
    r" (?:determin|answer|solv|comput|calculat|know|tell|say|infer|deduc|deriv)\w*"
    r"(?![^.!?\n]*\b(?:but|so|however|yet|thus|without)\b)[^.!?\n]*\d(?![.!?\n][^\d]*\d)[^.!?\n]*[^\d]*\Z"
)


#: "…, so it cannot be solved."
_UNSOLVED: Final = re.compile(
    r"\b(?:cannot|can't|can not|could not|couldn't) be (?:solved|determined|answered|calculated|computed|found"
    r"|known)\b[^.!?\n\d]*[.!]?\s*\Z"
)


def without_code(output: str) -> str:
    """Return the output with blanks in the place of code."""
    if "```" not in output:
        return output
    return _CODE.sub(lambda code: " " * len(code[0]), output)


def refuses(lower: str) -> bool:
    """Tell whether the text says that there is no answer, and gives no result."""
    if "=" in lower:
        return False
    refusal = _REFUSAL.search(lower)
    last = max(0, len(lower) - 400)
    if _LACKS.search(lower) or _UNDETERMINED.search(lower, last) or _UNSOLVED.search(lower, last):
        return True
    return refusal is not None and _ASKS_FOR_MORE.search(lower, refusal.end()) is not None


def is_line_about(text: str, lower: str, start: int, end: int) -> bool:
    """Tell whether a line says something about the answer before it."""
    if _NOTE.match(text, start, end) or _ABOUT.match(lower, start, end):
        return True
    return _RATING.match(lower, start, end) is not None and text[max(0, start - 2) : start] == "\n\n"


def is_about(lower: str, start: int, end: int) -> bool:
    """Tell whether the words around a number at `start` to `end` say how sure the model is, or what it has checked."""
    first = max(0, start - 60)
    first = max(first, *(lower.rfind(stop, first, start) + 1 for stop in (". ", "\n", "(", ";")))
    if _NOTE.match(lower, first, start):
        return True
    border = _AROUND_END.search(lower, end, end + 24)
    return _CONFIDENT.search(lower, first, border.start() if border else end + 24) is not None
