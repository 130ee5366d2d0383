"""MMLU-Pro: its data's forms, both ways of asking to the letter, its results imported, and bad rows."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, parquet

import harness as package
from harness.datasets import DataSource
from harness.errors import DataError
from harness.testing.conformance import Subject
from harness_mmlu_pro import MMLUPro
from harness_mmlu_pro.questions import _REVISION, _SHA256, CATEGORIES, LETTERS
from tests.conftest import Command
from tests.hub_server import HubServer, Repository, StoredFile
from tests.testing.keeping import skipped


def question(number: int, category: str, options: int, answer: str, reasoning: str = "") -> dict[str, Any]:
    texts = [f"{{choice}} {number} {letter}" for letter in LETTERS[:options]]
    return {
        "question_id": number, "question": f"Which fits {number}?", "options": texts, "answer": answer,
        "answer_index": LETTERS.index(answer), "cot_content": reasoning, "category": category, "src": "made up",
    }  # fmt: skip


TEST = [question(70, "law", 10, "J"), question(71, "computer science", 3, "B"), question(72, "law", 4, "A")]
WORKED = [
    question(number, category, 3, "ABC"[number % 3], f"A: Let's think step by step. It is {number}. The answer is (A).")
    for category in CATEGORIES
    for number in range(5)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "mmlu-pro"
    folder.mkdir(parents=True)
    (folder / "test.json").write_text(json.dumps(TEST))
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in WORKED))
    return folder.parent


def test_it_keeps_its_promises(data: Path) -> None:
    assert skipped(Subject("benchmarks", "mmlu-pro", data=data, options={"shots": 2})) == []


def test_the_prompts_to_the_letter(data: Path) -> None:
    first, second, _ = MMLUPro().examples(DataSource(data))
    assert (first.id, first.gold, first.group) == ("70", "J", "law")
    assert MMLUPro().instruction(second) == (
        "Answer the following multiple choice question about computer science. Respond with a single sentence of the "
        'form "The correct answer is _", filling the blank with the letter corresponding to the correct answer (i.e., '
        "A, B or C).\n\nQuestion: Which fits 71?\nA. {choice} 71 A\nB. {choice} 71 B\nC. {choice} 71 C\nAnswer:"
    )
    worked = MMLUPro(shots=2)
    asked = str(worked.instruction(worked.examples(DataSource(data))[1])).split("\n\n")
    assert asked[0].startswith("Here are multiple choice questions about computer science,")
    assert asked[1:] == [
        "Question: Which fits 0?\nA. {choice} 0 A\nB. {choice} 0 B\nC. {choice} 0 C\n"
        "Answer: Let's think step by step. It is 0. The answer is (A).",
        "Question: Which fits 1?\nA. {choice} 1 A\nB. {choice} 1 B\nC. {choice} 1 C\n"
        "Answer: Let's think step by step. It is 1. The answer is (A).",
        "Question: Which fits 71?\nA. {choice} 71 A\nB. {choice} 71 B\nC. {choice} 71 C\n"
        "Answer: Let's think step by step.",
    ]


def test_the_hubs_parquet_and_chosen_categories(data: Path) -> None:
    expected = MMLUPro().examples(DataSource(data))
    (data / "mmlu-pro" / "test.json").unlink()
    filled = [{**row, "options": [*row["options"], *["N/A"] * (10 - len(row["options"]))]} for row in TEST]
    (data / "mmlu-pro" / "data").mkdir()
    parquet.write_table(Table.from_pylist(filled), data / "mmlu-pro" / "data" / "test-00000-of-00001.parquet")
    assert MMLUPro().examples(DataSource(data)) == expected
    assert [each.id for each in MMLUPro(categories=("law",)).examples(DataSource(data))] == ["70", "72"]


def test_the_files_come_from_the_hub_and_are_checked(tmp_path: Path) -> None:
    files = {}
    for split, rows in (("test", TEST), ("validation", WORKED)):
        parquet.write_table(Table.from_pylist(rows), tmp_path / "x")
        files[f"data/{split}-00000-of-00001.parquet"] = StoredFile((tmp_path / "x").read_bytes(), large=True)
    digests = {
        name.split("/")[1].split("-")[0]: hashlib.sha256(each.content).hexdigest() for name, each in files.items()
    }
    program = (
        "import json, sys; from harness.datasets import DataSource; from harness.errors import DataError\n"
        "import harness_mmlu_pro.questions as questions; from harness_mmlu_pro import MMLUPro\n"
        "questions._SHA256 = json.loads(sys.argv[1]) or questions._SHA256\n"
        "try: print([each.id for each in MMLUPro(shots=2).examples(DataSource())])\n"
        "except DataError as error: print(error)"
    )
    outside = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with HubServer({"TIGER-Lab/MMLU-Pro": Repository(_REVISION, files)}) as server:
        for told, said in ((digests, "['70', '71', '72']"), ({}, f"but {_SHA256['validation']} is pinned")):
            environment = {**outside, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
            words = [sys.executable, "-c", program, json.dumps(told)]
            done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100)
            assert said in done.stdout, done.stderr


def test_the_authors_results_as_a_list_and_by_category(data: Path, harness: Command, tmp_path: Path) -> None:
    read = zip(("J", None, "A"), ("Let us see", "So the answer is (B).", "So the answer is (A)."), strict=True)
    made = [{**row, "pred": pred, "model_outputs": said} for row, (pred, said) in zip(TEST, read, strict=True)]
    (tmp_path / "listed.json").write_text(json.dumps(made))
    (tmp_path / "sorted.json").write_text(json.dumps({"law": [made[0], made[2]], "computer science": [made[1]]}))
    assert skipped(Subject("formats", "mmlu-pro", data=tmp_path / "sorted.json")) == []
    runs = [package.import_outputs(tmp_path / name, "mmlu-pro", data=data, out=tmp_path / "runs", progress=False)
            for name in ("listed.json", "sorted.json")]  # fmt: skip
    assert [each.source for each in runs[0].samples()] == [each.source for each in runs[1].samples()]
    assert runs[0].record.imported is not None and runs[0].record.imported.by_id == 3
    done = harness("import", tmp_path / "listed.json", "-b", "mmlu-pro", "--data", data, "-o", tmp_path / "again")
    assert "read differently 2 (66.7%): ours alone is right in 1, the source's in 1" in done.out
    assert harness("compare", *(run.path for run in runs)).code == 0
    cut = tmp_path / "cut.json"
    cut.write_text(json.dumps(made)[:-30])
    done = harness("import", cut, "-b", "mmlu-pro", "--data", data, "-o", tmp_path / "cut")
    assert done.code == 2 and "cut.json:1: not JSON" in done.err and not (tmp_path / "cut").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"options": ["one", "two"]}, "2 options, expected 3 to 10"),
        ({"answer": "K"}, "the answer is 'K', not one of A to J"),
        ({"answer_index": 3}, "answer_index says 3"),
        ({"category": "maths"}, "unknown category 'maths'; did you mean 'math'?"),
        ({"question": " "}, "the question is empty"),
    ],
)
def test_bad_rows_are_named(data: Path, changed: dict[str, Any], said: str) -> None:
    (data / "mmlu-pro" / "test.json").write_text(json.dumps([TEST[1], {**TEST[0], **changed}]))
    with pytest.raises(DataError, match=r"test\.json, item 2: ") as caught:
        MMLUPro().examples(DataSource(data))
    assert said in str(caught.value)


@pytest.mark.parametrize("options", [{"shots": 6}, {"shots": 1, "split": "validation"}, {"categories": ("maths",)}])
def test_options_that_do_not_fit(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"shots|unknown category"):
        MMLUPro(**options)
