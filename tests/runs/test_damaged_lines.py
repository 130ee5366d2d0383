"""A line of a run's files with a value of another type is one line with its place, wherever it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RunError
from harness.runs.columns import read_run
from harness.runs.folder import SAMPLES, Run
from harness.runs.judgements import JUDGEMENTS, JudgementLog, each_verdict, read_verdicts
from tests.made_runs import MadeRuns


def change(path: Path, **values: Any) -> None:
    """Replace values in the second line of a file."""
    first, second, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, json.dumps({**json.loads(second), **values}), *rest]) + "\n")


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    return MadeRuns(tmp_path).safety("m", lambda i: "safe", n=4)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("prompt", 7, "Expected `str`, got `int`"),
        ("status", "fine", "Invalid enum value"),
        ("gold", [], "Expected `str"),
    ],
)
def test_a_sample(judged: Path, field: str, value: Any, said: str) -> None:
    change(judged / SAMPLES, **{field: value})
    with pytest.raises(RunError, match=rf"{SAMPLES}: a line is no sample of this version \({said}.*\$.{field}"):
        list(Run(judged).samples())


def test_texts_alone(judged: Path) -> None:
    run = read_run(judged)
    assert [text.output for text in run.texts([2, 0])] == ["Reply 2", "Reply 0"]
    change(judged / SAMPLES, output=7)
    with pytest.raises(RunError, match=r"no sample of this version \(Expected `str`, got `int` - at `\$.output`\)"):
        list(read_run(judged).texts([1]))


def test_a_key_that_is_not_known_is_passed_over(judged: Path) -> None:
    before = list(Run(judged).samples())
    change(judged / SAMPLES, colour="red")
    assert list(Run(judged).samples()) == before


def test_a_verdict(judged: Path) -> None:
    change(judged / "judged" / "judge.jsonl", replies="safe")
    with pytest.raises(
        RunError, match=r"cannot read .*judge.jsonl \(Expected `object`, got `str`.*judge the run again"
    ):
        read_verdicts(judged, "judge")


def test_a_verdict_on_a_stranger(judged: Path) -> None:
    run = Run(judged)
    assert len(list(each_verdict(run.path, "judge", {f"sst_{i}" for i in range(4)}))) == 4
    with pytest.raises(RunError, match="the run has no sample 'sst_3'"):
        list(each_verdict(run.path, "judge", {"sst_0", "sst_1", "sst_2"}))


def test_a_judgement(judged: Path) -> None:
    with JudgementLog(judged) as log:
        keys = [json.loads(line)["key"] for line in (judged / JUDGEMENTS).read_text().splitlines()]
        assert [reply.text for reply in log.replies(keys)] == ["safe"] * 4
    change(judged / JUDGEMENTS, prompt_tokens="many")
    with JudgementLog(judged) as log, pytest.raises(RunError, match=r"no judgement of .*at `\$.prompt_tokens`"):
        list(log.replies(keys))
    change(judged / JUDGEMENTS, output=5)
    with pytest.raises(RunError, match=rf"{JUDGEMENTS}:2: not a judgement \(it has no key and output\)"):
        JudgementLog(judged)
