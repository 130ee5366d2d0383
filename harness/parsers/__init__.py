"""Pure functions that read answers out of model outputs; they need nothing but the standard library.

Every parser takes any str and gives a value of its closed set, or None where the output has no answer or an ambiguous
one; none raises, guesses or takes more than linear time. What counts is in each function's documentation. With
``explain=True`` each gives an `Explanation`: its answer, the rule that read it, and where in the output it stands.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.parsers.choice import parse_choice
    from harness.parsers.choices import parse_choices
    from harness.parsers.math_answer import parse_math
    from harness.parsers.number import parse_last_number, parse_number
    from harness.parsers.numerals import canonical_number
    from harness.parsers.preference import parse_preference
    from harness.parsers.reading import Explanation
    from harness.parsers.reasoning import is_thought_only, without_reasoning
    from harness.parsers.short_answer import parse_short_answer
    from harness.parsers.verdict import parse_verdict

__all__ = [
    "Explanation",
    "canonical_number",
    "is_thought_only",
    "parse_choice",
    "parse_choices",
    "parse_last_number",
    "parse_math",
    "parse_number",
    "parse_preference",
    "parse_short_answer",
    "parse_verdict",
    "without_reasoning",
]

#: Name → the module that it is imported from when it is first asked for: their patterns take time to compile.
_MODULES = {
    "Explanation": "reading",
    "canonical_number": "numerals",
    "is_thought_only": "reasoning",
    "parse_choice": "choice",
    "parse_choices": "choices",
    "parse_last_number": "number",
    "parse_math": "math_answer",
    "parse_number": "number",
    "parse_preference": "preference",
    "parse_short_answer": "short_answer",
    "parse_verdict": "verdict",
    "without_reasoning": "reasoning",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = function
    return function
