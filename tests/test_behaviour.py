"""The digest of what an object does: the same in another process, another after any change that matters."""

from __future__ import annotations

import subprocess
import sys

import pytest

PARSER = """
import functools, re
from dataclasses import dataclass
from harness.types import Generation

WORDS = {"yes", "aye", "sure"}
PATTERN = re.compile("(yes|no)")

def clean(text):
    return text.strip()

class Base:
    def tidy(self, text):
        return clean(text).lower()

@dataclass(frozen=True)
class Mine(Base):
    name: str = "mine"
    limit: int = 3
    generation: Generation = Generation(max_tokens=5)

    @property
    def words(self):
        return [each for each in sorted(WORDS)]

    def parse(self, output, example=None):
        '''Read it.'''
        found = PATTERN.search(self.tidy(output))
        return found.group(1) if found else next((w for w in self.words if w in output), None)

plugin = Mine()
plugin.__dict__["rule"] = functools.partial(max, 1)
"""


def digest(source: str, seed: str = "1") -> str:
    program = f"{source}\nfrom harness.behaviour import behaviour\nprint(behaviour(plugin))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed})
    return done.stdout.strip()


def test_it_is_the_same_in_every_process() -> None:
    assert digest(PARSER, "1") == digest(PARSER, "2")
    assert len(digest(PARSER)) == 12


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("(yes|no)", "(yes|nope)"),  # a pattern of the module
        ('"aye", ', ""),  # a set of the module
        ("text.strip()", "text.rstrip()"),  # a function that a base calls
        (".lower()", ".upper()"),  # a base's method
        ("found.group(1)", "found.group(0)"),  # its own code
        ("sorted(WORDS)", "list(WORDS)"),  # a property
        ("limit: int = 3", "limit: int = 4"),  # a value
        ("partial(max, 1)", "partial(max, 2)"),  # an attribute
        ("example=None", "example=1"),  # a default
        ("max_tokens=5", "max_tokens=6"),  # a value of another package's class
    ],
)
def test_what_changes_its_answers_changes_it(before: str, after: str) -> None:
    assert before in PARSER
    assert digest(PARSER) != digest(PARSER.replace(before, after))


def test_what_it_was_loaded_with_does_not_count() -> None:
    assert digest(PARSER) == digest(f"import json\nOTHER = 3\n\n{PARSER}")
