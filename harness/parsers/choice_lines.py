"""Lines that are an option, or open with one: the shortest ways to answer a question with choices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from harness.parsers.letters import VERB, Options, Reading
from harness.parsers.statements import is_disowned, lines_of

_DISMISSED: Final = re.compile(rf"\s+(?:{VERB}|and|or)\b")
_APPROVED: Final = re.compile(
    r"(?:[-—:(][ \t(]*+(?:this is )?(?:the )?(?:(?:correct|right)(?: answer| choice| option)?)"
    r"|[✓✔✅](?: correct)?)[ \t).!✓✔✅]*+\Z"
)
_INDENT: Final = re.compile(r"(?:[\s>#•*]|[-=]>?\s|→)*+")
# What opens a reply and says nothing of its own: "Sure, B.", "In short: C", "1. B", "| 3 | D |", "- [x] A".
_LEAD: Final = (
    r"(?:(?:[Hh]mm|[Ss]ure|[Oo]kay|[Oo][Kk]|[Ww]ell|[Rr]ight|[Oo]f\ course|[Ii]n\ short|[Tt]o\ conclude"
    r"|[Ii]n\ summary"
    r"|TL;DR)[,.:!…—]{1,3}\ |[Qq]?\d{1,3}[.):]\ |\|\ ?\d{1,3}\ ?\|\ ?|\[[xX✓✔]\]\ )?+"
)
#: Pictures before an answer.
_PICTURES: Final = "✓✔✅☑\ufe0f\U0001f300-\U0001faff"
_HEDGE: Final = (
    r"(?:(?:(?:[Mm]ost|[Vv]ery|[Aa]lmost|[Qq]uite)\ )?(?:[Pp]robably|[Ll]ikely|[Mm]aybe|[Pp]erhaps|[Pp]ossibly"
    r"|[Dd]efinitely|[Cc]ertainly"
    r"|[Ss]urely|[Cc]learly|[Oo]bviously|[Ss]imply|[Jj]ust|[Oo]nly|[Aa]pparently|[Pp]resumably|[Uu]ndoubtedly|[Ee]vidently"
    r"|[Ww]ithout\ (?:a\ )?doubt)[,:]?\ (?:it's\ |it\ is\ )?)?"
)
#: "(A, B and D)" names options in an aside.
_ASIDE: Final = re.compile(r"\((?:[a-z]{2,8} )?[A-Z](?:(?:, | and |, and | or |, or |/)[A-Z]){1,25}\)")
# "Let us look at each option in turn:" opens a list of options.
_OPENS_LIST: Final = re.compile(
    r"[^\n]*\b(?:options?|choices|answers|each|them|following|statements?|one by one|in turn)\b[^\n]*:\s*\Z"
    r"|[^\n]*\b(?:consider|evaluate|examine|analy[sz]e|look\sat|go\s(?:through|over)|check|review|assess"
    r"|discuss)\b[^\n.]*"
    r"\b(?:options|choices|answers|each|statements|one by one|in turn)\b[^\n.]*\.\s*\Z"
)

#: Where a statement stands and ends, its letter (None: several, or taken back), its rule, whether it is an option's
#: text alone, and whether another option's text stands beside the letter.
Stated = tuple[int, int, "str | None", str, bool, bool]


class _Line(NamedTuple):
    """A line that opens with an option: its letter, None where it names several."""

    at: int
    end: int
    letter: str | None
    is_alone: bool = False
    is_text: bool = False
    disagrees: bool = False
    is_approved: bool = False
    is_first: bool = False
    is_last: bool = False

    def stated(self, letter: str | None, rule: str) -> Stated:
        rule = f"an option's text {rule}" if self.is_text else f"a letter {rule}"
        return self.at, self.end, letter, rule, self.is_text, self.disagrees


class Lines:
    """The lines of one text, of which `lower` is the lower-case form."""

    def __init__(self, text: str, lower: str, options: Options) -> None:
        self.text = text
        self.lower = lower
        self.options = options
        self.opening, self.enumerated = _patterns(options.upper_class, options.any_class)

    def statements(self, *, labelled: bool) -> Iterator[Stated]:
        """Find letters (or texts of options) alone on a line, and a first or last line that opens with a letter.

        Letters on lines that contradict one another are None, or nothing where the text has a `labelled` statement.
        """
        opened = self._opened_lines()
        if not opened:
            return
        listed = self._listed(opened)
        yield from self._alone(opened, listed, labelled)
        first, last = opened[0], opened[-1]
        if first.is_first and 0 not in listed and not first.is_alone and not self._repeats(first):
            yield first.stated(first.letter, "that opens the first line")
        agree = len({line.letter for line in opened}) == 1
        if last.is_last and not last.is_alone and agree and not (self._repeats(last) or self._is_listed_last(last)):
            yield last.stated(last.letter, "that opens the last line")
        approved = {line.letter: line for line in opened if line.is_approved}
        if approved:
            line = list(approved.values())[-1]
            yield line.stated(line.letter if len(approved) == 1 else None, "whose line is marked correct")

    def _listed(self, opened: list[_Line]) -> set[int]:
        """Return which lines are a list of options: their letters follow one another."""
        listed = {
            index
            for index, (one, two) in enumerate(pairwise(opened))
            if one.letter
            and two.letter
            and one.is_text == two.is_text
            and one.letter + two.letter in self.options.letters.upper()
        }
        return listed | {index + 1 for index in listed}

    def _alone(self, opened: list[_Line], listed: set[int], labelled: bool) -> Iterator[Stated]:
        lettered = any(line.is_alone and not line.is_text for line in opened)
        alone = {index: line for index, line in enumerate(opened) if line.is_alone and not (lettered and line.is_text)}
        standing = [line for index, line in alone.items() if index not in listed]
        if not standing or (labelled and len(standing) > 3):  # letters without end
            return
        line = standing[-1]
        if len({each.letter for each in alone.values()}) > 1:
            if not labelled:
                yield line.stated(None, "alone on a line, and another on another")
            return
        yield line.stated(None if is_disowned(self.lower, line.end) else line.letter, "alone on a line")

    def _opened_lines(self) -> list[_Line]:
        """Return the lines that open with a letter or are an option's text, from top to bottom."""
        written = list(lines_of(self.text))
        lines = [line for at, content in written if (line := self._line(content, at))]
        first, last = written[0][0], written[-1][0]
        return [line._replace(is_first=line.at == first, is_last=line.at == last) for line in lines]

    def _repeats(self, line: _Line) -> bool:
        """Tell whether a line goes round in circles: its first sentence stands in it three times or more."""
        if not line.is_text:
            return False
        content = self.lower[line.at : line.end].strip()
        sentence = re.match(r"[^.!?]{6,200}[.!?]", content)
        return sentence is not None and content.count(sentence[0]) > 2

    def _is_listed_last(self, line: _Line) -> bool:
        """Tell whether the last line is the first of a list that breaks off."""
        before = self.lower[max(0, line.at - 200) : line.at].rstrip()
        if _OPENS_LIST.fullmatch(before[before.rfind("\n") + 1 :]):
            return True
        return line.letter is not None and self.options.breaks_off(line.letter, self.lower[line.at : line.end])

    def _whole_line(self, content: str, at: int) -> Reading | None:
        """Return the option whose text is the whole line, with or without its letter before ("B London")."""
        start = at + _INDENT.match(content).end()  # type: ignore[union-attr]  # it matches the empty string
        if named := self.options.of_text(self.text[start : at + len(content)]):
            return named
        reading = self.options.at(self.text, self.lower, start) if self.options.texts else None
        return reading if reading and not self.text[reading.end : at + len(content)].strip("\"'$). ") else None

    def _line(self, content: str, at: int) -> _Line | None:
        """Read one line that starts at `at`."""
        end = at + len(content)
        if content in self.options.bare_letters:
            return _Line(at, end, content, is_alone=True)
        if named := self._whole_line(content, at):
            return _Line(at, end, named.letter, True, named.is_text, named.disagrees)
        if named := self.options.text_at(self.lower, at + _INDENT.match(content).end()):  # type: ignore[union-attr]
            return _Line(at, end, named.letter, is_text=True)  # "London, because …"
        found = self.opening.match(content)
        if found is None:
            return None
        if found.group("alone"):
            return _Line(at, end, found.group("alone").upper(), is_alone=True)
        start = found.start("bracketed") if found.group("bracketed") else found.start("letter")
        reading = self.options.at(self.text, self.lower, at + start)
        is_approved = _APPROVED.search(content.lower()) is not None
        if reading and reading.is_named:
            return _Line(at, end, reading.letter, is_approved=is_approved)
        rest = content[found.end() :]
        listed = self.enumerated.search(_ASIDE.sub("", rest))
        if (not found[0].endswith(".") and _DISMISSED.match(rest)) or listed:  # "(A) is wrong", "(A) 3 (B) 4"
            return None
        if found.group("letter") == "A" and found[0].endswith(":"):  # "A:" may stand for "Answer:"
            after = self.options.at(self.text, self.lower, at + found.end())
            if after:
                return _Line(at, after.end, after.letter, True, after.is_text, after.disagrees)
            if not self.options.texts:
                return None
        if reading is None:  # "A, B and C are wrong"
            return None
        return _Line(at, end, reading.letter, False, reading.is_text, reading.disagrees, is_approved)


@lru_cache(maxsize=64)
def _patterns(upper: str, every: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of a line that opens with a letter, and of another option on the same line."""
    opening = re.compile(
        rf"""[\s\#>•*→=+{_PICTURES}-]*+(?:
            {_LEAD}{_HEDGE}(?:(?:[Oo]ption|(?:[Aa]nswer[ ])?[Cc]hoice|[Aa]nswer|[Ll]etter)[ -])?
              [(\[{{<"'$]{{0,6}}[ ]?(?P<alone>{every})[ ]?[)\]}}>"'$]{{0,6}}[ \t]?[.:;!,)]?["')\]$]{{0,3}}
              [ \t|{_PICTURES}-]*+\Z
          | (?:[Oo]ption[ ]|[Cc]hoice[ ]|[Aa]nswer[ ])?(?:
              [(\["']{{1,3}}(?P<bracketed>{upper})[)\]"']{{1,3}}[.:,]?
            | (?P<letter>{upper})(?:[.):,]|[ ]+(?=[-—]\s|\()
              |(?=[ ](?:because|since)\b))))""",
        re.VERBOSE,
    )
    return opening, re.compile(rf"(?<![|∨∧⊃→&·≡~+*/=-])(?<![|∨∧⊃→&·≡~+*/=-][ ])\b{upper}[)\]]")
