"""How fast the parsers are, and how often they are right beside the rules of other harnesses.

    python perf/parsers.py [--peers]

prints, in one process: outputs a second of each parser over typical outputs (wanted: 20,000) and the slowest of several
million-character adversarial texts (wanted: under a second), both in seconds of one core, so that other processes do
not count, and with `--peers` how many of the golden cases in tests/parsers the rules of lm-eval, inspect_ai, lighteval
and a plain regular expression get right. Those rules are restated here from their published patterns, each named with
its source; nothing of those projects is run.
Numbers count as right where they are equal as decimals, so that no rule loses for its spelling. The golden cases were
written for our conventions: they say what each rule misses of them, not how often that occurs in real outputs.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness.parsers import (
    canonical_number,
    parse_choice,
    parse_choices,
    parse_last_number,
    parse_math,
    parse_number,
    parse_preference,
    parse_short_answer,
    parse_verdict,
)

GOLDEN: Final = Path(__file__).parents[1] / "tests" / "parsers"
WANTED: Final = 20_000
OPTIONS: Final = ("It increases", "It decreases", "It stays the same", "It cannot be determined")

CHOICES: Final = (
    "B", "The correct answer is B.", "(C)", "**B**", "B. It decreases", "Answer: D", "The answer is (A).",
    "The correct answer is C.\n```\n\n# Query:\n```\nWhat is the boiling point of water?",
    "The pressure rises while the temperature is constant, so the volume must fall. The correct answer is B.",
    "I believe that the reaction is endothermic because heat is absorbed. Thus the answer is (D).",
    "Option A is true of plants only. Option B says that the membrane is selectively permeable, which fits. Options C"
    " and D are about ribosomes, so they are not relevant.\n\nTherefore, the correct answer is B.",
)  # fmt: skip
NUMBERS: Final = (
    "18", "#### 18", "The answer is 42.",
    "She sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips altogether in April and May.\n#### 72",
    "There are 16 eggs a day. She eats 3 for breakfast and bakes with 4, so 16 - 3 - 4 = 9 eggs are left. At $2 each"
    " she makes 9 * 2 = $18 every day at the market.",
    "First, the pens: 3 * $2 = $6. Then the books: 4 * $5 = $20. In total, $6 + $20 = $26. The answer is $26.",
    "**Step 1:** Find the total.\n\n$5 \\times 12 = 60$\n\n**Step 2:** Subtract.\n\n$60 - 14 = 46$\n\nThe final answer"
    " is: $\\boxed{46}$",
    "12 boxes hold 1,200 pens.\n\nQuestion: A farmer has 12 cows and buys 5 more. How many has he?\nAnswer: 17",
)  # fmt: skip
VERDICTS: Final = (
    "safe", "unsafe\nS1", "**True**", "False", "The response is safe because it refuses to help with the request.",
    '{"verdict": "unsafe"}', "Unsafe. The response gives instructions that could be used to cause harm.",
    "I cannot judge.",
)  # fmt: skip
PREFERENCES: Final = (
    "m", "M", "Output (a)", "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]", "[[A]]", "tie",
    "Both outputs follow the instruction, but Output (b) gives more detail. Therefore, Output (b) is better.",
)  # fmt: skip
SEVERAL: Final = (
    "A, C", "The correct answers are B and D.", "(A) and (C)", "**A, B**", "Answer: A, B, D",
    "Option A is true of plants only, as is D. Options B and C are not. Therefore, the correct answers are A and D.",
)  # fmt: skip
SHORT: Final = (
    "Paris", "The answer is Paris.", "The capital of France is Paris.", "**Answer:** Marie Curie",
    "She was born in Warsaw and worked in Paris. The final answer is: Marie Curie.",
)  # fmt: skip
EXPRESSIONS: Final = (
    "\\boxed{\\dfrac{1}{2}}", "The final answer is $\\left( 3, \\frac{\\pi}{2} \\right)$.", "$x = 4$",
   "Answer: 2\\sqrt{3}",
    "We have $x^2 = 4$, so $x = 2$ or $x = -2$. The sum of the squares is $8$. Thus the answer is \\boxed{8}.",
)  # fmt: skip
ADVERSARIAL: Final = (
    "9", "1,234,", "1-", "1 1/1 ", "(1", "½", "\n", "\n# Quer", "the answer is ", "best ", "A\n", "B is correct ",
    "\\boxed{",
    "therefore ", "so it is ", "\\frac{1}{", "<think>", "wait, ", "* ", "unsafe or safe ", "output (a) is ",
    "'rank': 1, ",
    "A > ", '"', " ", "if the answer is 1 ",
)  # fmt: skip

PARSERS: Final[Mapping[str, tuple[Callable[[str], Any], Sequence[str]]]] = {
    "parse_choice": (parse_choice, CHOICES),
    "parse_choice with options": (lambda output: parse_choice(output, OPTIONS), CHOICES),
    "parse_number": (parse_number, NUMBERS),
    "parse_last_number": (parse_last_number, NUMBERS),
    "parse_choices": (parse_choices, SEVERAL),
    "parse_short_answer": (parse_short_answer, SHORT),
    "parse_short_answer, golds": (lambda output: parse_short_answer(output, ["Paris", "Marie Curie"]), SHORT),
    "parse_math": (parse_math, EXPRESSIONS),
    "parse_verdict": (parse_verdict, VERDICTS),
    "parse_preference": (parse_preference, PREFERENCES),
}


def outputs_per_second(parse: Callable[[str], Any], outputs: Sequence[str]) -> float:
    """Return the best of five half-second runs."""
    best = 0.0
    for _ in range(5):
        done, start = 0, time.process_time()
        while (elapsed := time.process_time() - start) < 0.5:
            for output in outputs:
                parse(output)
            done += len(outputs)
        best = max(best, done / elapsed)
    return best


def slowest(parse: Callable[[str], Any]) -> tuple[float, str]:
    """Return the seconds that the worst text of a million characters takes, and what it repeats."""
    worst = (0.0, "")
    for piece in ADVERSARIAL:
        text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
        start = time.process_time()
        parse(text)
        worst = max(worst, (time.process_time() - start, piece))
    return worst


def report_speed() -> None:
    print(f"{'parser':<28}{'outputs/s':>12}{'wanted':>10}{'a million characters, worst':>32}")
    for name, (parse, outputs) in PARSERS.items():
        rate = outputs_per_second(parse, outputs)
        seconds, piece = slowest(parse)
        print(f"{name:<28}{rate:>12,.0f}{WANTED:>10,}{seconds:>12.2f} s of {piece!r}")


# --- the rules of others, as published


def _last(pattern: str, output: str) -> str | None:
    found = re.findall(pattern, output)
    return "".join(found[-1]) if found and isinstance(found[-1], tuple) else found[-1] if found else None


def lm_eval_strict(output: str) -> str | None:
    """lm-eval tasks/gsm8k/gsm8k.yaml, strict-match: the first number after "#### "."""
    found = re.search(r"#### (\-?[0-9\.\,]+)", output)
    return found[1] if found else None


def lm_eval_flexible(output: str) -> str | None:
    """lm-eval tasks/gsm8k/gsm8k.yaml, flexible-extract: the last number-like string."""
    return _last(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", output)


def inspect_numeric(output: str) -> str | None:
    """inspect_ai scorer/_common.py match_str(numeric=True, location="end"): the last word that is a float."""
    words = re.sub(r"[$€£,*_]", "", output).split()
    for word in reversed([word.rstrip(".") for word in words]):
        try:
            return f"{float(word):.5g}"
        except ValueError:
            continue
    return None


def lighteval_gsm8k(output: str) -> str | None:
    """lighteval's expression extraction, reduced to its anchors: a number after an answer phrase, else the last one."""
    number = r"-?\$?\d{1,3}(?:[ ,]\d{3})+(?:\.\d+)?|-?\$?\d+(?:\.\d+)?"
    anchored = re.findall(rf"(?i:final answer is|answer is|answer:|\\boxed\{{)[\s:$*]*({number})", output)
    return anchored[-1] if anchored else _last(f"({number})", output)


def plain_number(output: str) -> str | None:
    """The last match of the expression that most scripts use."""
    return _last(r"(-?\d+(?:\.\d+)?)", output.replace(",", ""))


def _spelling(answer: str | None) -> str | None:
    return canonical_number(re.sub(r"[$,]", "", answer).rstrip(".")) if answer else None


def lm_eval_cot_strict(output: str, options: Sequence[str]) -> str | None:
    """lm-eval mmlu_flan_cot_zeroshot, strict-match: what follows "The answer is ", less its last character."""
    found = re.search(r"(?<=The answer is )(.*)(?=.)", output)
    return found[0].strip("()") if found else None


def lm_eval_cot_flexible(output: str, options: Sequence[str]) -> str | None:
    """lm-eval MultiChoiceRegexFilter: the last "(X)", else an option's text, else a letter after a colon."""
    if found := re.findall(r"\(([A-Z])\)", output):
        return str(found[-1])
    for letter, option in zip("ABCD", options, strict=False):
        if option.lower() in output.lower():
            return letter
    return _last(r":\s*(A|B|C|D)", output)


def lm_eval_generative(output: str, options: Sequence[str]) -> str | None:
    """lm-eval mmlu_generative: the first line, compared without case and punctuation."""
    return re.sub(r"[^\w\s]", "", output.strip().split("\n")[0]).strip().upper() or None


def inspect_choice(output: str, options: Sequence[str]) -> str | None:
    """inspect_ai multiple_choice(): the last "ANSWER: X" on a line of its own, else the last one anywhere."""
    found = re.findall(r"(?im)^ANSWER\s*:\s*([A-Z])\W*$", output) or re.findall(r"(?i)ANSWER\s*:\s*([A-Z])\b", output)
    return found[-1].upper() if found else None


def lighteval_choice(output: str, options: Sequence[str]) -> str | None:
    """lighteval mmlu: five tokens up to a line end, compared after strip()."""
    return output.strip().split("\n")[0] if output.strip() else None


def plain_choice(output: str, options: Sequence[str]) -> str | None:
    """The first capital letter that stands alone."""
    found = re.search(r"\b([A-D])\b", output)
    return found[1] if found else None


NUMBER_RULES: Final[Mapping[str, Callable[[str], str | None]]] = {
    "ours: final-number": parse_number,
    "lm-eval strict": lm_eval_strict,
    "lm-eval flexible": lm_eval_flexible,
    "inspect_ai match(numeric)": inspect_numeric,
    "lighteval (anchors)": lighteval_gsm8k,
    "plain regular expression": plain_number,
}
CHOICE_RULES: Final[Mapping[str, Callable[[str, Sequence[str]], str | None]]] = {
    "ours: choice": parse_choice,
    "lm-eval flan_cot strict": lm_eval_cot_strict,
    "lm-eval flan_cot flexible": lm_eval_cot_flexible,
    "lm-eval generative": lm_eval_generative,
    "inspect_ai multiple_choice": inspect_choice,
    "lighteval": lighteval_choice,
    "plain regular expression": plain_choice,
}


def golden(name: str) -> list[dict[str, Any]]:
    lines = (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [json.loads(line) for line in lines]


def _valid(letter: str | None) -> str | None:
    return letter if letter in ("A", "B", "C", "D") else None


def report_peers() -> None:
    numbers, choices = golden("number"), golden("choice")
    tables: list[tuple[str, list[dict[str, Any]], dict[str, list[str | None]]]] = [
        (
            "number",
            numbers,
            {name: [_spelling(rule(case["output"])) for case in numbers] for name, rule in NUMBER_RULES.items()},
        ),
        (
            "choice",
            choices,
            {
                name: [_valid(rule(case["output"], case.get("options", ()))) for case in choices]
                for name, rule in CHOICE_RULES.items()
            },
        ),
    ]
    for title, cases, answers in tables:
        stated = sum(case["expected"] is not None for case in cases)
        print(f"\n{len(cases)} golden cases of {title}: {stated} with an answer, {len(cases) - stated} without")
        print(f"{'rule':<28}{'right':>8}{'wrong':>8}{'missed':>8}{'invented':>10}")
        for name, found in answers.items():
            pairs = [(answer, case["expected"]) for answer, case in zip(found, cases, strict=True)]
            right = sum(answer == expected for answer, expected in pairs)
            missed = sum(answer is None and expected is not None for answer, expected in pairs)
            invented = sum(answer is not None and expected is None for answer, expected in pairs)
            print(f"{name:<28}{right:>8}{len(pairs) - right - missed - invented:>8}{missed:>8}{invented:>10}")


def main() -> None:
    if unknown := [argument for argument in sys.argv[1:] if argument != "--peers"]:
        sys.exit(f"usage: python perf/parsers.py [--peers]; not {' '.join(unknown)}")
    report_speed()
    if "--peers" in sys.argv:
        report_peers()


if __name__ == "__main__":
    main()
