"""How well answers are read: ours beside the extraction of other harnesses, on recorded outputs.

    python perf/reading.py [--sample N] [FILE…]

A FILE is JSON Lines, plain or packed (.gz, .xz), of outputs whose answer is known: `output`, `expected` (null where
the output states no single answer) and, for questions with choices, `options` and `letters`; `kind` splits a file.
Without files the golden cases in tests/parsers are read. `--sample` draws N outputs of each corpus, always the same, as
some rules take long. For each corpus and rule it prints how many outputs were read
at all, how many of these as expected and how many as something else, how many with an answer were left alone, and the
share that came out as expected, None for none included.

lm-eval's filters, lighteval's extraction, Inspect's and math-verify are run as they are where they are installed, and
left out where not; the three steps of MMLU-Pro's authors are restated from their script. Numbers are compared as
decimals, so that no rule loses for its spelling.
"""

from __future__ import annotations

import gzip
import json
import lzma
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from harness.parsers import canonical_number, parse_choice, parse_number

GOLDEN: Final = Path(__file__).parents[1] / "tests" / "parsers"
Case: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Case], "str | None"]


def letters_of(case: Case) -> str:
    return str(case.get("letters") or "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(case.get("options") or "ABCD")])


# --- choices


def our_choice(case: Case) -> str | None:
    return parse_choice(case["output"], case.get("options"), letters_of(case))


def mmlu_pro_steps(case: Case) -> str | None:
    """Follow MMLU-Pro's script: after "answer is", after "Answer:", else the last letter that stands alone."""
    letters = letters_of(case)
    for pattern in (rf"answer is \(?([{letters}])\)?", rf"[aA]nswer:\s*([{letters}])"):
        if found := re.search(pattern, case["output"]):
            return found[1]
    found_all = re.findall(rf"\b([{letters}])\b", case["output"])
    return found_all[-1] if found_all else None


@cache
def _lm_eval(name: str, **options: Any) -> Any:
    return getattr(import_module("lm_eval.filters.extraction"), name)(**options)


def _filtered(given: Any, case: Case) -> str | None:
    document = {"choices": list(case.get("options") or ())}
    [[answer]] = given.apply([[case["output"]]], [document])
    return None if answer == "[invalid]" else str(answer)


def lm_eval_multi_choice(case: Case) -> str | None:
    """Run lm-eval's MultiChoiceRegexFilter as mmlu_flan_cot_zeroshot's flexible-extract does."""
    given = _lm_eval(
        "MultiChoiceRegexFilter", group_select=-1, ignore_case=True, ignore_punctuation=True,
        regex_pattern=r"(\([A-Z]\))",
    )  # fmt: skip
    answer = _filtered(given, case)
    return answer.strip("()") if answer else None


def lm_eval_custom_extract(case: Case) -> str | None:
    """Run lm-eval's filter of the task mmlu_pro: after "answer is"."""
    return _filtered(_lm_eval("RegexFilter", regex_pattern=r"answer is \(?([ABCDEFGHIJ])\)?"), case)


@cache
def _lighteval(kind: str, letters: str = "") -> Any:
    utils = import_module("lighteval.metrics.utils.extractive_match_utils")
    english = import_module("lighteval.utils.language").Language.ENGLISH
    targets = {
        "choice": lambda: [utils.IndicesExtractionConfig(prefix_for_extraction="NativeLetters")],
        "number": lambda: [utils.ExprExtractionConfig()],
    }[kind]()
    regexes = utils.get_extraction_regexes(_Document(letters), targets, english)
    return utils, regexes


class _Document:
    """What lighteval's extraction asks of an example."""

    def __init__(self, letters: str) -> None:
        self.choices = list(letters)
        self.query = self.instruction = ""


def _extracted(case: Case, kind: str, letters: str = "") -> str | None:
    utils, regexes = _lighteval(kind, letters)
    found = utils.extract_target_from_pred(case["output"], regexes)
    return str(found[-1]) if found else None


def lighteval_choice(case: Case) -> str | None:
    return _extracted(case, "choice", letters_of(case))


def inspect_choice(case: Case) -> str | None:
    """Run Inspect's reading of multiple_choice(): after "ANSWER:"."""
    module = import_module("inspect_ai.solver._multiple_choice")
    found = module.parse_answers(_State(case), multiple_correct=False)
    return str(next(iter(found))) if len(found) == 1 else None


class _State:
    """What Inspect's reading of choices asks of a sample's state."""

    def __init__(self, case: Case) -> None:
        self.output = self
        self.completion = case["output"]
        self.choices = letters_of(case)


# --- numbers


def our_number(case: Case) -> str | None:
    return parse_number(case["output"])


def lm_eval_strict(case: Case) -> str | None:
    return _filtered(_lm_eval("RegexFilter", regex_pattern=r"#### (\-?[0-9\.\,]+)"), case)


def lm_eval_flexible(case: Case) -> str | None:
    given = _lm_eval("RegexFilter", regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    return _filtered(given, case)


def lighteval_number(case: Case) -> str | None:
    return _extracted(case, "number")


def inspect_number(case: Case) -> str | None:
    """Run Inspect's match(numeric=True): the last word that is a number."""
    found, _ = import_module("inspect_ai.scorer._common").match_str(case["output"], "0", "end", numeric=True)
    return found if canonical_number(found) is not None else None


def math_verify_number(case: Case) -> str | None:
    found = import_module("math_verify").parse(case["output"], parsing_timeout=None)
    return str(found[0]) if found else None


#: Rule → what must be installed for it, or nothing.
CHOICES: Final[Mapping[str, tuple[Rule, str | None]]] = {
    "ours: choice": (our_choice, None),
    "MMLU-Pro's three steps": (mmlu_pro_steps, None),
    "lm-eval mmlu_pro": (lm_eval_custom_extract, "lm_eval"),
    "lm-eval MultiChoiceRegexFilter": (lm_eval_multi_choice, "lm_eval"),
    "lighteval extraction": (lighteval_choice, "lighteval"),
    "Inspect multiple_choice": (inspect_choice, "inspect_ai"),
}
NUMBERS: Final[Mapping[str, tuple[Rule, str | None]]] = {
    "ours: final-number": (our_number, None),
    "lm-eval strict-match": (lm_eval_strict, "lm_eval"),
    "lm-eval flexible-extract": (lm_eval_flexible, "lm_eval"),
    "lighteval extraction": (lighteval_number, "lighteval"),
    "Inspect match(numeric)": (inspect_number, "inspect_ai"),
    "math-verify": (math_verify_number, "math_verify"),
}


def is_number(case: Case) -> bool:
    return case.get("parser") == "number" or (
        "parser" not in case and not case.get("options") and canonical_number(str(case["expected"])) is not None
    )


def same(answer: str | None, expected: str | None, number: bool) -> bool:
    if answer is None or expected is None or not number:
        return answer == expected
    return canonical_number(re.sub(r"[$,]", "", answer).rstrip(".")) == expected


def read_cases(path: Path) -> Iterator[Case]:
    openers: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open}
    with openers.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            case = json.loads(line)
            if "expected" in case and case.get("parser", "choice") in ("choice", "number"):
                yield case


def golden_cases(name: str) -> Iterator[Case]:
    return ({**case, "parser": name} for case in read_cases(GOLDEN / f"{name}.jsonl"))


def report(title: str, cases: list[Case]) -> None:
    number = is_number(cases[0]) or any(is_number(case) for case in cases[:50])
    answered = sum(case["expected"] is not None for case in cases)
    print(f"\n{title}: {len(cases)} outputs, {answered} with an answer")
    print(f"{'rule':<32}{'read':>8}{'right':>8}{'wrong':>8}{'left':>8}{'as expected':>13}")
    for name, (rule, needs) in (NUMBERS if number else CHOICES).items():
        if needs and not find_spec(needs):
            print(f"{name:<32}  not installed")
            continue
        found = [(rule(case), case["expected"]) for case in cases]
        read = sum(answer is not None for answer, _ in found)
        as_expected = sum(same(*pair, number) for pair in found)
        right = sum(answer is not None and same(answer, expected, number) for answer, expected in found)
        left = sum(answer is None and expected is not None for answer, expected in found)
        print(f"{name:<32}{read:>8}{right:>8}{read - right:>8}{left:>8}{100 * as_expected / len(found):>12.2f}%")


def main() -> None:
    arguments = sys.argv[1:]
    most = None
    if arguments[:1] == ["--sample"]:
        most, arguments = int(arguments[1]), arguments[2:]
    corpora: dict[str, list[Case]] = defaultdict(list)
    for argument in arguments:
        for case in read_cases(Path(argument)):
            corpora[f"{Path(argument).name} {case.get('kind', '')}".strip()].append(case)
    if not arguments:
        corpora = {f"golden cases of {name}": list(golden_cases(name)) for name in ("choice", "number")}
    for title, cases in corpora.items():
        drawn = cases if most is None or most >= len(cases) else random.Random(0).sample(cases, most)
        report(title, drawn)


if __name__ == "__main__":
    main()
