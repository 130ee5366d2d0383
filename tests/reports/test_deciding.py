"""The words that decided an answer, as a report marks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.parsers import Explanation
from harness.registry import Registry
from harness.reports.deciding import explaining, reasons
from harness.reports.html import render
from harness.runs.columns import read_run
from harness.runs.folder import Run
from harness.types import Example, Sample
from tests.reports.recorded_runs import command, write_data, write_lines
from tests.reports.test_html import chunks


def sample(output: str, answer: str | None, error: str | None = None) -> Sample:
    return Sample("a", 0, None, {}, "?", 1, 1, output, "stop", {"own": answer}, "B", {}, "ok", error)


class Own:
    """A parser of somebody else's, which explains what it is told to."""

    name = "own"

    def __init__(self, explain: Callable[[], object]) -> None:
        self._explain = explain

    def parse(self, output: str, example: Example | None = None) -> str | None:
        return "B"

    def explain(self, output: str, example: Example | None = None) -> object:
        return self._explain()


class Silent:
    """A parser that cannot explain."""

    name = "silent"

    def parse(self, output: str, example: Example | None = None) -> str | None:
        return "B"


def fail() -> object:
    raise RuntimeError("no reason")


@pytest.mark.parametrize(
    ("explain", "found"),
    [
        (lambda: Explanation("B", "a letter", 3, 4), {"own": ("a letter", 3, 4)}),
        (lambda: Explanation("B", "a letter"), {"own": ("a letter", 0, 0)}),
        (lambda: Explanation("B", "beyond the end", 3, 99), {"own": ("beyond the end", 0, 0)}),
        (lambda: Explanation("B", "backwards", 4, 3), {"own": ("backwards", 0, 0)}),
        (lambda: Explanation("B", "before it", -2, 3), {"own": ("before it", 0, 0)}),
        (lambda: Explanation("A", "another answer", 3, 4), {}),
        (lambda: ("B", "no Explanation", 3, 4), {}),
        (fail, {}),
    ],
)
def test_only_a_reason_for_what_is_recorded_counts(
    explain: Callable[[], object], found: dict[str, tuple[str, int, int]]
) -> None:
    registry = Registry()
    registry.add("parsers", Own(explain))
    assert reasons(sample("is B.", "B"), explaining(["own"], registry)) == found
    assert reasons(sample("is B.", "B", "engine failed"), explaining(["own"], registry)) == {}


def test_parsers_that_cannot_explain_or_are_gone_have_no_reason() -> None:
    registry = Registry()
    registry.add("parsers", Silent())
    assert [parser.name for parser in explaining(["silent", "gone", "choice"], registry)] == ["choice"]


def test_an_answer_is_packed_with_its_rule_and_places_in_utf16(report: Path, tmp_path: Path) -> None:
    page = report.read_text(encoding="utf-8")
    by_parser = {each[0]: each[1:] for each in chunks(page, 1)[0]["runs"][2]["answers"]}
    answer, rule, start, end = by_parser["choice"]
    output = chunks(page, 1)[0]["runs"][2]["output"]
    assert answer in output[start:end] and rule
    unread = chunks(page, 0)[2]["runs"][0]["answers"]
    assert [each[1] for each in unread] == [None, None] and all(len(each) == 3 for each in unread), "a rule, no place"

    data = write_data(tmp_path / "data")
    said = write_lines(tmp_path / "m.jsonl", ({"output": f"😀 é {n}: the answer is {n}."} for n in range(12)))
    command("run", "-b", "gsm8k", "-e", "replay", "-m", said, "--data", data, "-o", tmp_path / "runs")
    [path] = (tmp_path / "runs" / "gsm8k" / "m").iterdir()
    text = "".join(render([read_run(path)]))
    for packed, recorded in zip(chunks(text, 0), Run(path).samples(), strict=True):
        name, answer, _, start, end = packed["runs"][0]["answers"][0]
        units = recorded.output.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")
        assert (name, answer) == ("final-number", recorded.answers["final-number"]) and answer in units
        assert "😀" not in units
    assert text.count("é") == 0, "texts stand in the packed samples alone"
