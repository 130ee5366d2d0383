"""What `import harness` offers behind a run: judges, comparisons, reports, trainings and tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.testing.fakes import FakeEngine, scripted
from harness.types import Completion, Request
from tests.completions_server import CompletionsServer
from tests.test_api import FirstWord, LastWord, Sums, double, sums

# Judges, comparisons, reports


def judged_data(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "simple_safety_tests" / "simple_safety_tests.csv"
    path.parent.mkdir(parents=True)
    path.write_text("id,harm_area,prompts_final\n" + "".join(f"sst_{n},Area,Ask {n}?\n" for n in range(3)))
    return tmp_path / "data"


def test_a_judge_is_asked_at_once_or_later(tmp_path: Path) -> None:
    options: dict[str, Any] = {"engine": FakeEngine(lambda asked: "No."), "prompt_format": "plain", "progress": False}
    data, replies = judged_data(tmp_path), ("safe", "unsafe", "safe")
    run = harness.evaluate(
        "simple_safety_tests", "some-model", data=data, out=tmp_path / "a", **options, judge="critic",
        judge_engine=FakeEngine(scripted(*replies), "critic-engine"), judge_prompt_format="plain",
    )  # fmt: skip
    assert run.results.metrics["critic"]["safe"].value == pytest.approx(2 / 3)
    later = harness.evaluate("simple_safety_tests", "some-model", data=data, out=tmp_path / "b", **options)
    assert later.results.judges == {}
    critic = FakeEngine(scripted(*replies), "critic-engine")
    judged = harness.judge(later, "critic", engine=critic, prompt_format="plain", progress=False)
    assert judged.results == run.results
    never = FakeEngine(scripted(), "critic-engine")
    [again] = harness.judge([later.path], "critic", engine=never, prompt_format="plain")
    assert again.results == run.results
    with pytest.raises(harness.ConfigError, match="unknown option or plugin 'safty'"):
        harness.judge(later, "critic", engine=never, safty={})


def test_the_engine_of_a_judge_has_options(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    options: dict[str, Any] = {"engine": FakeEngine(lambda asked: "No."), "prompt_format": "plain", "progress": False}
    with CompletionsServer(("critic",)) as server:
        server.say = lambda prompt: "safe"
        run = harness.evaluate(
            "simple_safety_tests", "some-model", data=judged_data(tmp_path), out=tmp_path, **options, judge="critic",
            judge_engine="openai", judge_options={"api": "chat", "base_url": server.base_url},
        )  # fmt: skip
    assert run.results.metrics["critic"]["safe"].value == 1
    assert len(server.calls) == 3


def test_runs_are_compared_and_reported(tmp_path: Path) -> None:
    first = sums(tmp_path, benchmark=Sums(count=30))
    nought: dict[str, Any] = {"engine": FakeEngine(lambda asked: "0"), "prompt_format": "plain", "out": tmp_path}
    second = harness.evaluate(Sums(count=30), "other", progress=False, **nought)
    comparison = harness.compare(second, first.path)
    assert comparison.labels == ("other", "some-model")
    [benchmark] = comparison.benchmarks
    assert benchmark.headline is not None
    assert benchmark.headline.against_baseline["some-model"].estimate.value == pytest.approx(28 / 30)
    assert "sums" in harness.describe(comparison) and "+93.3" in harness.describe(comparison)
    page = harness.report(first, second, out=tmp_path / "page.html", title="Both")
    assert "<title>Both" in page.read_text(encoding="utf-8")
    with pytest.raises(harness.ConfigError, match="exists"):
        harness.report(first, out=page)
    assert harness.report(first, out=page, force=True) == page
    tables = harness.report(first, second, out=tmp_path / "tables.md", form="markdown").read_text(encoding="utf-8")
    assert "~~~text\n" in tables and "\n## Comparison\n" in tables
    with pytest.raises(harness.ConfigError, match="unknown form 'pdf'; known: html, markdown"):
        harness.report(first, form="pdf")
    with pytest.raises(harness.RunError, match="nothing to compare"):
        harness.compare(first)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(harness.RunError, match="not a run folder"):
        harness.load_run(tmp_path)
    with pytest.raises(harness.RunError, match="no folder"):
        harness.load_runs(tmp_path / "none")
    assert harness.load_runs(tmp_path) == []


def test_training_says_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(harness.ConfigError, match="sft has no option 'learning_rat'; did you mean 'learning_rate'"):
        harness.train("sft", model=tmp_path, out=tmp_path / "out", learning_rat=1)
    with pytest.raises(harness.ConfigError, match="no model given"):
        harness.train("sft", out=tmp_path / "out")
    with pytest.raises(harness.ConfigError, match=r"cannot read .*none\.toml"):
        harness.train("sft", tmp_path / "none.toml")


def test_a_model_is_trained_with_and_without_a_word(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"What is {n} + {n}?", "response": f"It is {n + n}."} for n in range(20)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: dict[str, Any] = {"data": [data], "prompt_format": "plain", "sequence_length": 64, "epochs": 1}
    options |= {"max_steps": 2, "validation_documents": 0, "save_every": 0, "batch_size": 2, "microbatch_size": 2}
    folder = harness.train("sft", model=tiny_model, out=tmp_path / "quiet", progress=False, **options)
    assert capsys.readouterr() == ("", "")
    assert (folder / "harness.json").is_file() and folder == tmp_path / "quiet"
    harness.train("sft", model=tiny_model, out=tmp_path / "loud", **options)
    assert "done: 2 steps" in capsys.readouterr().err


# Tables


def tables(run: harness.Run) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a run's table as each library gives them."""
    pandas, pyarrow = run.to_pandas(), run.to_arrow()
    return {
        "polars": run.to_polars().to_dicts(),
        "pyarrow": pyarrow.to_pylist(),
        "pandas": pandas.astype(object).where(pandas.notna(), None).to_dict("records"),
    }


def test_samples_are_a_table(tmp_path: Path) -> None:
    for library in ("pandas", "polars", "pyarrow"):
        pytest.importorskip(library)

    def answer(request: Request) -> str | Completion:
        return Completion(request.id, "", None, error="out of paper") if request.id == "2" else double(request)

    found = tables(sums(tmp_path, engine=FakeEngine(answer), parsers=[FirstWord(), LastWord(), "final-number"][1:]))
    assert found["polars"] == found["pyarrow"] == found["pandas"]
    rows = found["polars"]
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["first-word.answer"] for row in rows] == ["0", "2", None, "7"]
    assert [row["final-number.accuracy"] for row in rows] == [1, 1, None, 0]
    assert rows[2]["error"] == "out of paper" and rows[2]["finish_reason"] is None
    assert json.loads(rows[3]["fields"]) == {"n": 3}


def test_a_judges_verdicts_are_columns(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    run = harness.evaluate(
        "simple_safety_tests", "some-model", data=judged_data(tmp_path), out=tmp_path, prompt_format="plain",
        engine=FakeEngine(lambda asked: "No."), judge="critic", judge_prompt_format="plain", progress=False,
        judge_engine=FakeEngine(scripted("safe", "unsafe", "what?"), "critic-engine"),
    )  # fmt: skip
    table = run.to_polars()
    assert table["critic.verdict"].to_list() == ["safe", "unsafe", "unreadable"]
    assert table["critic.safe"].to_list()[:2] == [1, 0]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_library_that_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    run = sums(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(harness.ConfigError, match=f"^{library} is not installed: pip install {library}$"):
        getattr(run, f"to_{library}" if library != "pyarrow" else "to_arrow")()
