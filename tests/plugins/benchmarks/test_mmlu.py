"""MMLU: both layouts of its data, the prompt to the letter, its figures, and bad rows and files."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.datasets import DataSource, HubFile
from harness.errors import DataError
from harness.types import Example
from harness_mmlu import MMLU
from harness_mmlu.subjects import CATEGORIES, CATEGORY_OF
from tests.conftest import Command, Done

Row = tuple[str, str, str, str, str, str]

ROWS: dict[str, list[Row]] = {
    "anatomy": [
        ("Which of these, in a person, pumps blood?", "The heart", "A lung", "The liver", "A kidney", "A"),
        ("Where does the femur lie?", "In the arm", "In the thigh", "In the skull", "In the foot", "B"),
    ],
    "high_school_geography": [
        ('The "Blue Planet", as it is called, is\nwhich of these?', "Mars", "Venus", "Earth", "The Moon, in part", "C"),
        ("Which is a desert?", "The Po", "The Alps", "The Ganges", "The Gobi", "D"),
        ("Which of these is a sea?", "The Baltic", "The Andes", "The Nile", "The Sahara", "A"),
    ],
    "virology": [
        ("What do all viruses need in order to multiply?", "Light", "A host cell", "Oxygen", "Sugar", "B"),
    ],
}
WORKED: dict[str, list[Row]] = {
    subject: [(f"Worked question {n} on {subject}?", f"w{n}", f"x{n}", f"y{n}", f"z{n}", "ABCDA"[n]) for n in range(5)]
    for subject in ROWS
}
SUBJECTS = tuple(ROWS)
CHOSEN = f"mmlu.subjects={json.dumps(SUBJECTS)}"


def write_csv(folder: Path, part: str, rows: Mapping[str, Sequence[Row]], line_end: str = "\n") -> None:
    (folder / "mmlu" / part).mkdir(parents=True, exist_ok=True)
    for subject, questions in rows.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(questions)
        content = text.getvalue().replace("\n", line_end).encode()
        (folder / "mmlu" / part / f"{subject}_{part}.csv").write_bytes(content)


def write_parquet(path: Path, rows: Iterable[tuple[str, Row]], **changed: Any) -> None:
    import pyarrow
    from pyarrow import parquet

    records = [
        {"question": row[0], "subject": subject, "choices": list(row[1:5]), "answer": "ABCD".index(row[5]), **changed}
        for subject, row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(records), path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with three subjects as the authors' CSV files."""
    write_csv(tmp_path / "data", "test", ROWS)
    write_csv(tmp_path / "data", "dev", WORKED)
    return tmp_path / "data"


def test_the_subjects_and_their_categories_are_those_of_the_authors() -> None:
    assert len(CATEGORY_OF) == 57
    assert list(CATEGORY_OF) == sorted(CATEGORY_OF)
    counts = {category: len(subjects) for category, subjects in CATEGORIES.items()}
    assert counts == {"STEM": 18, "humanities": 13, "social sciences": 12, "other": 14}
    assert (CATEGORY_OF["anatomy"], CATEGORY_OF["econometrics"]) == ("other", "social sciences")


def test_the_prompt_is_the_assignment_s_to_the_letter(data: Path) -> None:
    benchmark = MMLU(subjects=("high_school_geography",))
    example = benchmark.examples(DataSource(data))[0]
    assert benchmark.instruction(example) == (
        "Answer the following multiple choice question about high school geography. Respond with a single sentence of "
        'the form "The correct answer is _", filling the blank with the letter corresponding to the correct answer '
        "(i.e., A, B, C or D).\n"
        "\n"
        'Question: The "Blue Planet", as it is called, is\nwhich of these?\n'
        "A. Mars\n"
        "B. Venus\n"
        "C. Earth\n"
        "D. The Moon, in part\n"
        "Answer:"
    )


def test_worked_examples_stand_between_task_and_question_with_their_answers(data: Path) -> None:
    plain, shot = MMLU(subjects=("anatomy",)), MMLU(subjects=("anatomy",), shots=2)
    [first, second] = shot.examples(DataSource(data))
    assert shot.instruction(second) == (
        "Answer the following multiple choice question about anatomy. Respond with a single sentence of the form "
        '"The correct answer is _", filling the blank with the letter corresponding to the correct answer '
        "(i.e., A, B, C or D).\n"
        "\n"
        "Question: Worked question 0 on anatomy?\nA. w0\nB. x0\nC. y0\nD. z0\nAnswer: The correct answer is A.\n"
        "\n"
        "Question: Worked question 1 on anatomy?\nA. w1\nB. x1\nC. y1\nD. z1\nAnswer: The correct answer is B.\n"
        "\n"
        "Question: Where does the femur lie?\n"
        "A. In the arm\nB. In the thigh\nC. In the skull\nD. In the foot\nAnswer:"
    )
    assert first.fields["shots"] == second.fields["shots"]
    assert "shots" not in plain.examples(DataSource(data))[0].fields


def test_examples_have_stable_ids_subject_and_category(data: Path) -> None:
    every = MMLU(subjects=tuple(reversed(SUBJECTS))).examples(DataSource(data))
    assert [(e.id, e.gold, e.group, e.category) for e in every] == [
        ("anatomy-test-0000", "A", "anatomy", "other"),
        ("anatomy-test-0001", "B", "anatomy", "other"),
        ("high_school_geography-test-0000", "C", "high_school_geography", "social sciences"),
        ("high_school_geography-test-0001", "D", "high_school_geography", "social sciences"),
        ("high_school_geography-test-0002", "A", "high_school_geography", "social sciences"),
        ("virology-test-0000", "B", "virology", "other"),
    ]
    assert list(MMLU(subjects=("virology",)).examples(DataSource(data))) == every[-1:]


def test_the_same_examples_come_from_csv_and_from_the_hub_s_file(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    mixed = [(subject, ROWS[subject][n]) for n in range(3) for subject in reversed(ROWS) if n < len(ROWS[subject])]
    mixed += [("sociology", ("Unasked?", "a", "b", "c", "d", "A"))]
    worked = [(subject, row) for subject in WORKED for row in WORKED[subject]]
    write_parquet(tmp_path / "hub" / "all" / "test-00000-of-00001.parquet", mixed)
    write_parquet(tmp_path / "hub" / "all" / "dev-00000-of-00001.parquet", worked)
    benchmark = MMLU(subjects=SUBJECTS, shots=5)
    expected = benchmark.examples(DataSource(data))
    assert benchmark.examples(DataSource(tmp_path / "hub")) == expected
    write_csv(tmp_path / "windows", "test", ROWS, "\r\n")
    write_csv(tmp_path / "windows", "dev", WORKED, "\r\n")
    assert benchmark.examples(DataSource(tmp_path / "windows")) == expected


@pytest.mark.parametrize(
    ("benchmark", "part"),
    [(MMLU(), "test"), (MMLU(split="validation"), "validation"), (MMLU(split="dev"), "dev"), (MMLU(shots=1), "dev")],
)
def test_without_a_folder_the_hub_s_file_is_pinned(benchmark: MMLU, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[HubFile] = []

    def download(hub: HubFile, name: str) -> None:
        asked.append(hub)
        raise DataError(f"no {name} here")

    monkeypatch.setattr("harness.datasets.source.download", download)
    with pytest.raises(DataError, match=f"no mmlu/{part}.parquet here; the authors' CSV files go"):
        benchmark.examples(DataSource())
    [hub] = asked
    assert (hub.repo, hub.path) == ("cais/mmlu", f"all/{part}-00000-of-00001.parquet")
    assert re.fullmatch("[0-9a-f]{40}", hub.revision)
    assert hub.sha256 is not None


def test_the_real_files_are_all_read(shared_data: Path) -> None:
    source = DataSource(shared_data)
    examples = MMLU().examples(source)
    assert len(source.used) == 57
    assert Counter(example.category for example in examples) == {
        "STEM": 3018,
        "humanities": 4705,
        "social sciences": 3077,
        "other": 3242,
    }
    assert len({example.id for example in examples}) == len(examples) == 14042
    assert [*dict.fromkeys(example.group for example in examples)] == list(CATEGORY_OF)
    assert len(MMLU(split="validation").examples(source)) == 1531
    assert len(MMLU(split="dev").examples(source)) == 285


def test_five_real_shots_are_the_dev_split_s_own(shared_data: Path) -> None:
    benchmark = MMLU(shots=5)
    for example in benchmark.examples(DataSource(shared_data))[::97]:
        text = str(benchmark.instruction(example))
        assert text.count("\nAnswer: The correct answer is ") == 5
        assert text.endswith(f"\nD. {example.fields['options'][3]}\nAnswer:")
        assert "\r" not in text


@pytest.fixture
def run(harness: Command, data: Path, tmp_path: Path) -> Any:
    def command(*words: str | Path, outputs: Mapping[str, str] | None = None) -> Done:
        path = tmp_path / "outputs.jsonl"
        lines = [json.dumps({"id": key, "output": text}) + "\n" for key, text in (outputs or OUTPUTS).items()]
        path.write_text("".join(lines), encoding="utf-8")
        base = ["run", "-b", "mmlu", "-e", "replay", "-m", path, "--data", data, "-o", tmp_path / "runs"]
        return harness(*base, "--set", CHOSEN, *words)

    return command


OUTPUTS = {
    "anatomy-test-0000": "The correct answer is A.",
    "anatomy-test-0001": "The correct answer is **C**.",
    "high_school_geography-test-0000": "The correct answer is Earth.",
    "high_school_geography-test-0001": "I would rather not say.",
    "high_school_geography-test-0002": "(A) The Baltic",
    "virology-test-0000": "B",
}


def only(tmp_path: Path, name: str) -> Path:
    [path] = (tmp_path / "runs").rglob(name)
    return path


def results_of(tmp_path: Path) -> Any:
    return json.loads(only(tmp_path, "results.json").read_text(encoding="utf-8"))


def test_accuracy_is_told_micro_macro_by_category_and_by_subject(run: Any, tmp_path: Path) -> None:
    done = run()
    assert done.code == 0, done.err
    results = results_of(tmp_path)
    metrics = results["metrics"]["choice"]
    assert list(metrics) == ["accuracy", "accuracy_macro"]
    assert metrics["accuracy"]["value"] == pytest.approx(4 / 6)
    assert metrics["accuracy_macro"]["value"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert metrics["accuracy_macro"]["n"] == 6
    assert 0 < metrics["accuracy_macro"]["low"] < 0.72 < metrics["accuracy_macro"]["high"] < 1
    subjects = {subject: tables["choice"]["accuracy"]["value"] for subject, tables in results["groups"].items()}
    assert subjects == {"anatomy": 0.5, "high_school_geography": pytest.approx(2 / 3), "virology": 1.0}
    categories = {name: tables["choice"]["accuracy"] for name, tables in results["categories"].items()}
    assert {name: (figures["value"], figures["n"]) for name, figures in categories.items()} == {
        "other": (pytest.approx(2 / 3), 3),
        "social sciences": (pytest.approx(2 / 3), 3),
    }
    assert all(0 < figures["low"] < figures["high"] < 1 for figures in categories.values())
    assert results["unparsed"]["choice"] == {"count": 1, "ids": ["high_school_geography-test-0001"]}
    table = [re.split(r"  +", line.strip()) for line in done.out.splitlines()]
    assert ["choice", "accuracy", "66.7%", "[30.0%, 93.5%]", "6", "1 (16.7%)"] in table
    assert any(row[:3] == ["choice", "accuracy_macro", "72.2%"] for row in table)
    assert "score method of the groups' means, groups taken as the whole" in done.out
    assert ["social sciences", "66.7%", "[20.8%, 97.7%]", "3"] in table
    assert ["virology", "100.0%", "[20.7%, 100.0%]", "1"] in table


def test_the_macro_average_has_an_interval_and_one_subject_has_none(run: Any, tmp_path: Path) -> None:
    run("--set", 'mmlu.subjects=["anatomy", "high_school_geography"]')
    figures = results_of(tmp_path)["metrics"]["choice"]["accuracy_macro"]
    assert figures["value"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert 0 <= figures["low"] < figures["value"] < figures["high"] <= 1
    shutil.rmtree(tmp_path / "runs")
    run("--set", 'mmlu.subjects=["anatomy"]')
    assert list(results_of(tmp_path)["metrics"]["choice"]) == ["accuracy"]


def test_what_subjects_are_is_chosen_anew_without_asking_again(run: Any, harness: Command, tmp_path: Path) -> None:
    run()
    assert results_of(tmp_path)["metrics"]["choice"]["accuracy"]["method"] == "wilson"  # three subjects are the whole
    journal = only(tmp_path, "samples.jsonl").read_bytes()
    done = run("--groups-are", "sample")
    assert "variance between 3 groups, taken as a sample" in done.out
    assert results_of(tmp_path)["metrics"]["choice"]["accuracy"]["method"] == "clustered-score, 3 groups"
    assert only(tmp_path, "samples.jsonl").read_bytes() == journal
    folder = only(tmp_path, "run.json").parent
    assert json.loads((folder / "run.json").read_text())["command"]["groups_are"] == "sample"
    rescored = json.loads(harness("score", folder, "--json").out)
    assert rescored == results_of(tmp_path)


def test_samples_keep_their_category_and_a_resumed_run_ends_the_same(
    run: Any, harness: Command, tmp_path: Path
) -> None:
    run()
    journal, results = only(tmp_path, "samples.jsonl"), only(tmp_path, "results.json")
    lines, before = journal.read_bytes().splitlines(keepends=True), results.read_bytes()
    assert json.loads(lines[0])["category"] == "other"
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:30])
    results.unlink()
    assert run().code == 0
    assert results.read_bytes() == before
    rescored = harness("score", journal.parent, "--json")
    assert json.loads(rescored.out) == json.loads(before)


def test_many_subjects_are_printed_only_when_asked_for(harness: Command, tmp_path: Path) -> None:
    subjects = list(CATEGORY_OF)[:15]
    write_csv(tmp_path / "data", "test", {subject: [("Which?", "a", "b", "c", "d", "A")] for subject in subjects})
    path = tmp_path / "outputs.jsonl"
    path.write_text("".join(json.dumps({"id": f"{s}-test-0000", "output": "A"}) + "\n" for s in subjects))
    base: list[str | Path] = ["run", "-b", "mmlu", "-e", "replay", "-m", path, "--data", tmp_path / "data"]
    base += ["-o", tmp_path / "runs"]
    words: list[str | Path] = [*base, "--set", f"mmlu.subjects={json.dumps(subjects)}"]
    for shown in (harness(*words), harness("score", only_run(harness, words, tmp_path))):
        assert "STEM" in shown.out
        assert "astronomy" not in shown.out
    for shown in (harness(*words, "--groups"), harness("score", only_run(harness, words, tmp_path), "--groups")):
        assert "astronomy" in shown.out
    assert len(results_of(tmp_path)["groups"]) == 15


def only_run(harness: Command, words: Sequence[str | Path], tmp_path: Path) -> Path:
    harness(*words)
    return only(tmp_path, "run.json").parent


def test_a_limit_is_spread_over_the_subjects(run: Any, tmp_path: Path) -> None:
    run("--limit", "3")
    assert results_of(tmp_path)["n"] == 3
    assert set(results_of(tmp_path)["groups"]) >= {"anatomy", "high_school_geography"}


GOOD = "Which?,a,b,c,d,A\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{GOOD}Which?,a,b,c,d,e,A\n{GOOD}Why?,a,b,c,A\n", r"virology_test\.csv:2: 7 fields, expected 6.*2 bad lines"),
        (f"{GOOD}Which?,a,b,c,A\n", r"virology_test\.csv:2: 5 fields, expected 6 \(question, A, B, C, D, answer\)"),
        (f'"Two\nlines",a,b,c,d,A\n{GOOD}Which?,a,b,c,d,E\n', r"virology_test\.csv:4: the answer is 'E', not one of A"),
        (f"Which?,a,b,c,d,\n{GOOD}", r"virology_test\.csv:1: the answer is '', not one of A, B, C, D; 1 bad line in"),
        (f"{GOOD} ,a,b,c,d,A\n,a,b,c,d,A\n", r"virology_test\.csv:2: the question is empty; 2 bad lines in all"),
        (f"{GOOD}Which?,a,b,,d,A\n", r"virology_test\.csv:2: option C is empty; 1 bad line in all"),
        (f'{GOOD}"Which?,a,b,c,d,A\n', r"virology_test\.csv:2: not CSV"),
        ("", r"virology_test\.csv: empty"),
    ],
)
def test_a_bad_row_is_one_line(run: Any, data: Path, content: str, message: str) -> None:
    (data / "mmlu" / "test" / "virology_test.csv").write_text(content, encoding="utf-8")
    check_one_line(run(), message)


def test_bytes_that_are_not_utf_8_are_one_line(run: Any, data: Path) -> None:
    (data / "mmlu" / "test" / "virology_test.csv").write_bytes(GOOD.encode() + b"Wh\xefch?,a,b,c,d,A\n")
    check_one_line(run(), r"virology_test\.csv:2: not UTF-8 \(byte 0xef at offset 2 of the line\); 1 bad line in all")


def test_missing_subject_files_are_named(run: Any, data: Path) -> None:
    (data / "mmlu" / "test" / "anatomy_test.csv").unlink()
    (data / "mmlu" / "test" / "virology_test.csv").unlink()
    names = r"mmlu/test/anatomy_test\.csv, mmlu/test/virology_test\.csv"
    check_one_line(run(), f"2 of 3 subject files missing: {names}; put them there, or .*mmlu.subjects")


def test_missing_data_names_both_layouts(run: Any, data: Path) -> None:
    shutil.rmtree(data / "mmlu" / "test")
    places = r"mmlu/test\.parquet is missing: .*mmlu/all/test-00000-of-00001\.parquet"
    check_one_line(run(), rf"{places}.*; the authors' CSV files go to mmlu/test/SUBJECT_test\.csv")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"choices": ["a", "b", "c", "d", "e"]}, "row 1: 5 options, expected 4; 1 bad row in all"),
        ({"choices": ["a", "b", "c"]}, "row 1: 3 options, expected 4"),
        ({"choices": ["a", "b", "c", " "]}, "row 1: option D is empty"),
        ({"answer": 4}, "row 1: the answer is 4, not one of 0, 1, 2, 3"),
        ({"answer": -1}, "row 1: the answer is -1"),
        ({"answer": "A"}, "row 1: the answer is 'A'"),
        ({"question": ""}, "row 1: the question is empty"),
        ({"question": None}, "row 1: no 'question' there"),
        ({"subject": "virologie"}, "row 1: unknown subject 'virologie'; did you mean 'virology'"),
        ({"subject": "sociology"}, "no questions on virology among its 1 rows"),
    ],
)
def test_a_bad_row_of_the_hub_s_file_is_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    pytest.importorskip("pyarrow")
    rows = [("virology", ROWS["virology"][0])]
    write_parquet(tmp_path / "all" / "test-00000-of-00001.parquet", rows, **changed)
    with pytest.raises(DataError, match=message) as caught:
        MMLU(subjects=("virology",)).examples(DataSource(tmp_path))
    assert "\n" not in str(caught.value)


def test_one_subject_may_be_given_by_its_name_alone(run: Any, tmp_path: Path) -> None:
    assert run("--set", "mmlu.subjects=anatomy", "--set", "mmlu.generation.stop=###").code == 0
    assert list(results_of(tmp_path)["groups"]) == ["anatomy"]
    assert json.loads(only(tmp_path, "run.json").read_text())["identity"]["generation"]["stop"] == ["###", "# Query:"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ('mmlu.subjects=["virologie"]', "mmlu: unknown subject 'virologie'; did you mean 'virology'"),
        ("mmlu.shots=6", "mmlu: shots must be 0 to 5, not 6"),
        ("mmlu.shots=-1", "mmlu: shots must be 0 to 5, not -1"),
        ("mmlu.split=train", "mmlu.split: .*'test', 'validation' or 'dev'"),
        ("mmlu.shot=5", "mmlu has no option 'shot'; did you mean 'shots'"),
    ],
)
def test_options_that_do_not_fit_are_one_line(run: Any, option: str, message: str) -> None:
    check_one_line(run("--set", option), message)


def test_shots_from_the_split_that_is_asked_are_refused(run: Any) -> None:
    check_one_line(run("--set", "mmlu.shots=1", "--set", "mmlu.split=dev"), "mmlu: shots are drawn from the split dev")


def test_the_instruction_is_the_same_after_a_journey_through_json(data: Path) -> None:
    benchmark = MMLU(subjects=SUBJECTS, shots=3)
    for example in benchmark.examples(DataSource(data)):
        again: Example = replace(example, fields=json.loads(json.dumps(example.fields)))
        assert again == example
        assert benchmark.instruction(again) == benchmark.instruction(example)


def check_one_line(done: Done, message: str) -> None:
    assert done.code == 2, done
    [line] = done.err.strip().splitlines()
    assert re.search(message, line), line
