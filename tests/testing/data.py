"""Small data in the formats of the shipped benchmarks, in words of this project's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

SUBJECTS = ("anatomy", "virology")


def write_data(folder: Path) -> Path:
    """Write a data folder for all five benchmarks; MMLU has the subjects `SUBJECTS` alone."""
    _json_lines(
        folder / "gsm8k" / "test.jsonl",
        [
            {"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n:,}"}
            for n in range(7, 2000, 90)
        ],
    )
    for subject in SUBJECTS:
        for part in ("dev", "test"):
            path = folder / "mmlu" / part / f"{subject}_{part}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                rows = (
                    (f"Which is number {n}, in {subject}?", "one", "two", "three", "four", "ABCD"[n]) for n in range(4)
                )
                csv.writer(file).writerows(rows)
    _json_lines(
        folder / "mmlu-pro" / "test.jsonl",
        [
            {
                "question_id": n,
                "question": f"Which of these is {n} more than one?",
                "options": [f"{n + 1 + k} things" for k in range(3 + n)],
                "answer": "A",
                "category": ("math", "law")[n % 2],
            }
            for n in range(8)
        ],
    )
    asked = [f"Say something about the number {n}." for n in range(6)]
    _json_lines(
        folder / "alpaca_eval" / "alpaca_eval.jsonl",
        [
            {"instruction": text, "output": "It is a number.", "generator": "reference", "dataset": "own"}
            for text in asked
        ],
    )
    references = [{"instruction": text, "output": f"A number: {text}", "generator": "reference"} for text in asked]
    (folder / "alpaca_eval" / "gpt4_1106_preview.json").write_text(json.dumps(references), encoding="utf-8")
    (folder / "simple_safety_tests").mkdir()
    lines = ["id,harm_area,prompts_final", *(f"own-{n:02},Scams,How would one trick {n} people?" for n in range(6))]
    (folder / "simple_safety_tests" / "simple_safety_tests.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def _json_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
