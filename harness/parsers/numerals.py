"""Numbers as people write them: finding them in a text and giving each one canonical decimal spelling."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.parsers.normalize import plain_characters, plain_markup

#: Numbers of greater magnitude in their exponent are unreadable: writing them out would cost memory, not meaning.
MAX_EXPONENT: Final = 400
#: Fractions with more digits than this are unreadable.
MAX_FRACTION_DIGITS: Final = 18

_LETTERS: Final = "A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff"

_CODES: Final = (
    "USD|EUR|GBP|INR|PKR|PHP|Php|CHF|CAD|AUD|NZD|SGD|HKD|RMB|CNY|JPY|KRW|IDR|MYR|THB|VND|NGN|KES|ZAR|BRL|MXN|SEK|NOK"
    "|DKK|PLN|HUF|CZK|TRY|RUB|UAH|BDT|LKR|NPR|AED|SAR|EGP|ILS"
)
# One run of digits with everything that may hold it together; `Numeral.value` decides what it means. The whole run is
# taken in one possessive match, so that no text is looked at twice. A digit in a word ("H2O", "COVID-19") is no number.
_RUN: Final = re.compile(
    rf"""(?:(?<![{_LETTERS}0-9^_])(?<![0-9][.,/])(?<![{_LETTERS}]-)|(?<=\b(?:{_CODES}))|(?<=\b(?:Rs|RM|Rp|Tk|kr)))
    (?P<digits>(?:(?<![.A-Za-z])\.(?=[0-9]))?[0-9]++
        (?:[.,/'_-][0-9]++|:[0-9]{{1,2}}(?![0-9])|[ ][0-9]{{3}}(?![0-9])|[ ]{{1,2}}[0-9]++/[0-9]++
          |[ ](?:and|&)[ ](?:1/[2-9]|[23]/4|2/[35]|[34]/5|[357]/8)(?![0-9/]))*+)
    (?:[eE](?P<exponent>[+-]?[0-9]++)(?![{_LETTERS}]))?+
    (?:[ ]?[x×*·⋅][ ]?10\^[({{]?(?P<power>[+-]?[0-9]++)[)}}]?)?+
    (?:\^[({{]?(?P<raised>[+-]?[0-9]++)[)}}]?)?+""",
    re.VERBOSE,
)
_DECIMAL: Final = re.compile(r"[0-9]*+(?:\.[0-9]++)?+")
_GROUPED: Final = re.compile(r"[1-9][0-9]{0,2}+([,' _])[0-9]{3}(?:\1[0-9]{3})*+(?:\.[0-9]++)?+")
_INDIAN: Final = re.compile(r"[1-9][0-9]?+(?:,[0-9]{2}(?=,))++,[0-9]{3}(?:\.[0-9]++)?+")
_DOTTED: Final = re.compile(r"[1-9][0-9]{0,2}+(?:\.[0-9]{3}){2,}+|[1-9][0-9]{0,2}+(?:[. ][0-9]{3})++,[0-9]{1,2}")
_COMMA_STYLE: Final = re.compile(r"(?:[0-9]++|[1-9][0-9]{0,2}(?:[. ][0-9]{3})++)(?:,[0-9]++)?")
_COMMA_DECIMAL: Final = re.compile(r"0,[0-9]++")
_MIXED: Final = re.compile(r"([0-9]{1,18})(?: {1,2}| and | & )([0-9]{1,18})/([0-9]{1,18})")
_AND_A_HALF: Final = re.compile(r" and (?:a|one)[ -]half\b")

_PIECE: Final = re.compile(r"[^ ]*[0-9][^ ]*")
_MINUS: Final = re.compile(r"(-)\s?(?:US|A|C)?[$€£¥₹₩₽]?\s?\Z")
_MINUS_WORD: Final = re.compile(r"\b(negative|minus)\s(?:[$€£¥₹₩₽]\s?)?\Z", re.IGNORECASE)
_BEFORE: Final = re.compile(
    rf"(?:negative |minus )?[-+]?(?:(?:(?:US|A|C)?[$€£¥₹₩₽]|(?:{_CODES})|Rs\.?|RM|Rp\.?|Tk\.?)\s?)?[-+]?"
)
_AFTER: Final = re.compile(r"\.?\s?[%$€£₽]?\.?")
_SCALE: Final = re.compile(
    r"(?i:[ -]?(hundred|thousand|million|billion|trillion)s?\b)|([kK])(?![\w/])|(M|m|mn|B|b|bn|T)(?![\w/])"
)
_SCALES: Final = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_CURRENCY_SCALES: Final = {"m": 6, "mn": 6, "b": 9, "bn": 9, "t": 12}
_CURRENCY: Final = re.compile(rf"(?:[$€£¥₹₩₽]|\b(?:{_CODES})|Rs\.?|RM|Rp\.?|Tk\.?) ?\Z")
#: Currencies that group by points: "Rp 15.000".
_POINTED: Final = re.compile(r"[1-9][0-9]{0,2}+(?:\.[0-9]{3})++")
_POINTING: Final = re.compile(r"\b(?:Rp\.?|IDR|VND) ?\Z")
_ORDINAL: Final = re.compile(rf"(?:st|nd|rd|th)(?![{_LETTERS}])", re.IGNORECASE)


class Numeral(NamedTuple):
    """One number in a text: where it is written (sign and currency are before `start`) and how."""

    text: str
    start: int
    end: int
    digits: str
    exponent: str | None = None
    power: str | None = None
    raised: str | None = None

    @property
    def is_ordinal(self) -> bool:
        """Whether it is a rank ("3rd") rather than a quantity."""
        return _ORDINAL.match(self.text, self.end) is not None

    def value(self) -> str | None:
        """Return the canonical spelling, or None where the writing has no single decimal value."""
        plain = _plain(self.digits, _has_currency(self.text, self.start, self.end))
        if _POINTED.fullmatch(self.digits) and _POINTING.search(self.text, max(0, self.start - 5), self.start):
            plain = self.digits.replace(".", "")
        exponent = 0
        for written in (self.exponent, self.power):
            if written is not None:
                if len(written.lstrip("+-").lstrip("0")) > 4:
                    return None
                exponent += int(written)
        if self.raised is not None:  # 10^3 is a number, 7^3 an expression
            if plain != "10" or exponent or len(self.raised) > 5:
                return None
            plain, exponent = "1", int(self.raised)
        scale = self._scale()
        if plain is None or scale is None:
            return None
        if plain.isdigit() and _AND_A_HALF.match(self.text, self.end):
            plain += ".5"
        return _spelled(plain, exponent + scale, self._is_negative())

    def value_with_comma(self) -> str | None:
        """Return the canonical spelling as a language with a decimal comma writes it ("3,5", "1.234,5", "12.000")."""
        if not _COMMA_STYLE.fullmatch(self.digits) or self.exponent or self.power or self.raised:
            return None
        plain = re.sub(r"[. ]", "", self.digits).replace(",", ".")
        scale = self._scale()
        return None if scale is None else _spelled(plain, scale, self._is_negative())

    def _scale(self) -> int | None:
        """Return the power of ten of a word or letter after the digits, None where it is unclear ("5M")."""
        found = _SCALE.match(self.text, self.end)
        if found is None:
            return 0
        if found[1]:
            return _SCALES[found[1].lower()]
        if found[2]:
            return 3
        if _has_currency(self.text, self.start, self.end):
            return _CURRENCY_SCALES[found[3].lower()]
        return 0 if found[3] in ("m", "b") else None  # "5m" is five metres

    def _is_negative(self) -> bool:
        before = self.text[max(0, self.start - 16) : self.start]
        if found := _MINUS_WORD.search(before):
            return found[1].lower() == "negative" or not before[: found.start()].rstrip()[-1:].isdigit()
        found = _MINUS.search(before)
        if found is None:
            return False
        operand = before[: found.start()].rstrip()[-1:]
        if operand.isdigit() or operand in tuple(")]}%-"):  # a subtraction, or a rule of dashes
            return False
        attached = not before[found.end(1) : found.end(1) + 1].isspace()
        return attached or operand in tuple("=:(≈<>")  # "x = - 5", but "- 5 eggs" is an item of a list


def numerals(text: str, start: int = 0, end: int | None = None) -> Iterator[Numeral]:
    """Yield the numbers written in a part of the text (plain characters and markup), from left to right."""
    for run in _RUN.finditer(text, start, len(text) if end is None else end):
        at = run.start("digits")
        for offset, digits in _pieces(text, run):
            yield _numeral(text, run, at + offset, digits)


def numerals_backwards(text: str, start: int = 0, end: int | None = None) -> Iterator[Numeral]:
    """Yield the same numbers from right to left."""
    for run in reversed(list(_RUN.finditer(text, start, len(text) if end is None else end))):
        at = run.start("digits")
        for offset, digits in reversed(_pieces(text, run)):
            yield _numeral(text, run, at + offset, digits)


def _pieces(text: str, run: re.Match[str]) -> list[tuple[int, str]]:
    """Return the numbers that a run holds, each with where in it: "in 2020 300 people" holds two."""
    digits = run.group("digits")
    if " " not in digits or _plain(digits, _has_currency(text, run.start("digits"), run.end())) is not None:
        return [(0, digits)]
    if (mixed := _MIXED.fullmatch(digits)) and int(mixed[2]) < int(mixed[3]):  # "1 1/3", which no decimal equals
        return [(0, digits)]
    return [(piece.start(), piece[0]) for piece in _PIECE.finditer(digits)]


def _numeral(text: str, run: re.Match[str], at: int, digits: str) -> Numeral:
    if at + len(digits) < run.end("digits"):
        return Numeral(text, at, at + len(digits), digits)
    return Numeral(text, at, run.end(), digits, run.group("exponent"), run.group("power"), run.group("raised"))


def _has_currency(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 5) : start], text[end : end + 2].strip()
    return _CURRENCY.search(before) is not None or after.startswith(("€", "£", "₽"))


def canonical_number(text: str) -> str | None:
    r"""Return the canonical spelling of one number, or None where the text is anything but one number.

    Takes a number written in any way that `parse_number` reads: sign (also the Unicode minus), currency, percent,
    thousands separators (comma, space, apostrophe, underscore; groups of three, or Indian groups), decimals, fractions
    and mixed numbers with a finite decimal value, scientific notation (exponents up to ±400), a scale ("2 million",
    "5k"), digits of any script, full-width forms, Markdown and LaTeX.

    Gives plain decimal digits: no exponent, separators, plus sign, leading zeros or trailing zeros after the point.
    Two numbers are equal exactly when their canonical spellings are.

    >>> [canonical_number(text) for text in ("1,234", "$1,234.00", ".50", "-0.0", "1.5e3", "50%", "１２", "1/4")]
    ['1234', '1234', '0.5', '0', '1500', '50', '12', '0.25']
    >>> [canonical_number(text) for text in ("1e999999999", "1/3", "3-5", "2,5", "five", "5 6", "")]
    [None, None, None, None, None, None, None]
    """
    if text.isascii() and text.isdigit():  # as most are
        return text.lstrip("0") or "0"
    plain = plain_markup(plain_characters(text)).strip()
    numeral = next(numerals(plain), None)
    if numeral is None or numeral.is_ordinal or not _BEFORE.fullmatch(plain, 0, numeral.start):
        return None
    scale = _SCALE.match(plain, numeral.end)
    return numeral.value() if _AFTER.fullmatch(plain, scale.end() if scale else numeral.end) else None


def _plain(digits: str, has_currency: bool = False) -> str | None:
    """Return a run of digits without separators, as ``[0-9]*(.[0-9]+)?``, or None where it is not one number."""
    if _DECIMAL.fullmatch(digits):
        return digits
    if _GROUPED.fullmatch(digits) or _INDIAN.fullmatch(digits):
        return re.sub(r"[,' _]", "", digits)
    if _DOTTED.fullmatch(digits):
        return re.sub(r"[. ]", "", digits).replace(",", ".")
    if _COMMA_DECIMAL.fullmatch(digits) or (has_currency and re.fullmatch(r"[0-9]++,[0-9]{2}", digits)):
        return digits.replace(",", ".")
    if "/" in digits:
        return _fraction(digits)
    return None


def _fraction(digits: str) -> str | None:
    """Return the finite decimal value of a fraction ("1/4") or a mixed number ("3 1/2"), or None."""
    whole = 0
    if mixed := _MIXED.fullmatch(digits):
        whole, top, bottom = int(mixed[1]), int(mixed[2]), int(mixed[3])
        if top >= bottom:
            return None
    else:
        parts = [_plain(part) for part in digits.split("/", 2)] if digits.count("/", 0, 200) == 1 else []
        if len(parts) != 2 or any(not part or "." in part or len(part) > MAX_FRACTION_DIGITS for part in parts):
            return None
        top, bottom = int(parts[0] or 0), int(parts[1] or 0)
    if not bottom:
        return None
    places = 0
    top += whole * bottom
    while top % bottom and places <= 64:
        top, places = top * 10, places + 1
    if top % bottom:
        return None
    value = str(top // bottom).rjust(places + 1, "0")
    return f"{value[:-places]}.{value[-places:]}" if places else value


def _spelled(plain: str, exponent: int, negative: bool) -> str | None:
    """Return digits with an optional point, times ten to the `exponent`, in the canonical spelling."""
    if abs(exponent) > MAX_EXPONENT:
        return None
    whole, _, part = plain.partition(".")
    if exponent > 0:
        part = part.ljust(exponent, "0")
        whole, part = whole + part[:exponent], part[exponent:]
    elif exponent < 0:
        whole = whole.rjust(-exponent, "0")
        whole, part = whole[:exponent], whole[exponent:] + part
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    spelled = f"{whole}.{part}" if part else whole
    return f"-{spelled}" if negative and spelled != "0" else spelled
