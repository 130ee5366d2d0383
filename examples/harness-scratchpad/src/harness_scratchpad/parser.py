"""The parser ``scratchpad``: the number behind the end of a scratchpad."""

from __future__ import annotations

import re
from collections.abc import Iterable

from harness.hookspecs import hookimpl
from harness.interfaces import Parser
from harness.parsers import parse_number
from harness.types import Example

from harness_scratchpad.problems import BEGIN, END

_SPACED = re.compile(r"(?<![0-9])[0-9](?: [0-9])+(?![0-9])")


class ScratchpadParser:
    """The number that stands behind a scratchpad, as a plain decimal; in an output without scratchpad, its number.

    A scratchpad that does not end has no answer, whatever numbers are in it. Of several, as where a model goes on with
    a problem of its own, the first that has an answer behind it counts. What an answer looks like is as in
    `harness.parsers.parse_number`; digits that stand apart (``8 6``) are one number.
    """

    name = "scratchpad"

    def parse(self, output: str, example: Example | None = None) -> str | None:
        """Return the answer, or None; `example` makes no difference."""
        if BEGIN not in output and END not in output:
            return _number(output)
        for behind in output.split(END)[1:]:
            answer = _number(behind.partition(BEGIN)[0])
            if answer is not None:
                return answer
        return None


def _number(text: str) -> str | None:
    return parse_number(_SPACED.sub(lambda match: match[0].replace(" ", ""), text))


@hookimpl
def harness_parsers() -> Iterable[Parser]:
    """Provide `scratchpad`."""
    return [ScratchpadParser()]
