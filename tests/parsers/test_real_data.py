"""The parsers on the real benchmarks: every gold answer, said in the ways that models say it, is read back."""

from __future__ import annotations

import csv
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from harness.parsers import canonical_number, parse_choice, parse_number, parse_preference


def test_every_gsm8k_solution_gives_its_gold(shared_data: Path) -> None:
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        solution = json.loads(line)["answer"]
        gold = canonical_number(solution.rpartition("####")[2].strip())
        assert gold is not None
        for output in (solution, f"So the answer is ${gold}.", f"{solution}\n\nQuestion: Tom has 5 pens.\n#### 5"):
            assert parse_number(output) == gold, output


def test_every_mmlu_answer_is_read_back(shared_data: Path) -> None:
    by_text = misread = total = 0
    for path in sorted((shared_data / "mmlu" / "test").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                options, gold = row[1:5], row[5]
                text = options["ABCD".index(gold)]
                assert parse_choice(f"The correct answer is {gold}.", options) == gold
                assert parse_choice(f"The correct answer is {gold}. {text}", options) == gold
                answer = parse_choice(f"The correct answer is {text}", options)
                total += 1
                by_text += answer == gold
                misread += answer not in (gold, None)
    assert total == 14_042
    # Not read by text: options that share theirs. Misread: "B", the chemical symbol, is also a letter.
    assert misread <= 1
    assert by_text >= total - 20


def recorded(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return what real models said, or skip where it is absent."""
    path = folder / "real_outputs" / f"{name}.jsonl.xz"
    if not path.exists():
        pytest.skip(f"no recorded outputs at {path}")
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(("name", "least"), [("mmlu-choices", 0.998), ("mmlu-pro", 0.9995)])
def test_stated_letters_are_read_as_stated(shared_data: Path, name: str, least: float) -> None:
    rows = recorded(shared_data, name)
    found = [parse_choice(row["output"], row["options"], row.get("letters", "ABCD")) for row in rows]
    expected = [row["expected"] for row in rows]
    misread = [row["id"] for row, one, two in zip(rows, found, expected, strict=True) if one not in (two, None)]
    assert misread == []
    assert sum(one == two for one, two in zip(found, expected, strict=True)) >= least * len(rows)


def test_public_verdicts_on_pairs_are_all_read(shared_data: Path) -> None:
    replies = []
    for path in sorted((shared_data / "alpaca_eval" / "annotations").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            if row["raw_completion"] is None:
                continue
            tokens = row["raw_completion"]["logprobs"]["content"]
            replies.append("".join(token["token"] for token in tokens))
    assert len(replies) > 2000
    assert all(parse_preference(reply) is not None for reply in replies)
