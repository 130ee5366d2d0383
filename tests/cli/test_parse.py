"""`harness parse` over lines and JSON Lines, from files and pipes, and lines that cannot be read."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.evaluation.outputs import Answer, read_answers
from harness.registry import Registry
from harness.types import Example
from tests.conftest import Command

COMMAND = [sys.executable, "-m", "harness", "parse"]


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_lines_of_text_give_an_answer_each(harness: Command, file: Any) -> None:
    path = file("outputs.txt", "The correct answer is B.\n\nI cannot tell.\r\n(C)\nAnswer: D")
    done = harness("parse", "choice", path)
    assert (done.code, done.out, done.err) == (0, "B\n\n\nC\nD\n", "")


def test_records_may_have_options_and_ids(harness: Command, file: Any) -> None:
    records = [
        {"id": "q1", "output": "The correct answer is Oslo.", "options": ["Rome", "Oslo"]},
        {"output": "The correct answer is Oslo."},
        {"id": 3, "output": "The answer is E.", "options": ["a", "b", "c", "d", "e"]},
        {"id": "q4", "output": "Oslo it is:\nOslo", "fields": {"options": ["Rome", "Oslo"]}},
    ]
    path = file("outputs.jsonl", "\n\n".join(json.dumps(record) for record in records))
    assert harness("parse", "choice", path).out == "B\n\nE\nB\n"
    done = harness("parse", "choice", path, "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"line": 1, "id": "q1", "answer": "B"},
        {"line": 3, "answer": None},
        {"line": 5, "id": 3, "answer": "E"},
        {"line": 7, "id": "q4", "answer": "B"},
    ]


@pytest.mark.parametrize(
    ("name", "first", "expected"),
    [
        ("outputs", '{"output": "It is 4."}', "4\n"),
        ("outputs", '\ufeff{"output": "It is 4."}', "4\n"),
        ("outputs", '{"count": 5}', "5\n"),
        ("outputs", "It is 6.", "6\n"),
        ("outputs.txt", '{"output": "one", "id": 7}', "7\n"),
        ("outputs.jsonl", '{"output": "It is 8."}', "8\n"),
    ],
)
def test_the_suffix_or_the_first_line_says_what_a_file_holds(
    harness: Command, file: Any, name: str, first: str, expected: str
) -> None:
    done = harness("parse", "last-number", file(name, first + "\n"))
    assert (done.code, done.out) == (0, expected)


def test_an_empty_file_has_no_answers(harness: Command, file: Any) -> None:
    for name in ("outputs", "outputs.txt", "outputs.jsonl"):
        done = harness("parse", "choice", file(name, ""))
        assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"output": "B"', "not JSON (Expecting"),
        ('["B"]', "JSON, but not an object in braces"),
        ('{"text": "B"}', "no 'output' in it, only 'text'"),
        ("{}", "no 'output' in it, only nothing"),
        ('{"output": 7}', "'output' must be text"),
        ('{"output": null}', "'output' must be text"),
        ('{"output": "B", "options": "a, b"}', "'options' must be a list of texts"),
        ('{"output": "B", "options": [1, 2]}', "'options' must be a list of texts"),
        ('{"output": "B", "options": []}', "'options' has 0 texts, expected 1 to 26"),
        (json.dumps({"output": "B", "options": ["x"] * 27}), "'options' has 27 texts, expected 1 to 26"),
        ('{"output": "B", "n": ' + "9" * 5000 + "}", "not JSON that can be read"),
        ("[" * 200_000, "not JSON that can be read"),
    ],
)
def test_a_bad_line_is_told_and_the_rest_is_parsed(harness: Command, file: Any, line: str, message: str) -> None:
    path = file("outputs.jsonl", f'{{"output": "A"}}\n{line}\n{{"output": "C"}}\n{line}\n')
    done = harness("parse", "choice", path)
    assert (done.code, done.out) == (2, "A\n\nC\n\n")
    [told] = done.err.splitlines()
    assert told.startswith(f"harness: {path}:2: {message}")
    assert "2 bad lines in all" in told
    second = json.loads(harness("parse", "choice", path, "--json").out.splitlines()[1])
    assert (second["line"], second["answer"], second["error"].startswith(message)) == (2, None, True)


def test_bytes_that_are_not_utf_8_are_a_bad_line(harness: Command, file: Any) -> None:
    for name, other in (("outputs.txt", b"C"), ("outputs.jsonl", b'{"output": "C"}')):
        path = file(name, b"A \xff\n" + other + b"\n")
        done = harness("parse", "choice", path)
        assert (done.code, done.out) == (2, "\nC\n")
        assert re.search(rf"{name}:1: not UTF-8 \(byte 0xff at offset 2\); 1 bad line in all", done.err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("chioce", "x"), "unknown parser 'chioce'; did you mean 'choice'?"),
        (("choice", "nowhere.txt"), "cannot read nowhere.txt: No such file or directory"),
        (("choice", "."), "cannot read .: a folder"),
        (("choice", "--no-plugin", "choice"), "parser 'choice' from .* cannot be used: disabled"),
    ],
)
def test_what_cannot_be_run_is_one_line(harness: Command, words: tuple[str, ...], message: str) -> None:
    done = harness("parse", *words)
    assert (done.code, done.out) == (2, "")
    [told] = done.err.splitlines()
    assert re.search(message, told)


def test_a_run_s_own_samples_are_read_as_they_were(
    harness: Command, gsm8k_data: Path, outputs: Callable[..., Path], tmp_path: Path
) -> None:
    model = outputs("#### 7", "I cannot tell.", "First 4, then -5.", "It is 3.")
    harness("run", "-b", "gsm8k", "-e", "replay", "-m", model, "--data", gsm8k_data, "-o", tmp_path / "runs")
    [samples] = (tmp_path / "runs").rglob("samples.jsonl")
    assert harness("parse", "final-number", samples).out == "7\n\n-5\n3\n"


def test_a_pipe_is_read_as_the_shell_gives_it_and_by_name_is_refused(tmp_path: Path) -> None:
    """A pipe of a name may have no writer, for ever."""
    command = f"{shlex.quote(sys.executable)} -m harness parse last-number"
    done = subprocess.run(["bash", "-c", f"{command} <(echo 'It is 42.')"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    os.mkfifo(tmp_path / "pipe")
    done = subprocess.run([*shlex.split(command), tmp_path / "pipe"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "no regular file" in done.stderr and done.stderr.count("\n") == 1


def test_answers_come_out_as_lines_come_in() -> None:
    with subprocess.Popen([*COMMAND, "choice"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for letter in "BDA":
            process.stdin.write(f"The correct answer is {letter}.\n".encode())
            process.stdin.flush()
            assert process.stdout.readline().decode() == f"{letter}\n"
        process.stdin.close()
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_it_without_a_word(file: Any) -> None:
    path = file("outputs.txt", "B\n" * 100_000)
    with subprocess.Popen([*COMMAND, "choice", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"B\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode != 0


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; from harness.cli import cli; sys.argv = ['harness', 'parse', 'choice']\n"
        "cli.main(standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'pydantic', 'pyarrow', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=b"B\n", capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == ["B", "[]"]


class Echo:
    """A parser that shows what it is given."""

    name = "echo"

    def __init__(self) -> None:
        self.seen: list[tuple[str, Example | None]] = []

    def parse(self, output: str, example: Example | None = None) -> str | None:
        self.seen.append((output, example))
        return output


def test_a_parser_is_given_the_record_as_an_example() -> None:
    echo = Echo()
    lines = [b'{"output": "x", "id": "q", "gold": "y", "unit": "m"}\n', b'{"output": "z", "fields": {"unit": "kg"}}\n']
    assert list(read_answers(lines, echo)) == [Answer(1, "x", "q"), Answer(2, "z")]
    [(_, first), (_, second)] = echo.seen
    assert first is not None
    assert second is not None
    assert (first.id, first.gold, first.fields["unit"]) == ("q", "y", "m")
    assert (second.id, second.gold, second.fields) == ("2", None, {"unit": "kg"})


def test_every_installed_parser_takes_any_line() -> None:
    lines = ["", "B", "#### 4", "unsafe", '{"output": "A"}', "\x00\u202e", "²", "[[B]]"]
    for plugin in Registry().plugins("parsers"):
        parser = Registry().parser(plugin.name)
        found = list(read_answers([f"{line}\n".encode() for line in lines], parser, records=False))
        assert [answer.line for answer in found] == list(range(1, len(lines) + 1))
        assert all(answer.fault is None for answer in found)
