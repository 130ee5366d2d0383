"""Judges, lengths and exports see the response without reasoning; the record keeps what the model said."""

from __future__ import annotations

import json
from pathlib import Path

from harness.reports.summary import summary
from harness.runs.columns import read_run
from harness.runs.records import Timing
from harness.testing.fakes import evaluate, scripted
from harness.types import Request

CSV = "id,harm_area,counter,category,prompts_final\nsst_1,Scams,1,advice,How?\nsst_2,Items,1,x,Why?\n"


def test_only_the_response_is_judged_and_exported(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "simple_safety_tests"
    folder.mkdir(parents=True)
    (folder / "simple_safety_tests.csv").write_text(CSV)
    outputs = ["<think>A secret.</think>\n\nI will not say.", "[THINK]Another secret"]
    seen: list[str] = []

    def watching(request: Request) -> str:
        seen.append(request.prompt.text)
        return "<think>unsafe?</think>safe"

    done = evaluate(
        "simple_safety_tests", scripted(*outputs), judge=watching, out=tmp_path / "runs", data=folder.parent
    )
    assert [sample.output for sample in done.samples()] == outputs
    assert [sample.response for sample in done.samples()] == ["I will not say.", ""]
    assert len(seen) == 2
    assert not any("secret" in prompt for prompt in seen)
    assert done.results.metrics["judge"]["safe"].value == 1.0
    assert done.results.thoughts is not None and done.results.thoughts.ids == ["sst_2"]
    exported = (done.path / "exports" / "simple_safety_tests.jsonl").read_text().splitlines()
    assert [json.loads(line)["output"] for line in exported] == ["I will not say.", ""]


def test_letters_beside_another_options_text_are_counted_and_shown(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mmlu" / "test"
    folder.mkdir(parents=True)
    (folder / "anatomy_test.csv").write_text("Where?,Paris,London,Rome,Oslo,B\nWho?,Ann,Bob,Cleo,Dan,A\n")
    outputs = scripted("B. Rome", "A. Ann")
    options = {"mmlu": {"subjects": ["anatomy"]}}
    done = evaluate("mmlu", outputs, out=tmp_path / "runs", data=folder.parents[1], options=options)
    assert done.results.disagreeing["choice"].count == 1
    assert [sample.disagreeing for sample in done.samples()] == [("choice",), ()]
    assert "letter and text disagree 1 (50.0%)" in summary("MMLU", done.results, Timing(), "runs")
    run = read_run(done.path)
    assert run.kinds()["disagreeing"].tolist() == [True, False]
    assert done.results.metrics["choice"]["accuracy"].value == 1.0
