"""Several samples of an example in samples.jsonl: each is its own line, and none stands there twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RunError
from harness.runs.columns import read_run
from harness.runs.folder import RUN_FORMAT, SAMPLES, Run
from harness.runs.journal import Journal
from harness.runs.samples import decode, encode
from harness.types import Sample, Status

CONFIG = {
    "format": RUN_FORMAT, "benchmark": "gsm8k", "model": "m", "parsers": ["a"], "engine": "replay", "scorer": "exact",
    "prompt_format": {"name": "plain"}, "identity": {"samples": 3}, "selected": 2, "command": {}, "data": [],
}  # fmt: skip


def sample(index: int, repeat: int = 0, output: str = "18", status: Status = "ok") -> Sample:
    return Sample(
        id=f"test-{index}", index=index, group=None, fields={}, prompt="?", prompt_tokens=1, completion_tokens=2,
        output=output, finish_reason="stop", answers={"a": output}, gold="18", scores={"a": {"accuracy": 1.0}},
        status=status, repeat=repeat,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(json.dumps(CONFIG))
    return tmp_path


def write(folder: Path, *samples: Sample) -> None:
    (folder / SAMPLES).write_bytes(b"".join(map(encode, samples)))


def test_the_first_repeat_is_written_as_the_only_sample_is() -> None:
    assert b"repeat" not in encode(sample(3))
    assert encode(sample(3, 2)).startswith(b'{"index": 3, "repeat": 2, "id": "test-3", ')
    assert decode(encode(sample(3, 2)), Path("x")) == sample(3, 2)
    assert [sample(3, 2).key, sample(3).key] == ["test-3#2", "test-3"]


def test_a_repeat_that_results_have_and_the_journal_has_not_is_named(folder: Path) -> None:
    write(folder, *(sample(index, repeat) for index in range(2) for repeat in range(3) if (index, repeat) != (1, 1)))
    results: dict[str, Any] = {name: {} for name in ("metrics", "groups", "categories", "unparsed", "tokens")}
    results |= {"benchmark": "gsm8k", "n": 6, "truncated": {"count": 0, "ids": []}, "failed": {"count": 0, "ids": []}}
    (folder / "results.json").write_text(json.dumps(results))
    for read in (lambda: list(Run(folder).samples()), lambda: [read_run(folder)]):
        with pytest.raises(RunError, match=rf"{SAMPLES} has 5 samples, and results.json sums up 6; move results"):
            read()


def test_repeats_come_together_in_their_order_and_a_failed_one_is_done_again(folder: Path) -> None:
    order = [(1, 2), (0, 1), (1, 0), (0, 2)]
    write(folder, *(sample(index, repeat) for index, repeat in order), sample(0, 0, "", "engine_error"))
    with Journal(Run(folder), 2, 3) as journal:
        assert [journal.done(0, repeat) for repeat in range(3)] == [False, True, True]
        assert [journal.done(1, repeat) for repeat in range(3)] == [True, False, True]
        journal.append(sample(0, 0, "19"))
        journal.append(sample(1, 1))
        keys = [(each.index, each.repeat) for each in journal.samples()]
    assert keys == [(index, repeat) for index in range(2) for repeat in range(3)]
    assert [each.key for each in Run(folder).samples()] == [
        "test-0", "test-0#1", "test-0#2", "test-1", "test-1#1", "test-1#2",
    ]  # fmt: skip
    read = read_run(folder)
    assert (read.indices.tolist(), read.repeats.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2])
    assert next(read.samples([0])).output == "19"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (sample(1, 2, "other"), r"repeat 2 of the example with index 1 has a result further up"),
        (sample(0, 0, "", "engine_error"), r"repeat 0 of the example with index 0 has a result further up"),
        (sample(0, 3), r"its repeat is 3, and of each example the run takes 3, from 0 on"),
        (dataclasses.replace(sample(0), repeat=-1), r"its repeat is -1, and of each"),
        (dataclasses.replace(sample(0), repeat=1.5), r"its repeat is 1.5, no whole number"),  # type: ignore[arg-type]
        (dataclasses.replace(sample(0), index=1 << 24), r"its index is not among"),
    ],
)
def test_a_repeat_that_is_doubled_or_not_to_be_taken_is_named(folder: Path, extra: Sample, said: str) -> None:
    write(folder, sample(0), sample(1, 2), extra)
    for read in (lambda: Journal(Run(folder), 2, 3), lambda: list(Run(folder).samples())):
        with pytest.raises(RunError, match=rf"{SAMPLES}:3: not a sample \({said}.*delete the line"):
            read()
    with pytest.raises(RunError, match=rf"{SAMPLES}:3: not a sample"):
        read_run(folder)
