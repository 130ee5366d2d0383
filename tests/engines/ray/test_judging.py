"""A judge in replicas is the judge that it is in one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.made_runs import MadeRuns

pytestmark = pytest.mark.usefixtures("ray_here")

SPREAD = ["--judge-engine", "ray", "--set", "judge.engine=replay", "--set", "judge.replicas=2"]


def test_its_replies_are_the_same_and_asked_once(harness: Command, tmp_path: Path) -> None:
    n, won, lost = 12, ("2", "1"), ("1", "2")
    made = MadeRuns(tmp_path)
    path = made.alpaca("model", lambda i: won if i < 6 else lost, n=n)
    said: dict[str, str] = {}
    for i in range(n):
        said |= {f"alpaca-{i:04d}#reference-first": won[0], f"alpaca-{i:04d}#model-first": won[1]}
    words = ["judge", path, "--judge", made.outputs("another", said)]
    done = harness(*words, *SPREAD)
    assert done.code == 0, done.err
    results = (path / "results.json").read_bytes()
    assert "another" in json.loads(results)["judges"]
    replies = (path / "judgements.jsonl").read_bytes()
    assert harness(*words, "--judge-engine", "replay").code == 0, "in one process it has been asked already"
    assert (path / "judgements.jsonl").read_bytes() == replies
    assert (path / "results.json").read_bytes() == results


def test_its_engines_options_stand_in_a_table_of_their_own(harness: Command, tmp_path: Path) -> None:
    path = MadeRuns(tmp_path).alpaca("model", lambda i: ("2", "1"), n=2)
    done = harness("judge", path, "--judge", "replies.jsonl", *SPREAD, "--set", "judge.replay.speed=2")
    assert (done.code, done.err) == (2, "harness: replay has no option 'speed'\n")
    done = harness("judge", path, "--judge", "replies.jsonl", *SPREAD, "--set", "judge.replica=2")
    assert done.code == 2 and "ray has no option 'replica'; did you mean 'replicas'?" in done.err
