"""Multiple-choice answers: which letter an output gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Final, Literal, NamedTuple, overload

from harness.parsers.choice_lines import Lines
from harness.parsers.labels import CONNECTIVES, DENIED_BEHIND, foreign_words, labels_of, predicates_of
from harness.parsers.letters import ENGLISH_CONNECTIVES, Options, Reading
from harness.parsers.normalize import lowered, plain_markup
from harness.parsers.reading import Explanation, located, readable
from harness.parsers.statements import UNSTATED, has_any, is_disowned, is_supposed, last_of

_MARKER: Final = re.compile(
    r"\\(?:f?boxed|fbox)"
    r"|\b(?:answer|option|choice|solution|selection|guess|letter|correct|right|best|ans|opt|sol)\b"
    r"|\b(?P<short>selected|chosen|choose|picked|pick|response|result|final|verdict|conclusion|prediction|pred|resp"
    r"|key|output)\b"
)
_MARKER_CUES: Final = (
    "ans", "opt", "choi", "cho", "sol", "select", "guess", "letter", "correct", "right", "best", "\\", "pick",
    "res", "final", "verdict", "conclusion", "pred", "key", "output",
)  # fmt: skip
_SHORT_LINK: Final = re.compile(r"[\"']?(?:[ ]is)?[ ]?(?:[:=→]|->)|[ ](?:is|-)(?=[ ])")
_LINK: Final = re.compile(
    rf"""(?:\s?\([^()\n]{{0,40}}\))?
        (?:,?[ ](?!(?:{UNSTATED}|are)\b)(?![a-z]{{1,8}}n't)
            [^\s.:=?!]{{1,24}}){{0,12}}?
        ["'\s)\]]{{0,9}}
        (?:(?:[ ](?:(?:would|will|have[ ]to|ought[ ]to|turns[ ]out[ ]to)[ ]be
                |(?:seems|appears)(?:[ ]to[ ]be)?|looks[ ](?:like|to[ ]be)|becomes|remains)|\b(?:is|was))\b(?:[ ]*:)?
            |[:=→>|]|->|[-—](?=[ ])|(?<=\banswer\])(?=[ ])|(?<=\banswer)'s(?=[ ])|(?<=\bans|\bopt
                  |\bsol)[.)]?(?=[ ]))""",
    re.VERBOSE,
)
_EACH: Final = re.compile(r"\b(?:each|every|all|other|both|following|these|those)\s(?:\w{1,12}\s)?\Z")
_IN_TURN: Final = re.compile(r"\b(?:each|every|one by one|in turn)\b[^:\n]*:\Z")
_JOINED_BOX: Final = re.compile(r"\}[ $]{0,2}(?:or|and|,|/)[ $]{0,2}\Z")
_ITEM: Final = re.compile(r"\s[(\[]?[A-Z][)\]]?\s?[:)]")  # "Option J: …" is an item of a list
_HEADING_LINK: Final = re.compile(r"[ \t:]{0,9}\n|[.;,][ ]")
_FILLER: Final = re.compile(
    r"""(?:[\s:"=→>,]|-(?=[\s>])|[{(\[](?=[{(\["]?(?:option|choice|answer|letter)\b))*+(?:(?:therefore|thus|hence|so|then|clearly|definitely|certainly|simply|just
        |of[ ]course|without[ ]a[ ]doubt|obviously|evidently|undoubtedly|apparently|presumably
        |most[ ]likely|likely|probably|indeed|actually|still|now|in[ ]fact|as[ ]follows|option|choice|letter|answer
        |alternative|statement
        |number|the|not[ ]["'(]?\w["')]?,?[ ]but(?:[ ]rather)?)(?![\w'])[\s:",=]*+){0,8}+""",
    re.VERBOSE,
)
# "I choose", "therefore", "it is", …: patterns by the words of which a text that they match in has one.
_CHOSEN: Final = tuple(
    (cues, re.compile(rf"(?:{pattern})\b(?:[,:]\s|[ ])", re.VERBOSE))
    for cues, pattern in (
        (
            ("choose", "chose", "choosing", "pick", "select", "go", "say", "opt", "guess", "think", "believe", "vote",
             "conclude", "settle", "lean", "mark", "circle", "take", "prefer", "answer"),
            r"""\b(?:i|we|i'd|i'll|i'm|we're|let's|let[ ](?:us|me))[ ]
                (?:(?:\w{3,12}ly|have[ ]to|must|think|would|will|am|going[ ]to)[ ]){0,3}
                (?:choose|chose|pick|picked|select|selected|prefer|answer
                  |go[ ](?:with|for)|going[ ](?:with|for)|say|opt[ ]for
                  |guess|think|believe
                  |vote[ ]for|vote|conclude|settle[ ]on|lean(?:ing)?[ ]towards?|take)
                (?:[ ](?:that|it's|it[ ]is))?
              | (?:\A|[.!?\n])[ \t]{0,3}(?:choose|pick|select|mark|circle
                  |go[ ]with|going[ ]with|choosing|picking|selecting)""",
        ),
        (
            ("therefore", "thus", "hence", "consequently", "so", "final", "conclusion", "actually", "rather", "instead",
             "yes", "namely", "elimination", "exclusion", "accordingly", "as a result", "ergo", "overall",
             "all in all"),
            r"""\b(?:therefore|thus|hence|consequently|so|finally|conclusion|actually|rather|instead|yes|namely|final
                  |elimination|exclusion|accordingly|as[ ]a[ ]result|ergo|overall|all[ ]in[ ]all)\b
                (?:[,:]?[ ](?:it|this|that)(?:'s|[ ](?:is|would[ ]be)))?""",
        ),
        (
            ("it's", "it is", "this's", "this is", "that's", "that is", "would be"),
            r"(?:\A|[.!?\n,;][ ]{0,3}|\bthat[ ]|\bthink[ ]|\bbelieve[ ]|\bsure[ ]|\bcertain[ ]|\bno[ ]"
            r"|\bbut[ ])(?:it|this|that)(?:'s|[ ](?:is|would[ ]be))",
        ),
        (
            ("must be", "to be", "should be", "only be", "gotta be"),
            r"\b(?:must|has[ ]to|should|can[ ]only|could[ ]only|got[ ]to|gotta)[ ]be",
        ),
        ((" but ",), r"(?:\A|[.!?\n,;:])[ ]{0,3}not[ ][(\"']?\w[)\"']?,?[ ]but"),
        (
            ("thing ", "all but", "all except", "every "),
            r"\b(?:everything|anything|all|every[ ]\w{1,12})[ ](?:else[ ])?(?:but|except(?:[ ]for)?)",
        ),
        (("which is",), r",[ ]which[ ]is"),
        (
            ("only", "last"),
            r"""\bonly[ ](?:(?:remaining|possible|viable|valid)[ ])?
                (?:one|possibility|candidate|statement)[ ]
                (?:(?!not\b)\w{1,12}[ ]){0,4}?(?:is|was)
              | \blast[ ]one[ ](?:left|remaining|standing)[ ](?:is|was)""",
        ),
        (
            ("elimination", " us "),
            r"""\belimination[ ](?:\w{1,8}[ ])?(?:leads?|brings?|points?|leaves?)[ ](?:us[ ])?(?:to|with|only)?
              | \b(?:this|that|it|which)[ ](?:leads?|brings?)[ ]us[ ]to""",
        ),
        (
            ("mak", "leav", "left"),
            r"\b(?:makes|making|leaves|leaving)(?:[ ](?:us|it|only|just|with)){0,3} | \bleft[ ](?:only[ ])?with",
        ),
        (
            ("down to", "point", "narrow"),
            r"""\bdown[ ](?:\w{1,8}[ ])?to
              | \bnarrow(?:s|ing|ed)?[ ](?:it|this|that|things)[ ]to
              | \bpoint(?:s|ing)?[ ](?:\w{3,12}ly[ ])?(?:us[ ])?(?:to|towards?)""",
        ),
        (("my ",), r"\bmy[ ](?:\w{4,8}[ ])?(?:vote|choice|pick|guess|bet)[ ](?:is|goes[ ]to|would[ ]be)"),
        (("end up", "arrive"), r"\b(?:we|i)[ ](?:end[ ]up[ ]with|arrive[ ]at)"),
        (
            ("looks", "seems", "appears"),
            r"""(?:\A|[.!?\n])[ \t]{0,3}(?:(?:it|this)[ ])?(?:looks|seems|appears)
                (?:[ ](?:like|to[ ]be|that))?(?:[ ](?:it's|it[ ]is))?""",
        ),
    )
)  # fmt: skip
_PREDICATE: Final = re.compile(
    r"""\s(?:is|was|must[ ]be|has[ ]to[ ]be|would[ ]be|seems|appears[ ]to[ ]be)[ ]
        (?:(?:\w{3,12}ly|therefore|thus|indeed)[ ])?
        (?P<what>
          (?:the|our|my|your)[ ]
          (?:(?:only|most|one|single|final|correct|right|best|accurate|appropriate|suitable|likely)[ ]){0,6}
          (?P<final>answer|option|choice|solution|(?<=[ty][ ])one)\b
        | (?:the[ ])?(?:correct|right|best)\b(?![ ](?:only|if|when|about|in|for)\b))""",
    re.VERBOSE,
)
_PREDICATE_CUES: Final = ("correct", "right", "best", "answer", "option", "choice", "only", "alone", " it is")
_CLAUSE: Final = re.compile(r"[.!?\n;:,]\s|\b(?:that|because|so|thus|therefore|hence)\s")
# Between the letter and its predicate: nothing, an aside, or the option's text after a stop or bracket.
_ASIDE: Final = re.compile(r"[)\]\"'}]{0,2}(?:\s?\([^()\n]*\)|,[^,.\n]*,|[.:]?\s?\"[^\"\n]*\"|[.):]\s?[^.\n,;:()]*)?")
_NO_SUBJECT: Final = re.compile(
    r"\b(?:neither|nor|not|than|or|like|vitamin|type|group|class|plan|hepatitis|grade)\Z", re.IGNORECASE
)
_JOINED: Final = re.compile(r"(?:\band|&)\Z")
_BEFORE_CHOICE: Final = re.compile(r"(?:\A|[.!?\n,;:—(])\s*\Z|\b(?:that|and|but)\s\Z")
_ROMAN: Final = re.compile(r"\bII\b|\(ii\)")
#: "I choose B over C"; elsewhere "B over C" may be a fraction.
_BEHIND_CHOSEN: Final = ENGLISH_CONNECTIVES | {"over"}
_IF_BEHIND: Final = re.compile(r"[)\]\"']{0,2},?[ ](?:(?:only[ ])?if|unless|provided|had|were|assuming)\b")
_STOP: Final = re.compile(
    r"[ \t]*(?:[.!?;,:)\n]|\Z|—|- )|[ \t]+(?:because|since|as|which|due|for|and|but|not|here|the|given|based|over"
    r"|rather"
    r"|instead)\b"
)


class _Statement(NamedTuple):
    """Where a statement stands, and its letter, or None where it names several or is taken back.

    `is_text` tells whether it names an option by its text alone; a letter beats any text.
    """

    at: int
    end: int
    letter: str | None
    rule: str
    is_text: bool = False
    disagrees: bool = False

    def by_text(self, reading: Reading) -> _Statement:
        """Return the statement that a reading makes of this one."""
        rule = f"an option's text {self.rule}" if reading.is_text else f"a letter {self.rule}"
        return self._replace(rule=rule, is_text=reading.is_text, disagrees=reading.disagrees)


@overload
def parse_choice(
    output: str, options: Sequence[str] | None = None, letters: str = "ABCD", *, explain: Literal[False] = False
) -> str | None: ...
@overload
def parse_choice(
    output: str, options: Sequence[str] | None = None, letters: str = "ABCD", *, explain: Literal[True]
) -> Explanation[str]: ...
def parse_choice(
    output: str, options: Sequence[str] | None = None, letters: str = "ABCD", *, explain: bool = False
) -> str | Explanation[str] | None:
    r"""Return the letter of the option that the output gives as its answer, or None.

    `options` are the texts of the options in the order of `letters`; with them an answer given as an option's text is
    read too. `letters` are the letters that count, one per option; the result is one of them. With `explain` the
    result is an `Explanation`: the letter, the rule that read it, where it stands, and whether the text beside it is
    another option's.

    Only the response is read, without reasoning, and of it the first turn, after its last retraction (see
    `harness.parsers.reasoning`, `.turns` and `.statements`).

    *What counts*: the letter alone on a line ("B", "(B)", "**B**", "B.", "=> B", "Probably B."); a first or last line
    that opens with it ("B. London", "B) London"); a letter after "the answer is", "Answer:", "Ans.", "correct option:",
    ``\\boxed{``, "I choose", "so it must be", "therefore,", "narrows it down to", or after the same words in any
    language of `harness.parsers.labels`; "B is the correct answer"; a sentence that ends in "is (B)" or "is B. London".
    Lower-case letters count alone, in brackets or before a stop. Of several statements the last one counts.
    With `options`, where no letter is stated: the text of exactly one option in the place of the letter, equal up to
    case, spacing, quotes, markup, a leading article and a final stop, or at the end of the last sentence.

    *The letter decides*, whatever text stands beside it: the letter is what was asked for. Only where what stands
    there, letter included, is an option's whole text ("C. elegans") does the text decide.

    *What does not count*: a letter in prose ("A good way", "vitamin C", "B cells", "C(6, 3)"); a number or a phrase
    that only contains an option's text ("10000 polyomaviruses" where an option is "100"); an option merely mentioned,
    ruled out ("C is wrong"), supposed or denied; a restated list of options, or one that breaks off.

    *Ambiguous, hence None*: a last statement that names several letters ("A or B", "(A) for the first and (B) for the
    second"); different letters each alone on a line, or each called correct, without a final statement; text that two
    options share.

    >>> parse_choice("(A) is wrong, (C) is wrong, so the answer is B"), parse_choice(r"\boxed{\text{B}}")
    ('B', 'B')
    >>> parse_choice("The correct answer is London.", ["Paris", "London", "Rome", "Oslo"])
    'B'
    >>> parse_choice("C. London", ["Paris", "London", "Rome", "Oslo"], explain=True)
    Explanation(answer='C', rule='a letter alone on a line', start=0, end=9, disagrees=True)
    >>> parse_choice("Answer: Because it rains."), parse_choice("A good way to start"), parse_choice("B or C")
    (None, None, None)
    >>> parse_choice("10000 polyomaviruses", ["100", "1000", "10", "1"]) is None
    True
    """
    known = _options(letters, tuple(options or ()))
    answers = partial(_answers, known)
    found = _read(readable(output, answers), known) if letters else Explanation(None, "no letters to look for")
    answer = next((own for own in letters if own.upper() == found.answer), None) if found.answer else None
    return located(found._replace(answer=answer), output, answers) if explain else answer


def letter_disagrees(output: str, options: Sequence[str] | None = None, letters: str = "ABCD") -> bool:
    """Tell whether what `parse_choice` reads is a letter that stands beside another option's text.

    >>> letter_disagrees("B. Oslo", ["Paris", "London", "Rome", "Oslo"])
    True
    """
    if not options or not letters:
        return False
    known = _options(letters, tuple(options))
    return _read(readable(output, partial(_answers, known)), known).disagrees


def _answers(options: Options, text: str) -> bool:
    return _read(plain_markup(text), options).end > 0  # one that is ambiguous is an answer too


def _read(text: str, options: Options) -> Explanation[str]:
    """Read the letter, in upper case, out of a text without markup."""
    if len(text) < 8:
        if not text.strip():
            return Explanation(None, "no response")
        if bare := options.bare.fullmatch(text):  # as most are, when a letter alone was asked for
            return Explanation(bare[1], "a letter alone on a line", 0, len(text))
    return _Reader(text, options).answer()


@lru_cache(maxsize=256)
def _options(letters: str, texts: tuple[str, ...]) -> Options:
    return Options(letters, texts)


class _Reader:
    """Finds the statements of one text, in the order of their strength."""

    def __init__(self, text: str, options: Options) -> None:
        self.text = text
        self.lower = lowered(text)
        self.options = options
        self.patterns = _patterns(options.upper_class, options.any_class)

    def answer(self) -> Explanation[str]:
        """Return the letter of the last statement, or that of weaker statements where they agree, or None."""
        strong = [*self._marked(), *self._foreign()]
        lines = Lines(self.text, self.lower, self.options)
        strong += (_Statement(*line) for line in lines.statements(labelled=bool(strong)))
        strong += self._chosen()
        weak: list[_Statement] = []
        for found, is_final in self._predicated():
            (strong if is_final else weak).append(found)
        if "I" in self.options.letters and _ROMAN.search(self.text):  # "I. … II. …" are statements, not options
            strong = [found for found in strong if found.letter != "I" or found.rule.endswith("label")]
            weak = [found for found in weak if found.letter != "I"]
        lettered = [found for found in strong if not found.is_text]
        final = max(lettered or strong, default=None, key=lambda found: found.at)
        if final is not None:
            others = {found.letter for found in strong if found.is_text and found.rule.endswith("behind a label")}
            disagrees = final.disagrees or (not final.is_text and bool(others - {final.letter, None}))
            return Explanation(final.letter, final.rule, final.at, final.end, disagrees and final.letter is not None)
        weak += self._named()
        letters = {found.letter for found in weak}
        if len(letters) > 1:
            return Explanation(None, "sentences that name different options", weak[0].at, weak[0].end)
        if not weak:
            return Explanation(None, "no statement")
        return Explanation(weak[0].letter, weak[0].rule, weak[0].at, weak[0].end, weak[0].disagrees)

    def _stated(self, start: int, at: int, reading: Reading, rule: str) -> _Statement:
        taken_back = is_disowned(self.lower, reading.end) or DENIED_BEHIND.match(self.lower, reading.end)
        letter = None if taken_back else reading.letter
        return _Statement(start, reading.end, letter, rule).by_text(reading)

    def _marked(self) -> Iterator[_Statement]:
        """Find "the answer is B", "Answer: B", "\\boxed{B}": the last letter, and the last option's text."""
        text_found = False
        if not has_any(self.lower, _MARKER_CUES):
            return
        for marker in last_of(_MARKER.finditer(self.lower)):
            at = marker.end()
            if marker[0][0] != "\\":
                if _EACH.search(self.lower, max(0, marker.start() - 24), marker.start()) or _ITEM.match(self.text, at):
                    continue
                link = (_SHORT_LINK if marker.group("short") else _LINK).match(self.lower, at, at + 400)
                if link is None and self._opens_line(marker.start()):
                    link = _HEADING_LINK.match(self.lower, at)
                if link is None or (link[0].endswith(":") and _IN_TURN.search(link[0])):
                    continue
                at = link.end()
            filler = _FILLER.match(self.lower, at)
            whole = self.options.text_at(self.lower, at)  # "the answer is the number of …", all an option's text
            at = filler.end() if filler else at
            reading = self.options.at(self.text, self.lower, at)
            if whole and (reading is None or whole.end > reading.end):
                reading = whole
            if reading and filler and self._opens_endless(filler, reading):
                continue
            if (
                reading
                and not (reading.is_text and text_found)
                and not self._is_conditional_on(marker.start(), at, reading)
            ):
                if marker[0][0] == "\\" and _JOINED_BOX.search(self.lower, 0, marker.start()):
                    reading = reading._replace(letter=None)
                yield self._stated(marker.start(), at, reading, "behind a label")
                if not reading.is_text:
                    return
                text_found = True

    def _is_conditional_on(self, start: int, at: int, reading: Reading) -> bool:
        """Tell whether a label is supposed, by what stands before it or by "would be (B) if" behind it."""
        if is_supposed(self.lower, start, at):
            return True
        return " would" in self.lower[start:at] and _IF_BEHIND.match(self.lower, reading.end) is not None

    def _opens_endless(self, filler: re.Match[str], reading: Reading) -> bool:
        """Tell whether a letter on the line behind a label is the first of several, each on its own line."""
        return (
            "\n" in filler[0]
            and not reading.is_text
            and self.patterns.endless.match(self.text, reading.end) is not None
        )

    def _foreign(self) -> Iterator[_Statement]:
        """Find the same in other languages, and "B is the answer" in them."""
        words = foreign_words(self.lower, choices=True)
        called = [
            _Statement(at, end, self.text[at], "a letter called correct")
            for at, end in predicates_of(self.lower, words)
            if self.text[at] in self.options.upper and not DENIED_BEHIND.match(self.lower, end)
        ]
        if called:  # the last; "A es correcta, B es correcta" name two
            yield called[0] if len({each.letter for each in called}) == 1 else called[0]._replace(letter=None)
        for label in labels_of(self.lower, words):
            reading = self.options.at(self.text, self.lower, label.end, CONNECTIVES)
            if reading:
                yield self._stated(label.start, label.end, reading, "behind a label")
                return

    def _opens_line(self, start: int) -> bool:
        line = self.lower[max(0, start - 40) : start].rpartition("\n")[2]
        return re.fullmatch(r"[ \t#>\d.-]*(?:(?:the|my|our|correct|best)\s)*", line) is not None

    def _chosen(self) -> Iterator[_Statement]:
        """Find "I choose B", "so it must be B", "therefore, B."."""
        found_all = [
            found
            for cues, pattern in _CHOSEN
            if has_any(self.lower, cues)
            for found in last_of(pattern.finditer(self.lower))
        ]
        for found in sorted(found_all, key=re.Match.start, reverse=True):
            filler = _FILLER.match(self.lower, found.end())
            at = filler.end() if filler else found.end()
            reading = self.options.at(self.text, self.lower, at, _BEHIND_CHOSEN)
            start = found.start() + len(found[0]) - len(found[0].lstrip(".!?,;\n "))
            if reading is None or not _STOP.match(self.lower, reading.end) or is_supposed(self.lower, start, at):
                continue
            if not self._is_passing(start, at, reading):
                yield self._stated(start, at, reading, "behind words that choose")
                return

    def _is_passing(self, start: int, at: int, reading: Reading) -> bool:
        """Tell whether what follows "thus" is part of a sentence: a variable, "I", or the text of an option."""
        written = self.text[at : reading.end]
        if reading.is_text:
            return _BEFORE_CHOICE.search(self.lower, max(0, start - 8), start) is None
        if written.startswith("I") and self.text[reading.end : reading.end + 1] != ".":
            return True
        return written.strip("$ ").islower() and "$" in written

    def _predicated(self) -> Iterator[tuple[_Statement, bool]]:
        """Find "B is correct", and whether it is called the answer."""
        if not has_any(self.lower, _PREDICATE_CUES):
            return
        has_cue = has_any(self.lower, ("only", "alone", "it is"))
        only = next(last_of(self.patterns.only.finditer(self.text)), None) if has_cue else None
        if only and not is_supposed(self.lower, only.start()):
            letter = only.group("letter") or only.group("alone") or only.group("it")
            yield _Statement(*only.span(), letter, "a letter that alone remains"), True
        for found in last_of(_PREDICATE.finditer(self.lower)):
            subject = self._subject(found.start())
            if subject and not is_supposed(self.lower, subject.at, found.end()):
                letter = None if is_disowned(self.lower, found.end()) else subject.letter
                rule = "an option's text" if subject.is_text else "a letter"
                yield (
                    subject._replace(end=found.end(), letter=letter, rule=f"{rule} called correct"),
                    found.group("final") is not None,
                )

    def _subject(self, end: int) -> _Statement | None:
        """Return the option that is the subject of a predicate that starts at `end`."""
        start = max(0, end - 120)
        window = self.text[start:end]
        clause = _CLAUSE.split(window)[-1]
        if named := self.options.of_text(clause):
            return _Statement(end - len(clause), end, named.letter, "", is_text=True)
        letters = list(self.patterns.mention.finditer(window))
        if not letters or not _ASIDE.fullmatch(window, letters[-1].end()):
            return None
        last = letters[-1]
        before = window[: last.start()].rstrip("(['\" ")
        if _NO_SUBJECT.search(before):
            return None
        joined = _JOINED.search(before) and self.patterns.before_joint.search(before)
        return _Statement(start + last.start(), end, None if joined else last[0].upper(), "")

    def _named(self) -> Iterator[_Statement]:
        """Find sentences that end in "is (B)" or "is B. London", and what the last sentence ends in."""
        for found in last_of(self.patterns.naming.finditer(self.text)):
            letter = found.group("bracketed") or found.group("letter")
            rest = _REST.match(self.text, found.end())
            if rest is None or self.patterns.other.search(rest[0]) or self._is_conditional(found.start(), found.end()):
                continue
            named = self.options.of_text(rest[0])
            if named or not self.options.texts or found.group("bracketed"):
                disagrees = named is not None and named.letter not in (letter, None)
                rule = "a letter that a sentence ends in"
                yield _Statement(found.start(), found.end(), letter, rule, disagrees=disagrees)
        ending = self.options.ending(self.text, self.lower)
        if ending and not is_supposed(self.lower, ending.start):
            kind = "an option's text" if ending.is_text else "a letter with its text"
            rule = f"{kind} that the last sentence ends in"
            yield _Statement(ending.start, ending.end, ending.letter, rule, ending.is_text)

    def _is_conditional(self, start: int, end: int) -> bool:
        """Tell whether the verb that starts at `start` is supposed: "it would be (B)"."""
        if self.lower.endswith("would ", 0, start) and _IF_BEHIND.match(self.lower, end):
            return True
        return is_supposed(self.lower, start) or is_supposed(self.lower, max(0, start - len(" would ")), start)


_REST: Final = re.compile(r"[^.!?\n]{0,80}(?=[.!?\n]|\Z)")


class _Patterns(NamedTuple):
    """The patterns that depend on which letters count."""

    mention: re.Pattern[str]
    before_joint: re.Pattern[str]  # "A" before "and B"
    naming: re.Pattern[str]
    other: re.Pattern[str]
    only: re.Pattern[str]  # "only (B) remains", "B it is"
    endless: re.Pattern[str]  # two more lines with a letter alone


@lru_cache(maxsize=64)
def _patterns(upper: str, every: str) -> _Patterns:
    return _Patterns(
        endless=re.compile(rf"[.)]?[ ]*(?:\n\s*[(]?{upper}[).]{{0,2}}[ ]*(?=\n|\Z)){{2}}"),
        mention=re.compile(rf"(?<![\w'-]){upper}(?![\w'])|(?<=\(){every}(?=\))"),
        before_joint=re.compile(rf"{upper}[)\]]?,?\s?(?:and|&)?\Z"),
        naming=re.compile(
            rf"\b(?:is|are|was|were|be|called)[ :]{{1,3}}"
            rf"(?:[(\[]\s?(?P<bracketed>{upper})\s?[)\]]|(?P<letter>{upper})(?:\)\s?|\.\s)(?=\w))"
        ),
        other=re.compile(rf"\b{upper}\b|\b(?:is|are|not)\b"),
        only=re.compile(
            rf"\b[Oo]nly[ ](?:(?:option|choice|answer)[ ])?[(\[]?(?P<letter>{upper})[)\]]?[ ](?:remains"
            rf"|is[ ]left|fits|works|holds|matches|applies|qualifies|satisfies|meets)\b"
            rf"|\b(?P<alone>{upper})[ ]alone[ ](?:fits|works"
            rf"|remains|holds|applies|qualifies|satisfies|meets)\b"
            rf"|(?<![\w'-])[(\[]?(?P<it>{upper})[)\]]?[ ]it[ ]is(?=[ ]?(?:[.!,;\n]|\Z))"
        ),
    )
