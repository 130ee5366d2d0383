"""The fakes keep the promises of what they stand for, and take a benchmark through the real run loop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import PluginError
from harness.registry import IN_MEMORY, Registry
from harness.testing.conformance import Subject
from harness.testing.fakes import FakeEngine, RecordingTracker, evaluate, scripted
from harness.testing.new import plugin_files
from harness.types import Completion, Generation, Prompt, Request, RunInfo
from tests.testing.data import write_data
from tests.testing.keeping import skipped

if TYPE_CHECKING:
    from harness.testing.fixtures import FakeDistribution

FAKES = """
from harness.hookspecs import hookimpl
from harness.testing.fakes import FakeEngine, RecordingTracker

@hookimpl
def harness_engines():
    return [FakeEngine(lambda request: " ".join(reversed(request.prompt.text.split())))]

@hookimpl
def harness_trackers():
    return [RecordingTracker()]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def request(text: str = "one two", **generation: int | tuple[str, ...]) -> Request:
    return Request("a", Prompt(text), Generation(**generation))  # type: ignore[arg-type]


def test_fakes_keep_the_promises_of_their_kinds(fake_distribution: FakeDistribution) -> None:
    points = {"harness.engines": {"fake": "fakes"}, "harness.trackers": {"recording": "fakes"}}
    fake_distribution("harness-fakes", entry_points=points, modules={"fakes": FAKES})
    assert skipped(Subject("engines", "fake", model="any")) == [
        "an overlong prompt is an error of its own",
        "logprobs belong to the tokens",
        "likelihoods are those of what it generates",
        "a stream gives what generate gives",
    ]
    assert skipped(Subject("trackers", "recording")) == []


def test_a_function_is_cut_as_a_model_is() -> None:
    model = FakeEngine(lambda asked: "it is seven, I think").load("any")
    [whole] = model.generate([request()])
    assert whole == Completion("a", "it is seven, I think", "stop", 2, 5)
    [short] = model.generate([request(max_tokens=2)])
    assert (short.text, short.finish_reason, short.completion_tokens) == ("it is", "length", 2)
    [stopped] = model.generate([request(stop=(",",), max_tokens=4)])
    assert (stopped.text, stopped.finish_reason) == ("it is seven", "stop")
    assert len(model.requests) == 3


def test_a_completion_of_the_authors_own_comes_back_as_it_is() -> None:
    failed = Completion("a", "", None, error="out of paper")
    assert list(FakeEngine(lambda asked: failed).load("any").generate([request()])) == [failed]


def test_a_script_is_followed_to_its_end() -> None:
    model = FakeEngine(scripted("yes", "no")).load("any")
    assert [one.text for one in model.generate([request(), request()])] == ["yes", "no"]
    with pytest.raises(AssertionError, match="the script has 2 replies, and 'a' asks for another"):
        list(model.generate([request()]))


def test_an_installed_benchmark_is_evaluated(data: Path, tmp_path: Path) -> None:
    run = evaluate("gsm8k", lambda asked: "The answer is 14.", data=data, out=tmp_path)
    samples = list(run.samples())
    assert run.results.n == len(samples) == 23
    assert run.results.metrics["final-number"]["accuracy"].value == pytest.approx(1 / 23)
    assert samples[0].prompt == "What is 7 + 7?\nAnswer:"
    assert run.path.is_relative_to(tmp_path) and run.finished
    short = evaluate("gsm8k", lambda asked: "", data=data, out=tmp_path, limit=3, options={"gsm8k": {"split": "test"}})
    assert short.results.n == 3


def test_a_judge_follows_a_script(data: Path, tmp_path: Path) -> None:
    judge = scripted("safe", "unsafe", "who knows", "safe", "safe", "safe")
    run = evaluate("simple_safety_tests", lambda asked: "No.", data=data, out=tmp_path, judge=judge)
    assert run.results.metrics["judge"]["safe"].value == pytest.approx(4 / 6)


def test_a_benchmark_that_is_not_installed_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in plugin_files("own-sums", "benchmark").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    from harness_own_sums import OwnSumsBenchmark  # type: ignore[import-not-found]

    monkeypatch.delitem(sys.modules, "harness_own_sums")
    run = evaluate(OwnSumsBenchmark(), lambda asked: "The answer is 9.", data=tmp_path / "data", out=tmp_path / "runs")
    assert run.results.metrics["final-number"]["accuracy"].value == 0.25


def test_an_object_can_be_added_to_a_registry() -> None:
    registry = Registry()
    engine = FakeEngine(lambda asked: "")
    registry.add("engines", engine)
    assert registry.engine("fake") is engine
    assert registry.source("engines", "fake").distribution == IN_MEMORY
    [listed] = [plugin for plugin in registry.plugins(check=True) if plugin.name == "fake"]
    assert listed.status == "ok"
    with pytest.raises(PluginError, match="FakeEngine is no Parser: it lacks parse"):
        registry.add("parsers", engine)
    assert "fake" not in {plugin.name for plugin in Registry().plugins()}


def test_a_tracker_keeps_what_it_is_told() -> None:
    tracker = RecordingTracker()
    run = tracker.start(RunInfo("first", {"a": 1}))
    run.log(1, {"loss": 2.0})
    run.close()
    [kept] = tracker.runs
    assert (kept.name, kept.config, kept.values, kept.closed) == ("first", {"a": 1}, [(1, {"loss": 2.0})], True)


def test_a_fake_distribution_goes_with_the_test(fake_distribution: FakeDistribution, tiny_model: Path) -> None:
    fake_distribution("harness-fakes", entry_points={"harness.engines": {"fake": "fakes"}}, modules={"fakes": FAKES})
    assert Registry().engine("fake").load("any")
    assert (tiny_model / "model.safetensors").is_file()
