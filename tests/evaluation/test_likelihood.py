"""The likeliest option as an answer: asked, recorded, resumed, read again, compared, and refused where it cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness as library
from harness.engines import transformers as engine
from harness.errors import HarnessError
from harness.runs.folder import Run
from harness.testing.fakes import FakeEngine
from harness.testing.tiny import make_tiny_model
from harness.types import Completion, Request, Sample
from tests.conftest import Command
from tests.plugins.benchmarks.test_mmlu import CHOSEN, ROWS, write_csv


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")  # the wheel is tested without
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def samples(out: Path) -> list[Sample]:
    [path] = out.glob("*/*/*/run.json")
    return list(Run(path.parent).samples())


def test_mmlu_is_read_by_the_likeliest_letter(tiny: Path, tmp_path: Path, harness: Command) -> None:
    write_csv(tmp_path, "test", ROWS)
    words = ["--data", tmp_path, "--model", tiny, "--engine", "transformers", "--set", CHOSEN, "--prompt-format"]
    words += ["plain"]
    seen = harness("preview", "mmlu", *words, "--scoring", "loglikelihood")
    assert "none: it is read how likely each option is" in seen.out
    assert "option C: ' C' (" in seen.out and r"Answer: The correct answer is'" in seen.out
    done = harness("run", "--benchmark", "mmlu", *words, "--scoring", "loglikelihood", "--out", tmp_path / "runs")
    assert done.code == 0 and "loglikelihood" in done.out and "truncated" not in done.err
    found = samples(tmp_path / "runs")
    for sample in found:
        best = max(sample.likelihoods, key=lambda each: each.logprob)
        assert [each.answer for each in sample.likelihoods] == [*"ABCD"]
        assert sample.answers == {"loglikelihood": best.answer} and sample.output == ""
        assert sample.scores == {"loglikelihood": {"accuracy": float(best.answer == sample.gold)}}
    [path] = (tmp_path / "runs").glob("*/*/*")
    accuracy = sum(sample.answers["loglikelihood"] == sample.gold for sample in found) / len(found)
    assert Run(path).results.metrics["loglikelihood"]["accuracy"].value == accuracy
    assert Run(path).results.tokens["completion"] == 0
    shown = harness("show", path)
    assert "log-likelihood" in shown.out and "A  -" in shown.out and "output" not in shown.out
    assert json.loads((path / "run.json").read_text())["command"]["scoring"] == "loglikelihood"
    again = harness("run", "--from", path, "--out", tmp_path / "runs")
    assert again.code == 0 and len(list((tmp_path / "runs").glob("*/*/*"))) == 1
    assert harness("score", path, "--parser", "loglikelihood_bytes").code == 0
    refused = harness("score", path, "--parser", "choice")
    assert refused.code == 2 and "nothing was generated" in refused.err


OPTIONS = [["a long option of many words", "no"], ["yes", "neither of the two"], ["1", "2"], ["red", "green"]]


def prompts(folder: Path, count: int = 8) -> Path:
    path = folder / "which.jsonl"
    rows = [
        {"question": f"Question {n}: which?", "options": OPTIONS[n % 4], "answer": "AB"[n % 2]} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_generates_faster_is_not_said_where_nothing_is_generated(
    tiny: Path, tmp_path: Path, harness: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engines.transformers._has_gpu", lambda: True)
    write_csv(tmp_path, "test", ROWS)
    words = ["run", "-b", "mmlu", "--data", tmp_path, "-m", tiny, "-e", "transformers", "--set", CHOSEN, "--dry-run"]
    for more, said in (([], True), (["--scoring", "loglikelihood"], False)):
        done = harness(*words, *more)
        assert done.code == 0 and ("faster " in done.out) == said


def test_options_are_compared_as_they_are_by_token_and_by_byte_beside_the_words(tiny: Path, tmp_path: Path) -> None:
    parsers = ("choice", "loglikelihood", "loglikelihood_tokens", "loglikelihood_bytes")
    run = library.evaluate(
        prompts(tmp_path), tiny, engine="transformers", parsers=parsers, out=tmp_path / "runs", progress=False,
        prompts={"continuation": "option", "generation": {"max_tokens": 4}},
    )  # fmt: skip
    assert isinstance(run, Run) and [*run.results.metrics] == [*parsers]
    for sample in run.samples():
        assert sample.output
        logprobs = [each.logprob for each in sample.likelihoods]
        lengths = {
            "loglikelihood": [1, 1],
            "loglikelihood_tokens": [each.tokens for each in sample.likelihoods],
            "loglikelihood_bytes": [len(option.encode()) for option in sample.fields["options"]],
        }
        for parser, counted in lengths.items():
            by_length = [value / count for value, count in zip(logprobs, counted, strict=True)]
            assert sample.answers[parser] == "AB"[by_length.index(max(by_length))]
    assert len({tuple(sample.answers[parser] for sample in run.samples()) for parser in parsers[1:]}) > 1


def test_an_interrupted_run_asks_what_is_missing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: Command
) -> None:
    words = ["run", "-b", prompts(tmp_path), "-m", tiny, "-e", "transformers", "--scoring", "loglikelihood", "-o"]
    assert harness(*words, tmp_path / "whole").code == 0
    generate, asked = engine.TransformersModel.generate, list[str]()

    def interrupted(self: Any, requests: Iterable[Request]) -> Iterator[Completion]:
        taken = list(requests)
        asked.extend(request.id for request in taken)
        for number, completion in enumerate(generate(self, iter(taken))):
            if len(taken) == 8 and number == 3:
                raise KeyboardInterrupt
            yield completion

    monkeypatch.setattr(engine.TransformersModel, "generate", interrupted)
    assert harness(*words, tmp_path / "runs").code == 130
    assert harness(*words, tmp_path / "runs").code == 0 and len(asked) == 8 + 5

    def rounded(found: list[Sample]) -> list[Any]:
        return [(each.id, each.answers, [round(one.logprob, 3) for one in each.likelihoods]) for each in found]

    assert rounded(samples(tmp_path / "runs")) == rounded(samples(tmp_path / "whole"))
    [one], [other] = (list((tmp_path / name).glob("*/*/*")) for name in ("runs", "whole"))
    assert (one / "results.json").read_bytes() == (other / "results.json").read_bytes()
    compared = harness("compare", one, other)
    assert compared.code == 0 and "loglikelihood" in compared.out + compared.err


class Claims(FakeEngine):
    """An engine that says that it can, and gives nothing."""

    gives_likelihoods = True

    def tokenizer(self, model: str) -> Any:
        from harness.models import find_model

        return find_model(model).tokenizer


def test_an_engine_that_cannot_is_refused_in_a_line(tiny: Path, tmp_path: Path, outputs: Any, harness: Command) -> None:
    file = prompts(tmp_path)
    done = harness("run", "-b", file, "-m", outputs("A"), "-e", "replay", "--scoring", "both")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "the engine 'replay' does not say how likely an option is; --engine transformers" in done.err
    with pytest.raises(HarnessError, match="the engine 'fake' does not say how likely an option is"):
        library.evaluate(file, "m", engine=FakeEngine(lambda request: "A"), scoring="loglikelihood", out=tmp_path)
    claims = Claims(lambda request: "A")
    run = library.evaluate(file, tiny, engine=claims, scoring="loglikelihood", out=tmp_path / "runs", progress=False)
    assert isinstance(run, Run) and run.results.failed.count == 8
    assert "of 2 continuations it gives the log-probabilities ()" in run.results.failed.reasons[0].reason
    lone = tmp_path / "lone.jsonl"
    lone.write_text('{"question": "Why?", "answer": "A"}\n')
    done = harness("run", "-b", lone, "-m", tiny, "-e", "transformers", "--scoring", "loglikelihood")
    assert done.code == 2 and "'lone-0000' has no options whose log-likelihood could be compared" in done.err
    done = harness("run", "-b", file, "-m", tiny, "--scoring", "loglikelihood", "--set", 'parsers=["choice"]')
    assert done.code == 2 and "leave parsers out, or give scoring=both" in done.err
