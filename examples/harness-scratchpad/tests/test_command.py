"""The command writes what the trainer reads: problems with their answers, none of them a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from harness.testing.conformance import Subject

from harness_scratchpad.command import KINDS, main


def write(*words: str | int | Path) -> Result:
    return CliRunner().invoke(main, ["write", *map(str, words)])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("scratchpad", [True, False])
def test_what_is_written_is_what_the_benchmark_asks_but_other_problems(
    name: str, scratchpad: bool, tmp_path: Path
) -> None:
    done = write(tmp_path / "a.jsonl", "--benchmark", name, "--count", 40, *([] if scratchpad else ["--no-scratchpad"]))
    assert (done.exit_code, done.output) == (0, f"{tmp_path / 'a.jsonl'}: 40 problems\n")
    subject = Subject("benchmarks", f"scratchpad-{name}", {"scratchpad": scratchpad})
    tests = {subject.plugin.instruction(example) for example in subject.all_examples}
    prompts = [row["prompt"] for row in rows(tmp_path / "a.jsonl")]
    assert len(set(prompts)) == 40
    assert not tests & set(prompts)
    assert {prompt.splitlines()[-2:] == next(iter(tests)).splitlines()[-2:] for prompt in prompts} == {True}


def test_the_same_command_writes_the_same_file(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for path, seed in zip(files, (1, 1, 2), strict=True):
        write(path, "--benchmark", "addition", "--count", 10, "--seed", seed, "--lengths", "2,5")
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
    assert [row["response"].count("\n") for row in rows(files[0])] == [6] * 5 + [9] * 5


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--lengths", "2-4"], "'2-4' must look like 2,3,4"),
        (["--lengths", "2,0"], "lengths must be from 1 to 100, not 2,0"),
        (["--lengths", "1", "--count", "5000"], "ask for fewer"),
        (["--count", "0"], "0 is not in the range"),
    ],
)
def test_what_does_not_fit_writes_nothing(words: list[str], why: str, tmp_path: Path) -> None:
    done = write(tmp_path / "a.jsonl", "--benchmark", "addition", *words)
    assert done.exit_code == 2
    assert why in " ".join(done.output.split())
    assert not (tmp_path / "a.jsonl").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = write(tmp_path / "no" / "a.jsonl", "--benchmark", "addition", "--count", "7")
    assert done.exit_code == 2
    assert f"cannot write {tmp_path / 'no' / 'a.jsonl'}: No such file" in " ".join(done.output.split())
