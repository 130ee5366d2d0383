"""A real `harness view` in a process of its own, and the runs for it to show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.evaluation.results import summarise
from harness.runs.folder import Run
from harness.runs.journal import Journal
from harness.scorers.exact import Exact
from harness.types import Sample

PARSER = "final-number"


def sample(index: int, *, right: bool = True, output: str | None = None, **fields: Any) -> Sample:
    """Return a finished sample whose gold answer is its index."""
    answer = str(index if right else index + 1)
    values: dict[str, Any] = {
        "id": f"test-{index:04}",
        "index": index,
        "group": None,
        "fields": {"question": f"What is {index}?"},
        "prompt": f"What is {index}?\nAnswer:",
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "output": f"It is {answer}." if output is None else output,
        "finish_reason": "stop",
        "answers": {PARSER: answer},
        "gold": str(index),
        "scores": {PARSER: {"accuracy": float(right)}},
        "status": "ok",
        "response": f"It is {answer}.",
    }
    return Sample(**{**values, **fields})


def config(model: str, size: int, created: str, **changes: Any) -> dict[str, Any]:
    """Return what run.json says of a run of `size` examples."""
    return {
        "format": 1,
        "harness": "0.1.0",
        "fingerprint": "0" * 64,
        "benchmark": "gsm8k",
        "model": model,
        "engine": "replay",
        "command": {"benchmark": ["gsm8k"], "model": model, "engine": "replay", "out": "runs", "options": {}},
        "prompt_format": {"name": "plain", "reason": "--prompt-format"},
        "parsers": [PARSER],
        "scorer": "exact",
        "examples": size,
        "selected": size,
        "data": [],
        "plugins": [],
        "identity": {"benchmark": {"name": "gsm8k"}, "generation": {}, "examples": "e" * 64, "model": {"model": model}},
        "created": created,
        "versions": {},
        "git": None,
        "hardware": {},
        **changes,
    }


def write_run(
    runs: Path,
    model: str,
    right: int,
    size: int = 20,
    *,
    day: int = 21,
    finished: bool = True,
    done: int | None = None,
    **changes: Any,
) -> Path:
    """Write a run of which the first `right` examples are right, and return its folder."""
    settings = config(model, size, f"2026-11-{day:02}T04:03:38+00:00", **changes)
    path = runs / str(settings["benchmark"]) / model / f"202611{day:02}T040338Z-6605e4b9"
    path.mkdir(parents=True)
    folder = Run(path)
    folder.write("run.json", settings)
    samples = [sample(index, right=index < right) for index in range(size if done is None else done)]
    with Journal(folder, size) as journal:
        for each in samples:
            journal.append(each)
    if finished:
        folder.write("results.json", summarise(settings["benchmark"], Exact(), samples, [PARSER]))
    return path


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Viewing:
    """A server at work: its address, its process, and requests to it exactly as they are written here."""

    address: str
    process: subprocess.Popen[str]

    def get(self, target: str, *, method: str = "GET", **headers: str) -> Answer:
        """Send a request whose target is not normalised; ``Host="…"`` replaces the header."""
        place = urlsplit(self.address)
        connection = HTTPConnection(place.hostname or "", place.port, timeout=30)
        try:
            connection.putrequest(method, target, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read().decode())
        finally:
            connection.close()


def start(*words: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start `harness view` with these words."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "view", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "HARNESS_DEBUG": "0"},
    )


@contextmanager
def viewing(runs: Path, *words: str) -> Iterator[Viewing]:
    """Serve `runs` on a free port until the end of the block; the server must end cleanly and have nothing to say."""
    process = start(runs, "--port", "0", *words)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert line.startswith("http://"), process.communicate()[1]
        yield Viewing(line.split()[0], process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
