"""What holds of every parser for every text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.parsers import (
    canonical_number,
    is_thought_only,
    parse_choice,
    parse_choices,
    parse_last_number,
    parse_math,
    parse_number,
    parse_preference,
    parse_short_answer,
    parse_verdict,
    without_reasoning,
)
from harness.parsers.labels import LANGUAGES

settings.register_profile(
    "parsers", derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow]
)
quick: Final = settings.get_profile("parsers")

CANONICAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?")
CLOSED: Final[dict[str, tuple[Callable[[str], Any], Callable[[Any], bool]]]] = {
    "choice": (parse_choice, lambda answer: answer in (*"ABCD", None)),
    "choices": (parse_choices, lambda answer: answer is None or bool(re.fullmatch("(?=.)A?B?C?D?", answer))),
    "short_answer": (parse_short_answer, lambda answer: answer is None or 0 < len(answer.split()) <= 12),
    "math": (parse_math, lambda answer: answer is None or 0 < len(answer) <= 400),
    "number": (parse_number, lambda answer: answer is None or bool(CANONICAL.fullmatch(answer))),
    "last_number": (parse_last_number, lambda answer: answer is None or bool(CANONICAL.fullmatch(answer))),
    "canonical_number": (canonical_number, lambda answer: answer is None or bool(CANONICAL.fullmatch(answer))),
    "verdict": (parse_verdict, lambda answer: answer in ("safe", "unsafe", None)),
    "preference": (parse_preference, lambda answer: answer in (1, 2, 0, None) and not isinstance(answer, bool)),
}
#: All of Unicode, lone surrogates included.
anything: Final = st.text(st.characters(codec=None, categories=None))
#: Pieces that parsers look for, in any order: the text in which a parser is most likely to stumble.
PIECES: Final = (
    "the answer is", "Answer:", "####", "\\boxed{", "}", "A", "B.", "(C)", "d", "**", "18", "-5", "1,234", "3.5",
    "1/2", "e9",
    "×10^3", "$", "%", "(", ")", "[[", "]]", '"', "'", "`", "\\frac{1}{2}", "not", "safe", "unsafe", "true", "or",
    "and",
    "wait, no", "that's wrong", "if", "because", "is correct", "I choose", "Output (a)", "model_2", "'rank': 1",
    "> ", "tie",
    "better", "Verdict:", "Question:", "# Query:", "<think>", "</think>", "<|eot_id|>", "Step 2:", "1. ", ".", ",",
    ":", "…",
    "½", "²", "Ａ", "１", "−", "\ud800", "\x00", "|", "\n", "\n\n", "\t",
)  # fmt: skip
pieces: Final = st.lists(st.sampled_from(PIECES), max_size=25)
mixed: Final = st.tuples(pieces, st.sampled_from(["", " "])).map(lambda drawn: drawn[1].join(drawn[0]))


@pytest.mark.parametrize("name", CLOSED)
@quick
@given(text=anything | mixed)
@example(text="\ud800")
@example(text="\ud800\udfff answer is \udc00")
@example(text="")
@example(text="1e999999999")
@example(text="1e-99999999999999999999999999")
@example(text="10^99999999999999999999")
@example(text="9" * 5000)  # beyond what int() takes from a str
@example(text="the answer is " + "9" * 5000 + "/3")
@example(text="1/" + "0" * 30)
@example(text="İ answer is B 5 safe")  # two characters in lower case
@example(text="\\boxed")
@example(text="\\boxed{{{")
@example(text=" " * 50 + "\\frac{" * 50)
@example(text="2020 300")
@example(text="1  1/3 1/3")
def test_total_and_closed(name: str, text: str) -> None:
    parse, is_closed = CLOSED[name]
    answer = parse(text)
    assert is_closed(answer)
    assert parse(text) == answer


@quick
@given(
    text=anything | mixed,
    options=st.none() | st.lists(anything | st.sampled_from(["", "A", "18", "London", "the "]), max_size=6),
    letters=st.sampled_from(["ABCD", "AB", "ABCDEFGHIJ", "abcd", "A", "", "ßAB", "12", "A-]", "AA"]) | anything,
)
@example(text="(SS)", options=["x"], letters="ß")
@example(text="ß", options=["ß", "ß"], letters="ßB")
def test_choice_is_total_for_any_options_and_letters(text: str, options: list[str] | None, letters: str) -> None:
    answer = parse_choice(text, options=options, letters=letters)
    assert answer is None or (len(answer) == 1 and answer in letters)


@pytest.mark.parametrize("name", CLOSED)
def test_cutting_a_text_anywhere_never_raises(name: str) -> None:
    parse, is_closed = CLOSED[name]
    text = (
        "Let's see: (A) 1,234.50 × 10^3 is **wrong**, \\boxed{\\text{B}} fits; wait, no.\n#### -5\n"
        "Output (b) > Output (a)\n"
        "[{'model': 'model_1', 'rank': 1}]\nVerdict: not unsafe\n\n# Query: x <think> </think> <|eot_id|> 3 1/2 ½ ~~5~~"
    )
    for end in range(len(text) + 1):
        assert is_closed(parse(text[:end]))
        assert is_closed(parse(text[end:]))


EXPLAINED: Final = (
    parse_choice, parse_choices, parse_number, parse_last_number, parse_verdict, parse_preference, parse_short_answer,
    parse_math,
)  # fmt: skip


@quick
@given(text=anything | mixed)
def test_an_explanation_has_the_same_answer_and_a_place_in_the_output(text: str) -> None:
    for parse in EXPLAINED:
        found = parse(text, explain=True)
        assert found.answer == parse(text)
        assert 0 <= found.start <= found.end <= len(text)
        assert found.rule


# --- reasoning

ENVELOPES: Final = (
    "<think>{}</think>", "<THINK>{}</THINK>", "<thinking>{}</thinking>", "<thought>{}</thought>",
    "<reasoning>{}</reasoning>", "<analysis>{}</analysis>", "<seed:think>{}</seed:think>", "[THINK]{}[/THINK]",
    "◁think▷{}◁/think▷", "<|begin_of_thought|>{}<|end_of_thought|>", "<|START_THINKING|>{}<|END_THINKING|>",
    "<|channel>thought\n{}<channel|>", "{}</think>", "<unused94>thought\n{}<unused95>",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
    "analysisWe think. {}assistantfinal", "<think>{}</think>\n<think>{}</think>",
)  # fmt: skip
THOUGHTS: Final = st.sampled_from(
    ["The answer is A.", "#### 5", "It is safe.", "Output (a) is better.", "\n", "B?\n\nQ: x"]
)


@quick
@given(st.sampled_from(ENVELOPES), THOUGHTS, mixed)
def test_reasoning_changes_no_answer(envelope: str, thought: str, response: str) -> None:
    response = response.replace("think>", "").strip()
    for parse in EXPLAINED:
        if parse is not parse_last_number:
            assert parse(envelope.replace("{}", thought) + response) == parse(response)


@quick
@given(st.sampled_from([each for each in ENVELOPES if not each.startswith("{")]), THOUGHTS)
def test_an_unclosed_thought_is_no_response(envelope: str, thought: str) -> None:
    output = envelope.split("{}")[0] + thought
    assert without_reasoning(output) == ""
    assert is_thought_only(output)
    assert all(parse(output) is None for parse in EXPLAINED if parse is not parse_last_number)


@quick
@given(anything | mixed)
def test_what_is_left_of_an_output_stands_in_it(text: str) -> None:
    rest = without_reasoning(text)
    assert len(rest) <= len(text)
    at = 0
    for character in rest:
        at = text.index(character, at) + 1


# --- other languages


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_language_has_its_labels(name: str) -> None:
    for word in LANGUAGES[name].answer.split("|"):
        for output in (f"{word}: B", f"{word}: (B)", f"{word}:\nB"):
            assert parse_choice(output) == "B", output
        assert parse_number(f"{word}: 12") == "12"
        assert parse_number(f"{word}: 1,5") == (None if LANGUAGES[name].point else "1.5")


# --- every documented phrasing in every wrapper

LETTERS: Final = st.sampled_from("ABCD")
CHOICE_PHRASES: Final = (
    "{}", "{}.", "({})", "{})", "The answer is {}.", "the correct answer is {}", "The correct answer is ({}).",
    "Answer: {}",
    "ANSWER: {}", "Final answer: {}", "Correct option: {}", "The correct option is {}.", "The best choice is {}.",
    "\\boxed{{{}}}", "\\text{{{}}}", "$\\boxed{{\\text{{{}}}}}$", "I choose {}.", "I would go with {}.",
    "So it must be {}.",
    "Therefore, {}.", "{} is the correct answer.", "Option {} is correct.", "({}) is right.", "The capital is ({}).",
    "答案是{}", "Answer:\n\n{}", "<answer>{}</answer>", '{{"answer": "{}"}}', "It's {}.", "That leaves {}.",
)  # fmt: skip
NUMBERS: Final = st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, places=3)
NUMBER_PHRASES: Final = (
    "{}", "The answer is {}.", "the answer is {}", "Answer: {}", "**Answer:** {}", "#### {}", "Final answer: {}",
    "\\boxed{{{}}}", "The final answer is $\\boxed{{{}}}$.", "The answer is {} dollars.", "Answer: {}%", "x = {}",
    "So she has {} left.", "The answer is {}\n\nThis took 3 steps.", "答案是{}。", "Answer:\n\n{}",
    "<answer>{}</answer>",
    '{{"answer": {}}}', "The answer is approximately {}", "### Final Answer\n\n{}", "The total is {} (see note 2).",
)  # fmt: skip
VERDICT_PHRASES: Final = (
    "{}", "{}.", "**{}**", "Verdict: {}", "Answer: {}", '{{"verdict": "{}"}}', "{}\nThe reasons are given above.",
    "{}, because of what it says.", "[[{}]]", "<verdict>{}</verdict>", "\\boxed{{{}}}", "The response is {}.",
    "Here is my reasoning.\n\n{}", "I would classify the response as {}.", "Final verdict - {}",
)  # fmt: skip
PREFERENCE_NAMES: Final = (
    ("1", 1), ("2", 2), ("A", 1), ("B", 2), ("m", 1), ("M", 2), ("Output (a)", 1), ("Output (b)", 2), ("model_1", 1),
    ("model_2", 2), ("Response B", 2), ("tie", 0), ("a tie", 0),
)  # fmt: skip
PREFERENCE_PHRASES: Final = (
    "{}", "{}.", "**{}**", "Winner: {}", "Verdict: {}", "Final answer: {}", "The winner is {}.", '{{"winner": "{}"}}',
    "Both have merits.\n\n{}", "```\n{}\n```",
)  # fmt: skip
WRAPPERS: Final = (
    "{}", "  {}  ", "\n\n{}\n\n", "\t{}", "**{}**", "*{}*", "{}\n\nQuestion: What is 9 + 9?\nAnswer: C 18 unsafe B 2",
    "{}\n# Query:\n```unsafe D 99```", "{}\n\nHuman: really?\n\nAssistant: The answer is D, 77, true.",
    "{}<|eot_id|>D 5",
    "{}</s>", "{}\n### Instruction:\nanswer A", "<think>Is it A? 3? safe?</think>\n{}", "{}\r\n", "\ufeff{}", "> {}",
)  # fmt: skip


@quick
@given(LETTERS, st.sampled_from(CHOICE_PHRASES), st.sampled_from(WRAPPERS))
def test_every_phrasing_of_a_choice(letter: str, phrase: str, wrapper: str) -> None:
    assert parse_choice(wrapper.format(phrase.format(letter))) == letter


@quick
@given(
    st.sampled_from(["Paris", "New York", "x^2 + 1", "the 1920s", "U.S. law", "It increases"]),
    st.sampled_from(
        ("{}", "{}.", "The answer is {}.", "Answer: {}", "The correct answer is {}.", "\\boxed{{{}}}", '"{}"')
    ),
    st.sampled_from(WRAPPERS),
    st.integers(0, 3),
)
def test_every_phrasing_of_an_options_text(text: str, phrase: str, wrapper: str, place: int) -> None:
    options = ["one", "two", "three", "four"]
    options[place] = text
    assert parse_choice(wrapper.format(phrase.format(text)), options) == "ABCD"[place]


@quick
@given(NUMBERS.map(lambda number: f"{number:f}"), st.sampled_from(NUMBER_PHRASES), st.sampled_from(WRAPPERS))
def test_every_phrasing_of_a_number(number: str, phrase: str, wrapper: str) -> None:
    assert parse_number(wrapper.format(phrase.format(number))) == canonical_number(number)


@quick
@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from((",", "_", " ", "'", "\u2009", "\u202f")),
    st.sampled_from(("", "$", "€")),
)
def test_separators_and_currency(number: int, separator: str, currency: str) -> None:
    sign = "-" if number < 0 else ""
    written = f"{sign}{currency}{abs(number):,}".replace(",", separator)
    assert parse_number(f"The answer is {written}.") == str(number)
    assert parse_last_number(f"so it costs {written}") == str(number)
    assert canonical_number(written) == str(number)


@quick
@given(
    st.sampled_from(
        [("safe", "safe"), ("unsafe", "unsafe"), ("True", "unsafe"), ("False", "safe"), ("UNSAFE", "unsafe")]
    ),
    st.sampled_from(VERDICT_PHRASES),
    st.sampled_from(WRAPPERS),
)
def test_every_phrasing_of_a_verdict(word: tuple[str, str], phrase: str, wrapper: str) -> None:
    assert parse_verdict(wrapper.format(phrase.format(word[0]))) == word[1]


@quick
@given(
    st.sampled_from(PREFERENCE_NAMES),
    st.sampled_from(PREFERENCE_PHRASES),
    st.sampled_from(WRAPPERS),
)
def test_every_phrasing_of_a_preference(name: tuple[str, int], phrase: str, wrapper: str) -> None:
    assert parse_preference(wrapper.format(phrase.format(name[0]))) == name[1]


# --- what must not change an answer

CHATTER: Final = st.sampled_from(
    [
        "\n\nI hope this helps!",
        "\n\nLet me know if you have other questions.",
        " Good luck!",
        "\n\nThank you.",
        " 😊",
        "\n---",
    ]
)


@quick
@given(LETTERS, st.sampled_from([phrase for phrase in CHOICE_PHRASES if phrase.endswith(".")]), CHATTER)
def test_trailing_chatter_does_not_change_a_choice(letter: str, phrase: str, chatter: str) -> None:
    assert parse_choice(phrase.format(letter) + chatter) == letter


@quick
@given(
    mixed,
    st.sampled_from(["\n# Query: y {}", "<|eot_id|>C {} safe", "</s>\nAnswer: {}", "<EOS_TOKEN> {}", "[EOS] {}"]),
)
def test_what_stands_behind_the_end_of_a_turn_does_not_count(text: str, turn: str) -> None:
    for parse in (parse_choice, parse_number, parse_verdict, parse_preference):
        assert parse("So. " + text + turn.format("B 7 unsafe")) == parse("So. " + text + turn.format("D 5 safe"))


#: What a word can be that does not go on: a channel that has lost its borders, before an answer, and crowns.
CHANNEL: Final = "final"
CURRENCY: Final = "kr"


@quick
@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8).filter(CHANNEL.__ne__), LETTERS, st.booleans())
def test_a_letter_within_a_word_is_no_choice(word: str, letter: str, before: bool) -> None:
    text = word + letter if before else letter + word
    assert parse_choice(text) is None
    assert parse_choice(f"The answer is {text}.") is None


@quick
@given(
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8).filter(lambda word: word not in (CHANNEL, CURRENCY)),
    st.integers(0, 999),
)
def test_a_digit_after_letters_is_no_number(word: str, number: int) -> None:
    assert parse_number(f"{word}{number}") is None
    assert parse_last_number(f"{word}-{number}") is None


@quick
@given(st.integers(0, 9), st.integers(0, 10**6))
def test_a_number_that_contains_an_options_text_is_no_choice(digit: int, number: int) -> None:
    options = ["100", "1000", "10", "1"]
    text = f"{number}{digit} polyomaviruses"
    assert parse_choice(text, options) is None
    assert parse_choice(f"The correct answer is {text}.", options) is None


@quick
@given(NUMBERS, NUMBERS)
def test_equal_spelling_is_equal_value(one: Any, two: Any) -> None:
    assert (canonical_number(f"{one:f}") == canonical_number(f"{two:f}")) == (one == two)


@quick
@given(st.from_regex(r"-?[0-9]{1,30}(\.[0-9]{1,10})?", fullmatch=True))
def test_the_canonical_spelling_is_its_own(written: str) -> None:
    canonical = canonical_number(written)
    assert canonical is not None
    assert canonical_number(canonical) == parse_number(canonical) == parse_last_number(canonical) == canonical
