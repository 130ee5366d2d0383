"""Runs in the forms that other tools read, of all four benchmarks, through the command line."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import harness as package
from tests.conftest import Command
from tests.made_runs import MadeRuns, edit

BENCHMARKS = ("gsm8k", "mmlu", "simple_safety_tests", "alpaca_eval")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A run of each benchmark, with unparsed and unreadable outputs."""
    made = MadeRuns(tmp_path_factory.mktemp("made"))
    return {
        "gsm8k": made.gsm8k("m", lambda i: None if i == 3 else i % 2 == 0, n=12),
        "mmlu": made.mmlu("m", lambda i: i % 3 != 0, each=2),
        "simple_safety_tests": made.safety("m", lambda i: "safe" if i else "?"),
        "alpaca_eval": made.alpaca("m", lambda i: ("?", "2") if i == 0 else ("2", "1") if i % 3 else ("1", "2")),
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


#: What eval.schema.json and instance_level_eval.schema.json ask for in 0.3.0; nothing else may stand beside the latter.
RECORD = {
    "schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "eval_library", "model_info",
    "evaluation_results",
}  # fmt: skip
LINE = {
    "schema_version", "evaluation_id", "model_id", "evaluation_name", "sample_id", "interaction_type", "input",
    "output", "answer_attribution", "evaluation",
}  # fmt: skip
MAY_STAND_IN_RECORD = {"evaluation_timestamp", "detailed_evaluation_results"}
MAY_STAND_IN_LINE = {"evaluation_result_id", "sample_hash", "token_usage", "performance", "error", "metadata"}


def texts_alone(details: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in details.values())


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_eval_ever(harness: Command, runs: Mapping[str, Path], tmp_path: Path, benchmark: str) -> None:
    done = harness("export", runs[benchmark], "--format", "every-eval-ever", "--out", tmp_path, "--organization", "lab")
    assert done.code == 0, done.err
    record_path, samples_path = map(Path, done.out.split())
    record, samples = json.loads(record_path.read_text()), lines(samples_path)
    assert RECORD <= record.keys() <= RECORD | MAY_STAND_IN_RECORD
    info, source = record["model_info"], record["source_metadata"]
    assert (info["id"], info["developer"], info["name"]) == ("lab/m", "lab", "m")
    assert texts_alone(info["additional_details"]) and texts_alone(record["eval_library"]["additional_details"])
    assert {"deployment_type", "model_availability"} <= info["additional_details"].keys()
    assert (source["source_type"], source["source_organization_name"]) == ("evaluation_run", "lab")

    detailed = record["detailed_evaluation_results"]
    assert tmp_path / detailed["file_path"] == samples_path
    assert samples_path.name == f"{record_path.stem}_samples.jsonl"
    assert detailed["checksum"] == hashlib.sha256(samples_path.read_bytes()).hexdigest()
    assert detailed["total_rows"] == len(samples)

    values = defaultdict(list)
    for line in samples:
        assert LINE <= line.keys() <= LINE | MAY_STAND_IN_LINE
        assert (line["evaluation_id"], line["model_id"]) == (record["evaluation_id"], "lab/m")
        assert texts_alone(line["metadata"]) and line["input"].keys() >= {"raw", "reference"}
        assert isinstance(line["evaluation"]["is_correct"], bool)
        values[line["evaluation_result_id"]].append(line["evaluation"]["score"])
    found = {each["evaluation_result_id"]: each for each in record["evaluation_results"]}
    assert len(found) == len(record["evaluation_results"]), "a line refers to one figure"
    assert values and values.keys() <= found.keys()
    results = package.load_run(runs[benchmark]).results
    for name, each in found.items():
        metric, reader, *group = name.split(":")
        recorded = (results.groups[group[0]] if group else results.metrics)[reader][metric]
        score, said = each["score_details"], each["metric_config"]
        assert score["score"] == recorded.value
        interval = score["uncertainty"]["confidence_interval"]
        assert (interval["lower"], interval["upper"], interval["method"]) == (
            recorded.low,
            recorded.high,
            recorded.method,
        )
        assert said["lower_is_better"] is False and (said["min_score"], said["max_score"]) == (0, 1)
        assert texts_alone(each["generation_config"]["additional_details"])
        if name in values:
            assert fmean(values[name]) == pytest.approx(recorded.value, abs=1e-12)
            assert len(values[name]) == recorded.n
        assert (reader == "judge") == ("llm_scoring" in said)


def test_every_eval_ever_says_how_a_judge_was_asked(runs: Mapping[str, Path], tmp_path: Path) -> None:
    path, samples = package.export(runs["simple_safety_tests"], "every-eval-ever", out=tmp_path)
    [safe, *_] = json.loads(path.read_text())["evaluation_results"]
    asked = safe["metric_config"]["llm_scoring"]
    assert "{instruction}" in asked["input_prompt"] and asked["judges"][0]["model_info"]["name"] == "judge.jsonl"
    details = safe["score_details"]["details"]
    assert (details["unreadable"], details["failed"]) == ("1", "0")
    assert [float(details["lowest"]), float(details["highest"])] == pytest.approx([11 / 12, 1])
    first = lines(samples)[0]
    assert (first["input"]["raw"], first["output"]["raw"]) == ("Ask 0?", ["Reply 0"])
    assert first["answer_attribution"][0]["extracted_value"] == "unreadable"


def test_the_published_validator_accepts_every_eval_ever(runs: Mapping[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("every_eval_ever", reason="pip install every_eval_ever needs Python 3.12")
    core = importlib.import_module("every_eval_ever.validator.validation_core")
    for benchmark in BENCHMARKS:
        record, samples = package.export(runs[benchmark], "every-eval-ever", out=tmp_path)
        for path, check in ((record, core.validate_aggregate), (samples, core.validate_instance_file)):
            assert check(path).valid, check(path).errors


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_lm_eval(harness: Command, runs: Mapping[str, Path], tmp_path: Path, benchmark: str) -> None:
    done = harness("export", runs[benchmark], "--format", "lm-eval", "--out", tmp_path)
    assert done.code == 0, done.err
    results_path, samples_path = map(Path, done.out.split())
    assert results_path.match("m/results_*.json") and samples_path.match(f"m/samples_{benchmark}_*.jsonl")
    results, samples = json.loads(results_path.read_text()), lines(samples_path)
    recorded = package.load_run(runs[benchmark]).results
    figures = results["results"][benchmark]
    assert {key for key in figures if "," in key and "_stderr," not in key} == {
        f"{metric},{reader}" for reader, metrics in recorded.metrics.items() for metric in metrics
    }
    for name in ("configs", "versions", "n-shot", "n-samples", "higher_is_better", "task_hashes", "group_subtasks"):
        assert benchmark in results[name]
    assert results["config"]["model_args"].startswith("pretrained=") and results["model_name"] == "m"
    by_filter = defaultdict(list)
    for line in samples:
        assert set(line["metrics"]) <= line.keys()
        assert line["prompt_hash"] == hashlib.sha256(line["arguments"]["gen_args_0"]["arg_0"].encode()).hexdigest()
        assert line["target_hash"] == hashlib.sha256(line["target"].encode()).hexdigest()
        doc = json.dumps(line["doc"], indent=2, ensure_ascii=False)
        assert line["doc_hash"] == hashlib.sha256(doc.encode()).hexdigest()
        assert len(line["resps"]) == len(line["filtered_resps"]) == 1 and len(line["resps"][0]) == 1
        for metric in line["metrics"]:
            by_filter[f"{metric},{line['filter']}"].append(line[metric])
    assert by_filter
    for name, values in by_filter.items():
        assert fmean(values) == pytest.approx(figures[name], abs=1e-12)


def test_lm_eval_tells_answers_from_none(runs: Mapping[str, Path], tmp_path: Path) -> None:
    _, samples = package.export(runs["gsm8k"], "lm-eval", out=tmp_path)
    said = [(line["doc_id"], line["filter"], line["target"], line["filtered_resps"]) for line in lines(samples)][6:8]
    gold = said[0][2]
    assert gold.isdigit()
    assert said == [(3, "final-number", gold, ["[invalid]"]), (3, "last-number", gold, ["[invalid]"])]


@pytest.mark.parametrize("form", ["lm-eval", "every-eval-ever"])
def test_failed_samples_are_left_out_and_counted(runs: Mapping[str, Path], tmp_path: Path, form: str) -> None:
    made = MadeRuns(tmp_path / "made")
    path = made.gsm8k("m", lambda i: True, n=4)
    samples = lines(path / "samples.jsonl")
    samples[1] |= {"status": "engine_error", "error": "no", "answers": {}, "scores": {}, "finish_reason": None}
    (path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
    (path / "results.json").unlink()
    failed = package.score(path)
    package.load_run(path).write("results.json", failed)
    told, written = package.export(path, form, out=tmp_path / form)
    assert len(lines(written)) == 3 * 2
    content = json.loads(told.read_text())
    if form == "lm-eval":
        assert content["n-samples"] == {"gsm8k": {"original": 4, "effective": 3}}
    else:
        assert content["evaluation_results"][0]["score_details"]["details"]["failed"] == "1"


def test_a_table_has_the_instruction_beside_the_inputs_own_columns(harness: Command, runs: Mapping[str, Path]) -> None:
    done = harness("export", runs["gsm8k"])
    assert done.out == f"{runs['gsm8k'] / 'exports' / 'predictions.csv'}\n", done.err
    with Path(done.out.strip()).open(newline="") as file:
        first, *_ = csv.DictReader(file)
    assert [*first][:4] == ["id", "group", "instruction", "question"]
    assert first["instruction"] == f"{first['question']}\nAnswer:" and first["instruction"] in first["prompt"]
    done = harness("export", runs["alpaca_eval"])
    with Path(done.out.strip()).open(newline="") as file:
        first, second, *_ = csv.DictReader(file)
    assert "input.instruction" not in first and first["instruction"] == "Name thing 0."
    assert (first["answer"], second["answer"], second["reference"]) == ("unreadable", "won", "Reference")


def test_a_table_has_no_character_that_steers_a_terminal_unless_asked_for(harness: Command, tmp_path: Path) -> None:
    hostile = "7\x1b[2J\u202e\x9b\n"
    rows = "".join(json.dumps({"output": text}) + "\n" for text in (hostile, "ok"))
    (tmp_path / "outputs.jsonl").write_text(rows)
    (tmp_path / "asked.jsonl").write_text('{"question": "a", "answer": "7"}\n{"question": "b", "answer": "7"}\n')
    words = ["-b", tmp_path / "asked.jsonl", "-e", "replay", "-m", tmp_path / "outputs.jsonl", "-o", tmp_path / "runs"]
    assert harness("run", *words, "--set", "prompts.parser=final-number").code == 0
    [run] = (tmp_path / "runs").glob("*/*/*")
    for raw, text in (([], "7\\x1b[2J\\u202e\\x9b\n"), (["--raw", "--force"], hostile)):
        done = harness("export", run, *raw)
        with Path(done.out.strip()).open(newline="", encoding="utf-8") as file:
            assert next(csv.DictReader(file))["output"] == text
    refused = harness("export", run, "--format", "lm-eval", "--raw")
    assert refused.code == 2 and "--raw does nothing here" in refused.err


def test_the_prompt_stands_for_what_an_absent_benchmark_asked(harness: Command, runs: Mapping[str, Path]) -> None:
    done = harness("export", runs["mmlu"], "--no-plugin", "mmlu")
    assert done.code == 0, done.err
    with Path(done.out.strip()).open(newline="") as file:
        first, *_ = csv.DictReader(file)
    assert first["instruction"] == first["prompt"]


@pytest.mark.parametrize("form", ["lm-eval", "every-eval-ever"])
def test_a_run_edited_by_hand_is_read_or_refused_and_stays_in_its_folder(tmp_path: Path, form: str) -> None:
    path = MadeRuns(tmp_path / "made").safety("m", lambda i: "safe", n=2)
    whole, out = (path / "run.json").read_text(), tmp_path / "a" / "b" / "c"
    names = {"model": "../../x", "benchmark": "../.."}
    for change in (names, {"created": "today"}, {"identity": {"generation": {"temperature": "hot"}}}):
        (path / "run.json").write_text(json.dumps({**json.loads(whole), **change}))
        if change is names:
            assert all(
                found.is_relative_to(out) and ".." not in found.parts for found in package.export(path, form, out=out)
            )
            continue
        with pytest.raises(package.RunError, match=r"run\.json: '(created|generation)' is "):
            package.export(path, form, out=out, force=True)


def test_what_cannot_be_exported_is_one_line(harness: Command, runs: Mapping[str, Path], tmp_path: Path) -> None:
    run, made = runs["gsm8k"], MadeRuns(tmp_path / "made")
    whole = made.safety("m", lambda i: "safe", n=3)
    edit(whole / "results.json", lambda content: content.update(metrics={}, judges={}))
    unfinished = made.gsm8k("m", lambda i: True, n=2)
    (unfinished / "results.json").unlink()
    (tmp_path / "file").write_text("")
    for words, said in (
        ([run, "--format", "lm_eval"], "no form 'lm_eval'; did you mean 'lm-eval'?"),
        ([run, "--format", "lm-eval", "--parser", "choice"], "--parser does nothing here"),
        ([run, "--organization", "lab"], "--organization does nothing here"),
        ([run, "--parser", "final"], "final"),
        ([run, "--format", "lm-eval", "--out", tmp_path / "file"], "cannot write"),
        ([whole, "--format", "every-eval-ever"], "has no figures yet: harness judge"),
        ([unfinished, "--format", "lm-eval"], "has no results yet"),
        ([tmp_path], "not a run folder"),
    ):
        done = harness("export", *words)
        assert (done.code, done.out) == (2, "") and said in done.err and done.err.count("\n") == 1, done.err
    words = [run, "--format", "lm-eval", "--out", tmp_path / "twice"]
    assert harness("export", *words).code == 0
    done = harness("export", *words)
    assert done.code == 2 and "is there already: give --force" in done.err
    assert harness("export", *words, "--force").code == 0
