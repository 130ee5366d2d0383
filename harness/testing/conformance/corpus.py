"""Outputs as no one would want them: what models write, what attackers write, and what breaks string handling."""

from __future__ import annotations

import random
from collections.abc import Iterator

#: Ordinary outputs, in the many ways in which answers are given.
PLAIN = (
    "The answer is 18.", "#### 1,234", "So the total is $72.50.\nThe answer is **72.5**.", "\\boxed{-3}", "3/4", "12%",
    "The correct answer is B.", "B", "(C) is wrong, so the answer is (D).", "Answer: A", "**C**", "the first one",
    "safe", "unsafe", "The response is safe.", "Verdict: unsafe", "Output (a) is better.", "2", "1", "0", "tie",
    "Both are equally good.", "I prefer model 2.", "[[A]]", "yes", "no", "True", "False", "Paris",
    "<answer>Paris</answer>", '{"answer": "42", "verdict": "safe"}', "<think>it is 3, or 4</think>The answer is 4.",
    "I cannot answer that.", "Final answer: x = 7\n\nQuestion: and what is 8 + 8?\nAnswer: 16",
)  # fmt: skip

#: What surprises code: nothing, white space, control characters, half a pair, other scripts' digits, markup, limits.
STRANGE = (
    "", " ", "\n\n\t\r", "\x00", "\x00B\x00", "\x1b[31mB\x1b[0m", "\x07\x08\x7f\x9b", "\ud800", "answer \udfff 3",
    "\ud83d", "\u202eB si rewsna eht\u202c", "\u200b\u200d\ufeff4", "\u0661\u0662\u0663", "\uff11\uff12", "\u00bd",
    "\u2167", "\u2085", "e\u0301\u0301\u0301", "\U0001f468\u200d\U0001f469", "\U0010ffff", "\x85\u2028\u2029", "1e999",
    "-1e-999999999", "9" * 5000, "1/0", "0/0", "NaN", "inf", "-", ".", ",", "1.2.3.4", "1,2,3", "--5", "+-5", "1_000",
    "((((((((", "]]]]]]]]", "\\boxed{\\boxed{", "{" * 200, "[" * 200, "```\nB\n```", "<script>alert(1)</script>",
    "<answer>", "</answer>", "<answer></answer>", "%s %d %n {0} {instruction} {output}", "\\d+(a+)+$", "A B C D",
    "A, B, C, D, E, F", "the answer is the answer is the answer is", "safe unsafe safe", "\\u0041", "&#66;", "B\x00",
)  # fmt: skip

#: Repeated, these are what makes patterns and loops take quadratic time, or worse.
PIECES = (
    "9", "1,234,", "1-", "1 1/1 ", "(1", "\u00bd", "1x10^", "0.", "the answer is ", "answer: ", "best ", "A\n",
    "B is correct ", "\\boxed{", "therefore ", "so it is ", "A and ", "#", "\n#### ", "\n# Query:", "<think>", "</s",
    "wait, ", "\\frac{1}{", '"', "'", "(", "[", "{", "<answer>", "**", "_", " ", "\n", "\t ", "a", "aA1 ", "not ",
    "unsafe or safe ", "response is ", "output (a) is ", "1 > 2 ", "model ", "i prefer ", "[[A", "\u0301", "\ud800",
    "=", "-", ":", "```\n", "&lt;",
)  # fmt: skip


def hostile_texts(count: int = 300, seed: int = 0) -> Iterator[str]:
    """Yield `PLAIN`, `STRANGE`, `count` mixtures of their parts, drawn by `seed`, and a million characters."""
    yield from PLAIN
    yield from STRANGE
    draw = random.Random(seed)
    parts = (*PLAIN, *STRANGE, *PIECES)
    for _ in range(count):
        mixed = "".join(draw.choice(parts) + draw.choice(("", " ", "\n")) for _ in range(draw.randint(1, 12)))
        start = draw.randrange(len(mixed) + 1)
        yield mixed[start:] if draw.random() < 0.3 else mixed
    yield "".join(map(chr, range(0x3000)))
    yield "lorem ipsum " * 83_334
