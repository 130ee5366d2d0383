"""The engine ``openai`` against a real ``vllm serve`` with a reasoning parser, up to its death amid a run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import harness as package
from harness.errors import HarnessError
from harness.models import find_model
from harness.parsers.reasoning import without_reasoning
from harness.testing.tiny import word_problems
from tests.conftest import Command
from tests.vllm.thinking import EMPTY

CONTEXT = 512


class Served:
    """A server, and the words with which it is asked."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder, self._log = folder, folder.parent / "serve.log"
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.start()

    def start(self) -> None:
        words = ["--model", self._folder, "--served-model-name", "tiny", "--port", self.port, "--host", "127.0.0.1"]
        words += ["--reasoning-parser", "qwen3", "--max-model-len", CONTEXT, "--dtype", "float32", "--enforce-eager"]
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                # What ``vllm serve`` starts; the command itself cannot tell its version in the CPU build.
                [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *map(str, words)],
                env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        while self._process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            time.sleep(0.5)
        raise AssertionError(self._log.read_text()[-3000:])

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def server(thinking: Path) -> Iterator[Served]:
    served = Served(thinking)
    yield served
    served.kill()


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    rows = [{"question": q, "answer": a.split("#### ")[1]} for q, a in word_problems(8, seed=5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(server: Served, questions: Path, **more: Any) -> package.Run:
    settings: dict[str, Any] = {"engine": "openai", "out": questions.parent / "runs", "progress": False}
    settings |= {"prompts": {"parser": "final-number", "generation": {"max_tokens": 128}}}
    served = {"base_url": server.url, "api": "chat", **more.pop("openai", {})}
    found = package.evaluate(questions, "tiny", openai=served, **{**settings, **more})
    assert isinstance(found, package.Run)
    return found


def test_thoughts_are_kept_apart_and_every_answer_has_its_end(server: Served, questions: Path) -> None:
    found = run(server, questions)
    assert found.results.n == 8 and found.results.failed.count == 0
    for sample in found.samples():
        assert sample.output.startswith("<think>") and sample.completion_tokens
        assert sample.finish_reason == ("stop" if sample.completion_tokens < 128 else "length")
        if sample.finish_reason == "stop":
            assert sample.response.startswith("It is ") and sample.response == without_reasoning(sample.output)
            assert len(sample.output.partition("</think>")[0]) > 12
    short = run(server, questions, prompts={"parser": "final-number", "generation": {"max_tokens": 6}})
    assert {sample.finish_reason for sample in short.samples()} == {"length"}
    assert short.results.cut_thinking is not None and short.results.cut_thinking.count == 8


def test_arguments_of_the_template_reach_it(server: Served, thinking: Path, questions: Path) -> None:
    found, unset = run(server, questions, chat_template={"enable_thinking": False}), run(server, questions)
    tokenizer: Any = find_model(str(thinking)).tokenizer
    thought = len(tokenizer.encode(EMPTY, add_special_tokens=False))
    longer, shorter = ({one.id: one.prompt_tokens or 0 for one in each.samples()} for each in (found, unset))
    assert longer == {name: count + thought for name, count in shorter.items()} and min(shorter.values()) > 0
    assert found.record.fingerprint != unset.record.fingerprint


def test_a_limit_beyond_the_context_is_lowered_and_recorded(server: Served, questions: Path) -> None:
    found = run(server, questions, prompts={"parser": "final-number", "generation": {"max_tokens": 4000}})
    assert found.results.failed.count == 0
    assert [notice.split(";")[0] for notice in found.record.notices] == [
        "max_tokens is above what the model or its context allows"
    ]


def test_what_the_server_refuses_is_named_with_the_count(
    server: Served, questions: Path, harness: Command, tmp_path: Path
) -> None:
    words = ["run", "-b", questions, "-m", "tiny", "-e", "openai", "--out", tmp_path / "out"]
    words += [
        "--set",
        f"openai.base_url={server.url}",
        "--set",
        "openai.api=chat",
        "--set",
        "prompts.parser=final-number",
    ]
    done = harness(*words, "--set", "openai.extra_body.top_logprobs=3")
    assert done.code == 1 and "8 (100.0%)" in done.out and "`logprobs` must be set to true" in done.out + done.err
    questions.write_text('{"question": "Which?", "options": ["a", "b"], "answer": "A"}\n')
    refused = harness(*words[:-2], "--scoring", "loglikelihood")
    assert refused.code == 2 and "'openai'" in refused.err and "\n" not in refused.err.strip()


def test_a_server_that_dies_amid_a_run_loses_nothing(server: Served, questions: Path) -> None:
    rows = [{"question": q, "answer": a.split("#### ")[1]} for q, a in word_problems(60, seed=6)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = run(server, questions, out=questions.parent / "whole")
    program = (
        "import sys, harness; from pathlib import Path\n"
        f"harness.evaluate(Path({str(questions)!r}), 'tiny', engine='openai', out={str(questions.parent / 'runs')!r},"
        " progress=False, prompts={'parser': 'final-number', 'generation': {'max_tokens': 128}},"
        f" openai={{'base_url': {server.url!r}, 'api': 'chat', 'concurrency': 1, 'max_retries': 0}})"
    )
    started = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    journal = Path()
    while not (journal.is_file() and journal.read_text().count("\n") >= 5):
        assert started.poll() is None, started.communicate()[1]
        journal = next((questions.parent / "runs").glob("*/*/*/samples.jsonl"), Path())
        time.sleep(0.01)
    server.kill()
    _, said = started.communicate(timeout=120)
    kept = journal.read_text().splitlines()
    assert started.returncode != 0 and "openai" in said and 5 <= len(kept) < 60
    server.start()
    found = run(server, questions, openai={"concurrency": 4})
    assert found.path == journal.parent and found.results.n == 60 and found.results.failed.count == 0
    assert journal.read_text().splitlines()[: len(kept) - 1] == kept[:-1]
    assert sorted((one.id, one.output) for one in found.samples()) == sorted(
        (one.id, one.output) for one in whole.samples()
    )


def test_a_server_that_is_not_there_is_one_line(server: Served, questions: Path) -> None:
    server.kill()
    with pytest.raises(HarnessError, match="no server at"):
        run(server, questions, openai={"max_retries": 0})
