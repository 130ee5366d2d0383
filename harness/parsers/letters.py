"""The option that stands at a place in a text: its letter, or its own text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from harness.parsers.normalize import plain_characters, plain_markup

#: Words that may follow an answer's letter without a stop; any other word makes it part of a phrase ("B cells").
ENGLISH_CONNECTIVES: Final = frozenset({
    "because", "since", "as", "for", "due", "which", "that", "and", "or", "but", "not", "so", "with", "given", "based",
    "here", "where", "while", "when", "if", "option", "answer", "choice", "the", "only", "rather", "instead",
    "therefore", "thus", "hence", "according", "by", "in", "from", "per",
})  # fmt: skip
#: Letters of the scripts in which a letter next to another one is part of a word; those of CJK text are not.
WORD: Final = "A-Za-z0-9_\u00c0-\u024f\u0370-\u04ff"
_OPENERS: Final = re.compile(r"[\"'$ (\[{<]{0,8}")
_ARTICLE: Final = re.compile(r"(?:the|an?) (?=\S)")
_AFTER_TEXT: Final = re.compile(
    r"[\"'$)\]}]{0,4}(?:\s*(?:[.!?;]+(?=[\s\"'$)\]}]|\Z)|\n|\Z)|[ ]?[(—]|[ ]-[ ](?=[A-Za-z]{3})"
    r"|,?[ ](?:because|since|as|which|where|not|so|but|given)\b)"
)
_WORD_AFTER: Final = re.compile(r"[ \t]+([A-Za-z\u00c0-\u024f]+|\d)")
_TEXT_AFTER: Final = re.compile(r"[ \t]*+(?:[.):,;=—]|-(?=\s)){0,2}[ \t]*+")
#: What speaks of a letter rather than gives it.
VERB: Final = "(?:is|are|was|were|do|does|did|can|cannot|would|could|has|have|don't|isn't|aren't|says)"
_VERB_AFTER: Final = re.compile(rf"[ \t]+{VERB}\b")
_PLURAL_AFTER: Final = re.compile(r"[ \t]+(?:are|were|do|have|don't|aren't|can|cannot|could|would|seem|all)\b")
_STOP_AFTER: Final = re.compile(r"[ \t]*(?:[.,;:!)\n]|\Z)")
#: What ends the part of a sentence in which a second letter is a second answer.
_TURN: Final = re.compile(
    r"[.!?](?=\s)|\n|;|—|\b(?:because|since|as|which|so|not|while|whereas|but|rather|instead|unlike|however|than"
    r"|although|though|eliminat\w*|exclud\w*|rul\w* out|wrong|incorrect|compared|over|between|from)\b"
)


_LAST_SENTENCE: Final = re.compile(r"[.!?]\s|\n")
_ABBREVIATION: Final = re.compile(r"\b(?:rs|no|mr|mrs|ms|dr|st|vs|approx|fig|eq|tk|fr|etc|[a-j])\.\Z")
_NEGATED: Final = re.compile(r"\b(?:not|no|neither|nor|except|incorrect|wrong|false)\b|n't\b")
_WORD_BEFORE: Final = re.compile(r"[a-z]{2}\s\Z")
_BEFORE_ENDING: Final = re.compile(
    r"\b(?:the|an?|of|to|has|have|had|with|as|by|in|at|on|for|into|called|named|becomes?|got|his|her|its"
    r"|their|about|approximately|from|through|means|mean|that|some|any|and|would|will|than|makes? it"
    r"|(?:is|are|was|were) \w{2,12}ing)\s\Z"
)
_IS_BEFORE: Final = re.compile(
    r"(?:\b(?:is|are|was|were|be|equals?|gives|yields|becomes|gets?|makes)"
    r"(?: (?:therefore|thus|hence|then|about|approximately|exactly|only|just|equal to|us|the|an?)){0,3} |[=≈] ?)\Z"
)


_EQUATION: Final = re.compile(r"(?:(?:rs\.|[-+*/×÷^().,$€£\d])[-+*/×÷^().,$€£\d\s]*+){1,40}= ?[$€£]?\Z")


#: "A.I.", "B.C", "B.Sc"; but "B.BP < 140", "C.x = 5" and "D.a cat" are letters without a space before the text.
_ABBREVIATED: Final = r"(?:[A-Za-z]\b(?![ ]?[=<>≤≥+]|(?<=[Aa])[ ][a-z])|(?:Sc|Ed)\b)"


class Reading(NamedTuple):
    """An option found in a text: its letter in upper case, None where several are named; `end` is after it.

    `is_named` tells whether its own text follows the letter, `disagrees` whether another option's does, and `is_text`
    whether there is no letter at all, but its text.
    """

    letter: str | None
    end: int
    is_named: bool = False
    disagrees: bool = False
    is_text: bool = False


class Ending(NamedTuple):
    """The option that a text ends in: where it stands, its letter, and whether it is named by its text alone."""

    start: int
    end: int
    letter: str | None
    is_text: bool


class Options:
    """The letters that count, with the texts of their options where they are known."""

    def __init__(self, letters: str, texts: Sequence[str] = ()) -> None:
        self.letters = letters
        self.texts = tuple(map(comparable, texts[: len(letters)]))
        self._longest = max(map(len, self.texts), default=0)
        self._sized = [(letter.upper(), text, len(text)) for letter, text in zip(letters, self.texts, strict=False)]
        self._first = {text[:1] for text in self.texts if text}
        self.upper = upper = sorted({form for letter in letters if len(form := letter.upper()) == 1})
        lower = sorted({form for letter in letters if len(form := letter.lower()) == 1})
        self.bare_letters = set(upper) - {text.upper() for text in self.texts}  # which can be read as themselves alone
        if not upper:  # nothing to look for: a pattern that matches nowhere
            self.upper_class = self.any_class = "(?!)"
        else:
            self.upper_class = "[" + re.escape("".join(upper)) + "]"
            self.any_class = "[" + re.escape("".join(sorted({*upper, *lower}))) + "]"
        self._letter = re.compile(
            rf"(?P<open>[(\[{{<\"'$ ]{{0,6}})(?P<letter>{self.any_class})(?P<close>[)\]}}>\"'$]{{0,6}})"
            rf"(?![{WORD}'+#^]|[ ]?[∪∩×÷⊂⊆∧∨⊕]|[ ]?[→↔⊃≡][ ]?[A-Z](?!\w)|[ ]?\\[a-z]|/\d|-[{WORD}]"
            rf"|\.{_ABBREVIATED}|&\w|\([ ]?(?:\d"
            rf"|[a-z][ ]?[,)]))"
            rf"|(?P<turkish>{self.upper_class})'[dt][iıuü]r\b"
        )
        self.bare = re.compile(rf"[(\[\"'$]{{0,3}}({self.upper_class})[)\]\"'$]{{0,3}}[.!]?")
        self._glued = re.compile(rf"[(\"']{{0,2}}({self.upper_class})\.(?=\w)")
        self._second = re.compile(
            rf"(?:,|\band|\bor|&|\bplus|\))[ ](?:(?:also|then|option|choice|answer)[ ])?"
            rf"(?:[(\[](?P<bracketed>{self.upper_class})[)\]]|(?P<bare>{self.upper_class})(?=[.)][ ]\w|[ ]for\b))"
            rf"(?![ ]{VERB}\b)"
        )
        self._more = re.compile(
            rf"((?:(?:,?[ {{]{{1,3}}(?:and/or|and|or|as[ ]well[ ]as)[ }}]{{1,3}}(?:(?:possibly|maybe|perhaps|also"
            rf"|even)[ ])?|[ ]\((?:and|or)[ ]|[ ]?[,/&+][ ]?|(?<=\))(?=\())"
            rf"(?:option[ ]|choice[ ]|answer[ ])?"
            rf"(?:[(\[\"']{{0,2}}{self.upper_class}[)\]\"']{{0,2}}(?![\w'])|[(\[][A-Z][)\]])){{1,26}})"
        )

        self._mention = re.compile(
            rf"(?<![\w'-])(?:(?P<before>{self.upper_class})[.)](?=[ ]\S)"
            rf"|[(\[](?i:(?:option|choice|answer)[ ])?(?P<behind>{self.upper_class})[)\]](?=[\"'$. ]*\Z)"
            rf"|[(\[](?P<bracketed>{self.upper_class})[)\]])"
        )
        self._row = re.compile(rf"\.[ ]{self.upper_class}\.[ ]{self.upper_class}\b")  # "A. B. C. D."

    def at(self, text: str, lower: str, at: int, connectives: frozenset[str] = ENGLISH_CONNECTIVES) -> Reading | None:
        """Return the option that stands at `at`, or None where there is none.

        `lower` is the text in lower case, `connectives` the words that may follow a letter without a stop. A letter
        that belongs to a longer phrase is none ("B cells", "A good way"), unless the phrase is an option's text.
        """
        by_text = self.text_at(lower, at) if self.texts else None
        found = self._letter.match(text, at)
        if found is None:
            return by_text or self._glued_at(text, lower, at)
        if found.group("turkish"):
            return Reading(found.group("turkish"), found.end())
        written = found.group("letter")
        letter = written.upper()
        bracketed = bool(found.group("open").strip("\"'$ ")) and bool(found.group("close").strip("\"'$ "))
        end = found.end()
        if by_text and by_text.end > end:
            is_row = bracketed is False and "(" in found.group("open") and self._more.match(text, end)
            return Reading(None, by_text.end) if is_row else by_text  # "(A, B and C)" are letters in the asked form
        closed = bool(found.group("close").strip("\"'$ "))
        if not closed and (word := _WORD_AFTER.match(text, end)) and word[1].lower() not in connectives:
            named = self.text_at(lower, end + 1)
            return named if named and named.letter == letter else None
        if written != letter and not (bracketed or found.group("close") or _STOP_AFTER.match(text, end)):
            return None
        if written == "a" and end == len(text) and not (bracketed or found.group("close")):  # an article, cut short
            return None
        if written != letter and any(option == written for option in self.texts):  # "c" is D's text, say
            return Reading(letter if by_text and by_text.letter == letter else None, end)
        return self._checked(text, lower, letter, end, opened_only="(" in found.group("open") and not closed)

    def _glued_at(self, text: str, lower: str, at: int) -> Reading | None:
        """Return a letter and point right before its own text ("B.UV"), which may look like an abbreviation."""
        glued = self._glued.match(text, at) if self.texts else None
        named = self.text_at(lower, glued.end()) if glued else None
        if glued is None or named is None or named.letter != glued[1]:
            return None
        return Reading(glued[1], named.end, is_named=True)

    def _checked(self, text: str, lower: str, letter: str, end: int, opened_only: bool) -> Reading | None:
        """Compare a letter with what follows it: more letters, or an option's text. The letter decides."""
        if more := self._more.match(text, end):
            others = {found.upper() for found in re.findall(r"\b[A-Z]\b", more[1])}
            if _PLURAL_AFTER.match(text, more.end()) and others - {letter}:
                letters = re.findall(r"\b[A-Z]\b", more[1])
                if opened_only or [letter, *letters] == sorted([letter, *letters]):  # "so A, C and D are wrong"
                    return None
                return Reading(letter, end)  # "the answer is D, A and B are too small"
            if not _VERB_AFTER.match(text, more.end()):
                return Reading(letter if others <= {letter} else None, more.end())
        if self._row.match(text, end):
            return Reading(None, end)
        named: Reading | None = None
        behind = end
        if self.texts and (after := _TEXT_AFTER.match(text, end)):
            named = self.text_at(lower, after.end())
            if named and self._is_letter(lower[after.end() : named.end].strip("\"'$ ([{<")):
                named = None
        if named:
            behind = named.end
        if self._has_second(text, letter, behind):
            return Reading(None, behind)
        own = named is None or named.letter in (letter, None)
        return Reading(letter, behind, is_named=named is not None and own, disagrees=not own)

    def _has_second(self, text: str, letter: str, start: int) -> bool:
        """Tell whether the sentence goes on to give another letter: "(A) for the first and (B) for the second"."""
        end = min(len(text), start + 300)
        if "(" not in text[start:end] and "." not in text[start:end] and " for " not in text[start:end]:
            return False
        at = start
        while second := self._second.search(text, at, end):
            if _TURN.search(text, start, second.start()):
                return False
            if (second.group("bracketed") or second.group("bare")) != letter:
                return True
            at = second.end()
        return False

    def text_at(self, lower: str, at: int) -> Reading | None:
        """Return the option whose whole text stands at `at`, or after opening quotes, brackets and an article there."""
        opened = _OPENERS.match(lower, at)
        inner = opened.end() if opened else at
        article = _ARTICLE.match(lower, inner)
        best: dict[str, int] = {}  # the letters of the longest texts found, with their ends
        longest = 1
        for start in {at, inner, article.end() if article else inner}:
            if lower[start : start + 1] not in self._first:
                continue
            for letter, option, size in self._sized:
                if size < longest or not lower.startswith(option, start) or not _AFTER_TEXT.match(lower, start + size):
                    continue
                if size > longest:
                    best, longest = {}, size
                best[letter] = start + size
        if not best:
            return None
        return Reading(next(iter(best)) if len(best) == 1 else None, max(best.values()), is_text=True)

    def ending(self, text: str, lower: str) -> Ending | None:
        """Return the option that the last sentence ends in: "… of (B) London.", "… London (B).", "… is London."."""
        if not self.texts:
            return None
        end = len(lower.rstrip())
        start = max(0, end - self._longest - 300)
        border = 0
        for found in _LAST_SENTENCE.finditer(lower, start, max(start, end - 1)):
            if not _ABBREVIATION.search(lower, max(0, found.start() - 8), found.start() + 1):
                border = found.end()
        start = max(start, border)
        written = text[start:end]
        ending = self._ending_letter(written, start) or self._ending_text(lower[start:end], start)
        if ending is None or _NEGATED.search(lower, start, ending.start) or _goes_round(lower):
            return None
        return ending

    def _ending_letter(self, written: str, start: int) -> Ending | None:
        """Find a letter with its own text at the end of a sentence; no other letter may stand in it."""
        mentions = list(self._mention.finditer(written))
        letters = {next(filter(None, found.group("before", "behind", "bracketed"))) for found in mentions}
        if len(letters) != 1:
            return None
        found, letter = mentions[-1], letters.pop()
        if not found.group("behind"):
            if not written[: found.start()].strip("\"'$ "):  # a line of a list
                return None
            named = self.of_text(written[found.end() :])
        else:
            own = self._text_of(letter)
            named = Reading(letter, 0) if own and comparable(written[: found.start()]).endswith(own) else None
            if written[found.end() :].strip("\"'$. "):
                return None
        if named is None or named.letter != letter:
            return None
        return Ending(start + found.start(), start + len(written), letter, False)

    def _ending_text(self, sentence: str, start: int) -> Ending | None:
        text = comparable(sentence)
        found = [pair for pair in zip(self.letters, self.texts, strict=False) if self._ends_in(text, pair[1])]
        if len(found) > 1:  # "5" within "2.5" or "red ball" within "dark red ball": the longest
            longest = max(found, key=lambda pair: len(pair[1]))
            found = [longest] if sum(option == longest[1] for _, option in found) == 1 else []
        if len(found) != 1:
            return None
        letter, option = found[0]
        rest = text.removesuffix(option)
        rest = _EQUATION.sub("", rest)
        if any(_names(rest, other) for other in self.texts if other != option and not self._is_letter(other)):
            return None
        end = start + len(sentence.rstrip("\"'$ ."))
        return Ending(max(start, end - len(option)), end, letter.upper(), True)

    def _text_of(self, letter: str) -> str:
        return next((text for own, text in zip(self.letters, self.texts, strict=False) if own.upper() == letter), "")

    def breaks_off(self, letter: str, line: str) -> bool:
        """Tell whether a line is an option's letter with only the beginning of its text."""
        own = self._text_of(letter)
        rest = comparable(re.sub(r"\A[^a-z]*(?:(?:option|choice|answer) )?[a-z][^a-z0-9]*", "", line))
        return 0 < len(rest) < len(own) and own.startswith(rest) and " " in rest

    def _ends_in(self, text: str, option: str) -> bool:
        if not option or self._is_letter(option) or not text.endswith(option):
            return False
        before = text.removesuffix(option).rstrip("$\"'(")
        if option[0].isdigit() and not option[-1].isdigit() and _WORD_BEFORE.search(before):  # "… needs 5 hours"
            return True
        if _IS_BEFORE.search(before):
            return True
        return _BEFORE_ENDING.search(before) is not None and len(option) > 2

    def _is_letter(self, text: str) -> bool:
        return len(text) == 1 and text.upper() in self.letters.upper()

    def of_text(self, text: str) -> Reading | None:
        """Return the option whose text this whole piece of text is."""
        if not self.texts or len(text) > 2 * self._longest + 20:
            return None
        text = comparable(text)
        letters = {letter.upper() for letter, option in zip(self.letters, self.texts, strict=False) if option == text}
        if not letters or not text or self._is_letter(text):
            return None
        return Reading(letters.pop() if len(letters) == 1 else None, len(text), is_text=True)


def _goes_round(text: str) -> bool:
    """Tell whether a text breaks off in a line that repeats the line before."""
    *_, before, last = ["", *text.rstrip()[-2000:].split("\n")]
    return 0 < len(last) < len(before) and before.startswith(last)


def _names(text: str, option: str) -> bool:
    """Tell whether an option's text stands in a text, not within a word."""
    at = text.find(option) if option else -1
    while at >= 0:
        if not (text[max(0, at - 1) : at].isalnum() or text[at + len(option) : at + len(option) + 1].isalnum()):
            return True
        at = text.find(option, at + 1)
    return False


def comparable(text: str) -> str:
    """Return an option's text in the form in which texts are compared.

    >>> comparable(' The **Mitochondria**. ')
    'mitochondria'
    """
    text = " ".join(plain_markup(plain_characters(text)).lower().split())
    text = text.strip("\"'$ ").rstrip(".").strip("\"'$ ")
    return _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text
