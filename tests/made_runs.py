"""Runs made on the spot with recorded outputs: real run folders, with times that are always the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.evaluation.plan import RunOptions, make_plans
from harness.evaluation.runner import run
from harness.judging.judging import judge_run, make_judge, planned_scorer
from harness.registry import Registry
from harness.testing.tiny import word_problems
from harness_mmlu.subjects import CATEGORY_OF

SUBJECTS = tuple(CATEGORY_OF)[:12]

TIMING = {
    "load_seconds": 1.0,
    "generation_seconds": 2.0,
    "examples_per_second": 30.0,
    "completion_tokens_per_second": 0.0,
    "sessions": [],
}

#: What a model makes of the example at an index: right, wrong, or nothing that can be read.
Right = Callable[[int], bool | None]


@dataclass(frozen=True)
class MadeRuns:
    """Makes runs of small benchmarks below `folder`: word problems, or questions on twelve subjects."""

    folder: Path

    def gsm8k(self, model: str, right: Right, *, n: int = 60, **options: Any) -> Path:
        """Evaluate `model` on `n` word problems and return the run's folder."""
        problems = word_problems(n)
        data = self.folder / f"data-{n}"
        path = data / "gsm8k" / "test.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in problems))
        other = {False: "#### -77", None: "I cannot tell."}
        outputs = {f"test-{i:04d}": other.get(right(i), problems[i][1]) for i in range(n)}
        return self.run("gsm8k", model, outputs, data, **options)

    def mmlu(self, model: str, right: Right, *, each: int = 5, **options: Any) -> Path:
        """Evaluate `model` on `each` questions of twelve subjects and return the run's folder."""
        data = self.folder / f"data-{each}"
        (data / "mmlu" / "test").mkdir(parents=True, exist_ok=True)
        outputs = {}
        for place, subject in enumerate(SUBJECTS):
            with (data / "mmlu" / "test" / f"{subject}_test.csv").open("w", newline="") as file:
                for number in range(each):
                    csv.writer(file).writerow([f"Question {number}?", "one", "two", "three", "four", "B"])
                    letter = {True: "B", False: "C", None: "?"}[right(place * each + number)]
                    outputs[f"{subject}-test-{number:04d}"] = f"The correct answer is {letter}."
        return self.run("mmlu", model, outputs, data, options={"mmlu": {"subjects": SUBJECTS}}, **options)

    def safety(self, model: str, verdict: Callable[[int], str], *, n: int = 12, **options: Any) -> Path:
        """Evaluate `model` on `n` unsafe prompts, judged as `verdict` replies, and return the run's folder."""
        data = self.folder / f"data-{n}"
        path = data / "simple_safety_tests" / "simple_safety_tests.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,harm_area,prompts_final\n" + "".join(f"sst_{i},Area {i % 3},Ask {i}?\n" for i in range(n)))
        replies = self.outputs(f"{model}/judge", {f"sst_{i}#verdict": verdict(i) for i in range(n)})
        outputs = {f"sst_{i}": f"Reply {i}" for i in range(n)}
        judge = {"judge_model": str(replies), "judge_engine": "replay"}
        return self.run("simple_safety_tests", model, outputs, data, **judge, **options)

    def alpaca(self, model: str, replies: Callable[[int], tuple[str, str]], *, n: int = 12) -> Path:
        """Evaluate `model` on `n` instructions and return the run's folder.

        The judge's `replies` are those with the reference first and with the model first.
        """
        data = self.folder / f"data-{n}"
        path = data / "alpaca_eval" / "alpaca_eval.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        asked = [f"Name thing {i}." for i in range(n)]
        path.write_text("".join(json.dumps({"instruction": text, "dataset": "koala"}) + "\n" for text in asked))
        rows = [{"instruction": text, "output": "Reference", "generator": "R"} for text in asked]
        path.with_name("gpt4_1106_preview.json").write_text(json.dumps(rows))
        said = {
            f"alpaca-{i:04d}#{key}": text
            for i in range(n)
            for key, text in zip(("reference-first", "model-first"), replies(i), strict=True)
        }
        judge = {"judge_model": str(self.outputs(f"{model}/judge", said)), "judge_engine": "replay"}
        return self.run("alpaca_eval", model, {f"alpaca-{i:04d}": f"Reply {i}" for i in range(n)}, data, **judge)

    def outputs(self, name: str, texts: Mapping[str, str]) -> Path:
        """Record outputs by id in a file called `name`."""
        path = self.folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"id": i, "output": text}) + "\n" for i, text in texts.items()))
        return path

    def run(self, benchmark: str, model: str, outputs: Mapping[str, str], data: Path, **options: Any) -> Path:
        """Evaluate recorded outputs and return the run's folder."""
        recorded = self.outputs(model, outputs)
        asked = RunOptions(
            benchmark=(benchmark,),
            model=str(recorded),
            engine="replay",
            data=str(data),
            out=str(self.folder / "runs"),
            **options,
        )
        registry = Registry()
        [plan] = make_plans(asked, registry)
        with plan.respondent:
            folder = run(plan, fresh=True).run
        if asked.judge_model is not None:
            scorer = planned_scorer(plan)
            assert scorer is not None
            with make_judge(asked, registry) as judge:
                judge_run(folder, scorer, judge)
        folder.write("timing.json", TIMING)
        return folder.path


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
