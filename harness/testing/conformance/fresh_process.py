"""The same plugin in another process, whose hashes, and whatever else differs between processes, are others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from harness.testing.conformance.subject import Subject

_PROGRAM = (
    "import json, sys; given = json.load(sys.stdin); sys.path[:] = given['path'];"
    "from harness.testing.conformance.fresh_process import answer; answer(**given)"
)


def in_fresh_process(subject: Subject, part: str, *, seconds: float = 300.0) -> Any:
    """Return what the function `part` (``parsers.answers``) of this package says of `subject` in a new process.

    What it returns, structs included, comes back as JSON has it. Raises AssertionError where the process dies or takes
    more than so many seconds.
    """
    result = subject.new_folder() / "result.json"
    given = {"path": sys.path, "part": part, "result": str(result), "subject": as_json(subject)}
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    words = [sys.executable, "-c", _PROGRAM]
    try:
        done = subprocess.run(
            words, input=json.dumps(given).encode(), env=environment, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(
            f"it did not end within {seconds:g} s; the last it said: {last_line(late.stderr)}"
        ) from None
    if not result.exists():
        raise AssertionError(f"it fails in a new process (exit code {done.returncode}): {last_line(done.stderr)}")
    return json.loads(result.read_text(encoding="utf-8"))


def as_json(subject: Subject) -> dict[str, Any]:
    """Return what makes the same subject in another process, but for its functions and examples."""
    return {
        "kind": subject.kind,
        "name": subject.name,
        "options": dict(subject.options),
        "data": None if subject.data is None else str(subject.data),
        "model": None if subject.model is None else str(subject.model),
        "outputs": list(subject.outputs),
    }


def answer(path: list[str], part: str, result: str, subject: dict[str, Any]) -> None:
    """Do what `in_fresh_process` asks for; runs in the new process, whose sys.path is already `path`."""
    module, _, function = part.partition(".")
    found = getattr(import_module(f"harness.testing.conformance.{module}"), function)(Subject(**subject))
    Path(result).write_text(json.dumps(msgspec.to_builtins(found)), encoding="utf-8")


def last_line(said: bytes | None) -> str:
    """Return the last line that a process wrote, or a word for none."""
    lines = (said or b"").decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else "nothing"
