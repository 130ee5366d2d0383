"""docs/plugins.md says what the code says: signatures, examples that are sound, and what the commands print."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import hookspecs, interfaces
from harness.registry import KINDS, Kind
from harness.testing.conformance import Subject
from harness.testing.new import plugin_files
from tests.conftest import Command
from tests.testing.keeping import skipped

if TYPE_CHECKING:
    from harness.testing.fixtures import FakeDistribution

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"

#: Heading → the interfaces whose members stand under it, each as a point of a list.
SECTIONS: dict[str, tuple[type, ...]] = {
    "Benchmark": (interfaces.Benchmark, interfaces.ChoiceBenchmark, interfaces.DataSource, interfaces.Run),
    "Parser": (interfaces.Parser, interfaces.LikelihoodParser),
    "Scorer": (interfaces.Scorer,),
    "A scorer that asks a judge": (interfaces.JudgedScorer,),
    "Engine": (interfaces.Engine, interfaces.Model, interfaces.StreamingModel, interfaces.LikelihoodEngine),
    "Trainer": (interfaces.Trainer,),
    "Tracker": (interfaces.Tracker, interfaces.TrackerRun),
    "Format": (interfaces.Format,),
}

#: The names of the examples that are those of `harness plugins --new`, by kind.
EXAMPLES: dict[Kind, str] = {
    "benchmarks": "counting",
    "parsers": "tagged",
    "scorers": "near",
    "engines": "parrot",
    "trainers": "focal",
    "trackers": "lines",
    "formats": "tabbed",
}


def section(heading: str) -> str:
    """Return what stands under a heading, up to the next."""
    _, found = re.split(rf"^#+ {heading}\n", PAGE.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)
    return re.split(r"^##+ ", found, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def members(protocol: Any) -> Iterator[str]:
    """Yield the members of an interface as the page has them."""
    for name, member in vars(protocol).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"{name}: {inspect.get_annotations(member.fget)['return']}"  # type: ignore[arg-type]
        elif callable(member):
            yield f"{name}{signature(member)}"


def signature(function: Any) -> str:
    """Return a signature without `self` and quotes."""
    return str(inspect.signature(function)).replace("(self, ", "(").replace("(self)", "()").replace("'", "")


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_member_of_an_interface_stands_there_as_it_is(heading: str) -> None:
    documented = re.findall(r"^- `([^`]+)`", section(heading), flags=re.MULTILINE)
    assert documented == [member for protocol in SECTIONS[heading] for member in members(protocol)]


def test_every_hook_stands_there_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for kind in KINDS:
        hook = f"harness_{kind}"
        assert f"| `harness.{kind}` | `{hook}{signature(getattr(hookspecs, hook))}` |" in page


@pytest.mark.parametrize("kind", EXAMPLES)
def test_examples_are_what_new_writes(kind: Kind) -> None:
    name = EXAMPLES[kind]
    [example] = blocks(section(kind[:-1].capitalize()), "python")
    assert example == plugin_files(name, kind[:-1])[f"harness_{name}.py"]


@pytest.mark.parametrize("kind", ["benchmarks", "parsers", "scorers", "engines", "trackers", "formats"])
def test_examples_keep_their_promises(fake_distribution: FakeDistribution, tmp_path: Path, kind: Kind) -> None:
    """A trainer's is rehearsed with the plugin that `--new` writes, in tests/testing/test_new.py."""
    name = EXAMPLES[kind]
    [example] = blocks(section(kind[:-1].capitalize()), "python")
    install(fake_distribution, kind, name, example)
    (tmp_path / "counting").mkdir()
    data = plugin_files("counting", "benchmark")["data/counting/test.jsonl"]
    (tmp_path / "counting" / "test.jsonl").write_text(data, encoding="utf-8")
    if kind == "formats":
        own = tmp_path / f"outputs.{name}"
        own.write_text(plugin_files(name, "format")[f"data/outputs.{name}"], encoding="utf-8")
    outputs = ("<answer>Paris</answer>", "No. <answer>Rome</answer>")
    subject = Subject(kind, name, data=own if kind == "formats" else tmp_path, model="any", outputs=outputs)
    assert skipped(subject) == NOT_ASKED_OF.get(kind, [])


def test_checks_run_in_pytest_as_the_page_shows(
    fake_distribution: FakeDistribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(fake_distribution, "benchmarks", "counting", blocks(section("Benchmark"), "python")[0])
    (tmp_path / "data" / "counting").mkdir(parents=True)
    rows = plugin_files("counting", "benchmark")["data/counting/test.jsonl"]
    (tmp_path / "data" / "counting" / "test.jsonl").write_text(rows, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks(section("Checks and fakes"), "python")[0], names)
    [asked] = [check for check in names["checks"]("benchmarks") if str(check) == "gold answers score one"]
    names["test_it_keeps_its_promises"](asked)


#: What a scorer without a judge and an engine without token ids, log-probabilities and streaming are not asked for.
NOT_ASKED_OF: dict[Kind, list[str]] = {
    "scorers": ["a judge is shown the response", "any reply gives a verdict", "judged responses are reported"],
    "engines": [
        "an overlong prompt is an error of its own",
        "logprobs belong to the tokens",
        "likelihoods are those of what it generates",
        "a stream gives what generate gives",
    ],
}


def test_the_scorer_that_asks_a_judge_keeps_its_promises(fake_distribution: FakeDistribution) -> None:
    [example] = blocks(section("A scorer that asks a judge"), "python")
    install(fake_distribution, "scorers", "politeness", example)
    subject = Subject("scorers", "politeness", outputs=("Polite.", "It is rude.", "polite or rude"))
    assert skipped(subject) == []


def install(fake_distribution: FakeDistribution, kind: Kind, name: str, source: str) -> None:
    module = f"harness_{name}"
    fake_distribution(f"harness-{name}", entry_points={f"harness.{kind}": {name: module}}, modules={module: source})


def test_commands_print_what_the_page_shows(
    harness: Command, fake_distribution: FakeDistribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, but for pip, in whose place a fake distribution is put, and pytest."""
    shown = dict(
        block.removeprefix("$ ").split("\n", 1)
        for block in blocks(section("From nothing to a working plugin"), "console")
    )
    monkeypatch.chdir(tmp_path)
    for words, printed in shown.items():
        if "--new" in words:
            assert harness(*words.split()[1:]).out == printed
            monkeypatch.chdir(tmp_path / "harness-counting")
            source = Path("harness_counting.py").read_text(encoding="utf-8")
            fake_distribution(
                "harness-counting",
                version="0.1.0",
                entry_points={"harness.benchmarks": {"counting": "harness_counting"}},
                modules={"harness_counting": source},
            )
        elif "--check" in words:
            assert harness(*words.split()[1:]).out == printed
        elif words.startswith("printf"):
            outputs = [f'{{"output": "The answer is {n}."}}\n' for n in (16, 15, 9, 7)]
            assert words.endswith("16 15 9 7 > outputs.jsonl")
            Path("outputs.jsonl").write_text("".join(outputs), encoding="utf-8")
            for command in printed.splitlines():
                done = harness(*command.removeprefix("$ harness ").split())
                assert done.code == 0, done.err
            assert "75.0%" in done.out
    assert sum("harness plugins" in words for words in shown) == 2 and "printf" in "".join(shown)
