"""`harness import`: recorded outputs of every shipped format as runs, beside their source, and what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import harness as package
from harness.testing.conformance import Subject
from tests.conftest import QUESTIONS, Command, Done
from tests.reports.test_html import chunks
from tests.reports.viewing import viewing
from tests.testing.keeping import skipped

GOLD = ("7", "2000", "-5", "2")
OUTPUTS = ("3 and 4 are 7.\n#### 7", "#### 2,000", "I cannot say.", "The answer is 3.")
#: What a careless source reads: the last one of "I cannot say." is made up, and happens to be right.
READ = ("7", "2,000", "-5", "3")

Import = Callable[..., Done]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "gsm8k" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in QUESTIONS))
    return tmp_path / "data"


@pytest.fixture
def bring(harness: Command, data: Path, tmp_path: Path) -> Import:
    def command(path: Path, *words: str | Path) -> Done:
        return harness("import", path, "-b", "gsm8k", "--data", data, "-o", tmp_path / "runs", *words)

    return command


def rows(path: Path, records: list[Any]) -> Path:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(json.dumps(records) if path.suffix == ".json" else lines)
    return path


def mapped(path: Path, **changed: Any) -> Path:
    records: list[dict[str, Any]] = [
        {"question": QUESTIONS[n][0], "generated": OUTPUTS[n], "took": READ[n], "right": READ[n] != "3"}
        for n in range(4)
    ]
    records[2].update(changed)
    return rows(path, [{name: value for name, value in record.items() if value != "-"} for record in records])


MAP = ("--map", "output=generated", "--map", "answer=took", "--map", "score=right")


def lm_eval(path: Path) -> Path:
    """As lm-eval 0.4 writes it, a line for each of two filters."""
    records = []
    for n, (question, answer) in enumerate(QUESTIONS):
        for name, said in (("strict", READ[n]), ("loose", "9")):
            records.append(
                {
                    "doc_id": n, "doc": {"question": question, "answer": answer}, "target": GOLD[n],
                    "arguments": {"gen_args_0": {"arg_0": f"Q: {question}\nA:", "arg_1": {"max_gen_toks": 48}}},
                    "resps": [[OUTPUTS[n]]], "filtered_resps": [said], "filter": name, "metrics": ["exact_match"],
                    "exact_match": float(said.replace(",", "") == GOLD[n]),
                }
            )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "results_1.json").write_text(json.dumps({"model_name": "org/tiny", "lm_eval_version": "0.4.13"}))
    return rows(path, records)


def inspect_log(path: Path) -> Path:
    """As Inspect writes it with ``--log-format json``; the last sample failed."""
    samples = []
    for n, (question, _) in enumerate(QUESTIONS):
        message = {
            "role": "assistant",
            "content": [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": OUTPUTS[n]}],
        }
        output = {
            "choices": [{"message": message, "stop_reason": "max_tokens" if n else "stop"}],
            "usage": {"input_tokens": 9, "output_tokens": 4},
        }
        score = {"match": {"value": "C" if READ[n] != "3" else "I", "answer": READ[n]}}
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}, message]
        samples.append(
            {
                "id": f"q{n}",
                "epoch": 1,
                "input": question,
                "target": GOLD[n],
                "messages": messages,
                "output": output,
                "scores": score,
            }
        )
    samples[3].update(output={"choices": []}, scores=None, error={"message": "out of\nmemory"})
    head = {
        "task": "sums",
        "model": "hf/tiny",
        "packages": {"inspect_ai": "0.3.285"},
        "model_generate_config": {"temperature": 0},
    }
    path.write_text(json.dumps({"version": 2, "status": "success", "eval": head, "samples": samples}))
    return path


def only(tmp_path: Path) -> Path:
    [path] = (tmp_path / "runs").rglob("run.json")
    return path.parent


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_mapped_rows_become_a_run_that_every_command_takes(
    bring: Import, harness: Command, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2")
    file = mapped(tmp_path / "their-model.jsonl")
    done = bring(file, *MAP)
    assert done.code == 0, done.err
    assert "paired 4 by the question's text" in done.out and "truncated unknown" in done.out
    assert "the source's own figure 75.0%, ours 50.0%; read differently 1 (25.0%)" in done.out
    assert "it read an answer in 1 that state nothing, which is 25.00 points of its figure" in done.out
    run = only(tmp_path)
    record = json.loads((run / "run.json").read_text())
    assert record["imported"]["files"][0]["name"] == "their-model.jsonl" and record["identity"]["generation"] == {}
    assert (record["model"], record["engine"], record["prompt_format"]["name"]) == ("their-model", "import", "unknown")
    second = samples(run)[1]
    assert [second[name] for name in ("prompt", "finish_reason", "prompt_tokens", "seconds")] == ["", None, None, None]
    assert second["source"] == {"said": "2,000", "answer": "2000", "scores": {"score": 1.0}}

    before = (run / "samples.jsonl").read_bytes()
    assert "imported before: nothing is new" in bring(file, *MAP).out
    assert only(tmp_path) == run and (run / "samples.jsonl").read_bytes() == before

    shown = harness("show", run, "--differing-from-source")
    assert "1 of 4 samples" in shown.out and "source: -5  [score 1]" in shown.out and QUESTIONS[2][0] in shown.out
    assert "last-number" in harness("score", run, "--parser", "last-number").out
    outputs = rows(tmp_path / "ours.jsonl", [{"output": output} for output in OUTPUTS])
    own = ("run", "-b", "gsm8k", "-e", "replay", "-m", outputs, "--data", data, "-o", tmp_path / "own")
    assert harness(*own).code == 0
    [other] = (tmp_path / "own").rglob("run.json")
    compared = harness("compare", other.parent, run)
    assert compared.code == 0 and "0 gained, 0 lost" in compared.out
    page = package.report(run, out=tmp_path / "page.html").read_text()
    assert "Beside the source" in page and "+25.0 points" in page
    assert "question (the prompt is not known)" in shown.out
    first = chunks(page, 0)[0]
    assert first["prompts"][0].startswith(QUESTIONS[0][0]) and first["sent"] == [False]


def test_an_imported_run_is_judged_viewed_and_exported(harness: Command, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    folder = tmp_path / "data" / "alpaca_eval"
    folder.mkdir(parents=True)
    asked = [{"instruction": f"Name lake {n}.", "dataset": "koala", "output": f"Lake {n}"} for n in range(3)]
    rows(folder / "alpaca_eval.jsonl", asked)
    rows(folder / "gpt4_1106_preview.json", [{**each, "generator": "R"} for each in asked])
    theirs = rows(tmp_path / "theirs.json", [{**each, "output": "Some lake", "generator": "T"} for each in asked])
    done = harness("import", theirs, "-b", "alpaca_eval", "--data", folder.parent, "-o", tmp_path / "runs")
    assert done.code == 0 and "imported from AlpacaEval · paired 3 by the question's text" in done.out, done.err
    run = only(tmp_path)
    orders = {"reference-first": "2", "model-first": "1"}
    replies = [{"id": f"alpaca-{n:04}#{order}", "output": said} for n in range(3) for order, said in orders.items()]
    judge = rows(tmp_path / "judge.jsonl", replies)
    judged = harness("judge", run, "--judge", judge, "--judge-engine", "replay")
    assert judged.code == 0 and "win_rate" in judged.out and "100.0%" in judged.out, judged.err
    for form in ("csv", "lm-eval", "every-eval-ever"):
        assert harness("export", run, "--format", form, "--out", tmp_path / form).code == 0, form
    [exported] = (tmp_path / "lm-eval").rglob("samples_*.jsonl")
    assert [json.loads(line)["resps"] for line in exported.read_text().splitlines()] == [[["Some lake"]]] * 3
    page = tmp_path / "report.md"
    assert harness("report", run, "--format", "markdown", "--out", page).code == 0
    assert "win_rate" in page.read_text() and "Some lake" not in page.read_text()
    with viewing(tmp_path / "runs") as server:
        seen = server.get(f"/report?run={run.relative_to(tmp_path / 'runs')}")
        assert seen.status == 200 and "100.0" in seen.text and "Beside the source" not in seen.text


def test_lm_evals_samples(bring: Import, harness: Command, tmp_path: Path) -> None:
    file = lm_eval(tmp_path / "org__tiny" / "samples_sums_1.jsonl")
    assert skipped(Subject("formats", "lm-eval", data=file)) == []
    done = bring(file)
    assert "imported from lm-eval 0.4.13 · paired 4 by the question's text" in done.out, done.err
    run = only(tmp_path)
    origin = json.loads((run / "run.json").read_text())["imported"]
    assert (origin["model"], origin["version"], origin["by_text"]) == ("org/tiny", "0.4.13", 4)
    assert origin["settings"] == {"task": "sums", "filter": "strict", "generation": {"max_gen_toks": 48}}
    assert samples(run)[0]["prompt"] == f"Q: {QUESTIONS[0][0]}\nA:"
    assert [each["source"]["answer"] for each in samples(run)] == ["7", "2000", "-5", "3"]
    loose = bring(file, "--set", "lm-eval.filter=loose")
    assert "the source's own figure 0.0%, ours 50.0%; read differently 4" in loose.out
    wrong = bring(file, "--set", "lm-eval.filter=losse")
    assert wrong.code == 2 and "did you mean 'loose'?" in wrong.err


def test_inspects_logs(bring: Import, tmp_path: Path) -> None:
    file = inspect_log(tmp_path / "log.json")
    if find_spec("inspect_ai") is None:
        assert skipped(Subject("formats", "inspect", data=file)) == []
    done = bring(file)
    assert done.code == 1 and "imported from Inspect 0.3.285" in done.out and "failed 1" in done.out, done.err
    first, second, _, failed = samples(only(tmp_path))
    assert first["output"].startswith("<think>\nHm.\n</think>") and first["response"] == OUTPUTS[0]
    assert (second["finish_reason"], second["prompt_tokens"], second["completion_tokens"]) == ("length", 9, 4)
    assert first["prompt"] == f"system: Be brief.\n\nuser: {QUESTIONS[0][0]}"
    assert (failed["status"], failed["error"]) == ("engine_error", "out of memory")


@pytest.mark.parametrize("samples", [5, 0.5, True, "ab", {"a": 1}, [3]])
def test_a_log_whose_samples_are_none_is_one_line(bring: Import, tmp_path: Path, samples: object) -> None:
    file = inspect_log(tmp_path / "log.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"samples": samples}))
    done = bring(file)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and str(file) in done.err


@pytest.mark.skipif(find_spec("inspect_ai") is not None, reason="inspect_ai is installed")
def test_an_eval_file_needs_inspect_ai(bring: Import, tmp_path: Path) -> None:
    (tmp_path / "log.eval").write_bytes(b"PK\x03\x04 and so on")
    done = bring(tmp_path / "log.eval")
    assert done.code == 2 and done.err.strip().endswith("pip install 'posttrain-harness[inspect]'")


def test_alpaca_evals_outputs(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "alpaca_eval" / "gpt4_1106_preview.json"
    assert skipped(Subject("formats", "alpaca-eval", data=file)) == []
    run = package.import_outputs(file, "alpaca_eval", data=shared_data, out=tmp_path, progress=False)
    assert run.model == "gpt4_1106_preview" and run.results.judges == {} and run.results.n == 805
    assert run.record.imported is not None and run.record.imported.by_text == 805


def test_several_outputs_an_example_become_its_samples(bring: Import, harness: Command, tmp_path: Path) -> None:
    records = [
        {"question": question, "output": [f"#### {gold}", "#### 1"], "took": [gold, "1"], "right": [1.0, 0.0]}
        for (question, _), gold in zip(QUESTIONS, GOLD, strict=True)
    ]
    done = bring(rows(tmp_path / "several.jsonl", records), "--map", "answer=took", "--map", "score=right")
    assert done.code == 0 and "paired 8 by the question's text" in done.out, done.err
    run = package.load_run(only(tmp_path))
    figures = run.results.metrics["final-number"]
    assert (run.record.samples, run.results.n) == (2, 8)
    assert [figures[name].value for name in ("accuracy", "pass@2", "pass^2")] == [0.5, 1.0, 0.0]
    assert [(each.id, each.repeat) for each in run.samples()][:3] == [
        ("test-0000", 0), ("test-0000", 1), ("test-0001", 0)
    ]  # fmt: skip
    again = bring(tmp_path / "several.jsonl", "--map", "answer=took", "--map", "score=right")
    assert again.code == 0 and "nothing is new" in again.out


def test_a_csv_with_ids_of_some_examples(bring: Import, tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text('id,output,finish_reason\ntest-0003,"It is 2.",stop\ntest-0000,#### 7,length\n')
    assert skipped(Subject("formats", "rows", data=file)) == []
    done = bring(file)
    assert "paired 2 by id; 2 of the benchmark's 4 examples have none" in done.out and "truncated 1 (50.0%)" in done.out
    assert [each.id for each in package.load_run(only(tmp_path)).samples()] == ["test-0000", "test-0003"]


@pytest.mark.parametrize(
    ("changed", "words", "said"),
    [
        ({}, ("--map", "output=text"), "has no 'text', only 'question', 'generated', 'took', 'right'"),
        ({}, (), "no output in it ('output', 'text', 'completion', 'response'), only 'question'"),
        ({}, ("--map", "outputs=generated"), "rows has no option 'outputs'; did you mean 'output'?"),
        ({}, ("--map", "output"), "must look like NAME=FIELD"),
        ({"question": "Who wrote Faust?"}, MAP, ":3: gsm8k asks no question 'Who wrote Faust?'"),
        ({"question": QUESTIONS[0][0]}, MAP, ":3: a second output for the example 'test-0000'"),
        ({"generated": None}, MAP, ":3: no output (1 of 4 outputs cannot be used)"),
        ({"generated": ["a", "b"]}, MAP, ":3: 'took' must be a list, one for each of 2 outputs"),
        ({"generated": ["a", "b"], "took": ["1", "2"], "right": [1, 0]}, MAP, "no output 2 of 2 for the example"),
        ({"generated": {"a": "b"}}, MAP, ":3: 'generated' must be text"),
        ({"right": 3}, MAP, ":3: 'right' must be a score from 0 to 1, not 3"),
        ({"question": "-"}, MAP, ":3: neither an id nor a question of gsm8k in it"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_nothing_is_written(
    bring: Import, tmp_path: Path, changed: dict[str, Any], words: tuple[str, ...], said: str
) -> None:
    done = bring(mapped(tmp_path / "theirs.jsonl", **changed), *words)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.json", '[{"id": "test-0000", "output": "#### 7"}, {"id"', "cut.json:1: not JSON"),
        ("ids.jsonl", '{"id": "nine", "output": "#### 7"}\n', "gsm8k has no example 'nine'"),
        ("odd.bin", "x", "no format recognises it"),
        ("none.json", "[]", "empty, no rows in it"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(bring: Import, tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    done = bring(tmp_path / name)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err
    assert not (tmp_path / "runs").exists()


def test_log_likelihoods_are_refused_and_repeats_are_samples(bring: Import, tmp_path: Path) -> None:
    line = {"doc_id": 0, "doc": {"question": QUESTIONS[0][0]}, "filtered_resps": [[-1.5, "False"]], "filter": "none"}
    done = bring(rows(tmp_path / "a.jsonl", [{**line, "resps": [[[-1.5, "False"]], [[-2.5, "False"]]]}]))
    assert done.code == 2 and "a task of log-likelihoods" in done.err
    done = bring(rows(tmp_path / "b.jsonl", [{**line, "resps": [["#### 7", "#### 8"]]}]))
    assert done.code == 0 and [each.key for each in package.load_run(only(tmp_path)).samples()] == [
        "test-0000", "test-0000#1"
    ]  # fmt: skip
