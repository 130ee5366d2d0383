"""The benchmarks keep their promises; lengths and ways of asking are options."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness.errors import ConfigError
from harness.testing.conformance import Check, Subject, checks
from harness.testing.fakes import evaluate
from harness.types import Request

from harness_scratchpad.problems import for_tests

NAMES = ("scratchpad-addition", "scratchpad-polynomial", "scratchpad-program")


def benchmark(name: str, **options: Any) -> Subject:
    return Subject("benchmarks", name, options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", checks("benchmarks"), ids=str)
def test_it_keeps_its_promises(check: Check, name: str) -> None:
    check(
        Subject("benchmarks", name, options={"count": 20}, phrase=lambda example: f"<scratch></scratch>{example.gold}")
    )


@pytest.mark.parametrize("name", NAMES)
def test_lengths_are_reported_apart(name: str) -> None:
    subject = benchmark(name, count=3)
    plugin, examples = subject.plugin, subject.all_examples
    categories = Counter(example.category for example in examples)
    assert categories == {"in distribution": 3 * len(plugin.lengths), "longer": 3 * len(plugin.longer)}
    assert {example.group for example in examples if example.category == "longer"} == {
        f"{plugin.kind.measure} {length:02}" for length in plugin.longer
    }
    assert all(for_tests(example.fields["question"]) for example in examples)


@pytest.mark.parametrize("name", NAMES)
def test_with_and_without_a_scratchpad_the_problems_are_the_same(name: str) -> None:
    asked, alone = benchmark(name, count=2), benchmark(name, count=2, scratchpad=False)
    examples = asked.all_examples
    assert alone.all_examples == examples
    assert "<scratch>" in asked.plugin.instruction(examples[0])
    assert "<scratch>" not in alone.plugin.instruction(examples[0])


def test_another_seed_gives_other_problems() -> None:
    subjects = (benchmark("scratchpad-addition", seed=seed) for seed in (0, 1))
    one, other = ({example.id for example in subject.all_examples} for subject in subjects)
    assert len(one - other) > 0.9 * len(one)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"lengths": [2, 3], "longer": [3]}, r"different lengths, at least one, not \[2, 3, 3\]"),
        ({"lengths": [], "longer": []}, "at least one"),
        ({"lengths": [0, 1]}, "a length must be from 1 to 100, not 0"),
        ({"longer": [5000]}, "a length must be from 1 to 100, not 5000"),
        ({"digits": [2]}, "has no option 'digits'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        benchmark("scratchpad-addition", **options).plugin  # noqa: B018


def test_a_model_that_always_carries_is_right_where_it_should_be(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        first, second = request.prompt.text.partition("\n")[0].removeprefix("Problem: ").split("+")
        total = int(first.replace(" ", "")) + int(second.replace(" ", ""))
        work = "<scratch>\n1 2 3\n</scratch>\n" if len(first) < 19 else "<scratch>\n"  # of ten digits it makes no end
        return f"{work}{' '.join(str(total))}"

    run = evaluate("scratchpad-addition", answer, out=tmp_path, options={"scratchpad-addition": {"count": 4}})
    assert run.results.categories["in distribution"]["scratchpad"]["accuracy"].value == 1
    assert run.results.categories["longer"]["scratchpad"]["accuracy"].value == 0.5
    assert run.results.unparsed["scratchpad"].count == 4
