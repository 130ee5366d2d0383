"""The parser library under the names that users type, from the standard library alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness import parsers

if TYPE_CHECKING:
    from harness.interfaces import Parser
    from harness.parsers import Explanation
    from harness.types import Example, Likelihood

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _nothing(_example: Example | None) -> Mapping[str, Any]:
    return {}


def _options(example: Example | None) -> Mapping[str, Any]:
    """Return the options of a question (its field ``options``) and as many letters."""
    options = example.fields.get("options") if example is not None else None
    if options is None:
        return {}
    return {"options": [str(option) for option in options], "letters": _ALPHABET[: len(options)]}


def _golds(example: Example | None) -> Mapping[str, Any]:
    """Return what is right: the gold, and what the field ``answers`` holds besides."""
    if example is None:
        return {}
    others = example.fields.get("answers")
    others = others if isinstance(others, list) else []
    golds = [gold for gold in (example.gold, *others) if isinstance(gold, str)]
    return {"golds": golds} if golds else {}


def _gold(example: Example | None) -> Mapping[str, Any]:
    return {} if example is None or example.gold is None else {"gold": example.gold}


class OutputParser:
    """A function of `harness.parsers`, imported when it is first called, with what it is told of the example.

    It is no dataclass, as the fields of one would be options for users.
    """

    def __init__(
        self, name: str, function: str, told: Callable[[Example | None], Mapping[str, Any]] = _nothing
    ) -> None:
        self.name = name
        self._function = function
        self._told = told

    def parse(self, output: str, example: Example | None = None) -> str | None:
        """Return the answer in the output, or None."""
        answer = self._read(output, **self._told(example))
        return None if answer is None else str(answer)

    def explain(self, output: str, example: Example | None = None) -> Explanation[str]:
        """Return the answer with the rule that read it, and where it stands in the output."""
        found: Explanation[Any] = self._read(output, **self._told(example), explain=True)
        return found if found.answer is None else found._replace(answer=str(found.answer))

    @cached_property
    def _read(self) -> Callable[..., Any]:
        read: Callable[..., Any] = getattr(parsers, self._function)
        return read


class ChoiceParser(OutputParser):
    """`parse_choice`, which can tell a letter from the text beside it."""

    def disagrees(self, output: str, example: Example | None = None) -> bool:
        """Tell whether the answer is a letter that stands beside another option's text."""
        from harness.parsers.choice import letter_disagrees

        return letter_disagrees(output, **self._told(example))


class Likeliest:
    """Reads an answer in the options' log-probabilities, each divided by its `length`."""

    def __init__(self, name: str, length: Callable[[Likelihood], int]) -> None:
        self.name = name
        self._length = length

    def parse(self, output: str, example: Example | None = None) -> str | None:
        """Return a text that is a letter and nothing else, as a gold answer is; what a model says is not looked at."""
        letter = output.strip()
        return letter if len(letter) == 1 and letter in _ALPHABET else None

    def likeliest(self, likelihoods: Sequence[Likelihood]) -> str | None:
        """Return the answer of the option with the greatest log-probability for its length."""
        best = max(likelihoods, key=lambda each: each.logprob / max(1, self._length(each)), default=None)
        return None if best is None else best.answer


PARSERS: tuple[Parser, ...] = (
    OutputParser("final-number", "parse_number"),
    OutputParser("last-number", "parse_last_number"),
    ChoiceParser("choice", "parse_choice", _options),
    OutputParser("choices", "parse_choices", _options),
    OutputParser("short_answer", "parse_short_answer", _golds),
    OutputParser("math", "parse_math", _gold),
    OutputParser("verdict", "parse_verdict"),
    OutputParser("preference", "parse_preference"),
    Likeliest("loglikelihood", lambda each: 1),
    Likeliest("loglikelihood_tokens", lambda each: each.tokens),
    Likeliest("loglikelihood_bytes", lambda each: len(each.text.encode("utf-8", "surrogatepass"))),
)
