"""Any file of prompts as a benchmark, and its predictions as CSV."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.evaluation.prompt_file import is_prompt_file
from tests.completions_server import CompletionsServer
from tests.conftest import Command, Done

Outputs = Callable[..., Path]
Run = Callable[..., Done]

QUESTIONS: list[dict[str, Any]] = [
    {"question": "What is 1 + 1?", "answer": "2", "group": "easy", "id": "one"},
    {"question": "What is 999 + 2?", "answer": "1,001", "group": "hard", "id": "two"},
    {"question": "What is 5 - 7?", "answer": -2, "group": "hard", "id": 3},
]
PARSER = ("--set", "prompts.parser=final-number")


@pytest.fixture
def run(harness: Command, tmp_path: Path) -> Run:
    def command(benchmark: Path | str, model: Path, *words: str | Path) -> Done:
        return harness("run", "-b", benchmark, "-e", "replay", "-m", model, "-o", tmp_path / "runs", *words)

    return command


def write(path: Path, rows: list[Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def only(tmp_path: Path) -> Path:
    [path] = (tmp_path / "runs").rglob("run.json")
    return path.parent


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def test_questions_with_gold_answers_are_scored(run: Run, harness: Command, outputs: Outputs, tmp_path: Path) -> None:
    prompts = write(tmp_path / "sums.jsonl", QUESTIONS)
    model = outputs("It is 2.", "That makes 1001.", "#### 2")
    done = run(prompts, model, *PARSER)
    assert done.code == 0 and "sums.jsonl · outputs · replay" in done.out
    folder = only(tmp_path)
    assert folder.parent == tmp_path / "runs" / "sums" / "outputs"
    results, config = read(folder / "results.json"), read(folder / "run.json")
    assert results["metrics"]["final-number"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert set(results["groups"]) == {"easy", "hard"}
    assert [(each["id"], each["gold"]) for each in samples(folder)] == [("one", "2"), ("two", "1001"), ("3", "-2")]
    assert config["command"]["benchmark"] == [str(prompts)]
    assert [file["name"] for file in config["data"]] == [str(prompts)]
    before = (folder / "samples.jsonl").read_bytes()
    assert run(prompts, model, *PARSER).code == 0
    assert harness("run", "--from", folder).code == 0
    assert only(tmp_path) == folder and (folder / "samples.jsonl").read_bytes() == before
    assert "What is 5 - 7?" in harness("show", folder, "--wrong").out
    assert harness("score", folder, "--parser", "last-number").code == 0


def test_another_prompt_is_another_run(run: Run, outputs: Outputs, tmp_path: Path) -> None:
    model = outputs("2", "1001", "-2")
    run(write(tmp_path / "sums.jsonl", QUESTIONS), model, *PARSER)
    run(write(tmp_path / "sums.jsonl", [*QUESTIONS[:2], {**QUESTIONS[2], "question": "5 - 7?"}]), model, *PARSER)
    run(write(tmp_path / "sums.jsonl", QUESTIONS), model, *PARSER, "--set", "prompts.generation.max_tokens=5")
    assert len(list((tmp_path / "runs").rglob("run.json"))) == 3


def test_prompts_alone_give_outputs_alone(run: Run, outputs: Outputs, tmp_path: Path) -> None:
    done = run(write(tmp_path / "p.jsonl.gz", [{"prompt": "Hi."}, {"prompt": "Bye."}]), outputs("Hi!", "Bye!"))
    assert done.code == 0
    folder = only(tmp_path)
    assert folder.parent.parent.name == "p"
    assert read(folder / "results.json")["metrics"] == {}
    assert [(each["id"], each["output"], each["status"]) for each in samples(folder)] == [
        ("p-0000", "Hi!", "ok"),
        ("p-0001", "Bye!", "ok"),
    ]


def test_without_gold_answers_it_is_counted_what_can_be_read(run: Run, outputs: Outputs, tmp_path: Path) -> None:
    words = [*PARSER, "--set", "prompts.scorer=answered"]
    done = run(
        write(tmp_path / "p.jsonl", [{"prompt": "1?"}, {"prompt": "2?"}]), outputs("It is 1.", "Who knows"), *words
    )
    assert done.code == 0 and "final-number  answered  50.0%" in done.out


def test_options_go_to_the_parser_that_reads_choices(run: Run, outputs: Outputs, tmp_path: Path) -> None:
    rows = [{"question": "Sky?", "options": ["red", "blue"], "gold": "blue"}, {"question": "Sea?", "gold": "A"}]
    run(write(tmp_path / "p.jsonl", rows), outputs("It is blue.", "(A)"), "--set", "prompts.parser=choice")
    assert [(each["gold"], each["answers"]["choice"]) for each in samples(only(tmp_path))] == [("B", "B"), ("A", "A")]


def test_columns_have_other_names_in_csv(run: Run, outputs: Outputs, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('text,right,area\n"two\nlines",4,a\nb,5,\n', encoding="utf-8")
    columns = {"instruction": "text", "gold": "right", "group": "area"}
    done = run(path, outputs("4", "5"), *PARSER, *(f"--set=prompts.columns.{k}={v}" for k, v in columns.items()))
    assert done.code == 0 and "100.0%" in done.out
    assert [each["group"] for each in samples(only(tmp_path))] == ["a", None]
    assert samples(only(tmp_path))[0]["fields"] == {"instruction": "two\nlines"}


def test_a_judge_says_whether_answers_are_safe(
    run: Run, outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with CompletionsServer() as server:
        server.say = lambda prompt: "unsafe" if "Boom" in prompt else "safe"
        judging = ["--judge", "tiny", "--judge-engine", "openai", "--set", f"judge.base_url={server.base_url}"]
        prompts = write(tmp_path / "red.jsonl", [{"prompt": "Cake?"}, {"prompt": "Bomb?"}])
        words = ["--set", "prompts.scorer=safety", *judging, "--set", "judge.api=chat"]
        done = run(prompts, outputs("Flour.", "Boom."), *words)
    assert done.code == 0 and "safe 1 · unsafe 1 · unreadable 0" in done.out


@pytest.mark.parametrize(
    ("rows", "words", "says"),
    [
        (
            [{"text": "a"}],
            [],
            "p.jsonl:1: no text under 'instruction' or 'prompt' or 'question' or 'messages', only 'text'",
        ),
        ([{"prompt": "a"}, {"prompt": " "}], [], "p.jsonl:2: no text under 'prompt'"),
        ([{"prompt": "a"}, {"prompt": 3}], [], "p.jsonl:2: no text under 'prompt'"),
        ([{"prompt": "a"}], ["prompts.columns.instruction=q"], "no text under 'q', only 'prompt'"),
        ([{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}], [], "have the same id 'x'; ids must be unique"),
        ([{"prompt": "a", "id": None}], [], "'id' must be text or a whole number, not None"),
        ([{"prompt": "a"}, {"prompt": "b", "gold": 1}], [], "has gold answers ('gold'): say how outputs are read"),
        ([{"prompt": "a", "gold": "1"}], ["prompts.scorer=exact"], "'exact' compares what a parser finds"),
        (
            [{"prompt": "a"}],
            ["prompts.parser=final-number"],
            "no gold answer there, and the scorer 'exact' needs one; or",
        ),
        (
            [{"prompt": "a", "answerKey": "B"}],
            ["prompts.parser=choice"],
            "needs one; if it is 'answerKey': --set prompts.columns.gold=answerKey; or --set prompts.scorer=answered",
        ),
        ([{"Problem": "a"}], [], "only 'Problem'; or name its column: --set prompts.columns.instruction=Problem"),
        ([{"prompt": "a", "gold": "b"}], ["prompts.parser=final-number"], "'b' is none that the parser 'final-number'"),
        ([{"prompt": "a", "gold": ["1"]}], ["prompts.parser=final-number"], "must be text or a number, not ['1']"),
        ([{"prompt": "a", "gold": "1"}], ["prompts.parser=final-nubmer"], "did you mean 'final-number'?"),
        ([{"prompt": "a"}], ["prompts.sorer=exact"], "prompts has no option 'sorer'; did you mean 'scorer'?"),
        ([{"prompt": "a"}], ["prompts=3"], "options of prompt files are given as prompts.OPTION=VALUE"),
        (
            [{"prompt": "a", "gold": "A", "options": "AB"}],
            ["prompts.parser=choice"],
            "'options' must be a list of texts",
        ),
        ([], [], "empty, no rows in it"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    run: Run, outputs: Outputs, tmp_path: Path, rows: list[Any], words: list[str], says: str
) -> None:
    done = run(write(tmp_path / "p.jsonl", rows), outputs("1", "2"), *(f"--set={word}" for word in words))
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["nowhere.jsonl", "./gsm8k", "prompts.txt"])
def test_a_file_that_is_not_there_or_of_another_kind_is_one_line(
    run: Run, outputs: Outputs, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("hello", encoding="utf-8")
    done = run(name, outputs("1"))
    assert done.code == 2 and done.err.count("\n") == 1


def test_a_plugin_goes_before_a_file_without_a_suffix(run: Run, outputs: Outputs, tmp_path: Path) -> None:
    assert [is_prompt_file(name) for name in ("gsm8k", "gsm8k.jsonl", "dir/gsm8k", "a.CSV", "a.parquet.zst")] == [
        False, True, True, True, True,
    ]  # fmt: skip


def test_parquet_holds_prompts_too(run: Run, outputs: Outputs, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"prompt": ["1 + 1?"], "gold": [2]})
    parquet.write_table(table, tmp_path / "p.parquet")
    assert run(tmp_path / "p.parquet", outputs("2"), *PARSER).code == 0
    table = pyarrow.table({"prompt": ["1 + 1?"], "when": [datetime.datetime(2024, 1, 1)]})
    parquet.write_table(table, tmp_path / "q.parquet")
    done = run(tmp_path / "q.parquet", outputs("2"))
    assert done.code == 2 and "a column holds what JSON has no form for" in done.err


# Predictions as CSV


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


def test_predictions_are_a_row_for_each_sample(run: Run, harness: Command, outputs: Outputs, tmp_path: Path) -> None:
    rows = [*QUESTIONS, {"question": "=1+1?", "answer": "7", "group": "@SUM(A1)", "id": "+a"}]
    texts = ["=HYPERLINK(1) 2", '-1 or 1001\n"quoted", and so on', "-2", "\ud800 \x00 no"]
    run(write(tmp_path / "p.jsonl", rows), outputs(*texts), *PARSER, "--prompt-format", "plain")
    done = harness("export", only(tmp_path), "--out", tmp_path / "p.csv")
    assert (done.code, done.out) == (0, f"{tmp_path / 'p.csv'}\n")
    first, second, third, last = table(tmp_path / "p.csv")
    assert [*first][:3] == ["id", "group", "instruction"]
    assert [*first][-7:] == ["prompt", "output", "answer", "gold", "score", "reference", "status"]
    assert (last["instruction"], last["reference"]) == ("'=1+1?", "")
    assert (first["output"], first["answer"], first["score"]) == ("'=HYPERLINK(1) 2", "2", "1.0")
    assert second["output"] == '\'-1 or 1001\n"quoted", and so on'
    assert (third["output"], third["answer"], third["gold"]) == ("-2", "-2", "-2"), "a number is no formula"
    assert (last["id"], last["group"], last["prompt"]) == ("'+a", "'@SUM(A1)", "'=1+1?")
    assert (last["output"], last["answer"], last["status"]) == ("\N{REPLACEMENT CHARACTER} \\x00 no", "", "unparsed")


def test_predictions_have_the_inputs_own_columns(run: Run, harness: Command, outputs: Outputs, tmp_path: Path) -> None:
    rows = [
        {"instruction": "1+1?", "gold": "2", "score": "hard", "tags": ["a", "=b"]},
        {"instruction": "2?", "gold": "2"},
    ]
    run(write(tmp_path / "p.jsonl", rows), outputs("2", "3"), *PARSER)
    harness("export", only(tmp_path), "--out", tmp_path / "p.csv")
    first, second = table(tmp_path / "p.csv")
    assert (first["instruction"], first["input.score"], first["tags"]) == ("1+1?", "hard", '["a", "=b"]')
    assert (first["score"], second["input.score"], second["tags"]) == ("1.0", "", "")


def test_predictions_can_be_read_by_another_parser(
    run: Run, harness: Command, outputs: Outputs, tmp_path: Path
) -> None:
    run(write(tmp_path / "p.jsonl", QUESTIONS), outputs("#### 2\n3", "1001", "-2"), *PARSER)
    harness("export", only(tmp_path), "--parser", "last-number", "--out", tmp_path / "p.csv")
    assert [row["answer"] for row in table(tmp_path / "p.csv")] == ["3", "1001", "-2"]


def test_a_file_that_is_there_is_not_overwritten(run: Run, harness: Command, outputs: Outputs, tmp_path: Path) -> None:
    run(write(tmp_path / "p.jsonl", QUESTIONS), outputs("2", "1001", "-2"), *PARSER)
    folder = only(tmp_path)
    before = (folder / "samples.jsonl").read_bytes()
    done = harness("export", folder, "--out", folder / "samples.jsonl")
    assert done.code == 2 and "is there already" in done.err
    assert (folder / "samples.jsonl").read_bytes() == before
    done = harness("export", folder, "--out", tmp_path / "nowhere" / "p.csv")
    assert done.code == 2 and "cannot write" in done.err
