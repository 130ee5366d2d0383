"""One spelling for every way to write a character, and text without its markup.

`plain_characters` folds typography (full-width forms, dashes, quotes, digits of any script), `plain_markup` removes
Markdown, LaTeX and HTML that only decorate. Both are linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final, TypeAlias

#: Where each character of a text stood before it was changed, and, last, where the text ended.
Places: TypeAlias = list[int]

_SPELLINGS: Final = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),  # hyphens, en dash, minus
    "\u2015": "—",
    **dict.fromkeys("‘’‚‛′ʼ", "'"),
    **dict.fromkeys("“”„‟″«»「」『』", '"'),
    **dict.fromkeys("【〔", "["),
    **dict.fromkeys("】〕", "]"),
    **dict.fromkeys("\u2028\u2029\x85", "\n"),
    "。": ".",
    "、": ",",
    "٫": ".",
    "٬": ",",
    "∕": "/",
    "✕": "×",
    "⇒": "→",
    "⟹": "→",
    **dict.fromkeys("➔➡➜👉☞", "→"),
    "∴": "therefore ",
}
#: All but ASCII, ideographs, Hangul, surrogates and private use: large blocks in which no character is folded.
_FOLDABLE: Final = re.compile("[^\x00-\x7f\u3400-\u9fff\uac00-\uf8ff\U00020000-\U0010ffff]")
#: In longer texts no character is folded into several ("½" into "1/2"), so that the text does not grow.
GROWING_UP_TO: Final = 100_000
_FOLDED_FORMS: Final = ("<wide>", "<narrow>", "<font>", "<noBreak>", "<compat>", "<circle>", "<small>", "<square>")


def _folded(character: str) -> str:
    """Return the ASCII spelling of one non-ASCII character, or the character itself where there is none."""
    if character in _SPELLINGS:
        return _SPELLINGS[character]
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.category(character) == "Cf":  # zero-width characters, byte-order mark, direction marks
        return ""
    decomposition = unicodedata.decomposition(character)
    if decomposition.startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    if decomposition.startswith("<super>") and (character.isdigit() or character == "⁻"):
        return "^" + unicodedata.normalize("NFKC", character).replace("\u2212", "-")
    if decomposition.startswith(_FOLDED_FORMS) and not character.isnumeric():  # ① and Ⅳ are labels, not digits
        folded = unicodedata.normalize("NFKC", character)
        return folded if folded.isascii() else character
    return "/" if character == "\u2044" else character


def _replaced(
    pattern: re.Pattern[str], replacement: str | Callable[[re.Match[str]], str], text: str, places: Places | None
) -> str:
    """Return ``pattern.sub(replacement, text)``, and keep `places` in step with it."""
    if places is None:
        return pattern.sub(replacement, text)
    pieces: list[str] = []
    kept: Places = []
    at = 0
    for found in pattern.finditer(text):
        new = found.expand(replacement) if isinstance(replacement, str) else replacement(found)
        start = found.start() if len(new) != 1 else found.end() - 1
        pieces += (text[at : found.start()], new)
        inner = found.start() + found[0].find(new) if len(new) > 1 and new in found[0] else None
        kept += places[at : found.start()]
        kept += [places[start]] * len(new) if inner is None else places[inner : inner + len(new)]
        at = found.end()
    places[:] = kept + places[at:]
    return "".join(pieces) + text[at:]


def plain_characters(text: str, places: Places | None = None) -> str:
    """Return the text with one spelling for each character that has several; `places` are kept in step with it.

    >>> plain_characters("Ｂ． − ５０ ½ “ok” 10³")
    'B. - 50  1/2 "ok" 10^3'
    """
    if "\r" in text:
        text = _replaced(_LINE_ENDS, "\n", text, places)
    if text.isascii():
        return text
    table = {ord(character): _folded(character) for character in set(_FOLDABLE.findall(text))}
    if len(text) > GROWING_UP_TO:
        table = {code: folded for code, folded in table.items() if len(folded) <= 1}
    if places is not None:
        sizes = {chr(code): len(folded) for code, folded in table.items()}
        places[:] = [place for each, place in zip(text, places, strict=False) for _ in range(sizes.get(each, 1))] + [
            places[-1]
        ]
    text = text.translate(table)
    return _replaced(_POWERS, lambda run: "^" + run[0].replace("^", ""), text, places) if "^" in text else text


_LINE_ENDS: Final = re.compile(r"\r\n?")
_POWERS: Final = re.compile(r"\^[\d-](?:\^[\d-])+")

_ASCII_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def lowered(text: str) -> str:
    """Return the text in lower case, of the same length, so that positions in one hold in the other."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


# Emphasis goes, multiplication stays: "**18**" is 18, but "3*4" and "3 * 4" keep their star.
_STARS: Final = re.compile(r"\*++(?<!\d\*)(?!\s)|\*++(?!\d)(?<!\s\*)")
_UNDERSCORES: Final = re.compile(r"(?<!\w)_++(?=[^\W_])|(?<=[^\W_])_++(?!\w)")
_QUOTE_MARKS: Final = re.compile(r"^(?:[ \t]{0,3}>)++(?!=)[ \t]?", re.MULTILINE)
_STRUCK: Final = re.compile(r"~~[^~\n]{1,200}+~~")
_TAGS: Final = re.compile(
    r"</?(?:p|(?i:em|strong|br|span|div|code|mark|center|h[1-6]|output|response|solution))\s{0,9}/?>"
    r"|<\|(?:begin|end)_of_box\|>"
)
# Envelopes of an answer alone have one name.
_ANSWER_TAGS: Final = re.compile(
    r"<(/?)(?:final[_ -]?answer|final|choice|result|verdict|selection|letter|ans)>", re.IGNORECASE
)
# "<B>" alone is an answer in brackets; a pair of them is bold.
_PAIRED_TAGS: Final = re.compile(r"<([biupBIUP])\s?>([^<]*+)</\1\s?>")

_LATEX: Final = re.compile(
    r"""\\(?:
        (?P<frac>[dtc]?frac)\s{0,9}(?:\{\s{0,9}([^{}\n]{1,60})\}\s{0,9}\{\s{0,9}([^{}\n]{1,60})\}|(\d)\s?(\d))
      | (?P<font>text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|bb|cal)|operatorname|emph|underline|mbox|bm
          |bf|rm|left|right|big[lr]?|Big[lr]?|displaystyle|circ|degree)(?![A-Za-z])
      | (?P<times>times|cdot)(?![A-Za-z])
      | (?P<arrow>to|rightarrow|Rightarrow|implies|longrightarrow)(?![A-Za-z])
      | (?P<minus>textminus|minus)(?![A-Za-z])
      | (?P<dots>dots|ldots|cdots)(?![A-Za-z])
      | (?P<about>approx|simeq|sim)(?![A-Za-z])
      | (?P<space>[,;:\s]|q?quad(?![A-Za-z]))
      | (?P<nothing>!)
      | (?P<line>\\)
      | (?P<delimiter>[()\[\]])
      | (?P<escaped>[$%\#_&*{}])
    )""",
    re.VERBOSE,
)


def _latex_replacement(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if found.group("frac"):
        top, bottom = (found[2], found[3]) if found[2] is not None else (found[4], found[5])
        mixed = found.string[found.start() - 1 : found.start()].isdigit()  # "3\\frac{1}{2}" is 3 1/2
        return f"{' ' if mixed else ''}{top.strip()}/{bottom.strip()}"
    if kind == "escaped":
        return found[0][1:]
    return {
        "times": "×", "arrow": "→", "minus": "-", "dots": "...", "about": "≈",
        "space": " ", "line": "\n", "delimiter": " ",
    }.get(kind or "", "")  # fmt: skip


#: What marks a step, its pattern, and what takes the pattern's place.
_STEPS: Final[tuple[tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    ("\\", _LATEX, _latex_replacement),
    ("^", re.compile(r"\^\s?\{([+-]?\d{1,9})\}"), r"^\1"),
    ("{,}", re.compile(r"\{,\}"), ","),  # LaTeX's thousands separator
    ("~~", _STRUCK, ""),
    ("`", re.compile("`"), ""),
    ("</", _PAIRED_TAGS, r"\2"),
    ("<", _TAGS, ""),
    ("<", _ANSWER_TAGS, r"<\1answer>"),
    (">", _QUOTE_MARKS, ""),
    ("*", _STARS, ""),
    ("_", _UNDERSCORES, ""),
    ("_", re.compile("(?<=[a-z])_(?=[a-z])"), " "),  # "final_answer" is two words
)


def plain_markup(text: str, places: Places | None = None) -> str:
    r"""Return the text without the markup that decorates it; `\boxed` and bare braces stay.

    `places` are kept in step with it.

    >>> plain_markup(r"The **answer** is $\text{B}$, i.e. `3*4` or \frac{1}{2}")
    'The answer is ${B}$, i.e. 3*4 or 1/2'
    """
    for cue, pattern, replacement in _STEPS:
        if cue in text:
            text = _replaced(pattern, replacement, text, places)
    return text
