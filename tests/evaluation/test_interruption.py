"""Kill a run at random moments, give the same command again, and the results are those of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.testing.distributions import write_distribution

#: An engine of a third party that answers slowly, out of order, and fails on one question the first time.
SLOW = """
import dataclasses, os, time
from typing import ClassVar
from harness.hookspecs import hookimpl
from harness.types import Completion

class Model:
    def generate(self, requests):
        taken = list(requests)
        for request in reversed(taken):
            time.sleep(0.004)
            if request is taken[-1] and not os.path.exists(os.environ["FLAKY"]):
                open(os.environ["FLAKY"], "w").close()
                yield Completion(request.id, "", None, error="the engine stumbled")
            else:
                number = request.index * (1 + request.index % 2) + (request.generation.seed or 0) % 2
                yield Completion(request.id, f"It is {number}.", "stop", len(request.prompt.text), 4, 0.004)
    def close(self):
        pass

@dataclasses.dataclass(frozen=True)
class Slow:
    name: ClassVar[str] = "slow"
    applies_chat_template: ClassVar[bool] = False
    def available(self): return None
    def tokenizer(self, model): return None
    def identity(self, model): return {"model": model}
    def load(self, model): return Model()

@hookimpl
def harness_engines():
    return [Slow()]
"""
N = 120


class Runs:
    """Runs the command in processes of their own, with the slow engine installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.more: list[str] = []
        site = write_distribution(
            folder / "site", "harness-slow", entry_points={"harness.engines": {"slow": "slow"}}, modules={"slow": SLOW}
        )
        (folder / "data" / "gsm8k").mkdir(parents=True)
        rows = [json.dumps({"question": f"What is {i}?", "answer": f"#### {i}"}) for i in range(N)]
        (folder / "data" / "gsm8k" / "test.jsonl").write_text("\n".join(rows), encoding="utf-8")
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        self.environment = {**os.environ, "PYTHONPATH": path, "FLAKY": str(folder / "flaky")}

    def start(self, out: str) -> subprocess.Popen[str]:
        words = ["run", "-b", "gsm8k", "-e", "slow", "-m", "some-model", "--data", "data", "-o", out, *self.more]
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, out: str) -> int:
        process = self.start(out)
        process.communicate(timeout=120)
        return process.returncode

    def only(self, out: str, name: str) -> Path:
        [path] = (self.folder / out).rglob(name)
        return path


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.mark.parametrize(("samples", "kills"), [(1, 8), (4, 5)])
def test_kills_change_nothing(runs: Runs, samples: int, kills: int) -> None:
    if samples > 1:
        draw = "gsm8k.generation.temperature=0.7"
        runs.more = ["--samples", str(samples), "--limit", str(N // samples), "--set", draw]
    assert runs.finish("whole") == 1, "the question that the engine stumbled on is a failure"
    assert runs.finish("whole") == 0, "the same command does it again"
    expected = runs.only("whole", "results.json").read_bytes()
    (runs.folder / "flaky").unlink()
    chance = random.Random(0)
    killed = 0
    while killed < kills:
        process = runs.start("killed")
        done = lines(runs.folder / "killed")
        aim = done + chance.randint(1, 110 // kills)
        while process.poll() is None and lines(runs.folder / "killed") < min(aim, N - 1):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
    assert runs.finish("killed") in (0, 1)
    assert runs.finish("killed") == 0
    assert runs.only("killed", "results.json").read_bytes() == expected
    recorded = [json.loads(line) for line in runs.only("killed", "samples.jsonl").read_text().splitlines()]
    finished = [(each["id"], each.get("repeat", 0)) for each in recorded if each["status"] != "engine_error"]
    assert len(finished) == len(set(finished)) == N, "nothing is generated twice"


def lines(folder: Path) -> int:
    found = [Path(path, name) for path, _, names in os.walk(folder) for name in names if name == "samples.jsonl"]
    return sum(path.read_bytes().count(b"\n") for path in found)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_says_how_to_go_on(runs: Runs, number: signal.Signals) -> None:
    process = runs.start("runs")
    while lines(runs.folder / "runs") < 5:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    timing = json.loads(runs.only("runs", "timing.json").read_text())
    assert [session["examples"] >= 4 for session in timing["sessions"]] == [True]  # the last may not be counted yet
    assert timing["generation_seconds"] > 0
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "harness: interrupted; give the same command again to go on"


def test_a_second_process_on_the_same_run_is_refused(runs: Runs) -> None:
    process = runs.start("runs")
    while lines(runs.folder / "runs") < 1:
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)  # or it may have finished before the second asks
    second = runs.start("runs")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "another process is writing to" in err
    process.kill()
    process.communicate()
