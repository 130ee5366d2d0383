"""What a check is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from unittest import SkipTest

from harness.errors import HarnessError
from harness.testing.conformance.subject import Subject


@dataclass(frozen=True)
class Check:
    """One promise that a plugin keeps or breaks; calling it finds out which.

    It raises AssertionError, one sentence, where the promise is broken or the plugin raises anything, and
    unittest.SkipTest where it cannot be checked with what there is.
    """

    function: Callable[[Subject], None]

    @property
    def name(self) -> str:
        """The promise in a few words: ``ids are unique``."""
        return self.function.__name__.replace("_", " ")

    def __str__(self) -> str:
        return self.name

    def __call__(self, subject: Subject) -> None:
        try:
            self.function(subject)
        except (AssertionError, SkipTest):
            raise
        except HarnessError as error:
            raise AssertionError(str(error)) from error
        except Exception as error:
            raise AssertionError(f"it raises {type(error).__name__}: {error}") from error


def require(kept: object, sentence: str) -> None:
    """Raise AssertionError with `sentence` unless `kept` is true."""
    if not kept:
        raise AssertionError(sentence)


def quoted(value: object, most: int = 80) -> str:
    """Return a value as messages show it: its repr, in ASCII and not too long."""
    text = ascii(value)
    return text if len(text) <= most else f"{text[: most - 4]} ..."
