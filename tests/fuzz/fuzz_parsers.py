"""Coverage-guided fuzzing of the parsers: no text may make one raise or leave its closed set.

Run it with atheris (https://github.com/google/atheris), which is not a dependency of the tests:

    python tests/fuzz/fuzz_parsers.py -max_total_time=120

Further arguments are libFuzzer's. The corpus is made anew from the golden cases in a temporary folder, unless a corpus
folder is given as the first argument; there, inputs that reach new code are kept.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["harness.parsers"]):
    from harness.parsers import (
        canonical_number,
        parse_choice,
        parse_choices,
        parse_last_number,
        parse_math,
        parse_number,
        parse_preference,
        parse_short_answer,
        parse_verdict,
        without_reasoning,
    )

GOLDEN = Path(__file__).parents[1] / "parsers"
CANONICAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?")
OPTIONS = ("Paris", "10", "B cells", "the Thames.", "x^2", "")
LONGEST = 4096
CHILD = "HARNESS_FUZZ_CHILD"  # set in the process that fuzzes, so that its parent can clean up


def check(text: str) -> None:
    """Run every parser on one text and check what it gives."""
    for number in (parse_number(text), parse_last_number(text), canonical_number(text)):
        assert number is None or CANONICAL.fullmatch(number), number
    assert parse_choice(text) in ("A", "B", "C", "D", None)
    assert parse_choice(text, OPTIONS, "ABCDEF") in ("A", "B", "C", "D", "E", "F", None)
    assert parse_choice(text, text.split("\n"), text[:6]) in (*text[:6], None)
    assert parse_verdict(text) in ("safe", "unsafe", None)
    assert parse_preference(text) in (0, 1, 2, None)
    assert re.fullmatch("A?B?C?D?E?F?", parse_choices(text, OPTIONS, "ABCDEF") or "")
    assert len((parse_short_answer(text, OPTIONS[:2]) or "").split()) <= 12
    assert len(parse_math(text) or "") <= 400
    assert len(without_reasoning(text)) <= len(text)
    for explained in (
        parse_choice(text, explain=True), parse_number(text, explain=True), parse_verdict(text, explain=True),
        parse_preference(text, explain=True),
    ):  # fmt: skip
        assert 0 <= explained.start <= explained.end <= len(text)


def fuzz(data: bytes) -> None:
    """Read the bytes as UTF-8 with lone surrogates let through, which covers every str."""
    check(data.decode("utf-8", "surrogateescape"))


def seeds() -> list[bytes]:
    """Return outputs of the golden cases, a thousand of them at most: more take longer to read than to go on from."""
    outputs = set()
    for path in sorted(GOLDEN.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"):
            outputs.add(json.loads(line)["output"].encode("utf-8", "surrogatepass"))
    return sorted(outputs)[:: 1 + len(outputs) // 1000]


def main() -> None:
    if os.environ.get(CHILD):
        atheris.Setup(sys.argv, fuzz)
        atheris.Fuzz()  # ends the process
    given = sys.argv[1:]
    if not any(argument.startswith("-max_total_time") for argument in given):
        given.append("-max_total_time=120")
    with tempfile.TemporaryDirectory() as folder:
        for index, seed in enumerate(seeds()):
            (Path(folder) / f"{index:04}").write_bytes(seed)
        # libFuzzer keeps what it finds in the first folder and only reads the others.
        command = [sys.executable, __file__, *given, f"-max_len={LONGEST}", folder]
        sys.exit(subprocess.run(command, env=os.environ | {CHILD: "1"}).returncode)


if __name__ == "__main__":
    main()
